//! The control plane's own electors, kube-scheduler and kube-controller-manager: they fail over, end, restart and renew,
//! and nobody is ever denied anything.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    electors::{Clocks, LEASE, ensure_by_own_pods, ensure_undisturbed, refusals, renewals},
    harness::{audit::text, pods::Pod, process::Process, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Undisturbed,
        "control_plane_electors::kube_schedulers",
        |world| control_plane_electors(world, "kube-scheduler", &[], true),
    )]
}

/// The control plane's own electors, in a namespace that is guarded: kube-system is left out by the manifests. Each
/// `binary` is started with `more` arguments, in a pod; it `releases` its lease when it ends, or leaves it to expire.
///
/// The first leads, is killed and restarted; the second takes over, ends and is restarted; the restarted first leads,
/// is killed, and the restarted second takes over. A restarted one has another identity in the same pod.
pub(crate) async fn control_plane_electors(
    world: &'static World,
    binary: &str,
    more: &[&str],
    releases: bool,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases(binary).await?;
    let before = refusals(world, guard).await?;
    let [first_pod, second_pod, _] = Pod::three(world, binary).await?;
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
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let (program, arguments) = pod.host(world.network, world.assets.binary(binary), arguments);
        let name = format!("{binary}-{}", pod.name);
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
        status.success() || !releases,
        "the second ended with {status}: {}",
        second.log_tail(10)
    );
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

    let changes: &[&str] = if releases {
        &["create", "takeover", "release", "acquire"]
    } else {
        &["create", "takeover"]
    };
    ensure_undisturbed(world, &leases, before, changes, Clocks::Right).await?;
    ensure_by_own_pods(world, &leases).await
}
