//! `leasehold policy`: the default document, its schema, whether one is valid, and what it means for a lease.

use std::{io::Write, path::PathBuf, process::ExitCode};

use super::{
    input::ensure_standard_input_once,
    output::{self, Format},
    policy_explain, policy_file, policy_suggest,
};
use crate::policy;

/// Subcommands of `leasehold policy`.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Print the default policy, every field explained.
    Default,
    /// Check policy documents; exit code 2 if one is bad.
    Validate {
        /// The documents; - is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print: json prints each document with every default filled in.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Print the JSON schema of a policy document, for editors.
    Schema,
    /// Print what applies to a lease, and which line of the policy decided it.
    Explain(policy_explain::PolicyExplainArgs),
    /// Print what a policy must let pass so that nothing that an audit log shows would be refused.
    Suggest(policy_suggest::PolicySuggestArgs),
}

/// Runs `leasehold policy`.
///
/// # Errors
/// An output that cannot be written, standard input given twice, or a policy to explain that is bad. Bad documents to validate are reported on
/// standard error, and lead to exit code 2.
pub fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    let mut out = output::standard_output();
    match command {
        PolicyCommand::Explain(args) => policy_explain::run(args, &mut out)?,
        PolicyCommand::Suggest(args) => return policy_suggest::run(args, &mut out),
        PolicyCommand::Default => write!(out, "{}", policy::documented_default())?,
        PolicyCommand::Schema => output::json_document(&mut out, &policy::json_schema())?,
        PolicyCommand::Validate { files, output } => {
            ensure_standard_input_once(&files)?;
            let mut bad = false;
            for file in files {
                match (policy_file::read(&file), output) {
                    (Ok(_), Format::Table) => writeln!(out, "{}: valid", file.display())?,
                    (Ok(policy), Format::Json) => output::json_line(&mut out, policy.document())?,
                    (Err(error), _) => {
                        bad = true;
                        anstream::eprintln!("leasehold: {error:#}");
                    }
                }
            }
            if bad {
                return Ok(ExitCode::from(2));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
