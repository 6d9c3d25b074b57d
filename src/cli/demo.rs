//! `leasehold demo`.

use std::process::ExitCode;

/// Flags of `leasehold demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

/// Runs `leasehold demo`.
///
/// # Errors
/// Not written yet.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let DemoArgs {} = args;
    anyhow::bail!("not written yet")
}
