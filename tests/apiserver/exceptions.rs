//! Exceptions from the rules: an operator's hand, and overrides for some leases.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{
    Test,
    attacks::held,
    harness::{
        api::{Api, Reply},
        audit::text,
        leases::Leases,
        schedule::Phase,
        world::World,
    },
    test,
};

const LEASE: &str = "lock";
/// Longer than any of these tests takes on the slowest machine.
const VALID_SECONDS: i64 = 600;

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "exceptions::an_operator_takes_a_lease_by_hand",
            an_operator_takes_a_lease_by_hand,
        ),
        test(
            Phase::Alone(1),
            "exceptions::overrides_hold_for_labels_that_were_there_before",
            overrides_hold_for_labels_that_were_there_before,
        ),
    ]
}

/// A patch by which `to` takes the lease over early, and what it does to the metadata.
async fn take_over(api: &Api, leases: &Leases, to: &str, metadata: Value) -> anyhow::Result<Reply> {
    let lease = leases.get(LEASE).await?;
    let transitions = lease
        .pointer("/spec/leaseTransitions")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let spec = held(to, leases.api.now().await?, VALID_SECONDS, transitions + 1);
    let path = format!("{}?fieldManager=kubectl-edit", leases.path(LEASE));
    api.merge_patch(&path, &json!({"metadata": metadata, "spec": spec}))
        .await
}

fn because(reason: &str) -> Value {
    json!({"annotations": {"leasehold.dev/break-glass": reason}})
}

fn ensure_early(reply: &Reply) -> anyhow::Result<()> {
    ensure!(
        reply.code == 403 && reply.message().contains("takeover-before-expiry: "),
        "expected a denial, got {} {}",
        reply.code,
        reply.message()
    );
    Ok(())
}

async fn an_operator_takes_a_lease_by_hand(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("break-glass").await?;
    let admin = world.admin().await?;
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;

    // The annotation alone is no key.
    ensure_early(&take_over(&leases.api, &leases, "b", because("let me")).await?)?;
    let records = guard
        .audit_records(&leases.namespace, "the refusal", |record| {
            text(record, "/record") == "breakGlass" && text(record, "/breakGlass") == "refused"
        })
        .await?;
    ensure!(
        records
            .iter()
            .any(|record| text(record, "/user") == "writer" && text(record, "/breakGlassReason") == "let me"),
        "who asked and why is not said: {records:?}"
    );

    // In the hand of an operator it is a reason.
    let reply = take_over(&admin, &leases, "operator", because("node 7 is lost")).await?;
    let warnings = reply.warnings.join("\n");
    let lease = reply.accepted()?;
    ensure!(text(&lease, "/spec/holderIdentity") == "operator", "{lease}");
    for part in ["break-glass: user", "node 7 is lost", "takeover-before-expiry: "] {
        ensure!(
            warnings.contains(part),
            "the warnings do not say {part:?}: {warnings}"
        );
    }
    let records = guard
        .audit_records(&leases.namespace, "the broken glass", |record| {
            text(record, "/breakGlass") == "used"
        })
        .await?;
    let used: Vec<_> = records
        .iter()
        .filter(|record| text(record, "/breakGlass") == "used")
        .collect();
    ensure!(
        used.iter().all(|record| text(record, "/user") == "admin"
            && text(record, "/breakGlassGroup") == "system:masters"
            && text(record, "/breakGlassReason") == "node 7 is lost"),
        "who and why is not said: {used:?}"
    );

    // The annotation that was left there helps nobody else.
    ensure_early(&take_over(&leases.api, &leases, "c", json!({})).await?)?;
    // And the group alone suffices, as the default policy has it.
    let reply = take_over(&admin, &leases, "in-a-hurry", json!({})).await?;
    ensure!(
        reply
            .warnings
            .iter()
            .any(|warning| warning.contains("no reason given")),
        "{reply:?}"
    );
    reply.accepted()?;
    Ok(())
}

async fn overrides_hold_for_labels_that_were_there_before(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("overridden").await?;
    let admin = world.admin().await?;
    let document = format!(
        "{}\noverrides:\n- match: {{namespaces: [over*], labels: {{app: old-*}}}}\n  mode: audit\n",
        guard.deployed_policy()
    );
    guard.set_policy(&admin, &document).await?;
    let outcome = label_and_take_over(&leases).await;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    outcome
}

async fn label_and_take_over(leases: &Leases) -> anyhow::Result<()> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let label = json!({"labels": {"app": "old-thing"}});
    ensure_early(&take_over(&leases.api, leases, "b", label.clone()).await?)?;
    leases
        .api
        .merge_patch(&leases.path(LEASE), &json!({"metadata": label}))
        .await?
        .accepted()?;
    // Taking the label off does not undo what it was.
    let reply = take_over(&leases.api, leases, "b", json!({"labels": {"app": null}})).await?;
    ensure!(reply.warnings.is_empty(), "mode audit tells no client: {reply:?}");
    reply.accepted()?;
    ensure_early(&take_over(&leases.api, leases, "c", json!({})).await?)
}
