//! `leasehold`: arguments, exit code, nothing else.

use std::{io, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    match leasehold::cli::Cli::parse().run() {
        Ok(code) => code,
        // Whoever reads our output has had enough, as in `leasehold explain | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("leasehold: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
