//! A real `leasehold serve`, as its metrics see it.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
};

use crate::harness::{Client, Pki, Protocol, event, post};

/// A process that serves; it ends when this is dropped.
pub(crate) struct Serving {
    /// Certificates and policy.
    _files: tempfile::TempDir,
    pki: Pki,
    _child: Child,
    /// Kept, so that the process can go on logging.
    _log: Lines<BufReader<ChildStderr>>,
    webhook: SocketAddr,
    admin: SocketAddr,
}

impl Serving {
    pub(crate) async fn start() -> Self {
        let (files, pki) = (tempfile::tempdir().unwrap(), Pki::new());
        let issued = pki.issue();
        for (name, content) in [
            ("tls.crt", issued.certificate.as_str()),
            ("tls.key", &issued.key),
            ("policy.yaml", ""),
        ] {
            std::fs::write(files.path().join(name), content).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .current_dir(files.path())
            .arg("serve")
            .args(["--tls-cert-file", "tls.crt", "--tls-private-key-file", "tls.key"])
            .args(["--policy-file", "policy.yaml"])
            .args(["--bind-address", "127.0.0.1", "--secure-port", "0"])
            .args(["--admin-bind-address", "127.0.0.1", "--admin-port", "0"])
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = loop {
            let line = event("the log", log.next_line()).await.unwrap();
            let line: Value = serde_json::from_str(&line.expect("the log goes on")).unwrap();
            if line["message"] == "listening" {
                break line;
            }
        };
        let address = |field: &str| listening[field].as_str().unwrap().parse().unwrap();
        let serving = Self {
            webhook: address("webhook"),
            admin: address("admin"),
            _files: files,
            pki,
            _child: child,
            _log: log,
        };
        let ready = async { while !serving.get("/readyz", "*/*").await.contains("\r\n\r\nok") {} };
        event("readiness", ready).await;
        serving
    }

    /// Sends a review, and gives whether it was allowed.
    pub(crate) async fn review(&self, body: &'static str) -> bool {
        let mut client = Client::connect(self.webhook, self.pki.client(Protocol::Http2), Protocol::Http2)
            .await
            .unwrap();
        let response = client.send(post(body)).await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        answer["response"]["allowed"].as_bool().unwrap()
    }

    /// What `/metrics` says to somebody who accepts that.
    pub(crate) async fn metrics(&self, accept: &str) -> String {
        let answer = self.get("/metrics", accept).await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The whole answer of the admin port.
    async fn get(&self, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        event("the answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    }
}
