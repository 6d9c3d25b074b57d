//! Rotation after rotation under load, the writer killed at every stage.

use anyhow::{Context, ensure};

use super::{
    keepers::{Keepers, State},
    load::Load,
};
use crate::harness::{audit::text, network::Network, world::World};

/// How many rotations to walk through; `make chaos` asks for more.
const ROTATIONS_VARIABLE: &str = "LEASEHOLD_TEST_ROTATIONS";
const ROTATIONS: usize = 30;

/// Of so many rotations one is of the CA, and of so many of those in one the writer is killed. A rotation of the CA takes
/// two waits, and a killed writer's Lease one: so a long run has, for its length, fewer.
const SHORT: (usize, usize) = (10, 1);
const LONG: (usize, usize) = (25, 4);
/// From so many rotations on a run is long.
const IS_LONG: usize = 100;

fn rotations() -> anyhow::Result<usize> {
    match std::env::var(ROTATIONS_VARIABLE) {
        Ok(number) => number
            .parse()
            .with_context(|| format!("{ROTATIONS_VARIABLE}={number:?}: give a number")),
        Err(_) => Ok(ROTATIONS),
    }
}

/// A name, and whether it is reached, given what was before the rotation and what is now.
type Stage = (&'static str, fn(&State, &State) -> bool);

/// Where in a rotation of the CA the writer is killed.
const STAGES: [Stage; 5] = [
    ("it was asked for", |_, _| true),
    ("the new CA is in the Secret", |before, now| {
        now.authority != before.authority
    }),
    ("both are published", |before, now| {
        now.authority != before.authority
            && now
                .bundles
                .iter()
                .all(|bundle| bundle.len() > now.authority.len())
    }),
    ("the new leaf is in the Secret", |before, now| {
        now.leaf != before.leaf
    }),
    ("the old CA is out of the Secret", |before, now| {
        now.leaf != before.leaf && now.retiring.is_empty()
    }),
];

pub(super) async fn rotations_fail_no_handshake(world: &'static World) -> anyhow::Result<()> {
    const NAME: &str = "rotations";
    let count = rotations()?;
    let (one_of_the_authority, one_killed) = if count < IS_LONG { SHORT } else { LONG };
    // Judges the election of the pair, whose namespace it does not leave out.
    let guard = world.guard().await?;
    let keepers = Keepers::start(world, NAME).await?;
    let mut before = keepers.wait_for("the pair to serve", State::is_settled).await?;
    let mut load = Load::start(world, &keepers).await?;
    let mut kills = 0;
    let mut of_the_authority = 0;
    for number in 1..=count {
        let authority = number % one_of_the_authority == 0;
        keepers.ask(if authority { "ca" } else { "leaf" }).await?;
        if authority {
            if of_the_authority % one_killed == 0
                && let Some((stage, reached)) = STAGES.get(kills % STAGES.len())
            {
                keepers.wait_for(stage, |now| reached(&before, now)).await?;
                let writer = keepers.writer().await?;
                writer.kill().await?;
                kills += 1;
                writer.start().await?;
            }
            of_the_authority += 1;
        }
        let what = format!("rotation {number}");
        let after = keepers
            .wait_for(&what, |now| {
                now.leaf != before.leaf
                    && now.is_settled()
                    && authority == (now.authority != before.authority)
            })
            .await
            .context(what.clone())?;
        load.ensure_unharmed().context(what)?;
        before = after;
    }
    let seen = load.stop().await?;
    eprintln!("{count} rotations, {of_the_authority} of the CA, {kills} writers killed: {seen:?}");
    ensure!(
        seen.handshakes >= count as u64,
        "too few handshakes to tell: {seen:?}"
    );
    ensure!(
        world.network == Network::Loopback || seen.writes >= count as u64,
        "too few writes to tell: {seen:?}"
    );
    ensure!(
        kills > 0 || seen.broken_connections == 0,
        "nobody was killed, and connections broke: {seen:?}"
    );
    let mut refused = 0.0;
    for replica in &keepers.replicas {
        let metrics = replica.metrics().await?;
        let reason = [("reason", "certificate_refused")];
        refused += metrics.sum("leasehold_handshake_failures_total", &reason);
    }
    ensure!(
        refused == 0.0,
        "{refused} handshakes were refused by the API server"
    );
    keepers.end().await?;

    if world.network == Network::Namespace {
        // It was asked: each takeover is an allowed change of holder.
        let changes = guard
            .audit_records(NAME, "the pair's election", |record| {
                text(record, "/record") == "holderChange"
            })
            .await?;
        let changes_of_holder = changes
            .iter()
            .filter(|record| text(record, "/change") == "takeover")
            .count();
        ensure!(changes_of_holder >= kills, "{kills} kills, and {changes:?}");
    }
    let violations = guard.audit_records_now(NAME)?;
    let violation = violations
        .iter()
        // That the lease flaps is true of one whose holder is killed that often, and not the candidates' fault.
        .find(|record| text(record, "/record") == "violation" && text(record, "/rule") != "flapping");
    ensure!(
        violation.is_none(),
        "the pair's own election breaks a rule: {violation:?}"
    );
    Ok(())
}
