//! `leasehold export`: what else a policy can be made into.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use super::{output, policy_file};
use crate::policy::in_process::{Export, Obstacle, RuleExport};

/// Subcommands of `leasehold export`.
#[derive(Debug, clap::Subcommand)]
pub enum ExportCommand {
    /// Print the part of a policy that the API server can hold by itself, as ValidatingAdmissionPolicies and bindings.
    Vap(VapArgs),
}

/// Flags of `leasehold export vap`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leasehold export vap --policy-file policy.yaml | kubectl apply -f -
  leasehold export vap --policy-file policy.yaml | kubectl diff -f -
  leasehold export vap --explain
  kubectl -n leasehold-system get configmap leasehold-policy \\
    -o jsonpath='{.data.policy\\.yaml}' | leasehold export vap --policy-file -

The policies need no Leasehold to run. Exit code 1: the policy states what CEL cannot hold (--partial leaves it out).")]
pub struct VapArgs {
    /// The policy; - is standard input [default: the default policy].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Leave out what the policy states and CEL cannot hold, and say so in a comment.
    #[arg(long)]
    partial: bool,
    /// Print, rule by rule, what the export holds and what is left to the webhook.
    #[arg(long)]
    explain: bool,
    /// How to print; with --explain, yaml is a table.
    #[arg(long, short, value_enum, default_value_t)]
    output: DocumentFormat,
}

/// The form of documents for kubectl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DocumentFormat {
    /// Documents with comments.
    #[default]
    Yaml,
    /// One List.
    Json,
}

/// Runs `leasehold export`.
///
/// # Errors
/// A policy that is bad, or of which nothing can be exported, and an output that cannot be written. What CEL cannot
/// hold is reported on standard error, and leads to exit code 1.
pub fn run(command: ExportCommand) -> anyhow::Result<ExitCode> {
    let ExportCommand::Vap(args) = command;
    let (document, name) = match &args.policy_file {
        Some(path) => (policy_file::text(path)?, policy_file::named(path)),
        None => (String::new(), "the default policy".to_owned()),
    };
    let export = Export::of(&document).with_context(|| name.clone())?;
    let mut out = output::standard_output();
    if args.explain {
        explain(&mut out, &export, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.partial && !export.obstacles().is_empty() {
        for obstacle in export.obstacles() {
            anstream::eprintln!(
                "leasehold: {name}: {obstacle}; the API server cannot hold what stands there: leave it to the webhook \
                 with --partial"
            );
        }
        return Ok(ExitCode::from(1));
    }
    match args.output {
        DocumentFormat::Yaml => out.write_all(export.to_yaml().as_bytes())?,
        DocumentFormat::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": export.objects()});
            output::json_document(&mut out, &list)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(out: &mut impl Write, export: &Export, output: DocumentFormat) -> io::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Explained<'a> {
        rules: &'a [RuleExport],
        obstacles: &'a [Obstacle],
    }
    let (rules, obstacles) = (export.rules(), export.obstacles());
    if output == DocumentFormat::Json {
        return output::json_document(out, &Explained { rules, obstacles });
    }
    let rows = rules.iter().map(|rule| {
        let policies = match rule.policies.as_slice() {
            [] if rule.in_process == "not" => "-".to_owned(),
            [] => "off".to_owned(),
            policies => policies.join(", "),
        };
        [
            rule.rule.to_owned(),
            rule.in_process.to_owned(),
            policies,
            rule.left.unwrap_or("-").to_owned(),
        ]
    });
    writeln!(
        out,
        "{}",
        output::table(["RULE", "HELD", "POLICIES", "LEFT TO THE WEBHOOK"], rows)
    )?;
    for obstacle in obstacles {
        writeln!(out, "\nThe policy states what CEL cannot hold: {obstacle}")?;
    }
    Ok(())
}
