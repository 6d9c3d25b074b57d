//! The exported policy beside the webhook: which half refuses, and what each one tells of it. What is asserted here is
//! written down in `docs/in-process.md`.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{guarded_leases, install};
use crate::{
    Test,
    attacks::{LEASE, VALID_SECONDS, held},
    guard::Guard,
    harness::{
        assets::repository,
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        world::World,
    },
    manifests::{from_root, validate_all},
    test,
};

const WHICH: &str = "beside";

pub(super) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Alone(0),
            "in_process::the_component_is_valid_alone_and_beside_the_webhook",
            the_component_is_valid,
        ),
        test(
            Phase::Alone(0),
            "in_process::beside_the_webhook_each_refusal_is_told_once",
            each_refusal_is_told_once,
        ),
    ]
}

async fn the_component_is_valid(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let component = repository("manifests/components/in-process");
    let alone = validate_all(world, &component).await?;
    ensure!(
        alone.len() == 2,
        "one policy and its binding, not {} documents",
        alone.len()
    );
    let folder = world.folder().join("in-process");
    std::fs::create_dir_all(&folder)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&folder, &repository("manifests/overlays/enforce"))],
        "components": [from_root(&folder, &component)],
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let beside = validate_all(world, &folder).await?;
    ensure!(
        alone.iter().all(|document| beside.contains(document)),
        "the component differs beside the webhook"
    );
    Ok(())
}

/// What Leasehold's audit log holds of one lease.
fn records<'a>(all: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |record| text(record, "/name") == name)
}

/// The API server's audit events of refused writes to one lease.
async fn refused(world: &World, leases: &Leases, name: &str) -> anyhow::Result<Vec<Value>> {
    let audit = world.plane().await?.audit()?;
    Ok(audit
        .lease_writes(&leases.namespace)
        .filter(|event| {
            text(event, "/objectRef/name") == name
                && event.pointer("/responseStatus/code").and_then(Value::as_u64) == Some(403)
        })
        .cloned()
        .collect())
}

/// How often the policy denied, by the API server's own metric.
async fn policy_denials(world: &World) -> anyhow::Result<f64> {
    let labels = [
        ("policy", "beside.deny.leases.leasehold.dev"),
        ("enforcement_action", "deny"),
    ];
    let metrics = world.plane().await?.metrics().await?;
    Ok(metrics.sum("apiserver_validating_admission_policy_check_total", &labels))
}

async fn each_refusal_is_told_once(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    install(world, WHICH, "", false).await?;
    let leases = guarded_leases(world, WHICH, "in-process-beside").await?;
    the_policy_refuses_first(world, guard, &leases).await?;
    the_webhook_refuses_the_rest(world, guard, &leases).await?;
    both_warn(guard, &leases).await
}

/// What both could refuse never reaches the webhook.
async fn the_policy_refuses_first(world: &World, guard: &Guard, leases: &Leases) -> anyhow::Result<()> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let denials = policy_denials(world).await?;
    let reply = leases
        .edit(
            Verb::Put,
            LEASE,
            &Edit::spec("b", held("b", now, VALID_SECONDS, 1)),
        )
        .await?;
    ensure!(
        reply.code == 403
            && reply
                .message()
                .contains("ValidatingAdmissionPolicy 'beside.deny.leases"),
        "{} {}",
        reply.code,
        reply.message()
    );
    ensure!(
        policy_denials(world).await? > denials,
        "the API server's metric does not count the policy's refusal"
    );
    // A later write that the webhook does see: by then it would have told of the earlier one.
    leases
        .edit(Verb::Put, LEASE, &Edit::spec("a", json!({"holderIdentity": ""})))
        .await?
        .accepted()?;
    let all = guard
        .audit_records(&leases.namespace, "the release", |record| {
            text(record, "/change") == "release"
        })
        .await?;
    let told: Vec<_> = records(&all, LEASE)
        .filter(|record| text(record, "/change") == "takeover")
        .collect();
    ensure!(
        told.is_empty(),
        "Leasehold tells of what it was not asked: {told:?}"
    );
    let events = refused(world, leases, LEASE).await?;
    let [event] = events.as_slice() else {
        anyhow::bail!("one refusal, not {}", events.len());
    };
    let annotations = event
        .pointer("/annotations")
        .and_then(Value::as_object)
        .context("no annotations")?;
    let told_by = |key: &str| annotations.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!(
        told_by("beside.advice.leases.leasehold.dev/takeover-before-expiry")
            .starts_with("denied: \"b\" may not"),
        "{annotations:?}"
    );
    ensure!(
        !annotations.keys().any(|key| key.starts_with(&guard.webhook)),
        "the webhook was asked: {annotations:?}"
    );
    Ok(())
}

/// What CEL cannot hold is the webhook's, and told by it alone.
async fn the_webhook_refuses_the_rest(world: &World, guard: &Guard, leases: &Leases) -> anyhow::Result<()> {
    const BLIND: &str = "blind";
    let now = leases.api.now().await?;
    // Empty at first, and filled by a PUT: no stamp comes about, then or later.
    leases.create(BLIND, "a", json!({})).await?.accepted()?;
    let fill = Edit::spec("a", held("a", now, VALID_SECONDS, 0));
    leases.edit(Verb::Put, BLIND, &fill).await?.accepted()?;
    let takeover = Edit::spec("b", held("b", now, VALID_SECONDS, 1));
    let reply = leases.edit(Verb::Put, BLIND, &takeover).await?;
    ensure!(
        reply.code == 403
            && reply.message().contains(&format!(
                "admission webhook \"{}\" denied the request: takeover-before",
                guard.webhook
            )),
        "{} {}",
        reply.code,
        reply.message()
    );
    let all = guard
        .audit_records(&leases.namespace, "the denial", |record| {
            text(record, "/name") == BLIND && text(record, "/decision") == "denied"
        })
        .await?;
    ensure!(
        records(&all, BLIND)
            .filter(|record| text(record, "/decision") == "denied")
            .count()
            == 1,
        "{all:?}"
    );
    let events = refused(world, leases, BLIND).await?;
    let annotations: Vec<_> = events
        .iter()
        .filter_map(|event| event.pointer("/annotations")?.as_object())
        .flatten()
        .collect();
    let webhook = format!("{}/takeover-before-expiry", guard.webhook);
    ensure!(
        annotations.iter().any(|(key, _)| **key == webhook)
            && !annotations.iter().any(|(key, value)| {
                key.starts_with("beside.")
                    && value.as_str().is_some_and(|value| value.starts_with("denied: "))
            }),
        "{annotations:?}"
    );
    Ok(())
}

/// What passes is judged by both: a client is warned twice, in the same words, and Leasehold's records are its own.
async fn both_warn(guard: &Guard, leases: &Leases) -> anyhow::Result<()> {
    const WARNED: &str = "warned";
    let now = leases.api.now().await?;
    leases
        .create(WARNED, "a", held("a", now, VALID_SECONDS, 3))
        .await?
        .accepted()?;
    let reply = leases
        .edit(
            Verb::Put,
            WARNED,
            &Edit::spec("a", json!({"leaseTransitions": 2})),
        )
        .await?;
    let words = "transition-miscounted: \\\"a\\\" keeps lease in-process-beside/warned and moves leaseTransitions from 3 to 2";
    let warnings: Vec<_> = reply
        .warnings
        .iter()
        .filter(|warning| warning.contains(words))
        .collect();
    ensure!(
        warnings.len() == 2
            && warnings
                .iter()
                .filter(|warning| warning.contains("ValidatingAdmissionPolicy"))
                .count()
                == 1,
        "{:?}",
        reply.warnings
    );
    reply.accepted()?;
    let all = guard
        .audit_records(&leases.namespace, "the warning", |record| {
            text(record, "/name") == WARNED && text(record, "/decision") == "warned"
        })
        .await?;
    ensure!(
        records(&all, WARNED)
            .filter(|record| text(record, "/decision") == "warned")
            .count()
            == 1,
        "{all:?}"
    );
    Ok(())
}
