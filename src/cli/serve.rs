//! `leasehold serve`.

use std::process::ExitCode;

/// Flags of `leasehold serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

/// Runs `leasehold serve`.
///
/// # Errors
/// Not written yet.
pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let ServeArgs {} = args;
    anyhow::bail!("not written yet")
}
