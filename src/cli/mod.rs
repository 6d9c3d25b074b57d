//! The command line: one file a command.

pub mod demo;
pub mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Guards Kubernetes leader election: refuses early Lease takeovers, and never stops a correct elector.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the admission webhook.
    Serve(serve::ServeArgs),
    /// Show two leaders at once, and then the guard that stops it. Needs no cluster.
    Demo(demo::DemoArgs),
}

impl Cli {
    /// Runs the command that was asked for; the exit code is the process's.
    ///
    /// # Errors
    /// Whatever stopped the command, with its chain of causes.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Demo(args) => demo::run(args),
        }
    }
}
