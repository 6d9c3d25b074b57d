//! `leasehold replay`: who led when, from the API server's audit logs.

mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    input::{ensure_standard_input_once, is_standard_input},
    output::{self, Format},
    policy_file,
};
use crate::{
    policy::{Policy, Seconds},
    replay::{Counts, LeaseReport, Merge, Replay, Selection, Source, svg},
};

/// Flags of `leasehold replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are audit logs of API servers (audit.k8s.io/v1), plain or gzip, in any mixture: as the API server writes them, \
behind the prefix of a host or an export, in the envelopes of CloudWatch (EKS) and Azure (AKS), or in a log collector's. \
Give the logs of all API servers at once, rotated files too; what is there twice counts once.

What the log holds decides what can be said. With bodies (level RequestResponse or Request) holders, counts and early \
takeovers are exact; where managedFields are left out, the times of the events take their place. At level Metadata the \
log says who wrote when: renewals are exact, and a change of the writer is shown as an inferred change of the holder. \
State --duration there, to see how close it was.

Exit codes:
  0  by the policy, nothing that was written would be refused
  1  something would be
  2  bad input or usage: a file that cannot be read to its end or holds no audit event; what could be read was judged

Examples:
  leasehold replay /var/log/kubernetes/audit
  leasehold replay --namespace shop --lease payments audit.log audit-*.log.gz
  oc adm node-logs --role=master --path=kube-apiserver/audit.log | leasehold replay -
  aws logs filter-log-events --log-group-name /aws/eks/NAME/cluster \\
    --log-stream-name-prefix kube-apiserver-audit | leasehold replay --duration 15s -
  leasehold replay --output json audit.log | jq '.leases[].findings[]'")]
pub struct ReplayArgs {
    /// Audit logs; of a folder, every file in it; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The policy to judge by [default: the default policy, see leasehold policy default].
    #[arg(long, value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Only leases of this namespace.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Only leases of this name.
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    /// Only writes from this instant on, as in 2026-11-20T09:30:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only writes up to this instant.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// How long leases are valid whose records the log does not hold, as in 15s.
    #[arg(long, value_name = "DURATION")]
    duration: Option<Seconds>,
    /// Only so many leases: those that were nearest to being lost, or were.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Draw who led when into this file, as SVG; at most 200 leases, the nearest to being lost first, unless --top says
    /// how many.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The most leases of a picture, where nobody says how many.
const LANES: usize = 200;

/// What `--output json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed<'a> {
    files: Vec<File<'a>>,
    copies: u64,
    leases: &'a [LeaseReport],
}

/// One file, with what was found in it.
#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    #[serde(flatten)]
    counts: &'a Counts,
}

/// Runs `leasehold replay`.
///
/// # Errors
/// A policy or a folder that cannot be read, standard input given twice, or an output that cannot be written. Files that
/// cannot be read are reported on standard error, and lead to exit code 2.
pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    ensure_standard_input_once(args.files.iter().chain(&args.policy_file))?;
    if let (Some(since), Some(until)) = (args.since, args.until) {
        ensure!(since <= until, "--since {since} is after --until {until}");
    }
    let policy = match &args.policy_file {
        Some(path) => policy_file::read(path)?,
        None => Policy::default(),
    };
    let mut bad = false;
    let mut report = |problem: String| {
        bad = true;
        anstream::eprintln!("leasehold: {problem}");
    };
    let mut sources = Vec::new();
    for file in all_files(&args.files)? {
        match open(&file) {
            Ok(source) => sources.push(source),
            Err(error) => report(format!("{error:#}")),
        }
    }
    let mut replay = Replay::new(
        &policy,
        Selection {
            namespace: args.namespace,
            name: args.lease,
            since: args.since,
            until: args.until,
            duration: args.duration.map(Seconds::get),
        },
    );
    let mut merge = Merge::new(sources);
    for event in &mut merge {
        replay.take(&event);
    }
    for error in merge.errors() {
        report(chain(error));
    }
    for source in merge.sources() {
        if source.counts().forms.is_empty() {
            report(format!(
                "{}: holds no event of a Kubernetes audit log (audit.k8s.io/v1)",
                source.name()
            ));
        }
        anstream::eprintln!("{}", in_a_line(source));
    }
    let mut leases = replay.finish();
    let would_be_refused = leases.iter().any(|lease| lease.would_be_refused > 0);
    let of = leases.len();
    if let Some(top) = args.top {
        leases.sort_by(|one, other| nearness(one).total_cmp(&nearness(other)));
        leases.truncate(top);
    }
    if let Some(file) = &args.svg {
        draw(file, &leases, of, args.top.unwrap_or(LANES))?;
    }
    let mut out = output::standard_output();
    match args.output {
        Format::Json => output::json_document(
            &mut out,
            &Replayed {
                files: merge
                    .sources()
                    .iter()
                    .map(|source| File {
                        name: source.name(),
                        counts: source.counts(),
                    })
                    .collect(),
                copies: merge.copies(),
                leases: &leases,
            },
        )?,
        Format::Table => table::print(&mut out, &leases)?,
    }
    Ok(ExitCode::from(if bad { 2 } else { u8::from(would_be_refused) }))
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// The files that were named, and in place of a folder those that are in it, by name.
fn all_files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.with_context(|| format!("folder {} cannot be read", path.display()))?;
        let mut within: Vec<_> = entries
            .iter()
            .map(fs::DirEntry::path)
            .filter(|path| path.is_file())
            .collect();
        if within.is_empty() {
            bail!("folder {} holds no file", path.display());
        }
        within.sort();
        files.extend(within);
    }
    Ok(files)
}

fn open(file: &Path) -> anyhow::Result<Source<'static>> {
    let name = file.display().to_string();
    if is_standard_input(file) {
        return Ok(Source::new("standard input", io::stdin())?);
    }
    let opened = fs::File::open(file).with_context(|| format!("{name} cannot be read"))?;
    Ok(Source::new(&name, opened)?)
}

/// What was found in a file, on one line.
fn in_a_line(source: &Source<'_>) -> String {
    let Counts {
        forms,
        writes,
        unreadable,
        broken_lines,
        first_broken_line,
        long_lines,
        foreign,
    } = source.counts();
    let forms: Vec<_> = forms
        .iter()
        .map(|(form, count)| format!("{count} as {}", form.as_str()))
        .collect();
    let mut text = format!("{}: {writes} writes to Leases", source.name());
    if !forms.is_empty() {
        text.push_str(&format!(" in {}", forms.join(", ")));
    }
    let skipped = [
        (*unreadable, "events without what they must say".to_owned()),
        (
            *broken_lines,
            format!(
                "lines without JSON or with broken JSON, the first on line {}",
                first_broken_line.unwrap_or_default()
            ),
        ),
        (*long_lines, "lines of more than 16 MiB".to_owned()),
        (*foreign, "JSON documents that are no audit events".to_owned()),
    ];
    for (count, what) in skipped {
        if count > 0 {
            text.push_str(&format!("; passed over: {count} {what}"));
        }
    }
    text
}

/// Writes the picture whole or not at all.
fn draw(file: &Path, leases: &[LeaseReport], of: usize, lanes: usize) -> anyhow::Result<()> {
    let picture = if leases.len() > lanes {
        let mut nearest = leases.to_vec();
        nearest.sort_by(|one, other| nearness(one).total_cmp(&nearness(other)));
        nearest.truncate(lanes);
        svg(&nearest, of)
    } else {
        svg(leases, of)
    };
    let beside = file.with_extension("svg.new");
    fs::write(&beside, picture)
        .and_then(|()| fs::rename(&beside, file))
        .with_context(|| format!("--svg {}: cannot be written", file.display()))
}

/// How near a lease was to being lost, the nearest first: what the duration left over the longest interval, as its share.
#[expect(clippy::cast_precision_loss, reason = "a Lease's duration has 31 bits")]
fn nearness(lease: &LeaseReport) -> f64 {
    let renewals = &lease.renewals;
    let share = renewals
        .headroom_seconds
        .zip(renewals.duration_seconds)
        .map(|(headroom, duration)| headroom / duration.max(1) as f64);
    // Without a duration nothing can be said: last.
    share.unwrap_or(f64::INFINITY) - f64::from(u8::from(lease.would_be_refused > 0)) * 1e9
}
