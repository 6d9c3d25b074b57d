//! SIGKILL of the replica that the API server asks, again and again.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    Test,
    electors::{LEASE, elector, renewals, sees_leader, started_leading},
    guard::{Guard, set_endpoints},
    harness::{audit::text, process::Process, schedule::Phase, until, world::World},
    load::{Load, Unreviewed, unreviewed},
    table, test,
};

const KILLS: usize = 50;

/// Writes a second that are asked for: fewer than in a roll-out, since each kill is to find the rest in peace.
const RATE: u32 = 200;

/// Writes between two steps.
const WRITES: u64 = 50;

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(2),
        "kills::no_leader_is_lost_and_no_honest_write_refused",
        no_leader_is_lost_and_no_honest_write_refused,
    )]
}

/// From the signal until the API server asks the survivor alone.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Just before the signal.
    killed: Timestamp,
    /// The Service no longer leads to the dead replica.
    told: Timestamp,
    settled: Timestamp,
}

async fn no_leader_is_lost_and_no_honest_write_refused(world: &'static World) -> anyhow::Result<()> {
    let guard = crate::guard(world).await?;
    let leases = world.leases("chaos-kills-electors").await?;
    let mut leader = elector(world, &leases, "a", "client-go-0.37", "0s").await?;
    leader.event(started_leading).await?;
    let mut candidate = elector(world, &leases, "b", "client-go-0.33", "0s").await?;
    candidate.event(sees_leader("a")).await?;

    let load = Load::start(world, "chaos-kills", RATE).await?;
    let namespace = load.namespace().to_owned();
    let mut windows = Vec::new();
    let mut killed = Ok(());
    while windows.len() < KILLS && killed.is_ok() {
        killed = kill_the_one_in_use(world, guard, &load)
            .await
            .map(|window| windows.push(window));
    }
    let counts = load.stop().await?;
    let (_, unreviewed) = unreviewed(world, &namespace).await?;
    let overlaps = |window: &&Window, write: &Unreviewed| {
        write.received <= window.settled && write.answered >= window.killed
    };
    let (mut under_way, mut untold, mut unheard, mut elsewhere) = (0, 0, 0, Vec::new());
    for write in &unreviewed {
        match windows.iter().find(|window| overlaps(window, write)) {
            Some(window) if write.received <= window.killed => under_way += 1,
            Some(window) if write.received <= window.told => untold += 1,
            Some(_) => unheard += 1,
            None => elsewhere.push(write),
        }
    }
    let each = windows
        .iter()
        .map(|window| unreviewed.iter().filter(|write| overlaps(&window, write)).count());
    let at_most = each.max().unwrap_or_default();
    let lost = stopped_leading(&leader) + u64::from(leader.ensure_running().is_err()) + led(&candidate);
    table::add(
        "2. SIGKILL of the replica in use",
        format!(
            "{} kills, under {} writes to Leases that are reviewed ({:.0} a second), and a client-go leader with a rival",
            windows.len(),
            counts.written,
            counts.rate()
        ),
        format!(
            "refused that should pass {} of {}, unreviewed {} (under way at the kill {under_way}, begun before the \
             Service was changed {untold}, before the API server heard of that {unheard}, at other times {}; at most \
             {at_most} a kill), early takeovers refused {} let through \
             {}, leaders lost {lost}",
            counts.refused_wrongly,
            counts.accepted + counts.refused_wrongly,
            unreviewed.len(),
            elsewhere.len(),
            counts.refused_rightly,
            counts.let_through,
        ),
    );
    killed?;
    ensure!(counts.refused_wrongly == 0, "{counts:?}");
    ensure!(
        elsewhere.is_empty(),
        "unreviewed while the API server asked a replica that was well: {elsewhere:?}"
    );
    ensure!(
        counts.let_through <= unreviewed.len() as u64,
        "a review let an early takeover pass: {counts:?}, unreviewed: {}",
        unreviewed.len()
    );
    ensure!(lost == 0, "leaders lost: {lost}; {}", leader.log_tail(10));
    let lease = leases.get(LEASE).await?;
    ensure!(
        text(&lease, "/spec/holderIdentity") == "a"
            && lease.pointer("/spec/leaseTransitions") == Some(&Value::from(0)),
        "the leader changed: {lease}"
    );
    renewals(&leases, 1)
        .await
        .context("the leader does not renew any more")
}

async fn kill_the_one_in_use(world: &World, guard: &Guard, load: &Load) -> anyhow::Result<Window> {
    let admin = world.admin().await?;
    let all: Vec<String> = world.network.replicas().iter().map(ToString::to_string).collect();
    let used = in_use(guard, load).await?;
    let replica = guard.replicas().get(used).context("no such replica")?;
    let others: Vec<String> = (0..all.len())
        .filter(|other| *other != used)
        .filter_map(|other| all.get(other).cloned())
        .collect();
    let killed = Timestamp::now();
    // As in a cluster: the death and the news of it travel apart.
    let change = async {
        set_endpoints(&admin, &others).await?;
        anyhow::Ok(Timestamp::now())
    };
    let (dead, told) = tokio::join!(replica.kill(), change);
    dead?;
    let told = told?;
    // The API server learns of it by a watch, in its own time: once nothing more went by.
    until("the API server to ask the survivor", || async {
        let before = load.let_through();
        load.see_more(WRITES).await?;
        Ok((load.let_through() == before).then_some(()))
    })
    .await?;
    let settled = Timestamp::now();
    load.see_more(WRITES).await?;
    replica.start().await?;
    set_endpoints(&admin, &all).await?;
    load.see_more(WRITES).await?;
    Ok(Window {
        killed,
        told,
        settled,
    })
}

/// The replica that was asked most of late.
async fn in_use(guard: &Guard, load: &Load) -> anyhow::Result<usize> {
    let reviews = async || {
        let mut all = Vec::new();
        for replica in guard.replicas() {
            all.push(replica.metrics().await?.sum("leasehold_reviews_total", &[]));
        }
        anyhow::Ok(all)
    };
    let before = reviews().await?;
    load.see_more(WRITES).await?;
    let after = reviews().await?;
    let asked = before.iter().zip(&after).map(|(before, after)| after - before);
    let (most, _) = asked
        .enumerate()
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .context("no replicas")?;
    Ok(most)
}

fn stopped_leading(elector: &Process) -> u64 {
    count(elector, "stopped-leading")
}

fn led(elector: &Process) -> u64 {
    count(elector, "started-leading")
}

fn count(elector: &Process, event: &str) -> u64 {
    let history = elector.history();
    history
        .iter()
        .filter(|(_, seen)| text(seen, "/event") == event)
        .count() as u64
}
