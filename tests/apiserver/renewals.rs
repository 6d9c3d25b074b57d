//! What never waits for Leasehold: pure renewals, and everybody while it is dead.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    Test,
    attacks::held,
    electors::{elector, renewals, sees_leader, started_leading},
    guard::{self, Guard},
    harness::{
        leases::{Edit, Leases, Verb},
        network::Network,
        schedule::Phase,
        world::World,
    },
    test,
};

/// Renewals by each verb.
const RENEWALS: u32 = 20;
const LEASE: &str = "lock";

/// The tests of this file: each needs the counters, or the death of Leasehold, to itself.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Alone(2),
            "renewals::never_reach_the_webhook",
            never_reach_the_webhook,
        ),
        test(
            Phase::Alone(3),
            "outage::one_replica_is_enough",
            one_replica_is_enough,
        ),
        test(
            Phase::Alone(4),
            "outage::leaders_lead_on_and_failover_works",
            leaders_lead_on_and_failover_works,
        ),
    ]
}

/// Calls of the webhook, counted by both sides, and calls that its match condition spared. One write may count more
/// than once: the API server tries a write on its cached copy first, and once more when that was stale.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Calls {
    by_api_server: f64,
    by_leasehold: f64,
    spared: f64,
}

impl Calls {
    fn since(self, before: Self) -> Self {
        Self {
            by_api_server: self.by_api_server - before.by_api_server,
            by_leasehold: self.by_leasehold - before.by_leasehold,
            spared: self.spared - before.spared,
        }
    }

    async fn so_far(world: &World, guard: &Guard) -> anyhow::Result<Self> {
        let metrics = world.plane().await?.metrics().await?;
        let name = [("name", guard.webhook.as_str())];
        Ok(Self {
            by_api_server: metrics.sum("apiserver_admission_webhook_request_total", &name),
            by_leasehold: guard.metrics().await?.sum("leasehold_reviews_total", &[]),
            spared: metrics.sum("apiserver_admission_match_condition_exclusions_total", &name),
        })
    }
}

async fn never_reach_the_webhook(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("renewals").await?;
    for verb in Verb::ALL {
        let name = verb.slug();
        let now = leases.api.now().await?;
        leases
            .create(name, "a", held("a", now, 15, 0))
            .await?
            .accepted()?;
        if verb == Verb::Apply {
            // The applier owns what it applies from now on; that first write is no pure renewal.
            leases
                .edit(verb, name, &Edit::spec("a", held("a", now, 15, 0)))
                .await?
                .accepted()?;
        }
        let before = Calls::so_far(world, guard).await?;
        for number in 1..=RENEWALS {
            let mut spec = held("a", now, 15, 0);
            // Any other time is a renewal, whatever the clock says.
            let renewed = now.checked_add(jiff::SignedDuration::from_millis(number.into()))?;
            *spec.pointer_mut("/renewTime").context("no renewTime")? = format!("{renewed:.6}").into();
            leases
                .edit(verb, name, &Edit::spec("a", spec))
                .await?
                .accepted()?;
        }
        let after = Calls::so_far(world, guard).await?;
        let moved = after.since(before);
        let none = moved.by_api_server == 0.0 && moved.by_leasehold == 0.0;
        ensure!(
            none && moved.spared >= f64::from(RENEWALS),
            "{verb:?}: {RENEWALS} renewals moved the counters by {moved:?}"
        );

        // Anything else does reach it, or the counters would prove nothing.
        let label = Edit::labels("a", json!({"app": "shop"}));
        leases.edit(Verb::MergePatch, name, &label).await?.accepted()?;
        let moved = Calls::so_far(world, guard).await?.since(after);
        let asked =
            moved.by_api_server >= 1.0 && moved.by_leasehold == moved.by_api_server && moved.spared == 0.0;
        ensure!(asked, "{verb:?}: a label moved the counters by {moved:?}");
    }
    Ok(())
}

/// An attempt that is refused whenever anybody is there to refuse it.
pub(crate) async fn early_takeover(leases: &Leases) -> anyhow::Result<u16> {
    let now = leases.api.now().await?;
    if leases.api.get(&leases.path(LEASE)).await?.code == 404 {
        leases
            .create(LEASE, "a", held("a", now, 600, 0))
            .await?
            .accepted()?;
    }
    let edit = Edit::spec("b", held("b", now, 600, 1)).dry();
    Ok(leases.edit(Verb::MergePatch, LEASE, &edit).await?.code)
}

/// As in a roll-out: a replica goes, and its endpoint with it.
async fn one_replica_is_enough(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("one-replica").await?;
    if world.network == Network::Loopback {
        // There is one replica, called by URL: its restart is all that can be shown.
        let [replica] = guard.replicas() else {
            anyhow::bail!("expected one replica")
        };
        replica.kill().await?;
        replica.start().await?;
        guard.wait_until_asked(world).await?;
        ensure!(
            early_takeover(&leases).await? == 403,
            "after its restart, Leasehold refuses nothing"
        );
        return Ok(());
    }
    let admin = world.admin().await?;
    for (number, replica) in guard.replicas().iter().enumerate() {
        let survivors: Vec<String> = world
            .network
            .replicas()
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .map(|(_, address)| address.to_string())
            .collect();
        guard::set_endpoints(&admin, &survivors).await?;
        replica.kill().await?;
        guard.wait_until_asked(world).await?;
        for _ in 0..20 {
            ensure!(
                early_takeover(&leases).await? == 403,
                "with replica {number} gone, a takeover was let through"
            );
        }
        replica.start().await?;
    }
    let all: Vec<String> = world.network.replicas().iter().map(ToString::to_string).collect();
    guard::set_endpoints(&admin, &all).await
}

async fn leaders_lead_on_and_failover_works(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("outage").await?;
    let attacked = world.leases("outage-attacked").await?;
    ensure!(
        early_takeover(&attacked).await? == 403,
        "Leasehold refuses nothing before its death"
    );
    let mut a = elector(world, &leases, "a", "client-go-0.37", "0s").await?;
    a.event(started_leading).await?;
    let mut b = elector(world, &leases, "b", "client-go-0.33", "0s").await?;
    b.event(sees_leader("a")).await?;

    for replica in guard.replicas() {
        replica.kill().await?;
    }
    let calls = async || -> anyhow::Result<f64> {
        let metrics = world.plane().await?.metrics().await?;
        Ok(metrics.sum(
            "apiserver_admission_webhook_fail_open_count",
            &[("name", &guard.webhook)],
        ))
    };
    let before = calls().await?;
    // Longer than the lease lasts: a leader that could not renew would be out by then.
    renewals(&leases, 8)
        .await
        .context("the leader does not lead on")?;
    ensure!(
        calls().await? == before,
        "a renewal was waiting for the dead Leasehold"
    );
    let lease = leases.get(LEASE).await?;
    ensure!(
        lease.pointer("/spec/leaseTransitions") == Some(&Value::from(0)),
        "the leader changed: {lease}"
    );

    a.kill().await?;
    b.event(started_leading)
        .await
        .context("nobody takes over while Leasehold is dead")?;
    ensure!(
        calls().await? > before,
        "the takeover was not let through for want of Leasehold"
    );
    // Alerts and dashboard ask for this, too, by these labels.
    let waited = world.plane().await?.metrics().await?.sum(
        "apiserver_admission_webhook_admission_duration_seconds_bucket",
        &[
            ("name", &guard.webhook),
            ("type", "validating"),
            ("operation", "UPDATE"),
            ("le", "+Inf"),
        ],
    );
    ensure!(
        waited > 0.0,
        "the API server does not tell how long the webhook took"
    );
    let mut c = elector(world, &leases, "c", "client-go-0.37", "0s").await?;
    c.event(sees_leader("b")).await?;
    let status = b.terminate().await?;
    ensure!(status.success(), "b ended with {status}: {}", b.log_tail(10));
    c.event(started_leading)
        .await
        .context("nobody acquires while Leasehold is dead")?;

    for replica in guard.replicas() {
        replica.start().await?;
    }
    guard.wait_until_asked(world).await?;
    ensure!(
        early_takeover(&attacked).await? == 403,
        "Leasehold refuses nothing after its return"
    );
    renewals(&leases, 2)
        .await
        .context("the leader does not outlive the return of Leasehold")?;
    ensure!(
        c.terminate().await?.success(),
        "c ended badly: {}",
        c.log_tail(10)
    );
    Ok(())
}
