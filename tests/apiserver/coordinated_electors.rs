//! Coordinated leader election (KEP-4355): the API server assigns the holder, from the candidates that it knows of.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    Test,
    electors::{Clocks, LEASE, ensure_undisturbed, refusals},
    guard::{Guard, OVERLAY, REGISTRATIONS},
    harness::{
        api::Api, assets::repository, audit::text, control_plane::AnotherApiServer, leases::Leases,
        process::Process, schedule::Phase, until, world::World,
    },
    manifests::from_root,
    test,
};

/// The tests of this file, on this minor version of Kubernetes where it is known.
pub(crate) fn tests(minor_version: Option<u32>) -> Vec<Test> {
    // Beta, and so of a settled form, since 1.33.
    if minor_version.is_some_and(|minor| minor < 33) {
        return Vec::new();
    }
    vec![test(
        Phase::Undisturbed,
        "coordinated_electors::by_the_api_server",
        by_the_api_server,
    )]
}

/// The candidates of kube-schedulers are always in this namespace, and their Lease with them.
const KUBE_SYSTEM: &str = "kube-system";
const SCHEDULERS_LEASE: &str = "kube-scheduler";

/// The name under which the webhook of the component `kube-system` is registered beside the others.
const REGISTRATION: &str = "leasehold-kube-system";

/// How many seconds a kube-scheduler's lease is valid once it has renewed it. The API server assigns for 5.
const RENEWED_SECONDS: i64 = 6;

/// One API server for both: only one of a cluster's API servers elects at a time.
async fn by_the_api_server(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    register_kube_system(world, guard).await?;
    // A second API server of the same cluster, so that only this test has the feature. It is ready when it knows of
    // the registrations that are there.
    let more = [
        "--feature-gates=CoordinatedLeaderElection=true",
        "--runtime-config=coordination.k8s.io/v1beta1=true",
    ];
    let name = "kube-apiserver-coordinating";
    let coordinating = world.plane().await?.another_api_server(name, &more).await?;
    let outcome = tokio::try_join!(
        async {
            kube_schedulers(world, guard, &coordinating)
                .await
                .context("kube-schedulers")
        },
        async {
            candidates_of_the_test(world, guard, &coordinating.writer)
                .await
                .context("candidates that the test makes")
        },
    );
    let admin = world.admin().await?;
    admin
        .delete(&format!("{REGISTRATIONS}/{REGISTRATION}"))
        .await?
        .accepted()?;
    outcome.map(|_| ())
}

/// Registers what the component `kube-system` does, in a registration apart: that of Leasehold is for all tests.
async fn register_kube_system(world: &World, guard: &Guard) -> anyhow::Result<()> {
    let plane = world.plane().await?;
    let admin = plane.admin()?;
    let folder = world.folder().join(REGISTRATION);
    std::fs::create_dir_all(&folder)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&folder, &repository(OVERLAY))],
        "components": [from_root(&folder, &repository("manifests/components/kube-system"))],
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let rendered = plane
        .kubectl(&["kustomize", &folder.display().to_string()])
        .await?;
    // By whichever name it is registered: see `harness/network.rs`.
    let registered = admin.get(REGISTRATIONS).await?.accepted()?;
    let client_config = registered
        .pointer("/items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|registration| registration.pointer("/webhooks/0"))
        .find(|webhook| text(webhook, "/name") == guard.webhook)
        .and_then(|webhook| webhook.pointer("/clientConfig"))
        .context("Leasehold is not registered")?;
    for document in rendered.split("\n---\n") {
        let document: Value = serde_saphyr::from_str(document)?;
        let Some(webhooks) = document.pointer("/webhooks").and_then(Value::as_array) else {
            continue;
        };
        let mut webhook = webhooks
            .iter()
            .find(|webhook| text(webhook, "/name").starts_with(KUBE_SYSTEM))
            .context("the component registers no webhook for kube-system")?
            .clone();
        webhook["clientConfig"] = client_config.clone();
        let registration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": REGISTRATION},
            "webhooks": [webhook],
        });
        admin.post(REGISTRATIONS, &registration).await?.accepted()?;
        return Ok(());
    }
    anyhow::bail!("the component registers no webhooks")
}

/// Whether a line of the audit log tells that the API server itself assigned the lease.
fn assigned(change: &str, holder: &str) -> impl Fn(&Value) -> bool {
    move |record| {
        text(record, "/record") == "holderChange"
            && text(record, "/change") == change
            && text(record, "/newHolder") == holder
            && text(record, "/user") == "system:apiserver"
            && text(record, "/profile") == "coordinated-leader-election"
    }
}

/// Real kube-schedulers. The first leads and is killed, and the API server assigns the lease to the second; a third
/// of an older emulation version comes, which the API server prefers: it has the second give up, and assigns the
/// lease again.
async fn kube_schedulers(
    world: &World,
    guard: &Guard,
    coordinating: &AnotherApiServer,
) -> anyhow::Result<()> {
    let leases = Leases {
        api: coordinating.writer.clone(),
        namespace: KUBE_SYSTEM.to_owned(),
    };
    let before = refusals(world, guard).await?;
    let start = async |number: u8, more: &[&str]| start(world, &coordinating.kubeconfig, number, more).await;
    // Whom the API server assigns the lease, and who has renewed it since: an elector that takes itself for the holder.
    let leader_other_than = async |process: &Process, former: &str| {
        until("another kube-scheduler to lead", || async {
            process.ensure_running()?;
            let reply = leases.api.get(&leases.path(SCHEDULERS_LEASE)).await?;
            let holder = text(&reply.body, "/spec/holderIdentity");
            let renewed = reply
                .body
                .pointer("/spec/leaseDurationSeconds")
                .and_then(Value::as_i64)
                == Some(RENEWED_SECONDS);
            Ok((renewed && !holder.is_empty() && holder != former).then(|| holder.to_owned()))
        })
        .await
    };
    let seen = async |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        guard
            .audit_records(KUBE_SYSTEM, what, |record| {
                text(record, "/name") == SCHEDULERS_LEASE && wanted(record)
            })
            .await
    };

    let mut first = start(1, &[]).await?;
    let first_holder = leader_other_than(&first, "").await?;
    seen("the first assignment", &assigned("create", &first_holder)).await?;
    let mut second = start(2, &[]).await?;
    until("the API server to know two candidates", || async {
        second.ensure_running()?;
        let path = format!("/apis/coordination.k8s.io/v1beta1/namespaces/{KUBE_SYSTEM}/leasecandidates");
        let candidates = leases.api.get(&path).await?.accepted()?;
        let known = candidates.pointer("/items").and_then(Value::as_array);
        Ok((known.map_or(0, Vec::len) == 2).then_some(()))
    })
    .await?;

    first.kill().await?;
    let second_holder = leader_other_than(&second, &first_holder)
        .await
        .context("after the first was killed")?;
    seen("the assigned takeover", &assigned("takeover", &second_holder)).await?;

    let mut third = start(3, &["--emulated-version=1.35"]).await?;
    let third_holder = leader_other_than(&third, &second_holder)
        .await
        .context("after a preferred candidate came")?;
    seen("the second's release", &|record| {
        text(record, "/change") == "release" && text(record, "/oldHolder") == second_holder
    })
    .await?;
    seen("the assignment after it", &assigned("acquire", &third_holder)).await?;
    // One that lost its lease ends.
    second.wait().await?;
    let status = third.terminate().await?;
    ensure!(
        status.success(),
        "the third ended with {status}: {}",
        third.log_tail(10)
    );
    ensure_undisturbed(
        world,
        &leases,
        before,
        &["create", "takeover", "release", "acquire"],
        Clocks::Right,
    )
    .await
}

/// Starts a kube-scheduler that leaves it to the API server who leads.
async fn start(world: &World, kubeconfig: &Path, number: u8, more: &[&str]) -> anyhow::Result<Process> {
    let kubeconfig = kubeconfig.display();
    let mut arguments = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        // No port of its own.
        "--secure-port=0".to_owned(),
        "--feature-gates=CoordinatedLeaderElection=true".to_owned(),
        "--leader-elect".to_owned(),
        format!("--leader-elect-lease-duration={RENEWED_SECONDS}s"),
        "--leader-elect-renew-deadline=4s".to_owned(),
        "--leader-elect-retry-period=1s".to_owned(),
    ];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let name = format!("coordinated-kube-scheduler-{number}");
    Process::start(
        world.folder(),
        &name,
        &world.assets.binary("kube-scheduler"),
        arguments,
    )
    .await
}

/// In a namespace that the base registration guards, for a lease that no component of the control plane knows. The
/// holder is one that never renews, and that is a candidate no more when its lease expires.
async fn candidates_of_the_test(world: &World, guard: &Guard, coordinating: &Api) -> anyhow::Result<()> {
    let leases = world.leases("coordinated").await?;
    let before = refusals(world, guard).await?;
    let candidates = format!(
        "/apis/coordination.k8s.io/v1beta1/namespaces/{}/leasecandidates",
        leases.namespace
    );
    let candidate = async |name: &str, emulation_version: &str| -> anyhow::Result<()> {
        let now = coordinating.now().await?;
        let candidate = json!({
            "apiVersion": "coordination.k8s.io/v1beta1",
            "kind": "LeaseCandidate",
            "metadata": {"name": name},
            "spec": {
                "leaseName": LEASE,
                "binaryVersion": "1.36.0",
                "emulationVersion": emulation_version,
                "strategy": "OldestEmulationVersion",
                "renewTime": format!("{now:.6}"),
            },
        });
        coordinating.post(&candidates, &candidate).await?.accepted()?;
        Ok(())
    };
    let holder = async || -> anyhow::Result<(String, Value)> {
        let reply = coordinating.get(&leases.path(LEASE)).await?;
        Ok((text(&reply.body, "/spec/holderIdentity").to_owned(), reply.body))
    };
    // A candidate answers when the API server asks whether it is there.
    let answer_ping = async |name: &str| -> anyhow::Result<()> {
        let path = format!("{candidates}/{name}");
        let candidate = coordinating.get(&path).await?.accepted()?;
        if text(&candidate, "/spec/pingTime") > text(&candidate, "/spec/renewTime") {
            let now = jiff::Timestamp::now();
            coordinating
                .merge_patch(&path, &json!({"spec": {"renewTime": format!("{now:.6}")}}))
                .await?
                .accepted()?;
        }
        Ok(())
    };

    candidate("one", "1.36.0").await?;
    let first = until("the API server to elect the only candidate", || async {
        answer_ping("one").await?;
        let (holder, lease) = holder().await?;
        Ok((holder == "one").then_some(lease))
    })
    .await?;
    ensure!(
        !text(&first, "/spec/strategy").is_empty(),
        "the lease has no strategy: {first}"
    );

    // The holder renews no more, and is a candidate no more.
    coordinating
        .delete(&format!("{candidates}/one"))
        .await?
        .accepted()?;
    candidate("two", "1.36.0").await?;
    let second = until("the API server to elect another one after expiry", || async {
        answer_ping("two").await?;
        let (holder, lease) = holder().await?;
        Ok((holder == "two").then_some(lease))
    })
    .await?;
    let transitions = |lease: &Value| {
        lease
            .pointer("/spec/leaseTransitions")
            .cloned()
            .unwrap_or_default()
    };
    ensure!(
        transitions(&first) == transitions(&second),
        "the API server counts terms now: {first} {second}"
    );

    let by_api_server = |record: &Value| text(record, "/user") == "system:apiserver";
    guard
        .audit_records(&leases.namespace, "the API server's own writes", by_api_server)
        .await?;
    ensure_undisturbed(world, &leases, before, &["create", "takeover"], Clocks::Right).await
}
