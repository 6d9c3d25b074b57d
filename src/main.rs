//! `leasehold`: arguments, exit code, nothing else.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = leasehold::cli::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("leasehold: {error:#}");
            ExitCode::from(2)
        }
    }
}
