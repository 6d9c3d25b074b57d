//! (a) What the memory adds to a verdict, and how often two cores meet in it.

use std::{hint::black_box, sync::Arc, thread};

use jiff::Timestamp;
use leasehold::{
    admission::{Subject, decode},
    lease::Write,
    memory::Memory,
    metrics::Metrics,
};

use crate::{
    pair,
    report::{Report, Row},
    verdict,
};

const LEASES: usize = 10_000;

/// Takeovers of so many leases, all by pods.
fn takeovers(body: &[u8], now: Timestamp) -> Vec<Write<'_>> {
    let Subject::Lease(takeover) = decode(body, now).unwrap().subject else {
        unreachable!("the review is of a lease")
    };
    (0..LEASES)
        .map(|number| {
            let mut write = Write::clone(&takeover);
            write.lease.name = format!("payments-{number}").into();
            write
        })
        .collect()
}

fn review(memory: &Memory, write: &Write<'_>) {
    black_box(memory.recall(black_box(write)));
    memory.remember(black_box(write));
}

/// Measures and reports.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let (body, handler, now) = (verdict::review(), verdict::handler(), Timestamp::now());
    let writes = takeovers(&body, now);
    let metrics = Metrics::new();
    let memory = Memory::new(metrics.memory.clone());
    let mut next = writes.iter().cycle();
    let pair = pair::measure(
        200,
        500,
        || {
            review(&memory, next.next().unwrap());
            Ok(())
        },
        || {
            black_box(handler.handle(black_box(&body), now));
            Ok(())
        },
    )?;
    report.row(Row {
        what: "(a) what the memory adds to a review".to_owned(),
        measured: format!("{:.0} ns", pair.ours().as_secs_f64() * 1e9),
        against: format!(
            "{:.2} us for the whole verdict",
            pair.theirs().as_secs_f64() * 1e6
        ),
        ratio: format!("one part in {:.0}", pair.times_faster()),
        goal: "at most a tenth",
        conditions: format!(
            "takeovers by pods, {LEASES} leases in turn, {} bytes in all",
            memory.bytes()
        ),
    });

    let metrics = Arc::new(Metrics::new());
    let memory = Memory::new(metrics.memory.clone());
    thread::scope(|scope| {
        for half in writes.chunks(LEASES / 2) {
            let memory = &memory;
            scope.spawn(move || {
                for write in half.iter().cycle().take(1_000_000) {
                    review(memory, write);
                }
            });
        }
    });
    let text = metrics.encode().unwrap();
    let skipped = text
        .lines()
        .find_map(|line| line.strip_prefix("leasehold_memory_skipped_total "))
        .unwrap();
    report.row(Row {
        what: "(a) two cores with nothing but the memory".to_owned(),
        measured: format!("{skipped} of 4000000 entries skipped rather than waited for"),
        against: String::new(),
        ratio: String::new(),
        goal: "",
        conditions: format!("each core {} leases of its own, a million reviews", LEASES / 2),
    });
    Ok(())
}
