//! Policies that the API server takes from its own disk (KEP-5793): there from its first request on, and out of reach of
//! everybody who has only its API.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::process::Command;

use super::POLICIES;
use crate::{
    Test,
    attacks::{LEASE, VALID_SECONDS, held},
    harness::{
        PATIENCE, POLL,
        api::{Api, Reply},
        assets::Assets,
        leases::{Edit, Leases, Verb},
        samples::Samples,
        schedule::Phase,
        until,
        world::World,
    },
    test,
};

/// The minor version from which on an API server reads such files without being asked by a feature gate.
const SINCE: u32 = 37;

/// The API server's count of its attempts to read the files anew.
const RELOADS: &str = "apiserver_manifest_admission_config_controller_automatic_reloads_total";

const POLICY: &str = "deny.leases.leasehold.dev.static.k8s.io";

/// How often the API server looks for changes that its kernel did not report
/// (`k8s.io/apiserver/pkg/admission/plugin/policy/manifest/source`: `defaultReloadInterval`).
const RELOAD: Duration = Duration::from_secs(60);

/// The tests of this file, on this minor version of Kubernetes where it is known.
pub(super) fn tests(minor_version: Option<u32>) -> Vec<Test> {
    if minor_version.is_some_and(|minor| minor < SINCE) {
        return Vec::new();
    }
    vec![test(
        Phase::InProcess,
        "in_process::from_files_it_guards_from_the_first_request_and_cannot_be_deleted",
        from_files,
    )]
}

/// `leasehold export vap --static`, of this policy.
async fn export(folder: &Path, document: &str) -> anyhow::Result<()> {
    let policy = folder.with_extension("policy.yaml");
    std::fs::write(&policy, document)?;
    let output = Command::new(Assets::leasehold())
        .args(["export", "vap", "--policy-file"])
        .arg(&policy)
        .arg("--static")
        .arg(folder)
        .arg("--host-folder")
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn from_files(world: &'static World) -> anyhow::Result<()> {
    let folder = world.folder().join("static");
    export(&folder, "mode: enforce\n").await?;
    let configuration = format!(
        "--admission-control-config-file={}",
        folder.join("admission.yaml").display()
    );
    let cluster = world
        .plane()
        .await?
        .another_cluster_with("static", &[&configuration])
        .await?;
    // Nobody has applied a policy, nor sees one.
    let listed = cluster.admin.get(POLICIES).await?.accepted()?;
    ensure!(listed["items"] == json!([]), "{listed}");
    let leases = Leases {
        api: cluster.writer.clone(),
        namespace: "kube-system".to_owned(),
    };
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    ensure_refused(&take(&leases).await?)?;

    // Its name is out of reach, for a member of system:masters as for everybody.
    nobody_changes_it(&cluster.admin).await?;
    ensure_refused(&take(&leases).await?)?;

    // A file that cannot be read changes nothing.
    std::fs::write(folder.join("policies/broken.yaml"), "kind: [")?;
    until("the API server to read the broken file", || async {
        let reply = cluster.admin.get("/metrics").await?;
        let metrics = Samples::parse(reply.body.as_str().context("the metrics are not text")?);
        let failures = metrics.sum(RELOADS, &[("status", "failure")]);
        Ok((failures > 0.0).then_some(()))
    })
    .await?;
    ensure_refused(&take(&leases).await?)?;
    std::fs::remove_file(folder.join("policies/broken.yaml"))?;

    // Who has the disk has the policy.
    let exempt = "overrides: [{match: {namespaces: [kube-system]}, mode: audit}]\n";
    export(&folder, exempt).await?;
    let taken = async {
        loop {
            let reply = take(&leases).await?;
            if reply.code == 200 {
                return anyhow::Ok(());
            }
            ensure_refused(&reply)?;
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(RELOAD + PATIENCE, taken)
        .await
        .context("the API server does not read the changed file")?
}

async fn take(leases: &Leases) -> anyhow::Result<Reply> {
    let now = leases.api.now().await?;
    let takeover = Edit::spec("b", held("b", now, VALID_SECONDS, 1));
    leases.edit(Verb::Put, LEASE, &takeover).await
}

fn ensure_refused(reply: &Reply) -> anyhow::Result<()> {
    let told = format!(
        "ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request: takeover-before"
    );
    ensure!(
        reply.code == 403 && reply.message().contains(&told),
        "{} {}",
        reply.code,
        reply.message()
    );
    Ok(())
}

async fn nobody_changes_it(admin: &Api) -> anyhow::Result<()> {
    let path = format!("{POLICIES}/{POLICY}");
    let deleted = admin.delete(&path).await?;
    ensure!(deleted.code == 404, "{} {}", deleted.code, deleted.message());
    let patched = admin
        .merge_patch(&path, &json!({"spec": {"failurePolicy": "Fail"}}))
        .await?;
    ensure!(patched.code == 404, "{} {}", patched.code, patched.message());
    // A policy in its place.
    let mine = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": POLICY},
        "spec": {"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]},
        ]}},
    });
    let created = admin.post(POLICIES, &mine).await?;
    ensure!(
        created.code == 422 && created.message().contains(".static.k8s.io"),
        "{} {}",
        created.code,
        created.message()
    );
    Ok(())
}
