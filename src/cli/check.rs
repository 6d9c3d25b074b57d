//! `leasehold check`: judges reviews from files, without a cluster.

mod documents;

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use self::documents::Documents;
use super::{
    input::{ensure_standard_input_once, is_standard_input},
    output::{self, Format},
    policy_file,
};
use crate::{
    admission::{Attempt, Subject, decode},
    audit::EvidenceRecord,
    lease::Write as LeaseWrite,
    policy::{Policy, RuleName},
    verdict::Verdict,
};

/// Flags of `leasehold check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  no write would be denied
  1  some would be, by a rule whose action is enforce (in mode audit too)
  2  bad input or usage; what could be read was judged

Examples:
  leasehold check review.json
  leasehold check --policy-file policy.yaml --output json reviews.jsonl
  cat reviews.jsonl | leasehold check -")]
pub struct CheckArgs {
    /// Files of AdmissionReviews (admission.k8s.io/v1), JSON or JSON lines; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The policy to judge by [default: the default policy, see leasehold policy default].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// The instant to take for this machine's clock, as in 2026-11-20T09:30:00Z [default: the clock]. Only
    /// reviews that carry no stamp of their own depend on it.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// One judged review, as `--output json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged {
    uid: String,
    namespace: String,
    name: String,
    change: &'static str,
    purpose: &'static str,
    verdict: &'static str,
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<EvidenceRecord>,
    violations: Vec<JudgedViolation>,
    #[serde(skip)]
    would_be_denied: bool,
}

/// One violation of a judged review.
#[derive(Debug, Serialize)]
struct JudgedViolation {
    rule: RuleName,
    action: &'static str,
    message: String,
    #[serde(skip)]
    decision: &'static str,
}

/// Runs `leasehold check`.
///
/// # Errors
/// A policy that cannot be read, standard input given twice, or an output that cannot be written. Files and reviews
/// that cannot be read are reported on standard error, and lead to exit code 2.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs {
        files,
        policy_file,
        now,
        output,
    } = args;
    ensure_standard_input_once(files.iter().chain(&policy_file))?;
    let policy = match policy_file {
        Some(path) => policy_file::read(&path)?,
        None => Policy::default(),
    };
    let now = now.unwrap_or_else(Timestamp::now);
    let mut out = output::standard_output();
    let mut judged = Vec::new();
    let mut bad = 0_usize;
    let mut report = |problem: String| {
        bad += 1;
        anstream::eprintln!("leasehold: {problem}");
    };
    for file in &files {
        let bytes = match read(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                report(format!("{error:#}"));
                continue;
            }
        };
        let mut documents = Documents::of(&bytes).peekable();
        if documents.peek().is_none() {
            report(format!("{}: holds no review", file.display()));
        }
        for (line, document) in documents {
            match document.and_then(|text| judge(text.as_bytes(), &policy, now)) {
                Ok(review) => {
                    if output == Format::Json {
                        output::json_line(&mut out, &review)?;
                    }
                    judged.push(review);
                }
                Err(problem) => report(format!("{}:{line}: {problem}", file.display())),
            }
        }
    }
    if output == Format::Table {
        print_table(&mut out, &judged, bad)?;
    }
    Ok(ExitCode::from(if bad > 0 {
        2
    } else {
        u8::from(judged.iter().any(|review| review.would_be_denied))
    }))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if is_standard_input(file) {
        let mut bytes = Vec::new();
        io::stdin()
            .read_to_end(&mut bytes)
            .context("standard input cannot be read")?;
        return Ok(bytes);
    }
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn judge(document: &[u8], policy: &Policy, now: Timestamp) -> Result<Judged, String> {
    let attempt = decode(document, now).map_err(|error| error.to_string())?;
    match &attempt.subject {
        Subject::Lease(write) => Ok(judged(&attempt, write, &policy.decide(write))),
        Subject::NoLease(object) => Err(format!(
            "{object} carries no leader-election record, before or after"
        )),
        Subject::Malformed(lease, error) => Err(format!(
            "the leader-election record of {lease} cannot be read: {error}"
        )),
        Subject::Other(resource) => Err(format!(
            "the review is about {resource}; only leases are judged: coordination.k8s.io leases, and annotation locks on \
             configmaps and endpoints"
        )),
    }
}

fn judged(attempt: &Attempt<'_>, write: &LeaseWrite<'_>, verdict: &Verdict) -> Judged {
    Judged {
        uid: attempt.uid.to_string(),
        namespace: write.lease.namespace.to_string(),
        name: write.lease.name.to_string(),
        change: verdict.change.as_str(),
        purpose: verdict.purpose.as_str(),
        verdict: verdict.outcome().as_str(),
        mode: verdict.mode.as_str(),
        evidence: verdict
            .evidence
            .as_ref()
            .map(|evidence| EvidenceRecord::of(evidence, write)),
        violations: verdict
            .violations
            .iter()
            .map(|violation| JudgedViolation {
                rule: violation.rule,
                action: violation.action.as_str(),
                message: violation.message.clone(),
                decision: violation.decision().as_str(),
            })
            .collect(),
        would_be_denied: verdict.would_be_denied(),
    }
}

fn print_table(out: &mut impl Write, judged: &[Judged], bad: usize) -> io::Result<()> {
    let rows = judged.iter().map(|review| {
        let age = review.evidence.map_or_else(
            || "-".to_owned(),
            |evidence| match evidence.duration_seconds {
                Some(duration) => format!("{} of {duration} s, {}", evidence.elapsed_seconds, evidence.kind),
                None => format!("{} s, {}", evidence.elapsed_seconds, evidence.kind),
            },
        );
        let rules: Vec<_> = review
            .violations
            .iter()
            .map(|violation| violation.rule.as_str())
            .collect();
        let verdict = if review.verdict != "deny" && review.would_be_denied {
            format!("{} (would be denied)", review.verdict)
        } else {
            review.verdict.to_owned()
        };
        [
            format!("{}/{}", review.namespace, review.name),
            review.change.to_owned(),
            review.purpose.to_owned(),
            verdict,
            age,
            if rules.is_empty() {
                "-".to_owned()
            } else {
                rules.join(", ")
            },
        ]
    });
    if !judged.is_empty() {
        writeln!(
            out,
            "{}",
            output::table(["LEASE", "CHANGE", "PURPOSE", "VERDICT", "AGE", "RULES"], rows)
        )?;
        writeln!(out)?;
    }
    for violation in judged.iter().flat_map(|review| &review.violations) {
        writeln!(
            out,
            "{}: {}: {}",
            violation.decision, violation.rule, violation.message
        )?;
    }
    let denied = judged.iter().filter(|review| review.would_be_denied).count();
    let plural = if judged.len() == 1 { "review" } else { "reviews" };
    write!(out, "{} {plural} judged, {denied} would be denied", judged.len())?;
    if bad > 0 {
        write!(out, ", {bad} unreadable")?;
    }
    writeln!(out)
}
