//! client-go from 0.34 on: a leader that lost its lease while it was cut off still believes to hold it, and with
//! `ReleaseOnCancel` blanks the lease of its successor (`release` reads the lease again, for its resourceVersion, but
//! not who holds it).

use anyhow::{Context, ensure};

use crate::{
    Test,
    candidate::{Candidate, two_leaders},
    electors::{LEASE, renewals},
    harness::{audit::text, pods, proxy::Proxy, schedule::Phase, until, world::World},
    programs::{Elector, Instance, LEASE_SECONDS},
    table, test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(Phase::Recorded, "late_release::unguarded", |world| {
            late_release(world, "late-release-unguarded", false, REPLICA_SET)
        }),
        test(Phase::Attacked, "late_release::guarded", |world| {
            late_release(world, "late-release-guarded", true, REPLICA_SET)
        }),
        test(Phase::Attacked, "late_release::guarded_in_a_roll_out", |world| {
            late_release(world, "late-release-roll-out", true, ROLL_OUT)
        }),
    ]
}

/// A pod, and the identity by which it leads: client-go's convention, `hostname_uuid`.
type Pod = (&'static str, &'static str);

/// The late leader's, its successor's and a bystander's pod: of one ReplicaSet.
const REPLICA_SET: [Pod; 3] = [
    (
        "payments-7d4b9c6f5-x2x9k",
        "payments-7d4b9c6f5-x2x9k_2f1c8f0e-5b0a-4c1c-9d3e-8a7b6c5d4e3f",
    ),
    (
        "payments-7d4b9c6f5-q8w4m",
        "payments-7d4b9c6f5-q8w4m_91c7a3d2-7e6f-4f5a-8b9c-0d1e2f3a4b5c",
    ),
    (
        "payments-7d4b9c6f5-zr6tn",
        "payments-7d4b9c6f5-zr6tn_c0ffee11-2233-4455-8677-8899aabbccdd",
    ),
];

/// The same in a roll-out: the late leader is of the Deployment's former ReplicaSet.
const ROLL_OUT: [Pod; 3] = [
    REPLICA_SET[0],
    (
        "payments-5c8f7d9bb-q8w4m",
        "payments-5c8f7d9bb-q8w4m_91c7a3d2-7e6f-4f5a-8b9c-0d1e2f3a4b5c",
    ),
    (
        "payments-5c8f7d9bb-zr6tn",
        "payments-5c8f7d9bb-zr6tn_c0ffee11-2233-4455-8677-8899aabbccdd",
    ),
];

async fn late_release(
    world: &'static World,
    namespace: &'static str,
    guarded: bool,
    pods: [Pod; 3],
) -> anyhow::Result<()> {
    if guarded {
        world.guard().await?;
    }
    let elector = Elector::ClientGo;
    let leases = world.leases(namespace).await?;
    let plane = world.plane().await?;
    let late_proxy = Proxy::start(world, &format!("{namespace}-late")).await?;
    let successor_proxy = Proxy::start(world, &format!("{namespace}-successor")).await?;
    pods::create_account(world, namespace).await?;
    let [late, successor, bystander] = pods;
    let start = async |(pod, identity): Pod, server: &str| {
        let kubeconfig = pods::kubeconfig(world, namespace, pod, server).await?;
        let instance = Instance {
            kubeconfig: &kubeconfig,
            namespace,
            lease: LEASE,
            identity,
            seconds: LEASE_SECONDS,
            clock_ahead: 0,
        };
        Candidate::start_as(world, elector, instance).await
    };

    let mut a = start(late, &late_proxy.url()).await?;
    a.leads().await?;
    renewals(&leases, 2).await?;
    let mut c = start(successor, &successor_proxy.url()).await?;
    c.sees(late.1).await?;

    // Cut off: it gives up at its renew deadline, and its release waits with the rest. client-go gives a release that
    // long once more, within which the successor's wait ends.
    let mut held = late_proxy.hold(|_, _, _| true);
    c.leads()
        .await
        .context("nobody takes over from the late leader")?;
    // Or else it is a matter of luck who of the two finds the lease blank first: they look as often as each other.
    let mut renewals_of_successor = successor_proxy.hold(|_, _, _| true);
    let mut b = start(bystander, plane.url()).await?;
    b.sees(successor.1).await?;
    late_proxy.hold_nothing();
    while let Ok(request) = held.try_recv() {
        request.release();
    }
    let mut successor_goes_on = || {
        successor_proxy.hold_nothing();
        while let Ok(request) = renewals_of_successor.try_recv() {
            request.release();
        }
    };

    if guarded {
        let refusals = until("the release to be refused", || async {
            let refused = plane.audit()?.refused_lease_writes(namespace);
            Ok((!refused.is_empty()).then_some(refused))
        })
        .await?;
        successor_goes_on();
        ensure!(
            refusals.iter().all(|refusal| refusal.contains("foreign-release")),
            "refused by another rule: {refusals:?}"
        );
        renewals(&leases, 3)
            .await
            .context("the successor does not lead on")?;
        let together = two_leaders(&[&b, &c]);
        let lease = leases.get(LEASE).await?;
        ensure!(
            text(&lease, "/spec/holderIdentity") == successor.1
                && lease
                    .pointer("/spec/leaseTransitions")
                    .and_then(serde_json::Value::as_i64)
                    == Some(1),
            "the successor does not hold undisturbed: {lease}"
        );
        ensure!(c.believes_to_lead(), "the successor stopped leading");
        ensure!(together.is_none(), "two led at the same time, for {together:?}");
        let refusals = plane.audit()?.refused_lease_writes(namespace);
        ensure!(
            refusals.len() == 1,
            "more was refused than the release: {refusals:?}"
        );
        c.terminate().await?;
        b.leads()
            .await
            .context("nobody acquires what the successor released")?;
        b.terminate().await?;
        a.kill().await?;
        finish(world, namespace, guarded, pods, together).await
    } else {
        b.leads()
            .await
            .context("the bystander does not acquire the blanked lease")?;
        successor_goes_on();
        c.stops_leading().await?;
        let together = two_leaders(&[&b, &c]);
        b.terminate().await?;
        a.kill().await?;
        ensure!(
            together.is_some(),
            "two leaders were to be seen without the guard, and were not"
        );
        finish(world, namespace, guarded, pods, together).await
    }
}

async fn finish(
    world: &World,
    namespace: &str,
    guarded: bool,
    pods: [Pod; 3],
    together: Option<std::time::Duration>,
) -> anyhow::Result<()> {
    let names = table::names(Elector::ClientGo);
    let scenario = if pods == ROLL_OUT {
        "releases its successor's lease late, in a roll-out"
    } else {
        "releases its successor's lease late"
    };
    table::add(world, names, scenario, namespace, guarded, together).await
}
