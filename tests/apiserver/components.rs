//! The components of `manifests/components`: valid alone and combined, and each write judged by one webhook.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test,
    attacks::held,
    guard::{Guard, REGISTRATIONS},
    harness::{
        assets::repository,
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        until,
        world::World,
    },
    manifests::{from_root, validate_all},
    test,
};

const COMPONENTS: [&str; 4] = ["watch-full", "fail-closed", "annotation-locks", "kube-system"];
const BASE: &str = "leases.leasehold.dev";
const POLICY: &str = "policy.leasehold.dev";
const RENEWALS: &str = "renewals.leases.leasehold.dev";
const CLOSED: &str = "closed.leases.leasehold.dev";
const KUBE_SYSTEM: &str = "kube-system.leases.leasehold.dev";

/// The tests of this file. Those that change the registration have it to themselves.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "components::valid_alone_and_combined_in_any_order",
            valid_alone_and_combined_in_any_order,
        ),
        test(
            Phase::Alone(5),
            "components::each_write_is_for_one_webhook",
            each_write_is_for_one_webhook,
        ),
    ]
}

/// Writes an overlay of the enforcing overlay and some components, has the API server judge all of it, and gives the
/// webhooks.
async fn webhooks_with(world: &World, name: &str, components: &[&str]) -> anyhow::Result<Vec<Value>> {
    let folder = world.folder().join(format!("components-{name}"));
    let by_hand = folder.join("by-hand");
    std::fs::create_dir_all(&folder)?;
    let script = repository("certs/make-certs.sh");
    let made = Command::new(&script)
        .arg("--output")
        .arg(&by_hand)
        .output()
        .await?;
    ensure!(
        made.status.success(),
        "{} --output failed: {}",
        script.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    let mut paths: Vec<String> = components
        .iter()
        .map(|component| from_root(&folder, &repository(&format!("manifests/components/{component}"))))
        .collect();
    paths.push(from_root(&folder, &by_hand));
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&folder, &repository("manifests/overlays/enforce"))],
        "components": paths,
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let documents = validate_all(world, &folder).await?;
    let registration = documents
        .iter()
        .find(|document| text(document, "/kind") == "ValidatingWebhookConfiguration")
        .context("no registration is rendered")?;
    let webhooks = registration
        .pointer("/webhooks")
        .and_then(Value::as_array)
        .context("the registration has no webhooks")?;
    Ok(webhooks.clone())
}

async fn valid_alone_and_combined_in_any_order(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    // The base's own: for Leases, and for the policy.
    let mut expected = 2;
    for component in COMPONENTS {
        let webhooks = webhooks_with(world, component, &[component]).await?;
        ensure!(
            webhooks.len() == 3,
            "{component} alone registers {} webhooks",
            webhooks.len()
        );
        expected += 1;
    }
    let mut reversed = COMPONENTS;
    reversed.reverse();
    let by_name = |webhooks: Vec<Value>| -> BTreeMap<String, Value> {
        webhooks
            .into_iter()
            .map(|mut webhook| {
                // Each rendering has a certificate of its own.
                let bundle = webhook.pointer_mut("/clientConfig/caBundle").map(Value::take);
                let trusted =
                    bundle.is_some_and(|bundle| bundle.as_str().is_some_and(|text| !text.is_empty()));
                (format!("{} trusted: {trusted}", text(&webhook, "/name")), webhook)
            })
            .collect()
    };
    let combined = by_name(webhooks_with(world, "all", &COMPONENTS).await?);
    ensure!(
        combined.len() == expected && combined.keys().all(|name| name.ends_with("trusted: true")),
        "all combined register {:?}",
        combined.keys()
    );
    ensure!(
        combined == by_name(webhooks_with(world, "all-reversed", &reversed).await?),
        "the order of the components matters"
    );

    let of = |name: &str| &combined[&format!("{name} trusted: true")];
    for (name, webhook) in &combined {
        let path = if name.starts_with(POLICY) {
            "/validate-policy"
        } else {
            "/validate"
        };
        ensure!(
            text(webhook, "/clientConfig/service/path") == path,
            "{name} calls another service: {webhook}"
        );
        let policy = if name.starts_with("closed.") {
            "Fail"
        } else {
            "Ignore"
        };
        ensure!(text(webhook, "/failurePolicy") == policy, "{name}: not {policy}");
    }
    for name in [CLOSED, KUBE_SYSTEM] {
        ensure!(
            of(name).pointer("/rules") == of(BASE).pointer("/rules")
                && of(name).pointer("/matchConditions") == of(BASE).pointer("/matchConditions"),
            "{name} is sent other writes than the base"
        );
    }
    // What the base leaves in the API server, and nothing else.
    let condition = |name: &str| text(of(name), "/matchConditions/0/expression").to_owned();
    ensure!(
        condition(RENEWALS) == format!("!({})", condition(BASE)),
        "watch-full does not send what the base leaves: {}",
        condition(RENEWALS)
    );
    Ok(())
}

fn registration() -> String {
    format!("{REGISTRATIONS}/leasehold")
}

/// Registers the base and all components, calling what the deployed registration calls; gives the webhooks that were
/// there, for [`restore`].
pub(crate) async fn register_all(world: &World) -> anyhow::Result<Value> {
    let admin = world.admin().await?;
    let deployed = admin.get(&registration()).await?.accepted()?;
    let before = deployed.pointer("/webhooks").context("no webhooks")?.clone();
    let client_config = before.pointer("/0/clientConfig").context("no clientConfig")?;
    let mut webhooks = webhooks_with(world, "registered", &COMPONENTS).await?;
    for webhook in webhooks
        .iter_mut()
        .filter(|webhook| text(webhook, "/name") != POLICY)
    {
        *webhook.pointer_mut("/clientConfig").context("no clientConfig")? = client_config.clone();
    }
    restore(world, &Value::from(webhooks)).await?;
    Ok(before)
}

pub(crate) async fn restore(world: &World, webhooks: &Value) -> anyhow::Result<()> {
    let patch = json!({"webhooks": webhooks});
    world
        .admin()
        .await?
        .merge_patch(&registration(), &patch)
        .await?
        .accepted()?;
    Ok(())
}

/// How often the API server called each webhook. One write may count more than once: see `renewals.rs`.
async fn calls(world: &World) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let metrics = world.plane().await?.metrics().await?;
    Ok([BASE, RENEWALS, CLOSED, KUBE_SYSTEM]
        .into_iter()
        .map(|name| {
            let calls = metrics.sum("apiserver_admission_webhook_request_total", &[("name", name)]);
            (name, calls)
        })
        .collect())
}

/// The webhooks that a write is sent to.
async fn called_by(
    world: &World,
    write: impl AsyncFnOnce() -> anyhow::Result<u16>,
) -> anyhow::Result<(u16, Vec<&'static str>)> {
    let before = calls(world).await?;
    let code = write().await?;
    let after = calls(world).await?;
    let called = after
        .into_iter()
        .filter(|(name, count)| *count > before[name])
        .map(|(name, _)| name)
        .collect();
    Ok((code, called))
}

/// A renewal: any other time is one.
async fn renew(leases: &Leases, name: &str, millisecond: u32) -> anyhow::Result<u16> {
    let spec = json!({"renewTime": format!("2026-01-01T00:00:00.{millisecond:03}000Z")});
    Ok(leases
        .edit(Verb::MergePatch, name, &Edit::spec("a", spec))
        .await?
        .code)
}

/// A takeover that comes too early for every policy of these tests.
async fn take_over(leases: &Leases, name: &str) -> anyhow::Result<u16> {
    let now = leases.api.now().await?;
    let edit = Edit::spec("b", held("b", now, 600, 1)).dry();
    Ok(leases.edit(Verb::MergePatch, name, &edit).await?.code)
}

/// A namespace, what its labels call for, and a lease in it.
struct Place {
    leases: Leases,
    judged_by: &'static str,
    renewals: &'static [&'static str],
    /// What a takeover gets while Leasehold is dead.
    dead: u16,
}

async fn each_write_is_for_one_webhook(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let full = ("leasehold.dev/watch", "full");
    let closed = ("leasehold.dev/failure", "closed");
    let mut places = Vec::new();
    for (name, labels, judged_by, renewals, dead) in [
        ("components-plain", vec![], BASE, &[][..], 200),
        ("components-full", vec![full], BASE, &[RENEWALS], 200),
        ("components-closed", vec![closed], CLOSED, &[], 500),
        ("components-both", vec![full, closed], CLOSED, &[RENEWALS], 500),
    ] {
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        places.push(Place {
            leases: world.leases_with_labels(name, json!(labels)).await?,
            judged_by,
            renewals,
            dead,
        });
    }
    // Whatever its labels, kube-system is lean and open.
    let admin = world.admin().await?;
    let labels = json!({"metadata": {"labels": {full.0: full.1, closed.0: closed.1}}});
    admin
        .merge_patch("/api/v1/namespaces/kube-system", &labels)
        .await?
        .accepted()?;
    places.push(Place {
        leases: Leases {
            api: world.plane().await?.writer()?,
            namespace: "kube-system".to_owned(),
        },
        judged_by: KUBE_SYSTEM,
        renewals: &[],
        dead: 200,
    });

    let before = register_all(world).await?;
    let outcome = judge_places(world, guard, &places).await;
    restore(world, &before).await?;
    outcome
}

async fn judge_places(world: &World, guard: &Guard, places: &[Place]) -> anyhow::Result<()> {
    const LEASE: &str = "components-lock";
    for place in places {
        let leases = &place.leases;
        let namespace = &leases.namespace;
        // The API server learns of registrations and labels by a watch, in its own time.
        until("the API server to know the components", || async {
            let probe = json!({"holderIdentity": "probe", "leaseDurationSeconds": 1});
            let (code, called) = called_by(world, async || {
                Ok(leases
                    .create("components-probe", "probe", probe.clone())
                    .await?
                    .code)
            })
            .await?;
            if code < 300 {
                leases.delete("components-probe").await?;
            }
            Ok((code == 403 && called == [place.judged_by]).then_some(()))
        })
        .await
        .with_context(|| namespace.clone())?;

        let now = leases.api.now().await?;
        let (code, called) = called_by(world, async || {
            Ok(leases.create(LEASE, "a", held("a", now, 600, 0)).await?.code)
        })
        .await?;
        ensure!(
            (code, called.as_slice()) == (201, &[place.judged_by]),
            "{namespace}: a create got {code} and was sent to {called:?}"
        );
        for number in 0..3 {
            let (code, called) = called_by(world, async || renew(leases, LEASE, number).await).await?;
            ensure!(
                (code, called.as_slice()) == (200, place.renewals),
                "{namespace}: a renewal got {code} and was sent to {called:?}"
            );
        }
        let (code, called) = called_by(world, async || take_over(leases, LEASE).await).await?;
        ensure!(
            (code, called.as_slice()) == (403, &[place.judged_by]),
            "{namespace}: an early takeover got {code} and was sent to {called:?}"
        );
    }

    for replica in guard.replicas() {
        replica.kill().await?;
    }
    let mut wrong = Vec::new();
    for place in places {
        let got = (
            renew(&place.leases, LEASE, 9).await?,
            take_over(&place.leases, LEASE).await?,
        );
        if got != (200, place.dead) {
            wrong.push(format!(
                "{}: renewal and takeover got {got:?}",
                place.leases.namespace
            ));
        }
    }
    for replica in guard.replicas() {
        replica.start().await?;
    }
    guard.wait_until_asked(world).await?;
    ensure!(wrong.is_empty(), "while Leasehold was dead: {wrong:?}");
    for place in places {
        place.leases.delete(LEASE).await?.accepted()?;
    }
    Ok(())
}
