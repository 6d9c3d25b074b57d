//! Processes that end with the tests, whichever way the tests end.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

/// Whether `setpriv` is here, which makes the kernel end a child when this program is killed outright.
static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
    std::process::Command::new("setpriv")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
});

/// Everything that was started and not yet dropped, for [`kill_all`].
static STARTED: Mutex<Vec<std::sync::Weak<Mutex<Child>>>> = Mutex::new(Vec::new());

/// Kills whatever still runs. For the signal handler: everything else drops its processes.
pub(crate) fn kill_all() {
    for child in STARTED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if let Some(child) = child.upgrade() {
            let _ = child.lock().unwrap_or_else(PoisonError::into_inner).start_kill();
        }
    }
}

/// A child process, its output in a log file; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Arc<Mutex<Child>>,
    /// JSON lines from standard output, where the process was started with [`Self::start_talking`].
    events: Option<mpsc::UnboundedReceiver<Value>>,
    #[allow(dead_code, reason = "for tests/conformance")]
    /// The same lines, whether or not somebody waited for them.
    history: History,
}

/// Events with the instant at which they were read.
type History = Arc<Mutex<Vec<(Instant, Value)>>>;

impl Process {
    /// Starts a program whose output, both streams, goes to `FOLDER/NAME.log`.
    pub(crate) async fn start(
        folder: &Path,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        Self::spawn(folder, name, program, arguments, false).await
    }

    /// Starts a program that prints JSON lines on standard output, for [`Self::event`]. They are in the log as well.
    pub(crate) async fn start_talking(
        folder: &Path,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        Self::spawn(folder, name, program, arguments, true).await
    }

    async fn spawn(
        folder: &Path,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        talking: bool,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        // A process that is started again, after it was killed, goes on in the same log.
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut command = if *SETPRIV {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(if talking {
                Stdio::piped()
            } else {
                Stdio::from(file.try_clone()?)
            })
            .kill_on_drop(true);
        // The kernel takes the end of the *thread* that started a child for the parent's, and the test runner's
        // threads end before the last test does. The runtime's workers do not.
        let mut child = tokio::spawn(async move { command.spawn() })
            .await?
            .with_context(|| format!("cannot start {}", program.display()))?;
        let history = History::default();
        let seen = Arc::clone(&history);
        let events = child.stdout.take().map(|stdout| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut copy = tokio::fs::File::from_std(file);
                let mut lines = BufReader::new(stdout).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let _ = copy.write_all(format!("{line}\n").as_bytes()).await;
                    if let Ok(event) = serde_json::from_str::<Value>(&line) {
                        seen.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((Instant::now(), event.clone()));
                        let _ = sender.send(event);
                    }
                }
            });
            receiver
        });
        let child = Arc::new(Mutex::new(child));
        STARTED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(&child));
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
            events,
            history,
        })
    }

    /// The next event that `wanted` accepts; those before it are dropped. An error when the process ends first.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let events = self
            .events
            .as_mut()
            .context("this process was not started talking")?;
        loop {
            let event = events.recv().await.with_context(|| {
                format!(
                    "{} ended before the event came, see {}",
                    self.name,
                    self.log.display()
                )
            })?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    #[allow(dead_code, reason = "for tests/conformance")]
    /// Every event so far, and when it came.
    pub(crate) fn history(&self) -> Vec<(Instant, Value)> {
        self.history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Fails when the process has ended, with the end of its log.
    pub(crate) fn ensure_running(&self) -> anyhow::Result<()> {
        let ended = self.child().try_wait()?;
        if let Some(status) = ended {
            anyhow::bail!(
                "{} ended ({status}); the end of its log:\n{}",
                self.name,
                self.log_tail(30)
            );
        }
        Ok(())
    }

    /// Its process id. An error once it has ended.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child()
            .id()
            .with_context(|| format!("{} has already ended", self.name))
    }

    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child().start_kill()?;
        self.wait().await?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM").await?;
        self.wait().await
    }

    /// Sends a signal by its name: `TERM`, `STOP`, `CONT`.
    pub(crate) async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.id()?.to_string()])
            .status()
            .await?;
        ensure!(status.success(), "kill -{signal} failed for {}", self.name);
        Ok(())
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        // The lock is not held across an await: the signal handler needs it.
        loop {
            if let Some(status) = self.child().try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(super::POLL).await;
        }
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| format!("cannot read it: {error}"));
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}
