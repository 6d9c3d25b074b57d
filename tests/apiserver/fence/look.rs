//! The look at the cluster before a fence is printed.

use std::process::Output;

use anyhow::ensure;
use serde_json::json;
use tokio::process::Command;

use super::{Fenced, LEASE};
use crate::{
    Test,
    harness::{assets::Assets, schedule::Phase, world::World},
    test,
};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![test(
        Phase::InProcess,
        "fence::what_is_not_there_is_told_before_it_is_fenced",
        what_is_not_there_is_told,
    )]
}

const NAMESPACE: &str = "fence-look";

/// What `leasehold fence` says of this lease and resource, with a look.
async fn look(world: &World, lease: &str, resource: &str) -> anyhow::Result<Output> {
    let kubeconfig = world.plane().await?.admin_kubeconfig();
    let lease = format!("{NAMESPACE}/{lease}");
    let output = Command::new(Assets::leasehold())
        .args(["fence", "--lease", &lease, "--resource", resource, "--kubeconfig"])
        .arg(kubeconfig)
        .output()
        .await?;
    Ok(output)
}

async fn what_is_not_there_is_told(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::new(world, NAMESPACE, &["--resource", "ConfigMap"]).await?;
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let there = look(world, LEASE, "v1/configmaps").await?;
    ensure!(there.status.success() && said(&there).is_empty(), "{there:?}");
    let without_a_look =
        super::printed(&["--lease", "fence-look/lock", "--resource", "v1/configmaps"]).await?;
    ensure!(
        String::from_utf8(there.stdout)? == without_a_look,
        "a look changes what is printed"
    );

    for (lease, resource, words) in [
        ("nobody", "v1/configmaps", "there is no such Lease"),
        (LEASE, "v1/configmap", "serves no such resource"),
        (LEASE, "v1/configmaps/status", "serves no such resource"),
        (LEASE, "example.com/v1/ledgers", "serves no such resource"),
    ] {
        let output = look(world, lease, resource).await?;
        ensure!(
            output.status.code() == Some(1) && output.stdout.is_empty() && said(&output).contains(words),
            "{lease} {resource}: {output:?}"
        );
    }

    fenced.lease(json!({"holderIdentity": "somebody-else"})).await?;
    let surprising = look(world, LEASE, "v1/configmaps").await?;
    ensure!(
        surprising.status.success()
            && said(&surprising).contains("warning: the lease is held by \"somebody-else\", which is no pod"),
        "{surprising:?}"
    );
    Ok(())
}
