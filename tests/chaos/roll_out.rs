//! Rolling restarts of both replicas under a steady load: no write fails, and none goes unreviewed.

use anyhow::ensure;

use crate::{
    Test,
    guard::roll_out,
    harness::{schedule::Phase, world::World},
    load::{Load, unreviewed},
    table, test,
};

/// Writes a second that are asked for.
const RATE: u32 = 500;

/// Rolling restarts, of both replicas each.
const ROLL_OUTS: usize = 2;

/// Writes that each step of a roll-out must see before the next.
const WRITES: u64 = 1000;

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(1),
        "roll_out::no_write_fails_or_goes_unreviewed",
        no_write_fails_or_goes_unreviewed,
    )]
}

async fn no_write_fails_or_goes_unreviewed(world: &'static World) -> anyhow::Result<()> {
    let guard = crate::guard(world).await?;
    let failed_open = guard.fail_open_count(world).await?;
    let load = Load::start(world, "chaos-roll-out", RATE).await?;
    let namespace = load.namespace().to_owned();
    let mut rolled = Ok(());
    for _ in 0..ROLL_OUTS {
        rolled = roll_out(world, guard, async || load.see_more(WRITES).await).await;
        if rolled.is_err() {
            break;
        }
    }
    let counts = load.stop().await?;
    let failed_open = guard.fail_open_count(world).await? - failed_open;
    let (in_audit_log, unreviewed) = unreviewed(world, &namespace).await?;
    table::add(
        "1. rolling restart",
        format!(
            "{ROLL_OUTS} x both replicas, under {} writes to Leases that are reviewed ({:.0} a second; asked for: {RATE})",
            counts.written,
            counts.rate()
        ),
        format!(
            "unreviewed {failed_open} (by the audit log {} of {in_audit_log}), early takeovers refused {} let through {}, \
             releases and acquisitions accepted {} refused {}",
            unreviewed.len(),
            counts.refused_rightly,
            counts.let_through,
            counts.accepted,
            counts.refused_wrongly
        ),
    );
    rolled?;
    ensure!(
        failed_open == 0.0,
        "the API server gave up on {failed_open} reviews"
    );
    ensure!(
        unreviewed.is_empty(),
        "unreviewed by the audit log: {unreviewed:?}"
    );
    ensure!(
        counts.let_through == 0 && counts.refused_wrongly == 0,
        "{counts:?}"
    );
    // What was counted is what was written, or the zeros above would prove nothing.
    ensure!(
        counts.refused_rightly > 0 && counts.refused_rightly + counts.accepted == counts.written,
        "{counts:?}"
    );
    ensure!(
        in_audit_log as u64 >= counts.written,
        "the audit log holds {in_audit_log} of {} writes",
        counts.written
    );
    Ok(())
}
