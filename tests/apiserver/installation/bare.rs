//! An API server that knows nothing of Leasehold.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{OWN_SECRET, trust};
use crate::{
    guard::NAMESPACE,
    harness::{
        assets::{Assets, repository},
        audit::text,
        control_plane::{ControlPlane, free_port},
        network::Network,
        process::Process,
        until,
        world::World,
    },
};

/// A control plane of a test's own, on which nothing is installed, and the controller that empties namespaces.
pub(crate) struct Bare {
    pub(crate) plane: ControlPlane,
    pub(crate) folder: PathBuf,
    _controllers: Process,
    before: BTreeSet<String>,
    network: Network,
}

impl Bare {
    /// Starts them, and notes what is there.
    pub(crate) async fn start(world: &World, name: &str) -> anyhow::Result<Self> {
        let folder = world.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let plane = ControlPlane::start(&world.assets, &folder).await?;
        let kubeconfig = plane.admin_kubeconfig().display().to_string();
        let controllers = Process::start(
            &folder,
            "kube-controller-manager",
            &world.assets.binary("kube-controller-manager"),
            [
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                "--secure-port=0".to_owned(),
                "--leader-elect=false".to_owned(),
                "--controllers=namespace-controller".to_owned(),
            ],
        )
        .await?;
        let before = inventory(&plane).await?;
        Ok(Self {
            plane,
            folder,
            _controllers: controllers,
            before,
            network: world.network,
        })
    }

    /// Waits until there is nothing that was not there before the installation.
    pub(crate) async fn ensure_nothing_is_left(&self) -> anyhow::Result<()> {
        self.ensure_left_is(&[]).await
    }

    /// The same, where something may stay.
    pub(crate) async fn ensure_left_is(&self, expected: &[&str]) -> anyhow::Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        until(&format!("only {expected:?} to be left"), || async {
            let now = inventory(&self.plane).await?;
            let left: BTreeSet<String> = now.difference(&self.before).cloned().collect();
            if left.is_empty() || left == expected {
                return Ok(Some(left));
            }
            Ok(None)
        })
        .await
        .and_then(|left| {
            ensure!(left == expected, "left behind: {left:?}, expected {expected:?}");
            Ok(())
        })
    }

    /// Makes certificates as the manual says.
    pub(crate) async fn certificates_by_hand(&self) -> anyhow::Result<()> {
        let script = repository("certs/make-certs.sh");
        let output = Command::new(&script)
            .arg("--apply")
            .env("KUBECTL", self.plane.kubectl_binary())
            .env("KUBECONFIG", self.plane.admin_kubeconfig())
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "{} --apply failed: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Runs one replica as the Deployment says, until it has made its certificate and the API server trusts it.
    pub(crate) async fn certificates_by_a_replica(&self) -> anyhow::Result<()> {
        let admin = self.plane.admin()?;
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/leasehold");
        let deployment = admin.get(&path).await?.accepted()?;
        let admin_port = free_port()?;
        let mut arguments: Vec<String> = deployment
            .pointer("/spec/template/spec/containers/0/args")
            .and_then(Value::as_array)
            .context("the Deployment's container has no args")?
            .iter()
            .filter_map(Value::as_str)
            .map(|flag| match flag.split('=').next().unwrap_or(flag) {
                name @ ("--bind-address" | "--admin-bind-address") => format!("{name}=127.0.0.1"),
                "--secure-port" => "--secure-port=0".to_owned(),
                "--admin-port" => format!("--admin-port={admin_port}"),
                _ => flag.to_owned(),
            })
            .collect();
        arguments.push("--replica-name=leasehold-0".to_owned());
        let replica = match self.network {
            Network::Namespace => self.start_as_in_a_pod(arguments).await?,
            Network::Loopback => {
                let kubeconfig = self
                    .plane
                    .service_account_kubeconfig(NAMESPACE, "leasehold")
                    .await?;
                arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
                Process::start(&self.folder, "leasehold", Assets::leasehold(), arguments).await?
            }
        };
        until("the replica to have its certificate trusted", || async {
            replica.ensure_running()?;
            Ok(trust(&admin, OWN_SECRET).await.ok())
        })
        .await?;
        Ok(())
    }

    /// Starts Leasehold with what a kubelet gives a pod, and nothing else: the API server's address in the environment,
    /// the CA and a token in files. There is no DNS either, which the network policy does not let it ask.
    async fn start_as_in_a_pod(&self, arguments: Vec<String>) -> anyhow::Result<Process> {
        let mounted = self.folder.join("service-account");
        std::fs::create_dir_all(&mounted)?;
        let token = self
            .plane
            .kubectl(&["create", "token", "leasehold", "--namespace", NAMESPACE])
            .await?;
        std::fs::write(mounted.join("token"), token.trim())?;
        std::fs::write(mounted.join("ca.crt"), self.plane.authority().pem())?;
        std::fs::write(mounted.join("namespace"), NAMESPACE)?;
        let server: http::Uri = self.plane.url().parse()?;
        let (host, port) = server
            .host()
            .zip(server.port_u16())
            .context("the API server has no address")?;
        // In a mount namespace of its own, so that the files are where every client looks for them.
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io \
            && cp -r \"$1\" /run/secrets/kubernetes.io/serviceaccount && shift && exec \"$@\"";
        let mut command = vec![
            "--mount".to_owned(),
            "sh".to_owned(),
            "-c".to_owned(),
            script.to_owned(),
            "sh".to_owned(),
            mounted.display().to_string(),
            "env".to_owned(),
            "--ignore-environment".to_owned(),
            format!("KUBERNETES_SERVICE_HOST={host}"),
            format!("KUBERNETES_SERVICE_PORT={port}"),
            Assets::leasehold().display().to_string(),
        ];
        command.extend(arguments);
        Process::start(&self.folder, "leasehold", Path::new("unshare"), command).await
    }

    /// In which order the objects of an installation were deleted, as `kind/name`, by the API server's audit log.
    pub(crate) fn deletions(&self) -> anyhow::Result<Vec<String>> {
        let deleted = self.plane.audit()?.0;
        Ok(deleted
            .iter()
            .filter(|event| text(event, "/verb") == "delete")
            .map(|event| {
                let field = |name: &str| text(event, &format!("/objectRef/{name}")).to_owned();
                format!("{}/{}", field("resource"), field("name"))
            })
            .collect())
    }
}

/// Everything that is stored, by kind, namespace and name, but for what a control plane writes of itself: Events, and
/// the identities of API servers.
async fn inventory(plane: &ControlPlane) -> anyhow::Result<BTreeSet<String>> {
    let kinds = plane
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .await?;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && *kind != "componentstatuses")
        .collect();
    let listed = plane
        .kubectl(&[
            "get",
            &kinds.join(","),
            "--all-namespaces",
            "--ignore-not-found",
            r#"--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}"#,
        ])
        .await?;
    Ok(listed
        .lines()
        .filter(|line| !line.starts_with("Lease kube-system/"))
        .map(str::to_owned)
        .collect())
}
