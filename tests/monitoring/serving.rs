//! A real `leasehold serve`, as its metrics see it.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpSocket,
    process::{Child, Command},
    sync::mpsc,
};

use crate::harness::{Client, Pki, Protocol, event, post};

/// The command and its flags, in the folder of [`files`]: free ports of the loopback.
pub(crate) const FLAGS: [&str; 15] = [
    "serve",
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

/// A folder with a certificate and the default policy.
pub(crate) fn files(pki: &Pki) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let issued = pki.issue();
    for (name, content) in [
        ("tls.crt", issued.certificate.as_str()),
        ("tls.key", &issued.key),
        ("policy.yaml", ""),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// A process that serves; it ends when this is dropped.
pub(crate) struct Serving {
    /// Certificates and policy.
    _files: tempfile::TempDir,
    pki: Pki,
    _child: Child,
    log: mpsc::UnboundedReceiver<Value>,
    pub(crate) webhook: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Serving {
    pub(crate) async fn start() -> Self {
        let pki = Pki::new();
        let files = files(&pki);
        let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .current_dir(files.path())
            .args(FLAGS)
            .env_remove("RUST_LOG")
            .kill_on_drop(true)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, mut log) = mpsc::unbounded_channel();
        // Read all the time, so that the process never waits for its log to be read.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                let _ = sender.send(line);
            }
        });
        let lines = lines_until(&mut log, "listening").await;
        let listening = lines.last().unwrap();
        let address = |field: &str| listening[field].as_str().unwrap().parse().unwrap();
        let serving = Self {
            webhook: address("webhook"),
            admin: address("admin"),
            _files: files,
            pki,
            _child: child,
            log,
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

    /// Sends any body for a review, and gives the code of the answer.
    pub(crate) async fn send(&self, body: String) -> u16 {
        let mut client = Client::connect(self.webhook, self.pki.client(Protocol::Http2), Protocol::Http2)
            .await
            .unwrap();
        client.send(post(body)).await.status().as_u16()
    }

    /// The lines of the log up to the one with this message, that one last.
    pub(crate) async fn log_until(&mut self, message: &str) -> Vec<Value> {
        lines_until(&mut self.log, message).await
    }

    /// What `/metrics` says to somebody who accepts that.
    pub(crate) async fn metrics(&self, accept: &str) -> String {
        let answer = self.get("/metrics", accept).await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The whole answer of the admin port.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
        self.ask("127.0.0.1", &request).await
    }

    /// `PUT /loglevel`, coming from that address.
    pub(crate) async fn put_log_level(&self, from: &str, directives: &str) -> String {
        let length = directives.len();
        let request = format!(
            "PUT /loglevel HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{directives}"
        );
        self.ask(from, &request).await
    }

    async fn ask(&self, from: &str, request: &str) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(self.admin).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        event("the answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    }
}

async fn lines_until(log: &mut mpsc::UnboundedReceiver<Value>, message: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    loop {
        let line = event(message, log.recv()).await.expect("the log goes on");
        let found = line["message"] == message;
        lines.push(line);
        if found {
            return lines;
        }
    }
}
