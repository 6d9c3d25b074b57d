//! What a fence has the Lease from: the API server's own copy, which it stops to keep when the last policy with Leases
//! for parameters is gone. Observed, on a cluster of the test's own.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{config_map, delete_objects, post_objects};
use crate::{
    Test,
    attacks::held,
    harness::{api::Api, audit::text, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![test(
        Phase::InProcess,
        "fence::the_anchor_keeps_the_copy_of_the_lease_fresh",
        the_anchor_keeps_the_copy_fresh,
    )]
}

const CLUSTER: &str = "fence-parameters";
const NAMESPACE: &str = "shop";

async fn the_anchor_keeps_the_copy_fresh(world: &'static World) -> anyhow::Result<()> {
    let plane = world.plane().await?;
    let (process, api) = plane.another_cluster(CLUSTER).await?;
    api.create_namespace(NAMESPACE, json!({})).await?;
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "payments"},
        "spec": held("first", api.now().await?, 600, 0),
    });
    api.post(&leases, &lease).await?.accepted()?;
    // Nobody breaks glass, so that the administrator is told who holds the lease, by the API server's copy.
    let policy = world.folder().join("fence-parameters-policy.yaml");
    std::fs::write(&policy, "breakGlass: {groups: []}\n")?;
    let policy = policy.to_str().context("the folder's name is not text")?;
    let fence = [
        "--lease",
        "shop/payments",
        "--resource",
        "v1/configmaps",
        "--mode",
        "enforce",
        "--policy-file",
        policy,
    ];
    let held_by = async |api: &Api, holder: &str| -> anyhow::Result<Value> {
        let path = format!("{leases}/payments");
        api.merge_patch(&path, &json!({"spec": {"holderIdentity": holder}}))
            .await?
            .accepted()
    };

    // With the anchor, a fence may come and go.
    post_objects(&api, &["--anchor"]).await?;
    post_objects(&api, &fence).await?;
    until_copy_says(&api, "first").await?;
    delete_objects(&api, &fence).await?;
    until_off(&api).await?;
    held_by(&api, "second").await?;
    post_objects(&api, &fence).await?;
    until_copy_says(&api, "second").await?;
    held_by(&api, "third").await?;
    until_copy_says(&api, "third").await?;

    // Without it, the copy stands still once the last fence is gone.
    delete_objects(&api, &["--anchor"]).await?;
    delete_objects(&api, &fence).await?;
    until_off(&api).await?;
    held_by(&api, "fourth").await?;
    post_objects(&api, &fence).await?;
    let seen = until("the fence to be on again", || async { copy_says(&api).await }).await?;
    ensure!(
        seen == "third",
        "the copy moved on to {seen:?}; what is said of the anchor is out of date"
    );
    held_by(&api, "fifth").await?;
    api.after_second(api.now().await?).await?;
    let seen = copy_says(&api).await?;
    ensure!(seen.as_deref() == Some("third"), "the copy moved on to {seen:?}");
    // Nor does the anchor help afterwards: the API server must start anew.
    post_objects(&api, &["--anchor"]).await?;
    api.after_second(api.now().await?).await?;
    let seen = copy_says(&api).await?;
    ensure!(seen.as_deref() == Some("third"), "the copy moved on to {seen:?}");
    drop(process);
    let (_process, api) = plane.another_cluster(CLUSTER).await?;
    until_copy_says(&api, "fifth").await
}

/// Who holds the lease, by the API server's copy; `None` while the fence is off.
async fn copy_says(api: &Api) -> anyhow::Result<Option<String>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?dryRun=All");
    let reply = api.post(&path, &config_map("probe")).await?;
    let told = reply
        .message()
        .split_once("does not hold lease shop/payments, \"");
    let holder = told.and_then(|(_, rest)| rest.split_once("\" does,"));
    Ok(holder.map(|(holder, _)| holder.to_owned()))
}

async fn until_copy_says(api: &Api, holder: &str) -> anyhow::Result<()> {
    until(&format!("the API server to see {holder:?}"), || async {
        Ok((copy_says(api).await?.as_deref() == Some(holder)).then_some(()))
    })
    .await
}

async fn until_off(api: &Api) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?dryRun=All");
    until("the fence to be off", || async {
        let reply = api.post(&path, &config_map("probe")).await?;
        ensure!(
            reply.code < 300 || reply.code == 403,
            "{} {}",
            reply.code,
            text(&reply.body, "/message")
        );
        Ok((reply.code < 300).then_some(()))
    })
    .await
}
