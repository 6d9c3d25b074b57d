//! `leasehold policy suggest`: what a policy must let pass so that nothing that was seen would be refused.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::{
    input::{ensure_standard_input_once, is_standard_input},
    output, policy_file,
};
use crate::{
    policy::{Policy, RuleName},
    suggest::{
        DEFAULT_DOCUMENT, Entry, Judge, Log, LogError, MOST_REMEMBERED, NEVER_EXCUSED, NotExcused,
        Suggestion, Summary,
    },
};

/// Flags of `leasehold policy suggest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only what was denied, or would be denied in mode enforce, needs an override; warnings and notes need none. An override \
names the leases that were seen, or a pattern of ten names or more. What is provably an attack or a bug is listed in \
comments, and stays refused: an early takeover by the API server's stamps (takeover-before-expiry), \
transition-overflow, stamp-tampered and foreign-release.

Lines of other programs, and what a log collector puts in front of a line or around it, are passed over. The summary on \
standard error says what became of every line.

Exit codes:
  0  nothing to add: in mode enforce, the policy refuses nothing that was seen and should pass
  1  overrides were added; the output has them
  2  bad input or usage: a file without a record, or lines that may hide a denial; what could be read was judged

Examples:
  kubectl -n leasehold-system logs -l app.kubernetes.io/name=leasehold \\
    --tail=-1 --prefix | leasehold policy suggest -
  leasehold policy suggest --policy-file policy.yaml audit.log audit.log.1.gz \\
    > new.yaml; diff policy.yaml new.yaml
  leasehold policy validate new.yaml
  leasehold policy suggest --include foreign-release audit.log
  leasehold policy suggest --output json audit.log | jq '.notExcused'")]
pub struct PolicySuggestArgs {
    /// Audit logs of Leasehold, JSON lines or gzip of such; - is standard input. Several replicas' logs may be given
    /// at once.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The policy to add to; its text and comments stay [default: a new policy that starts from the default].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// A rule to excuse although what it refused is provably an attack or a bug. May be given more than once.
    #[arg(
        long,
        value_name = "RULE",
        value_parser = PossibleValuesParser::new(NEVER_EXCUSED).try_map(|name| RuleName::find(&name).ok_or("there is no such rule"))
    )]
    include: Vec<RuleName>,
    /// Stop at the first line that is no record of the audit log or cannot be judged.
    #[arg(long)]
    strict: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: SuggestFormat,
}

/// The form of what is suggested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SuggestFormat {
    /// The policy with the overrides, each under a comment.
    #[default]
    Yaml,
    /// The findings, for programs.
    Json,
}

/// The findings, as `--output json` prints them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings<'a> {
    suggestions: &'a [Entry],
    not_excused: &'a [NotExcused],
    summary: &'a Summary,
}

/// Runs `leasehold policy suggest`.
///
/// # Errors
/// A policy that cannot be read or added to, with `--strict` a line that cannot be judged, standard input given twice, or
/// an output that cannot be written. Files that cannot be read are reported on standard error, and lead to exit code 2.
pub(super) fn run(args: PolicySuggestArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let PolicySuggestArgs {
        files,
        policy_file,
        include,
        strict,
        output,
    } = args;
    ensure_standard_input_once(files.iter().chain(&policy_file))?;
    let (document, name) = match &policy_file {
        Some(path) => (policy_file::text(path)?, policy_file::named(path)),
        None => (DEFAULT_DOCUMENT.to_owned(), "the default policy".to_owned()),
    };
    let policy = Policy::parse(&document).with_context(|| name.clone())?;
    let mut log = Log::new(Judge::new(&policy), include, strict);
    let mut bad = false;
    let mut report = |problem: String| {
        bad = true;
        anstream::eprintln!("leasehold: {problem}");
    };
    for file in &files {
        match read(&mut log, file) {
            Ok(0) => report(format!(
                "{}: holds no record of Leasehold's audit log; give it as Leasehold writes it, one JSON object a line",
                file.display()
            )),
            Ok(_) => {}
            Err(error) if strict => return Err(error),
            Err(error) => report(format!("{error:#}")),
        }
    }
    let suggestion = Suggestion::of(&log, &document).context(name)?;
    match output {
        SuggestFormat::Yaml => out.write_all(suggestion.policy.as_bytes())?,
        SuggestFormat::Json => output::json_document(
            out,
            &Findings {
                suggestions: &suggestion.entries,
                not_excused: &suggestion.not_excused,
                summary: log.summary(),
            },
        )?,
    }
    let incomplete = bad || log.summary().may_hide_a_denial();
    summarise(&suggestion, log.summary(), incomplete);
    Ok(ExitCode::from(if incomplete {
        2
    } else {
        u8::from(!suggestion.entries.is_empty())
    }))
}

/// Reads one file; how many records it has.
fn read(log: &mut Log, file: &Path) -> anyhow::Result<u64> {
    let name = file.display().to_string();
    if is_standard_input(file) {
        return Ok(log.read(&name, io::stdin().lock())?);
    }
    let unreadable = |error| LogError::Unreadable {
        file: name.clone(),
        line: 0,
        error,
    };
    let opened = fs::File::open(file).map_err(unreadable)?;
    Ok(log.read(&name, opened)?)
}

/// Says on standard error what became of the lines, and what was found.
fn summarise(suggestion: &Suggestion, summary: &Summary, incomplete: bool) {
    let Summary {
        lines,
        denials,
        allowed_already,
        duplicates,
        nothing_denied,
        skipped,
        duplicates_counted,
    } = summary;
    anstream::eprintln!(
        "leasehold: {} read: {} ({duplicates} repeated, {allowed_already} that the policy allows already), {}",
        number(*lines, "line"),
        number(*denials, "denial"),
        number(*nothing_denied, "other record")
    );
    for (reason, skipped) in skipped {
        anstream::eprintln!(
            "leasehold: {} skipped, {reason}; the first: {}",
            skipped.count,
            skipped.first
        );
    }
    if *duplicates_counted {
        anstream::eprintln!(
            "leasehold: over {MOST_REMEMBERED} denials: of what follows, lines that are there twice count twice"
        );
    }
    let mut rules: Vec<RuleName> = suggestion.not_excused.iter().map(|one| one.rule).collect();
    rules.dedup();
    for rule in rules {
        let of_rule = suggestion.not_excused.iter().filter(|one| one.rule == rule);
        let writes: u64 = of_rule.clone().map(|one| one.seen.count).sum();
        let or_more = if of_rule.clone().any(|one| one.name.is_none()) {
            " or more"
        } else {
            ""
        };
        let leases = u64::try_from(of_rule.count()).unwrap_or(u64::MAX);
        anstream::eprintln!(
            "leasehold: {rule}: not excused, {} to {}{or_more}: provably an attack or a bug; leasehold explain {rule} says what to do, \
             --output json lists the leases",
            number(writes, "write"),
            number(leases, "lease")
        );
    }
    let found = match suggestion.entries.len() {
        0 => "nothing to add".to_owned(),
        count => format!("overrides added: {count}"),
    };
    let so_far = if incomplete { ", by what could be read" } else { "" };
    anstream::eprintln!("leasehold: {found}{so_far}");
}

fn number(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
