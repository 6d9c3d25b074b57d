//! The control plane's own electors, kube-scheduler and kube-controller-manager: they fail over, end, restart and renew,
//! and nobody is ever denied anything.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    electors::{
        Clocks, LEASE, changes_after_end, ensure_by_own_pods, ensure_undisturbed, refusals, renewals,
    },
    harness::{audit::text, pods::Pod, process::Process, proxy::Proxy, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    // With wrong clocks each takes over from the other, so that once is enough.
    let clocks = [
        ("kube_schedulers", [0, 0]),
        ("kube_schedulers::an_hour_off_either_way", [HOUR, -HOUR]),
    ];
    clocks
        .map(|(name, clocks)| {
            let full_name = format!("control_plane_electors::{name}");
            test(Phase::Undisturbed, full_name, move |world| {
                let schedulers = Component {
                    name: "kube-scheduler",
                    arguments: &[],
                    releases: true,
                    clocks,
                };
                control_plane_electors(world, schedulers)
            })
        })
        .into()
}

const HOUR: i64 = 60 * 60;

/// A component of the control plane that elects a leader.
pub(crate) struct Component {
    /// As its binary is called.
    pub(crate) name: &'static str,
    /// What it is started with beside what all are.
    pub(crate) arguments: &'static [&'static str],
    /// Whether it releases its lease when it ends, or leaves it to expire.
    pub(crate) releases: bool,
    /// How many seconds the first one's clock is ahead, and the second's; behind where negative.
    pub(crate) clocks: [i64; 2],
}

impl Component {
    /// There is a namespace for each case.
    pub(crate) fn namespace(&self) -> String {
        let case = match self.clocks {
            [0, 0] => "",
            [first, _] if first > 0 => "-first-ahead",
            _ => "-first-behind",
        };
        format!("{}{case}", self.name)
    }

    /// The pods of the first and the second, each of which asks the time by its own clock.
    async fn pods(&self, world: &World, namespace: &str) -> anyhow::Result<[Pod; 2]> {
        let [first, second, _] = if self.clocks == [0, 0] {
            Pod::three(world, namespace).await?
        } else {
            let [first, second] = self.clocks;
            let first = Proxy::with_clocks(world, &format!("{namespace}-0"), first)
                .await?
                .url();
            let second = Proxy::with_clocks(world, &format!("{namespace}-1"), second)
                .await?
                .url();
            Pod::three_at(world, namespace, [&first, &second, &first]).await?
        };
        Ok([first, second])
    }
}

/// The control plane's own electors, each in a pod, in a namespace that is guarded: kube-system is left out by the
/// manifests.
///
/// The first leads, is killed and restarted; the second takes over, ends and is restarted; the restarted first leads,
/// is killed, and the restarted second takes over. A restarted one has another identity in the same pod.
pub(crate) async fn control_plane_electors(
    world: &'static World,
    component: Component,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let namespace = component.namespace();
    let leases = world.leases(&namespace).await?;
    let before = refusals(world, guard).await?;
    let [first_pod, second_pod] = component.pods(world, &namespace).await?;
    let start = async |pod: &Pod| {
        let kubeconfig = pod.kubeconfig.display();
        let mut arguments = vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            // No port of its own.
            "--secure-port=0".to_owned(),
            "--leader-elect".to_owned(),
            format!("--leader-elect-resource-namespace={}", leases.namespace),
            format!("--leader-elect-resource-name={LEASE}"),
            "--leader-elect-lease-duration=6s".to_owned(),
            "--leader-elect-renew-deadline=4s".to_owned(),
            "--leader-elect-retry-period=1s".to_owned(),
        ];
        if component.clocks != [0, 0] {
            // What a proxy that moves times can read.
            arguments.push("--kube-api-content-type=application/json".to_owned());
        }
        arguments.extend(component.arguments.iter().map(|&argument| argument.to_owned()));
        let (program, arguments) = pod.host(world.network, world.assets.binary(component.name), arguments);
        let name = format!("{namespace}-{}", pod.name);
        Process::start(world.folder(), &name, &program, arguments).await
    };
    let holder_other_than = async |process: &Process, former: &str| {
        until("another one to hold the lease", || async {
            process.ensure_running()?;
            let reply = leases.api.get(&leases.path(LEASE)).await?;
            let holder = text(&reply.body, "/spec/holderIdentity");
            Ok((reply.code == 200 && !holder.is_empty() && holder != former).then(|| holder.to_owned()))
        })
        .await
    };

    let mut first = start(&first_pod).await?;
    let first_holder = holder_other_than(&first, "").await?;
    let mut second = start(&second_pod).await?;
    renewals(&leases, 3).await.context("the first does not renew")?;
    second.ensure_running()?;

    first.kill().await?;
    let second_holder = holder_other_than(&second, &first_holder)
        .await
        .context("after the first was killed")?;
    let mut first = start(&first_pod).await?;
    renewals(&leases, 2).await.context("the second does not renew")?;

    let status = second.terminate().await?;
    ensure!(
        // Who does not release makes no ceremony of its end.
        status.success() || !component.releases,
        "the second ended with {status}: {}",
        second.log_tail(10)
    );
    let changes = if component.releases {
        changes_after_end(&second)
    } else {
        &["create", "takeover"]
    };
    let third_holder = holder_other_than(&first, &second_holder)
        .await
        .context("after the second ended")?;
    let second = start(&second_pod).await?;
    renewals(&leases, 2)
        .await
        .context("the restarted first does not renew")?;

    first.kill().await?;
    holder_other_than(&second, &third_holder)
        .await
        .context("after the restarted first was killed")?;
    renewals(&leases, 1)
        .await
        .context("the restarted second does not renew")?;
    let lease = leases.get(LEASE).await?;
    ensure!(
        lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64) == Some(3),
        "not counted: {lease}"
    );

    let clocks = match component.clocks {
        [0, 0] => Clocks::Right,
        _ => Clocks::Skewed,
    };
    ensure_undisturbed(world, &leases, before, changes, clocks).await?;
    ensure_by_own_pods(world, &leases).await
}
