//! The command line: one file a command.

pub mod check;
pub mod demo;
pub mod explain;
pub mod export;
pub mod fence;
mod input;
mod output;
pub mod policy;
pub mod policy_explain;
mod policy_file;
pub mod policy_suggest;
pub mod replay;
pub mod serve;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;

use self::output::Format;

/// Guards Kubernetes leader election: refuses early Lease takeovers, and never stops a correct elector.
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 all is well, 1 the answer is no (see each command), 2 bad input or usage."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the admission webhook.
    Serve(Box<serve::ServeArgs>),
    /// Show two leaders at once, and then the guard that stops it. Needs no cluster.
    Demo(demo::DemoArgs),
    /// Judge AdmissionReviews from files, without a cluster.
    Check(check::CheckArgs),
    /// Say who led when, from the audit logs of API servers, and judge what was written.
    Replay(replay::ReplayArgs),
    /// Say what a rule means and what to do about it.
    Explain(explain::ExplainArgs),
    /// Print an admission policy that lets only the pod that holds a Lease write what it leads.
    Fence(Box<fence::FenceArgs>),
    /// Print the default policy or its schema, validate one, say what it means for a lease, or what it lacks.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Print the policy as something else than a webhook's.
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Example: source <(leasehold completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// How to print.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
}

impl Cli {
    /// Runs the command that was asked for; the exit code is the process's.
    ///
    /// # Errors
    /// Whatever stopped the command, with its chain of causes.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(*args),
            Command::Demo(args) => demo::run(args),
            Command::Check(args) => check::run(args),
            Command::Replay(args) => replay::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Fence(args) => fence::run(*args),
            Command::Policy(command) => policy::run(command),
            Command::Export(command) => export::run(command),
            Command::Completion { shell } => completion(shell),
            Command::Version { output } => version(output),
        }
    }
}

fn completion(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics on a pipe that is closed early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leasehold", &mut script);
    output::standard_output().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn version(output: Format) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
    }
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut out = output::standard_output();
    match output {
        Format::Table => writeln!(out, "leasehold {}", version.version)?,
        Format::Json => output::json_line(&mut out, &version)?,
    }
    Ok(ExitCode::SUCCESS)
}
