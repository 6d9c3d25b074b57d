//! Correct electors: an instance leads and is killed, another takes over and releases, the first comes back, and
//! nobody is denied anything.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    candidate::{Candidate, two_leaders},
    electors::{Clocks, LEASE, control_plane_electors, ensure_undisturbed, refusals, renewals},
    harness::{audit::text, leases::Leases, schedule::Phase, world::World},
    programs::{Elector, Instance, LEASE_SECONDS},
    table, test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    let electors = [
        Elector::ControllerRuntime,
        Elector::Java,
        Elector::KubeLeaderElection,
        Elector::Kubert,
    ];
    let phase = Phase::Undisturbed;
    let mut tests: Vec<Test> = electors
        .into_iter()
        .map(|elector| {
            let name = format!("terms::{}", elector.name());
            test(phase, name, move |world| terms(world, elector, 0))
        })
        .collect();
    // It waits by what it observes, as client-go does.
    for (clock, ahead) in [("ahead", HOUR), ("behind", -HOUR)] {
        let name = format!("terms::java::first_{clock}");
        tests.push(test(phase, name, move |world| terms(world, Elector::Java, ahead)));
    }
    tests.push(test(
        phase,
        "terms::kube-controller-manager",
        kube_controller_managers,
    ));
    tests
}

/// Those of the cluster's own version, each with one of its dozens of controllers.
async fn kube_controller_managers(world: &'static World) -> anyhow::Result<()> {
    let name = "kube-controller-manager";
    let one_controller = ["--controllers=clusterrole-aggregation-controller"];
    // Releasing at the end is behind an alpha feature gate, off by default.
    control_plane_electors(world, name, &one_controller, false).await?;
    let version = world.admin().await?.get("/version").await?.accepted()?;
    let version = text(&version, "/gitVersion").trim_start_matches('v').to_owned();
    table::add(world, (name, &version), "killed, ended", name, true, None).await
}

const HOUR: i32 = 60 * 60;

/// Killed, taken over, released, acquired, restarted. The first's clock is `ahead` by so many seconds, the second's
/// behind by as many.
async fn terms(world: &'static World, elector: Elector, ahead: i32) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let (label, scenario) = match ahead {
        0 => ("right", "killed, released, restarted"),
        1.. => ("first-ahead", "the same, clocks +1 h and -1 h"),
        _ => ("first-behind", "the same, clocks -1 h and +1 h"),
    };
    let namespace = format!("terms-{}-{label}", elector.name());
    let leases = world.leases(&namespace).await?;
    let before = refusals(world, guard).await?;

    let kubeconfig = world.plane().await?.writer_kubeconfig();
    let start = async |identity: &str, clock_ahead: i32| {
        let instance = Instance {
            kubeconfig: &kubeconfig,
            namespace: &namespace,
            lease: LEASE,
            identity,
            seconds: LEASE_SECONDS,
            clock_ahead,
        };
        Candidate::start_as(world, elector, instance).await
    };
    let mut a = start("a", ahead).await?;
    a.leads().await.context("a does not acquire the new lease")?;
    let first = record(&leases).await?;
    let mut b = start("b", -ahead).await?;
    renewals(&leases, 3).await.context("a does not renew")?;

    a.kill().await?;
    b.leads()
        .await
        .context("b does not take over from the killed a")?;
    let second = record(&leases).await?;
    second.ensure_follows(&first)?;
    let mut again = start("a", ahead).await?;
    renewals(&leases, 2).await.context("b does not renew")?;

    b.terminate().await?;
    again
        .leads()
        .await
        .context("a does not acquire what b released")?;
    let third = record(&leases).await?;
    third.ensure_follows(&second)?;
    renewals(&leases, 1).await.context("a does not renew")?;

    // Its own successor, at once: whoever has the same identity need not wait.
    again.kill().await?;
    let mut last = start("a", ahead).await?;
    last.leads().await.context("the restarted a does not lead")?;
    if elector.keeps_identity() {
        let fourth = record(&leases).await?;
        ensure!(
            fourth.holder == third.holder,
            "held by {:?}, then by {:?}",
            third.holder,
            fourth.holder
        );
    }
    renewals(&leases, 1)
        .await
        .context("the restarted a does not renew")?;
    last.terminate().await?;

    let together = two_leaders(&[&a, &b, &again, &last]);
    table::add(world, table::names(elector), scenario, &namespace, true, together).await?;
    ensure!(together.is_none(), "two led at the same time, for {together:?}");
    let clocks = if ahead == 0 { Clocks::Right } else { Clocks::Skewed };
    ensure_undisturbed(
        world,
        &leases,
        before,
        &["takeover", "release", "acquire"],
        clocks,
    )
    .await
}

/// Who holds, for the how many-th time.
#[derive(Debug)]
struct Record {
    holder: String,
    transitions: i64,
}

impl Record {
    fn ensure_follows(&self, former: &Self) -> anyhow::Result<()> {
        ensure!(
            self.holder != former.holder && self.transitions == former.transitions + 1,
            "after {former:?} came {self:?}"
        );
        Ok(())
    }
}

async fn record(leases: &Leases) -> anyhow::Result<Record> {
    let lease = leases.get(LEASE).await?;
    let holder = text(&lease, "/spec/holderIdentity");
    ensure!(!holder.is_empty(), "nobody holds: {lease}");
    Ok(Record {
        holder: holder.to_owned(),
        transitions: lease
            .pointer("/spec/leaseTransitions")
            .and_then(Value::as_i64)
            .context("no leaseTransitions")?,
    })
}
