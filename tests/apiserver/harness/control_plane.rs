//! etcd and kube-apiserver, as `KUBEBUILDER_ASSETS` has them.

use std::{
    ffi::OsStr,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, ensure};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{process::Command, sync::Mutex};

use super::{
    api::Api, assets::Assets, audit::AuditEvents, certificates::Authority, process::Process,
    samples::Samples, until,
};

/// Somebody in `system:masters`, whom no rule holds: for what the tests set up.
const ADMIN_TOKEN: &str = "admin";
/// Somebody else who may do everything, but by RBAC: for what the tests examine.
const WRITER_TOKEN: &str = "writer";
/// The API server's own user, and a user with a name like that of Istio's service account.
const API_SERVER_TOKEN: &str = "api-server";
const ISTIOD_TOKEN: &str = "istiod";
const TOKENS: &str = "admin,admin,1,system:masters\nwriter,writer,2,writers\n\
                      api-server,system:apiserver,3,system:masters\n\
                      istiod,system:serviceaccount:equal-default:istiod,4,writers\n";

/// The name of the API server that is always there, in the folder of logs.
const APISERVER: &str = "kube-apiserver";

/// How the names of the API servers' audit logs end.
const AUDIT_LOG: &str = "api-audit.jsonl";

/// What the API server's audit log holds: who asked for what, and what came of it, without bodies. What it asks
/// of itself would only make the log long.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, resources: [{group: coordination.k8s.io}]}
  - {level: None, users: ['system:apiserver']}
  - {level: Metadata}
";

/// A running control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    url: String,
    /// Of every API server of this control plane, what they share.
    arguments: Vec<String>,
    apiserver_binary: PathBuf,
    folder: PathBuf,
    kubectl: PathBuf,
    authority: Authority,
    /// None while it is killed. Before etcd: so they end.
    apiserver: Mutex<Option<Process>>,
    etcd: Process,
}

/// An API server besides the one that is always there. It ends when it is dropped.
pub(crate) struct AnotherApiServer {
    _process: Process,
    /// A client of it that is [`ControlPlane::writer`].
    pub(crate) writer: Api,
    /// The same one's kubeconfig.
    pub(crate) kubeconfig: PathBuf,
}

#[allow(dead_code, reason = "for tests/apiserver")]
/// An API server with objects of its own. It ends when it is dropped.
pub(crate) struct AnotherCluster {
    _process: Process,
    /// A client that may do everything, and that no rule holds.
    pub(crate) admin: Api,
    /// A client that may do everything, and that every rule holds.
    pub(crate) writer: Api,
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits until it is ready. Logs and data live in `folder`.
    pub(crate) async fn start(assets: &Assets, folder: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let text = |path: PathBuf| path.display().to_string();
        let write = |name: &str, content: &str| -> anyhow::Result<String> {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(text(path))
        };

        let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
        let etcd = Process::start(
            folder,
            "etcd",
            &assets.binary("etcd"),
            [
                "--data-dir".to_owned(),
                text(folder.join("etcd")),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
                "--unsafe-no-fsync".to_owned(),
            ],
        )
        .await?;

        let serving = authority.issue(folder, "kube-apiserver", &["127.0.0.1", "localhost"])?;
        let accounts = KeyPair::generate()?;
        let accounts_key = write("service-accounts.key", &accounts.serialize_pem())?;
        let accounts_public_key = write("service-accounts.pub", &accounts.public_key_pem())?;
        let arguments = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            // What the addresses of a Service are for a webhook is read from its endpoints, not from a proxy.
            "--enable-aggregator-routing=true".to_owned(),
            "--advertise-address=10.99.0.1".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--tls-cert-file={}", text(serving.certificate)),
            format!("--tls-private-key-file={}", text(serving.key)),
            format!("--cert-dir={}", folder.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={accounts_public_key}"),
            format!("--service-account-signing-key-file={accounts_key}"),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", write("tokens.csv", TOKENS)?),
            format!(
                "--audit-policy-file={}",
                write("audit-policy.yaml", AUDIT_POLICY)?
            ),
            // Each event is in the file before the client has its answer, so that a test can count.
            "--audit-log-mode=blocking-strict".to_owned(),
        ];
        let mut plane = Self {
            url: String::new(),
            arguments,
            apiserver_binary: assets.binary("kube-apiserver"),
            folder: folder.to_owned(),
            kubectl: assets.binary("kubectl"),
            authority,
            apiserver: Mutex::new(None),
            etcd,
        };
        let port = free_port()?;
        plane.url = url(port);
        *plane.apiserver.lock().await = Some(plane.start_api_server(APISERVER, port, &[]).await?);
        let admin = plane.admin()?;
        plane.write_kubeconfig("admin", ADMIN_TOKEN)?;
        plane.write_kubeconfig("writer", WRITER_TOKEN)?;
        bind_writers(&admin, &plane.writer()?).await?;
        Ok(plane)
    }

    /// Starts an API server on the control plane's etcd, and waits until it is ready.
    async fn start_api_server(&self, name: &str, port: u16, more: &[&str]) -> anyhow::Result<Process> {
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--secure-port={port}"));
        arguments.push(format!(
            "--audit-log-path={}",
            self.folder.join(format!("{name}.{AUDIT_LOG}")).display()
        ));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let process = Process::start(&self.folder, name, &self.apiserver_binary, arguments).await?;
        let api = Api::new(&url(port), self.authority.pem(), ADMIN_TOKEN)?;
        until("the API server to be ready", || async {
            process.ensure_running()?;
            Ok(api
                .get("/readyz")
                .await
                .is_ok_and(|reply| reply.code == 200)
                .then_some(()))
        })
        .await?;
        Ok(process)
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// Another API server of the same control plane, with arguments of its own.
    pub(crate) async fn another_api_server(
        &self,
        name: &str,
        more: &[&str],
    ) -> anyhow::Result<AnotherApiServer> {
        let port = free_port()?;
        Ok(AnotherApiServer {
            _process: self.start_api_server(name, port, more).await?,
            writer: Api::new(&url(port), self.authority.pem(), WRITER_TOKEN)?,
            kubeconfig: self.writer_kubeconfig_at(name, &url(port))?,
        })
    }

    /// Fails when the API server or etcd has ended and no test wanted that, with the end of its log.
    pub(crate) fn ensure_running(&self) -> anyhow::Result<()> {
        // Locked only while a test ends or starts it.
        if let Ok(apiserver) = self.apiserver.try_lock()
            && let Some(apiserver) = apiserver.as_ref()
        {
            apiserver.ensure_running()?;
        }
        self.etcd.ensure_running()
    }

    #[allow(dead_code, reason = "for tests/chaos")]
    /// SIGKILL of the API server.
    pub(crate) async fn kill_api_server(&self) -> anyhow::Result<()> {
        let process = self.apiserver.lock().await.take();
        process.context("the API server does not run")?.kill().await
    }

    #[allow(dead_code, reason = "for tests/chaos")]
    /// Starts the API server again, where it was, and waits until it is ready.
    pub(crate) async fn restart_api_server(&self) -> anyhow::Result<()> {
        let port = self.url.rsplit(':').next().context("no port")?.parse()?;
        *self.apiserver.lock().await = Some(self.start_api_server(APISERVER, port, &[]).await?);
        Ok(())
    }

    #[allow(dead_code, reason = "for tests/chaos")]
    /// etcd, to be stopped and continued.
    pub(crate) fn etcd(&self) -> &Process {
        &self.etcd
    }

    /// An API server with objects of its own in the control plane's etcd: another cluster, and a client that may do
    /// everything there. It ends when it is dropped; started again by the same name, it finds its objects again.
    pub(crate) async fn another_cluster(&self, name: &str) -> anyhow::Result<(Process, Api)> {
        let prefix = format!("--etcd-prefix=/{name}");
        let port = free_port()?;
        let process = self.start_api_server(name, port, &[&prefix]).await?;
        Ok((process, Api::new(&url(port), self.authority.pem(), ADMIN_TOKEN)?))
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// A new cluster of that kind, whose API server has arguments of its own.
    pub(crate) async fn another_cluster_with(
        &self,
        name: &str,
        more: &[&str],
    ) -> anyhow::Result<AnotherCluster> {
        let prefix = format!("--etcd-prefix=/{name}");
        let port = free_port()?;
        // Not among this control plane's own logs.
        let audit_log = format!(
            "--audit-log-path={}",
            self.folder
                .join(format!("{name}.audit-of-another.jsonl"))
                .display()
        );
        let arguments = [&[prefix.as_str(), audit_log.as_str()], more].concat();
        let process = self.start_api_server(name, port, &arguments).await?;
        let client = |token| Api::new(&url(port), self.authority.pem(), token);
        let (admin, writer) = (client(ADMIN_TOKEN)?, client(WRITER_TOKEN)?);
        bind_writers(&admin, &writer).await?;
        Ok(AnotherCluster {
            _process: process,
            admin,
            writer,
        })
    }

    /// A client that may do everything.
    pub(crate) fn admin(&self) -> anyhow::Result<Api> {
        self.client(ADMIN_TOKEN)
    }

    /// A client that may do everything, and is in no group that a policy exempts.
    pub(crate) fn writer(&self) -> anyhow::Result<Api> {
        self.client(WRITER_TOKEN)
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// A client that is [`Self::writer`] by the names of users whom a policy knows.
    pub(crate) fn known_users(&self) -> anyhow::Result<[Api; 2]> {
        Ok([self.client(API_SERVER_TOKEN)?, self.client(ISTIOD_TOKEN)?])
    }

    /// A client with a token.
    pub(crate) fn client(&self, token: &str) -> anyhow::Result<Api> {
        Api::new(&self.url, self.authority.pem(), token)
    }

    #[allow(dead_code, reason = "for tests/conformance")]
    /// A client without credentials of its own, for a proxy that passes on its clients'.
    pub(crate) fn anonymous(&self) -> anyhow::Result<kube::Client> {
        Api::anonymous(&self.url, self.authority.pem())
    }

    /// The authority that issued the API server's certificate, for webhooks to share.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The kubeconfig of somebody who may do everything.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The kubeconfig of [`Self::writer`].
    pub(crate) fn writer_kubeconfig(&self) -> PathBuf {
        self.folder.join("writer.kubeconfig")
    }

    /// A kubeconfig of a ServiceAccount that is there.
    pub(crate) async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        self.write_kubeconfig(name, &token)
    }

    /// A token of a ServiceAccount that is there, bound to no pod.
    pub(crate) async fn service_account_token(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        });
        let reply = self.admin()?.post(&path, &request).await?.accepted()?;
        let token = reply.pointer("/status/token").and_then(Value::as_str);
        Ok(token.context("no token in the answer")?.to_owned())
    }

    /// Where the API server listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The kubeconfig of [`Self::writer`], for the API server at another address.
    pub(crate) fn writer_kubeconfig_at(&self, name: &str, server: &str) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig_at(name, server, WRITER_TOKEN)
    }

    fn write_kubeconfig(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig_at(name, &self.url, token)
    }

    /// A kubeconfig with this token, for the API server at this address.
    pub(crate) fn write_kubeconfig_at(
        &self,
        name: &str,
        server: &str,
        token: &str,
    ) -> anyhow::Result<PathBuf> {
        let authority = self.folder.join("authority.crt");
        // Once: whoever reads it meanwhile is to find it whole.
        if !authority.exists() {
            std::fs::write(&authority, self.authority.pem())?;
        }
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {
                "server": server, "certificate-authority": authority,
            }}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        });
        let path = self.folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, kubeconfig.to_string())?;
        Ok(path)
    }

    /// The kubectl of this control plane's version.
    pub(crate) fn kubectl_binary(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl as somebody who may do everything, and gives what it printed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.admin_kubeconfig())
            .args(arguments)
            .output()
            .await
            .context("cannot run kubectl")?;
        ensure!(
            output.status.success(),
            "kubectl {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The API server's own metrics.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Samples> {
        let reply = self.admin()?.get("/metrics").await?;
        Ok(Samples::parse(
            reply
                .body
                .as_str()
                .context("the API server's metrics are not text")?,
        ))
    }

    /// What the audit logs of all API servers hold so far.
    pub(crate) fn audit(&self) -> anyhow::Result<AuditEvents> {
        let mut all = AuditEvents(Vec::new());
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let is_audit_log = path
                .file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.ends_with(AUDIT_LOG));
            if is_audit_log {
                all.0.extend(AuditEvents::read(&path)?.0);
            }
        }
        Ok(all)
    }
}

/// Gives the writers every right, and waits until it holds.
async fn bind_writers(admin: &Api, writer: &Api) -> anyhow::Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "writers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "writers"}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    admin.post(path, &binding).await?.accepted()?;
    until("RBAC to know the writers", || async {
        Ok((writer.get(path).await?.code == 200).then_some(()))
    })
    .await
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// A port that is free, and that these tests ask for once only. It is below those from which the kernel takes the near
/// ends of connections (32768 and up, `ip_local_port_range`), or any connection could come first; also where a process
/// is started again on the port that it had.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    const LAST: u16 = 32_000;
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        ensure!(port <= LAST, "no free port up to {LAST}");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}
