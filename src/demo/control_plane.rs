//! A real etcd and kube-apiserver, started from a folder of binaries and gone when the demo ends.

use std::{
    fmt::Write as _,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kube::{Client, Config};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{DemoError, certificates::Authority};

/// Longest wait for the API server to be ready. It takes 3 s on two cores; a loaded machine may take several times
/// that.
const STARTUP: Duration = Duration::from_secs(60);

/// Lines of a log that an error shows.
const TAIL: usize = 5;

/// The programs that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    etcd: PathBuf,
    kube_apiserver: PathBuf,
}

impl Binaries {
    /// Looks for them in `folder`.
    ///
    /// # Errors
    /// [`DemoError::MissingBinaries`] that names every one that is not there.
    pub fn find(folder: &Path) -> Result<Self, DemoError> {
        let (etcd, kube_apiserver) = (folder.join("etcd"), folder.join("kube-apiserver"));
        let missing: Vec<&str> = [("etcd", &etcd), ("kube-apiserver", &kube_apiserver)]
            .into_iter()
            .filter(|(_, path)| !path.is_file())
            .map(|(name, _)| name)
            .collect();
        if missing.is_empty() {
            return Ok(Self { etcd, kube_apiserver });
        }
        Err(DemoError::MissingBinaries {
            folder: folder.to_owned(),
            missing: missing.join(" and "),
        })
    }
}

/// The processes and their folder. Call [`ControlPlane::stop`]; a drop kills too, but cannot wait.
pub struct ControlPlane {
    binaries: Binaries,
    folder: TempDir,
    children: Vec<(&'static str, Child)>,
}

impl ControlPlane {
    /// Prepares a temporary folder; starts nothing yet.
    ///
    /// # Errors
    /// [`DemoError::ControlPlane`] if there can be no such folder.
    pub fn new(binaries: Binaries) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("leasehold-demo-")
            .tempdir()
            .map_err(|error| failed("make a temporary folder", &error))?;
        Ok(Self {
            binaries,
            folder,
            children: Vec::new(),
        })
    }

    /// Starts etcd and the API server, and waits until it is ready.
    ///
    /// # Errors
    /// [`DemoError::ControlPlane`] with what failed and the end of the log that tells why.
    pub async fn start(&mut self, authority: &Authority) -> Result<Client, DemoError> {
        let [etcd_port, api_port] = free_ports().map_err(|error| failed("find a free port", &error))?;
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let data = self.folder.path().join("etcd");
        let mut etcd = Command::new(&self.binaries.etcd);
        etcd.arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={etcd_url}"))
            .arg(format!("--advertise-client-urls={etcd_url}"))
            .args([
                "--listen-peer-urls=http://127.0.0.1:0",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ]);
        self.spawn("etcd", etcd)?;

        let token = self.write_credentials(authority)?;
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let mut server = Command::new(&self.binaries.kube_apiserver);
        server
            .arg(format!("--etcd-servers={etcd_url}"))
            .arg(format!("--secure-port={api_port}"))
            .arg(format!("--cert-dir={}", file("certificates")))
            .arg(format!("--tls-cert-file={}", file("server.crt")))
            .arg(format!("--tls-private-key-file={}", file("server.key")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .arg(format!("--service-account-key-file={}", file("accounts.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("accounts.key")
            ))
            .args([
                "--bind-address=127.0.0.1",
                // Nobody asks where it is. It would look at the default route for that, and a machine that is offline has
                // none. TEST-NET-1 (RFC 5737): no machine has it.
                "--advertise-address=192.0.2.1",
                "--service-account-issuer=https://leasehold-demo.invalid",
                "--service-cluster-ip-range=10.0.0.0/24",
                // Who may do what is not the demo's subject, and nobody else has the token.
                "--authorization-mode=AlwaysAllow",
                "--anonymous-auth=false",
            ]);
        self.spawn("kube-apiserver", server)?;

        let client = client(api_port, authority, &token)?;
        self.wait_until_ready(&client).await?;
        Ok(client)
    }

    /// Kills what was started, waits for it, and removes the folder.
    pub async fn stop(mut self) {
        // The API server first, so that it does not complain about a lost etcd.
        for (name, mut child) in self.children.drain(..).rev() {
            if let Err(error) = child.kill().await {
                tracing::warn!(name, %error, "cannot kill");
            }
        }
        let folder = self.folder.path().to_owned();
        if let Err(error) = self.folder.close() {
            tracing::warn!(folder = %folder.display(), %error, "cannot remove");
        }
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> Result<(), DemoError> {
        let log = File::create(self.log(name)).map_err(|error| failed("write a log file", &error))?;
        let copy = log
            .try_clone()
            .map_err(|error| failed("write a log file", &error))?;
        let child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            // A Ctrl-C in the terminal is for the demo, which ends them itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("start {name}"), &error))?;
        self.children.push((name, child));
        Ok(())
    }

    /// Writes keys and tokens where the API server reads them; the answer is the client's token.
    fn write_credentials(&self, authority: &Authority) -> Result<String, DemoError> {
        let make = |error: rcgen::Error| failed("make a key", &error);
        let serving = authority.issue("kube-apiserver").map_err(make)?;
        let accounts = rcgen::KeyPair::generate().map_err(make)?;
        let token: String = rcgen::KeyPair::generate()
            .map_err(make)?
            .public_key_raw()
            .iter()
            .skip(1)
            .take(16)
            .fold(String::new(), |mut token, byte| {
                // Writing to a String does not fail.
                let _ = write!(token, "{byte:02x}");
                token
            });
        for (name, content) in [
            ("server.crt", serving.certificate_pem),
            ("server.key", serving.key_pem),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("tokens.csv", format!("{token},elector,elector,\"electors\"\n")),
        ] {
            std::fs::write(self.folder.path().join(name), content)
                .map_err(|error| failed(&format!("write {name}"), &error))?;
        }
        Ok(token)
    }

    async fn wait_until_ready(&mut self, client: &Client) -> Result<(), DemoError> {
        let deadline = Instant::now() + STARTUP;
        loop {
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .map_err(|error| failed("ask whether it is ready", &error))?;
            if client.request_text(request).await.is_ok() {
                return Ok(());
            }
            for (name, child) in &mut self.children {
                let ended = child
                    .try_wait()
                    .map_err(|error| failed(&format!("watch {name}"), &error))?;
                if let Some(status) = ended {
                    let log = tail(&self.folder.path().join(format!("{name}.log")));
                    return Err(DemoError::ControlPlane(format!(
                        "{name} ended ({status}); its last words:\n{log}"
                    )));
                }
            }
            if Instant::now() >= deadline {
                let log = tail(&self.log("kube-apiserver"));
                let seconds = STARTUP.as_secs();
                return Err(DemoError::ControlPlane(format!(
                    "kube-apiserver is not ready after {seconds} s; its last words:\n{log}"
                )));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

fn client(port: u16, authority: &Authority, token: &str) -> Result<Client, DemoError> {
    let url: http::Uri = format!("https://127.0.0.1:{port}")
        .parse()
        .map_err(|error| failed("name its address", &error))?;
    let mut config = Config::new(url);
    config.root_cert = Some(vec![authority.certificate().to_vec()]);
    config.auth_info.token = Some(token.to_owned().into());
    // Electors have their own retry period.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| failed("make a client", &error))
}

/// Two different ports that were free a moment ago, below those from which the kernel takes the near ends of
/// connections (32768 and up, `ip_local_port_range`), or any connection could come first. Where two demos run at once,
/// they begin to look at different places.
fn free_ports() -> io::Result<[u16; 2]> {
    let first = 22_000 + u16::try_from(std::process::id() % 5_000).unwrap_or_default() * 2;
    let mut free = (first..32_768).filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let mut next = || {
        let listener = free.next().ok_or(io::ErrorKind::AddrInUse)?;
        listener.local_addr().map(|address| address.port())
    };
    Ok([next()?, next()?])
}

fn tail(log: &Path) -> String {
    let content = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = content.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(TAIL))
        .map(|line| format!("  {line}\n"))
        .collect()
}

fn failed(doing: &str, error: &dyn std::error::Error) -> DemoError {
    DemoError::ControlPlane(format!("cannot {doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_can_take_the_ports_first() {
        let [one, other] = free_ports().unwrap();
        assert!(one != other && one.max(other) < 32_768, "{one}, {other}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("etcd and kube-apiserver"), "{error}");
        File::create(folder.path().join("etcd")).unwrap();
        let error = Binaries::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no kube-apiserver in"), "{error}");
        File::create(folder.path().join("kube-apiserver")).unwrap();
        Binaries::find(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_ends_is_an_error_with_its_last_words_and_nothing_is_left() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in [
            ("etcd", "exec sleep 600"),
            ("kube-apiserver", "echo bad flag; exit 3"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut control_plane = ControlPlane::new(Binaries::find(folder.path()).unwrap()).unwrap();
        let state = control_plane.folder.path().to_owned();
        let error = control_plane
            .start(&Authority::new().unwrap())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("kube-apiserver ended (exit status: 3)") && error.contains("bad flag"),
            "{error}"
        );
        let etcd = control_plane.children[0].1.id().unwrap();
        control_plane.stop().await;
        assert!(!state.exists());
        assert!(!Path::new(&format!("/proc/{etcd}")).exists(), "etcd lives");
    }
}
