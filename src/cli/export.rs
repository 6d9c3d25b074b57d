//! `leasehold export`: what else a policy can be made into.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::{output, policy_file};
use crate::policy::in_process::{
    CONFIGURATION_FILE, Export, ExportOptions, KUBEADM_FILE, Obstacle, POLICIES_FILE, POLICIES_FOLDER,
    RuleExport, StaticFiles,
};

/// Subcommands of `leasehold export`.
#[derive(Debug, clap::Subcommand)]
pub enum ExportCommand {
    /// Print the part of a policy that the API server can hold by itself, as a ValidatingAdmissionPolicy and its binding.
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
  leasehold export vap --static files   # for the API server's own disk

The policies need no Leasehold to run. Exit code 1: the policy states what CEL cannot hold (--partial leaves it out).")]
pub struct VapArgs {
    /// The policy; - is standard input [default: the default policy].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Add a policy that warns clients and annotates the API server's audit log with all that is found. Each write that
    /// is no pure renewal then takes longer: docs/in-process.md has the figures.
    #[arg(long)]
    advice: bool,
    /// Leave out what the policy states and CEL cannot hold, and say so in a comment.
    #[arg(long)]
    partial: bool,
    /// Print, rule by rule, what the export holds and what is left to the webhook.
    #[arg(long, conflicts_with = "static_folder")]
    explain: bool,
    /// Write files into this folder, from which an API server takes the policies at its start, and which nobody can
    /// change through its API. For Kubernetes 1.37, or 1.36 with the feature gate ManifestBasedAdmissionControlConfig.
    #[arg(long = "static", value_name = "FOLDER", conflicts_with = "output")]
    static_folder: Option<PathBuf>,
    /// With --static: the path of that folder on the machines of the API servers.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/etc/kubernetes/leasehold",
        requires = "static_folder"
    )]
    host_folder: PathBuf,
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
    if let Some(folder) = &args.static_folder {
        return write_static_files(&args, &document, &name, folder);
    }
    let options = ExportOptions {
        advice: args.advice || args.explain,
        ..ExportOptions::default()
    };
    let export = Export::of(&document, options).with_context(|| name.clone())?;
    let mut out = output::standard_output();
    if args.explain {
        explain(&mut out, &export, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !is_whole(&args, &export, &name) {
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

/// Whether the export holds all that the policy states, or need not; else what it leaves out is reported.
fn is_whole(args: &VapArgs, export: &Export, name: &str) -> bool {
    if args.partial || export.obstacles().is_empty() {
        return true;
    }
    for obstacle in export.obstacles() {
        anstream::eprintln!(
            "leasehold: {name}: {obstacle}; the API server cannot hold what stands there: leave it to the webhook with \
             --partial"
        );
    }
    false
}

/// Writes the files for the API server's own disk, and says on standard error what to do with them.
fn write_static_files(args: &VapArgs, document: &str, name: &str, folder: &Path) -> anyhow::Result<ExitCode> {
    let host = &args.host_folder;
    ensure!(
        host.is_absolute(),
        "--host-folder {}: the API server takes an absolute path only",
        host.display()
    );
    let files = StaticFiles::of(document, args.advice, host).with_context(|| name.to_owned())?;
    if !is_whole(args, &files.export, name) {
        return Ok(ExitCode::from(1));
    }
    let policies = folder.join(POLICIES_FOLDER);
    fs::create_dir_all(&policies)
        .with_context(|| format!("cannot make the folder {}", policies.display()))?;
    // The policies last: an API server that already reads this folder then finds all else in place.
    for (path, content) in [
        (folder.join(KUBEADM_FILE), &files.kubeadm),
        (folder.join(CONFIGURATION_FILE), &files.configuration),
        (policies.join(POLICIES_FILE), &files.policies),
    ] {
        replace(&path, content)?;
        anstream::eprintln!("wrote {}", path.display());
    }
    anstream::eprintln!(
        "\nNext, on each machine of the control plane:\n  \
         1. copy {} to {}\n  \
         2. start the API server with --admission-control-config-file={}, as in {KUBEADM_FILE}\n\
         Later changes need no restart: replace {POLICIES_FOLDER}/{POLICIES_FILE}, and the API server reads it within a minute.",
        folder.display(),
        host.display(),
        host.join(CONFIGURATION_FILE).display(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes a file so that nobody ever reads half of it.
fn replace(path: &Path, content: &str) -> anyhow::Result<()> {
    // No name that the API server reads: it takes .yaml, .yml and .json.
    let beside = path.with_extension("new");
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
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
