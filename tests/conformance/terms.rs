//! Correct electors: an instance leads and is killed, another takes over and releases, the first comes back, and
//! nobody is denied anything.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    candidate::{Candidate, two_leaders},
    control_plane_electors::{Component, control_plane_electors},
    electors::{Clocks, LEASE, ensure_by_own_pods, ensure_undisturbed, refusals, renewals},
    harness::{audit::text, leases::Leases, pods::Pod, schedule::Phase, world::World},
    programs::Elector,
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
    // They wait by what they observe, as client-go does.
    for elector in [Elector::ControllerRuntime, Elector::Java] {
        for (clock, ahead) in [("ahead", HOUR), ("behind", -HOUR)] {
            let name = format!("terms::{}::first_{clock}", elector.name());
            tests.push(test(phase, name, move |world| terms(world, elector, ahead)));
        }
    }
    for (clock, clocks) in [
        ("", [0, 0]),
        ("::first_ahead", [HOUR, -HOUR]),
        ("::first_behind", [-HOUR, HOUR]),
    ] {
        let name = format!("terms::kube-controller-manager{clock}");
        tests.push(test(phase, name, move |world| {
            kube_controller_managers(world, clocks.map(i64::from))
        }));
    }
    tests
}

/// Those of the cluster's own version, each with one of its dozens of controllers.
async fn kube_controller_managers(world: &'static World, clocks: [i64; 2]) -> anyhow::Result<()> {
    let managers = Component {
        name: "kube-controller-manager",
        arguments: &["--controllers=clusterrole-aggregation-controller"],
        // That is behind an alpha feature gate, off by default.
        releases: false,
        clocks,
    };
    let (name, namespace) = (managers.name, managers.namespace());
    control_plane_electors(world, managers).await?;
    let version = world.admin().await?.get("/version").await?.accepted()?;
    let version = text(&version, "/gitVersion").trim_start_matches('v').to_owned();
    let scenario = match clocks {
        [0, 0] => "killed, ended, restarted after each",
        [first, _] if first > 0 => "the same, clocks +1 h and -1 h",
        _ => "the same, clocks -1 h and +1 h",
    };
    table::add(world, (name, version.as_str()), scenario, &namespace, true, None).await
}

const HOUR: i32 = 60 * 60;

/// In pods: killed, taken over, released, acquired, restarted. The first's clock is `ahead` by so many seconds, the
/// second's behind by as many.
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

    let [a_pod, b_pod, _] = Pod::three(world, &namespace).await?;
    let start = async |pod: &Pod, clock_ahead: i32| {
        Candidate::start_in(world, elector, &namespace, pod, clock_ahead).await
    };
    let mut a = start(&a_pod, ahead).await?;
    a.leads().await.context("a does not acquire the new lease")?;
    let first = record(&leases).await?;
    let mut b = start(&b_pod, -ahead).await?;
    renewals(&leases, 3).await.context("a does not renew")?;

    a.kill().await?;
    b.leads()
        .await
        .context("b does not take over from the killed a")?;
    let second = record(&leases).await?;
    second.ensure_follows(&first)?;
    let mut again = start(&a_pod, ahead).await?;
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
    let mut last = start(&a_pod, ahead).await?;
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
    .await?;
    ensure_by_own_pods(world, &leases).await
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
