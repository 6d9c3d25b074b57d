//! Pods that never run, and tokens bound to them: what the API server then says of a writer is what it says in a
//! cluster.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::{audit::text, until, world::World};

/// The ServiceAccount of the pods.
const ACCOUNT: &str = "elector";

/// Creates the pods' ServiceAccount, which may do everything in the cluster.
pub(crate) async fn create_account(world: &World, namespace: &str) -> anyhow::Result<()> {
    let admin = world.admin().await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    admin.post(&path, &account).await?.accepted()?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("electors-{namespace}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(path, &binding).await?.accepted()?;
    Ok(())
}

#[allow(dead_code, reason = "for tests/conformance")]
/// Creates a pod, and gives a kubeconfig with a token that is bound to it, for the API server at `server`.
pub(crate) async fn kubeconfig(
    world: &World,
    namespace: &str,
    pod: &str,
    server: &str,
) -> anyhow::Result<PathBuf> {
    let token = token(world, namespace, pod).await?;
    let plane = world.plane().await?;
    plane.write_kubeconfig_at(&format!("{namespace}-{pod}"), server, &token)
}

/// Creates a pod, and gives a token that is bound to it, as a kubelet would mount it.
pub(crate) async fn token(world: &World, namespace: &str, pod: &str) -> anyhow::Result<String> {
    let plane = world.plane().await?;
    let admin = world.admin().await?;
    let document = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "automountServiceAccountToken": false,
            "containers": [{"name": "elector", "image": "elector"}],
        },
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let stored = admin.post(&path, &document).await?.accepted()?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": 3600,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod,
                "uid": text(&stored, "/metadata/uid"),
            },
        },
    });
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token");
    let reply = admin.post(&path, &request).await?.accepted()?;
    let token = reply
        .pointer("/status/token")
        .and_then(serde_json::Value::as_str)
        .context("no token in the answer")?;
    let client = plane.client(token)?;
    until("RBAC to know the pods' ServiceAccount", || async {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        Ok((client.get(&leases).await?.code == 200).then_some(()))
    })
    .await?;
    Ok(token.to_owned())
}
