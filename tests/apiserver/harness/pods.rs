//! Pods that never run, and tokens bound to them: what the API server then says of a writer is what it says in a
//! cluster.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::{audit::text, network::Network, until, world::World};

/// The ServiceAccount of the pods.
const ACCOUNT: &str = "elector";

/// The suffixes by which a Deployment's pods are named, and UUIDs for the electors in them.
const REPLICAS: [(&str, &str); 3] = [
    ("x2x9k", "2f1c8f0e-5b0a-4c1c-9d3e-8a7b6c5d4e3f"),
    ("q8w4m", "91c7a3d2-7e6f-4f5a-8b9c-0d1e2f3a4b5c"),
    ("zr6tn", "c0ffee11-2233-4455-8677-8899aabbccdd"),
];

/// A pod of a Deployment, and what an elector in it has.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// By client-go's convention, `hostname_uuid`. An elector that takes none makes one like it, with another UUID each
    /// time that it is started.
    pub(crate) identity: String,
    /// With the token that is bound to the pod.
    pub(crate) kubeconfig: PathBuf,
}

impl Pod {
    /// Creates the three pods of a Deployment, and their ServiceAccount, in a namespace that has none yet.
    pub(crate) async fn three(world: &World, namespace: &str) -> anyhow::Result<[Self; 3]> {
        let server = world.plane().await?.url();
        Self::three_at(world, namespace, [server; 3]).await
    }

    /// The same, each with an API server's address of its own, such as a proxy's.
    pub(crate) async fn three_at(
        world: &World,
        namespace: &str,
        servers: [&str; 3],
    ) -> anyhow::Result<[Self; 3]> {
        create_account(world, namespace).await?;
        let [first, second, third] = [0, 1, 2].map(async |number: usize| {
            let ((suffix, uuid), server) = (REPLICAS[number], servers[number]);
            let name = format!("elector-7d4b9c6f5-{suffix}");
            let kubeconfig = kubeconfig(world, namespace, &name, server).await?;
            anyhow::Ok(Self {
                identity: format!("{name}_{uuid}"),
                name,
                kubeconfig,
            })
        });
        Ok([first.await?, second.await?, third.await?])
    }

    /// The same command on a host of the pod's name, for a program that makes its identity of that. That takes root,
    /// as a network of the tests' own does: without, the host is this machine.
    pub(crate) fn host(
        &self,
        network: Network,
        program: PathBuf,
        arguments: Vec<String>,
    ) -> (PathBuf, Vec<String>) {
        if network == Network::Loopback {
            return (program, arguments);
        }
        let script = r#"hostname "$0" && exec "$@""#;
        let mut wrapped = ["--uts", "sh", "-c", script, &self.name]
            .map(str::to_owned)
            .to_vec();
        wrapped.push(program.display().to_string());
        wrapped.extend(arguments);
        (PathBuf::from("unshare"), wrapped)
    }
}

/// Creates the pods' ServiceAccount, which may do everything in the cluster.
pub(crate) async fn create_account(world: &World, namespace: &str) -> anyhow::Result<()> {
    create_powerful_account(world, namespace, ACCOUNT).await
}

/// Creates another ServiceAccount, which may do everything in the cluster, and gives a token of it that is bound to no pod.
pub(crate) async fn account_token(world: &World, namespace: &str, account: &str) -> anyhow::Result<String> {
    create_powerful_account(world, namespace, account).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    });
    request_token(world, namespace, account, &request).await
}

async fn create_powerful_account(world: &World, namespace: &str, name: &str) -> anyhow::Result<()> {
    let admin = world.admin().await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    admin.post(&path, &account).await?.accepted()?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{name}-{namespace}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(path, &binding).await?.accepted()?;
    Ok(())
}

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
    request_token(world, namespace, ACCOUNT, &request).await
}

/// Asks for a token, and waits until RBAC knows its ServiceAccount.
async fn request_token(
    world: &World,
    namespace: &str,
    account: &str,
    request: &serde_json::Value,
) -> anyhow::Result<String> {
    let (plane, admin) = (world.plane().await?, world.admin().await?);
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let reply = admin.post(&path, request).await?.accepted()?;
    let token = reply
        .pointer("/status/token")
        .and_then(serde_json::Value::as_str)
        .context("no token in the answer")?;
    let client = plane.client(token)?;
    until("RBAC to know the ServiceAccount", || async {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
        Ok((client.get(&leases).await?.code == 200).then_some(()))
    })
    .await?;
    Ok(token.to_owned())
}
