//! What a replay says of each lease, for people.

use std::io::{self, Write};

use crate::{cli::output, replay::LeaseReport};

/// The most terms of a lease that a table shows: the latest.
const TERMS_SHOWN: usize = 20;

pub(super) fn print(out: &mut impl Write, leases: &[LeaseReport]) -> io::Result<()> {
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} s"));
    let rows = leases.iter().map(|lease| {
        let LeaseReport { renewals, .. } = lease;
        let changes = match (lease.changes, lease.inferred_changes) {
            (0, inferred) if inferred > 0 => format!("{inferred} inferred"),
            (changes, 0) => changes.to_string(),
            (changes, inferred) => format!("{changes} and {inferred} inferred"),
        };
        let refused: u64 = lease.refused.values().sum();
        [
            format!("{}/{}", lease.namespace, lease.name),
            changes,
            lease.would_be_refused.to_string(),
            refused.to_string(),
            format!("{:.1} s", lease.seconds_without_leader),
            seconds(lease.longest_failover_seconds),
            renewals.count.to_string(),
            seconds(renewals.p50_seconds),
            seconds(renewals.p99_seconds),
            seconds(renewals.longest_seconds),
            match (renewals.headroom_seconds, renewals.duration_seconds) {
                (Some(headroom), Some(duration)) => format!("{headroom:.1} s of {duration} s"),
                _ => "-".to_owned(),
            },
        ]
    });
    let headings = [
        "LEASE",
        "CHANGES",
        "AGAINST POLICY",
        "REFUSED",
        "NO LEADER",
        "FAILOVER",
        "RENEWALS",
        "P50",
        "P99",
        "LONGEST",
        "HEADROOM",
    ];
    writeln!(out, "{}", output::table(headings, rows))?;
    if leases.is_empty() {
        writeln!(
            out,
            "\nNo write to a Lease was found. An audit policy may leave them out: docs/replay.md has one that does not."
        )?;
    }
    for lease in leases {
        writeln!(out, "\n{}/{}", lease.namespace, lease.name)?;
        let earlier = lease.terms.len().saturating_sub(TERMS_SHOWN);
        if earlier > 0 {
            writeln!(out, "({earlier} earlier terms: --output json has them)")?;
        }
        let terms = lease.terms.iter().skip(earlier).map(|term| {
            let holder = if term.inferred {
                format!("{} (inferred)", shown(&term.holder))
            } else {
                shown(&term.holder)
            };
            [
                format!(
                    "{}{:.3}",
                    if term.began_before { "before " } else { "" },
                    term.from
                ),
                format!("{:.3}", term.to),
                holder,
                term.renewals.to_string(),
                term.end.as_str().to_owned(),
            ]
        });
        writeln!(
            out,
            "{}",
            output::table(["FROM", "TO", "HOLDER", "RENEWALS", "END"], terms)
        )?;
        for finding in &lease.findings {
            writeln!(
                out,
                "  {:.3} {}: {}: {}",
                finding.time, finding.decision, finding.rule, finding.message
            )?;
        }
        for (refuser, count) in &lease.refused {
            writeln!(out, "  refused {count} times: {}", shown(refuser))?;
        }
        if lease.unknown > 0 {
            writeln!(
                out,
                "  {} writes ended with 504: nobody knows whether they were stored",
                lease.unknown
            )?;
        }
        if lease.failed_open > 0 {
            writeln!(
                out,
                "  {} writes passed a webhook that did not answer",
                lease.failed_open
            )?;
        }
        if lease.sooner_than_expiry > 0 {
            writeln!(
                out,
                "  {} inferred changes came before the duration was over: released, handed over or taken early, the log \
                 does not say which",
                lease.sooner_than_expiry
            )?;
        }
    }
    Ok(())
}

/// A name out of a log, which is somebody's text: no character of it moves the cursor or hides another.
fn shown(name: &str) -> String {
    let quoted = format!("{name:?}");
    let plain = quoted.trim_matches('"');
    if plain == name { name.to_owned() } else { quoted }
}
