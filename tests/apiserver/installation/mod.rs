//! Installed, upgraded and removed on an API server that knows nothing of Leasehold, as the manual says.

mod bare;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

pub(crate) use self::bare::Bare;
use crate::{
    Test,
    guard::{NAMESPACE, REGISTRATIONS},
    harness::{api::Api, assets::repository, audit::text, schedule::Phase, world::World},
    manifests::from_root,
    test,
};

/// The Secret that the replicas keep by themselves.
pub(crate) const OWN_SECRET: &str = "leasehold-certificates";

/// The tests of this file. All but the first have a control plane of their own.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "installation::pods_keep_to_restricted_pod_security",
            pods_keep_to_restricted_pod_security,
        ),
        test(
            Phase::Attacked,
            "installation::by_kustomize_leaves_nothing_behind",
            by_kustomize_leaves_nothing_behind,
        ),
    ]
}

/// The namespace enforces it, and a pod of the Deployment's template is admitted; a laxer one is not.
async fn pods_keep_to_restricted_pod_security(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let admin = world.admin().await?;
    ensure_pods_are_admitted(&admin).await
}

/// Has the API server judge a pod as the Deployment's controller would make it, without storing it.
pub(crate) async fn ensure_pods_are_admitted(admin: &Api) -> anyhow::Result<()> {
    let namespace = admin
        .get(&format!("/api/v1/namespaces/{NAMESPACE}"))
        .await?
        .accepted()?;
    let enforced = text(&namespace, "/metadata/labels/pod-security.kubernetes.io~1enforce");
    ensure!(
        enforced == "restricted",
        "the namespace enforces {enforced:?} only"
    );
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/leasehold");
    let deployment = admin.get(&path).await?.accepted()?;
    let mut pod = deployment
        .pointer("/spec/template")
        .context("the Deployment has no template")?
        .clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("leasehold-template");
    let dry_run = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let admitted = admin
        .post(&dry_run, &pod)
        .await?
        .accepted()
        .context("a pod of the Deployment")?;
    // By the name of the class: that it is there was asked, too.
    ensure!(
        admitted.pointer("/spec/priority").and_then(Value::as_i64) == Some(1_000_000),
        "its priority is not that of the manifests: {admitted}"
    );

    for (what, pointer, lax) in [
        (
            "a root user",
            "/spec/securityContext",
            json!({"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}),
        ),
        (
            "no seccomp profile",
            "/spec/securityContext",
            json!({"runAsNonRoot": true}),
        ),
        (
            "privileges to gain",
            "/spec/containers/0/securityContext",
            json!({"capabilities": {"drop": ["ALL"]}}),
        ),
    ] {
        let mut laxer = pod.clone();
        *laxer
            .pointer_mut(pointer)
            .with_context(|| format!("the template has no {pointer}"))? = lax;
        let reply = admin.post(&dry_run, &laxer).await?;
        ensure!(
            reply.code == 403 && reply.message().contains("restricted"),
            "with {what} it was answered {}: {}",
            reply.code,
            reply.message()
        );
    }
    Ok(())
}

/// What must outlive an upgrade: the certificate in a Secret, and what the API server trusts.
pub(crate) async fn trust(admin: &Api, secret: &str) -> anyhow::Result<(Value, Vec<String>)> {
    let secret = admin
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{secret}"))
        .await?
        .accepted()?;
    let registration = admin
        .get(&format!("{REGISTRATIONS}/leasehold"))
        .await?
        .accepted()?;
    let bundles: Vec<String> = registration
        .pointer("/webhooks")
        .and_then(Value::as_array)
        .context("no webhooks")?
        .iter()
        .map(|webhook| text(webhook, "/clientConfig/caBundle").to_owned())
        .collect();
    ensure!(
        bundles.iter().all(|bundle| !bundle.is_empty()),
        "a webhook has no caBundle: {registration}"
    );
    Ok((secret["data"].clone(), bundles))
}

async fn by_kustomize_leaves_nothing_behind(world: &'static World) -> anyhow::Result<()> {
    let bare = Bare::start(world, "bare-kustomize").await?;
    let admin = bare.plane.admin()?;
    let audit = repository("manifests/overlays/audit").display().to_string();
    bare.plane.kubectl(&["apply", "-k", &audit]).await?;
    bare.certificates_by_a_replica().await?;
    ensure_pods_are_admitted(&admin).await?;
    let trusted = trust(&admin, OWN_SECRET).await?;

    // The next version: another image, more replicas, and what the policy forbids is denied.
    let upgraded = bare.folder.join("upgraded");
    std::fs::create_dir_all(&upgraded)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&upgraded, &repository("manifests/overlays/enforce"))],
        "components": [from_root(&upgraded, &repository("manifests/components/repair-registration"))],
        "images": [{"name": "leasehold", "newName": "registry.example.com/leasehold", "newTag": "0.2.0"}],
        "replicas": [{"name": "leasehold", "count": 3}],
    });
    std::fs::write(upgraded.join("kustomization.yaml"), overlay.to_string())?;
    let upgraded = upgraded.display().to_string();
    bare.plane.kubectl(&["apply", "-k", &upgraded]).await?;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/leasehold");
    let deployment = admin.get(&path).await?.accepted()?;
    ensure!(
        text(&deployment, "/spec/template/spec/containers/0/image") == "registry.example.com/leasehold:0.2.0"
            && deployment.pointer("/spec/replicas") == Some(&json!(3)),
        "not upgraded: {deployment}"
    );
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/leasehold-policy");
    let policy = admin.get(&path).await?.accepted()?;
    ensure!(
        text(&policy, "/data/policy.yaml").contains("mode: enforce"),
        "not upgraded: {policy}"
    );
    ensure!(
        trust(&admin, OWN_SECRET).await? == trusted,
        "the upgrade changed the certificate or what trusts it"
    );

    // As the manual says: nobody who would bring it back, then the registration first.
    bare.plane
        .kubectl(&[
            "-n",
            NAMESPACE,
            "scale",
            "deployment",
            "leasehold",
            "--replicas=0",
        ])
        .await?;
    bare.plane
        .kubectl(&[
            "-n",
            NAMESPACE,
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=leasehold",
            "--timeout=60s",
        ])
        .await?;
    bare.plane
        .kubectl(&["delete", "validatingwebhookconfiguration", "leasehold"])
        .await?;
    bare.plane
        .kubectl(&["delete", "--ignore-not-found", "-k", &upgraded])
        .await?;
    bare.ensure_nothing_is_left().await?;
    let deletions = bare.deletions()?;
    let position = |name: &str| {
        deletions
            .iter()
            .position(|deleted| deleted == name)
            .with_context(|| format!("{name} was not deleted, only {deletions:?}"))
    };
    ensure!(
        position("validatingwebhookconfigurations/leasehold")? < position("deployments/leasehold")?
            && position("validatingwebhookconfigurations/leasehold")? < position("services/leasehold")?,
        "the registration outlived what it calls: {deletions:?}"
    );

    // Whoever forgets that has nothing left either, in the end; here with certificates by hand.
    let by_hand = bare.folder.join("by-hand");
    std::fs::create_dir_all(&by_hand)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&by_hand, &repository("manifests/overlays/audit"))],
        "components": [from_root(&by_hand, &repository("certs/files"))],
    });
    std::fs::write(by_hand.join("kustomization.yaml"), overlay.to_string())?;
    let by_hand = by_hand.display().to_string();
    bare.plane.kubectl(&["apply", "-k", &by_hand]).await?;
    bare.certificates_by_hand().await?;
    ensure_pods_are_admitted(&admin).await?;
    let trusted = trust(&admin, "leasehold-tls").await?;
    bare.plane.kubectl(&["apply", "-k", &by_hand]).await?;
    ensure!(
        trust(&admin, "leasehold-tls").await? == trusted,
        "applied again, the manifests changed the certificate or what trusts it"
    );
    bare.plane.kubectl(&["delete", "-k", &by_hand]).await?;
    bare.ensure_nothing_is_left().await
}
