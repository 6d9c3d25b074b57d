//! The policy's ConfigMap, guarded at admission: a bad policy is refused before it is stored, and nobody is kept from
//! repairing one, with Leasehold alive or dead.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test,
    guard::{Guard, NAMESPACE, POLICY_CONFIG_MAP, policy_path},
    harness::{api::Api, assets::Assets, audit::text, schedule::Phase, until, world::World},
    test,
};

/// The second mistake of a hurry: the rule's name, in line 6.
const BAD: &str = "apiVersion: leasehold.dev/v1alpha1\nkind: LeasePolicy\nmode: enforce\nclockSlack: 1s\nrules:\n  takeover-before-expiri: {action: warn}\n";
const BREAK_GLASS: &str = "leasehold.dev/break-glass";

/// The tests of this file: the policy is everybody's, and one kills Leasehold.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Alone(1),
            "policy_admission::kubectl_apply_of_a_bad_policy_is_refused",
            kubectl_apply_of_a_bad_policy_is_refused,
        ),
        test(
            Phase::Alone(1),
            "policy_admission::nobody_is_kept_from_repairing_a_policy",
            nobody_is_kept_from_repairing_a_policy,
        ),
        test(
            Phase::Alone(4),
            "policy_admission::with_leasehold_dead_everything_passes",
            with_leasehold_dead_everything_passes,
        ),
    ]
}

fn config_map(document: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": POLICY_CONFIG_MAP, "namespace": NAMESPACE},
        "data": {"policy.yaml": document},
    })
}

fn file_of(world: &World, name: &str, content: &str) -> anyhow::Result<PathBuf> {
    let path = world.folder().join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

/// What `leasehold policy validate` says of the bad document, from the line on.
async fn words_of_validate(world: &World) -> anyhow::Result<String> {
    let file = file_of(world, "bad-policy.yaml", BAD)?;
    let output = Command::new(Assets::leasehold())
        .args(["policy", "validate"])
        .arg(&file)
        .output()
        .await?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr)?;
    let start = said.find("line ").with_context(|| said.clone())?;
    Ok(said[start..].trim().to_owned())
}

async fn stored(admin: &Api) -> anyhow::Result<String> {
    let stored = admin.get(&policy_path()).await?.accepted()?;
    Ok(text(&stored, "/data/policy.yaml").to_owned())
}

/// How many reviews of the policy ended so, over all replicas that run.
async fn reviews(guard: &Guard, result: &str) -> anyhow::Result<f64> {
    let metrics = guard.metrics().await?;
    Ok(metrics.sum("leasehold_policy_reviews_total", &[("result", result)]))
}

async fn kubectl_apply_of_a_bad_policy_is_refused(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    let plane = world.plane().await?;
    let before = stored(&admin).await?;
    let words = words_of_validate(world).await?;
    ensure!(
        words.starts_with("line 6, column 3"),
        "`policy validate` says: {words}"
    );
    let manifest = file_of(world, "bad-config-map.json", &config_map(BAD).to_string())?;
    let manifest = manifest.display().to_string();
    for arguments in [
        &["apply", "-f", &manifest][..],
        &["apply", "--server-side", "--force-conflicts", "-f", &manifest],
        &["apply", "--dry-run=server", "-f", &manifest],
        &["replace", "-f", &manifest],
    ] {
        let Err(refused) = plane.kubectl(arguments).await else {
            anyhow::bail!("kubectl {arguments:?} of a bad policy passes");
        };
        let said = format!("{refused:#}");
        ensure!(
            said.contains("policy.leasehold.dev") && said.contains(&words),
            "kubectl {arguments:?} does not say {words:?}: {said}"
        );
    }
    ensure!(stored(&admin).await? == before, "something was stored");
    ensure!(
        reviews(guard, "denied").await? >= 4.0,
        "the denials are not counted"
    );
    Ok(())
}

async fn nobody_is_kept_from_repairing_a_policy(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    let good = guard.deployed_policy();

    // Break-glass, with what is wrong as a warning.
    let forced = json!({
        "metadata": {"annotations": {BREAK_GLASS: "the next version knows this rule"}},
        "data": {"policy.yaml": BAD},
    });
    let reply = admin.merge_patch(&policy_path(), &forced).await?;
    let warnings = reply.warnings.join("\n");
    reply.accepted()?;
    ensure!(
        warnings.contains("break-glass: ") && warnings.contains("line 6, column 3"),
        "the warnings do not say what is wrong: {warnings}"
    );
    ensure!(reviews(guard, "excused").await? >= 1.0, "it is not counted");

    // What was stored bad may be labelled, and its other keys changed.
    let label = json!({"metadata": {"labels": {"seen-by": "somebody"}}, "data": {"notes": "see above"}});
    admin.merge_patch(&policy_path(), &label).await?.accepted()?;
    // The reason that is still there helps no other bad document.
    let worse = json!({"data": {"policy.yaml": "mode: ["}});
    ensure!(
        admin.merge_patch(&policy_path(), &worse).await?.code == 403,
        "a reason that was given before excuses the next write"
    );
    // A good one passes.
    let repaired = json!({
        "metadata": {"annotations": {BREAK_GLASS: null}, "labels": {"seen-by": null}},
        "data": {"policy.yaml": good, "notes": null},
    });
    admin.merge_patch(&policy_path(), &repaired).await?.accepted()?;

    // A bad one cannot be created either, and a deletion always passes.
    guard.force_policy(&admin, BAD).await?;
    guard.delete_policy(&admin).await?;
    let create = admin
        .post(
            &format!("/api/v1/namespaces/{NAMESPACE}/configmaps"),
            &config_map(BAD),
        )
        .await?;
    ensure!(
        create.code == 403 && create.message().contains("line 6, column 3"),
        "a bad policy is created: {} {}",
        create.code,
        create.message()
    );
    guard.create_policy(&admin).await?;

    // Other ConfigMaps are none of its business, in its own namespace or elsewhere.
    let foreign = reviews(guard, "foreign").await?;
    for (namespace, name) in [
        (NAMESPACE, "leasehold-policy-draft"),
        ("default", POLICY_CONFIG_MAP),
    ] {
        let mut other = config_map(BAD);
        other["metadata"] = json!({"name": name});
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        admin.post(&path, &other).await?.accepted()?;
        admin.delete(&format!("{path}/{name}")).await?.accepted()?;
    }
    ensure!(
        reviews(guard, "foreign").await? == foreign,
        "other ConfigMaps are sent"
    );
    guard.set_policy(&admin, good).await
}

async fn with_leasehold_dead_everything_passes(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    for replica in guard.replicas() {
        replica.kill().await?;
    }
    let outcome = edit_without_leasehold(guard, &admin).await;
    for replica in guard.replicas() {
        replica.start().await?;
    }
    outcome?;
    guard.wait_until_asked(world).await?;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    until("a bad policy to be refused again", || async {
        let path = format!("{}?dryRun=All", policy_path());
        let bad = json!({"data": {"policy.yaml": BAD}});
        Ok((admin.merge_patch(&path, &bad).await?.code == 403).then_some(()))
    })
    .await
}

/// A bad policy is stored, repaired, deleted and made anew.
async fn edit_without_leasehold(guard: &Guard, admin: &Api) -> anyhow::Result<()> {
    guard.edit_policy(admin, BAD).await.context("a bad one")?;
    guard
        .edit_policy(admin, guard.deployed_policy())
        .await
        .context("a good one")?;
    guard.delete_policy(admin).await.context("the deletion")?;
    guard.create_policy(admin).await.context("the creation")
}
