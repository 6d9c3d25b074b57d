//! One Leasehold process: started, signalled, asked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex};

use crate::harness::{assets::Assets, process::Process, samples::Samples, until, world::World};

/// One Leasehold process.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(crate) admin: SocketAddr,
    pub(super) audit_log: PathBuf,
    /// None while it is killed.
    pub(super) process: Mutex<Option<Process>>,
}

impl Replica {
    #[allow(dead_code, reason = "for tests/apiserver")]
    /// A replica that is not started yet.
    pub(crate) fn new(world: &World, name: &str, arguments: Vec<String>, admin: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            folder: world.folder().to_owned(),
            arguments,
            admin,
            audit_log: world.folder().join(format!("{name}.audit.jsonl")),
            process: Mutex::new(None),
        }
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// What it is called, in its log's name as well.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the process, and waits until it is ready.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.start_with(&[]).await
    }

    /// The same, with these variables (`NAME=VALUE`) in its environment.
    pub(crate) async fn start_with(&self, environment: &[String]) -> anyhow::Result<()> {
        let mut arguments = environment.to_vec();
        arguments.push(Assets::leasehold().display().to_string());
        arguments.extend_from_slice(&self.arguments);
        let process = Process::start(&self.folder, &self.name, Path::new("env"), arguments).await?;
        *self.process.lock().await = Some(process);
        until("Leasehold to be ready", || async {
            self.ensure_running().await?;
            Ok(self
                .get("/readyz")
                .await
                .is_ok_and(|(code, _)| code == 200)
                .then_some(()))
        })
        .await
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// Sends a signal by its name: `STOP`, `CONT`.
    pub(crate) async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let process = self.process.lock().await;
        process
            .as_ref()
            .context("this replica does not run")?
            .signal(signal)
            .await
    }

    /// SIGKILL.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        let mut process = self
            .process
            .lock()
            .await
            .take()
            .context("this replica does not run")?;
        process.kill().await
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        let mut process = self
            .process
            .lock()
            .await
            .take()
            .context("this replica does not run")?;
        process.terminate().await
    }

    #[allow(dead_code, reason = "for tests/chaos")]
    /// Its process id. An error while it is killed.
    pub(crate) async fn id(&self) -> anyhow::Result<u32> {
        let process = self.process.lock().await;
        process.as_ref().context("this replica does not run")?.id()
    }

    /// Fails when it has ended, with the end of its log.
    pub(crate) async fn ensure_running(&self) -> anyhow::Result<()> {
        self.process
            .lock()
            .await
            .as_ref()
            .context("this replica does not run")?
            .ensure_running()
    }

    /// Its metrics.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Samples> {
        let (code, text) = self.get("/metrics").await?;
        ensure!(code == 200, "/metrics answered {code}: {text}");
        Ok(Samples::parse(&text))
    }

    /// Everything it logged so far, its audit log aside.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            self.folder.join(format!("{}.log", self.name)),
        )?)
    }

    /// GET from the admin port.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let stream = TcpStream::connect(self.admin).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header(http::header::HOST, self.admin.to_string());
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((code, String::from_utf8_lossy(&body).into_owned()))
    }
}
