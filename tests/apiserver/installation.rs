//! Installed, upgraded and removed on an API server that knows nothing of Leasehold, as the manual says.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test,
    guard::{NAMESPACE, REGISTRATIONS},
    harness::{
        api::Api,
        assets::{Assets, repository},
        audit::text,
        control_plane::{ControlPlane, free_port},
        network::Network,
        process::Process,
        schedule::Phase,
        until,
        world::World,
    },
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
