//! A process that serves, and its folder.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
};

use crate::harness::{Client, Pki, Protocol, event};

/// A folder with what `serve` needs.
pub(super) struct Files {
    directory: tempfile::TempDir,
    pub(super) pki: Pki,
}

impl Files {
    pub(super) fn new() -> Self {
        let (directory, pki) = (tempfile::tempdir().unwrap(), Pki::new());
        let (issued, other) = (pki.issue(), pki.issue());
        for (name, content) in [
            ("tls.crt", issued.certificate.as_str()),
            ("tls.key", &issued.key),
            ("other.key", &other.key),
            ("policy.yaml", "mode: enforce"),
            ("bad-policy.yaml", "mode: enforce\nmoed: off"),
            (
                "bad-kubeconfig.yaml",
                "users:\n- name: a\n  user: {client-key-data: c2VjcmV0, token: hidden-token}\n  - b\n",
            ),
            ("empty", ""),
        ] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        Self { directory, pki }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `leasehold serve` on free ports of the loopback, in this folder; later flags come on top.
    pub(super) fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command
            .current_dir(self.path())
            .arg("serve")
            .args(flags)
            .env_remove("RUST_LOG")
            .kill_on_drop(true);
        command
    }
}

pub(super) const GOOD: [&str; 14] = [
    "--tls-cert-file",
    "tls.crt",
    "--tls-private-key-file",
    "tls.key",
    "--policy-file",
    "policy.yaml",
    "--bind-address",
    "127.0.0.1",
    "--secure-port",
    "0",
    "--admin-bind-address",
    "127.0.0.1",
    "--admin-port",
    "0",
];

/// A process that serves.
pub(super) struct Serving {
    pub(super) files: Files,
    pub(super) child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub(super) webhook: SocketAddr,
    admin: SocketAddr,
}

impl Serving {
    pub(super) async fn start(flags: &[&str]) -> Self {
        Self::start_with(&[&GOOD[..], flags].concat(), &[]).await
    }

    pub(super) async fn start_with(flags: &[&str], more_files: &[(&str, &str)]) -> Self {
        let files = Files::new();
        for (name, content) in more_files {
            std::fs::write(files.path().join(name), content).unwrap();
        }
        let mut command = files.command(flags);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = line(&mut log, "listening").await;
        let address = |field: &str| listening[field].as_str().unwrap().parse().unwrap();
        Self {
            webhook: address("webhook"),
            admin: address("admin"),
            files,
            child,
            log,
        }
    }

    pub(super) async fn connect(&self, protocol: Protocol) -> Client {
        Client::connect(self.webhook, self.files.pki.client(protocol), protocol)
            .await
            .unwrap()
    }

    pub(super) async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    pub(super) async fn line(&mut self, message: &str) -> serde_json::Value {
        line(&mut self.log, message).await
    }

    /// What the admin port answers, status line and all.
    pub(super) async fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        event("the answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    }

    pub(super) async fn until_ready(&self) {
        let ready = async { while !self.admin("/readyz").await.starts_with("HTTP/1.1 200") {} };
        event("readiness", ready).await;
    }

    pub(super) async fn exit(&mut self) -> ExitStatus {
        event("the end of the process", self.child.wait()).await.unwrap()
    }
}

/// Reads the log up to the line whose message begins so.
async fn line(log: &mut Lines<BufReader<ChildStderr>>, message: &str) -> serde_json::Value {
    loop {
        let line = event(message, log.next_line())
            .await
            .unwrap()
            .expect("the log goes on");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON where there is no terminal");
        if line["message"]
            .as_str()
            .is_some_and(|have| have.starts_with(message))
        {
            return line;
        }
    }
}
