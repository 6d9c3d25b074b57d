//! The electors' programs: how each is built and started.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::harness::{assets::repository, faketime, world::World};

/// An elector, in the version that its folder in `tests/electors` pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elector {
    ClientGo,
    ControllerRuntime,
    /// The official client, `io.kubernetes:client-java-extended`.
    Java,
    KubeLeaderElection,
    Kubert,
}

/// How long the leases are valid: longer than the 5 s that the policy asks for, shorter than a test's patience.
pub(crate) const LEASE_SECONDS: u32 = 6;

/// How often an elector tries.
const RETRY_MILLISECONDS: u32 = 1000;

/// Where an instance elects, as whom, and how wrong its clock is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance<'a> {
    pub(crate) kubeconfig: &'a Path,
    pub(crate) namespace: &'a str,
    pub(crate) lease: &'a str,
    pub(crate) identity: &'a str,
    /// The duration of the lease that it is configured with.
    pub(crate) seconds: u32,
    /// By how many seconds its clock is ahead (negative: behind).
    pub(crate) clock_ahead: i32,
}

impl Elector {
    /// The elector's name in the table and in test names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClientGo => "client-go",
            Self::ControllerRuntime => "controller-runtime",
            Self::Java => "java",
            Self::KubeLeaderElection => "kube-leader-election",
            Self::Kubert => "kubert",
        }
    }

    /// The version that its build file pins.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::ClientGo => "0.37.2",
            Self::ControllerRuntime => "0.25.2",
            Self::Java => "25.0.0",
            Self::KubeLeaderElection => "0.44.0",
            Self::Kubert => "0.25.0",
        }
    }

    /// Whether a restarted instance can have the identity it had.
    pub(crate) fn keeps_identity(self) -> bool {
        // controller-runtime makes its own, with a UUID.
        self != Self::ControllerRuntime
    }

    /// The program and its arguments.
    pub(crate) fn command(self, world: &World, instance: Instance<'_>) -> (PathBuf, Vec<String>) {
        let kubeconfig = instance.kubeconfig.display();
        let go = |kubeconfig_flag: &str| {
            vec![
                format!("{kubeconfig_flag}={kubeconfig}"),
                format!("-namespace={}", instance.namespace),
                format!("-lease={}", instance.lease),
                format!("-lease-duration={}s", instance.seconds),
                format!("-renew-deadline={}s", instance.seconds * 2 / 3),
                format!("-retry-period={RETRY_MILLISECONDS}ms"),
            ]
        };
        let positional = || {
            vec![
                kubeconfig.to_string(),
                instance.namespace.to_owned(),
                instance.lease.to_owned(),
                instance.identity.to_owned(),
                instance.seconds.to_string(),
                RETRY_MILLISECONDS.to_string(),
            ]
        };
        match self {
            Self::ClientGo => {
                let mut arguments = go("-kubeconfig");
                arguments.extend([
                    format!("-identity={}", instance.identity),
                    format!("-clock-offset={}s", instance.clock_ahead),
                    "-release-on-cancel".to_owned(),
                    "-v=4".to_owned(),
                ]);
                (world.assets.elector("client-go-0.37"), arguments)
            }
            Self::ControllerRuntime => {
                let mut arguments = go("-kubeconfig-path");
                arguments.push(format!("-clock-offset={}s", instance.clock_ahead));
                (folder().join("go/controller-runtime"), arguments)
            }
            Self::KubeLeaderElection | Self::Kubert => {
                let program = folder().join(format!("rust/debug/{}-elector", self.name()));
                with_clock(instance.clock_ahead, program, positional())
            }
            Self::Java => {
                let mut arguments = vec![
                    // Small and quick to start: it does next to nothing.
                    "-XX:TieredStopAtLevel=1".to_owned(),
                    "-Xmx128m".to_owned(),
                    "-cp".to_owned(),
                    folder().join("java/jars/*").display().to_string(),
                    "dev.leasehold.tests.Elector".to_owned(),
                ];
                arguments.extend(positional());
                arguments.push(instance.clock_ahead.to_string());
                (PathBuf::from("java"), arguments)
            }
        }
    }
}

/// The same command under a wrong clock, for programs that ask libc for the time.
fn with_clock(ahead: i32, program: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
    if ahead == 0 {
        return (program, arguments);
    }
    let mut wrapped = vec![
        format!("LD_PRELOAD={}", faketime::library().display()),
        format!("FAKETIME={ahead:+}s"),
        // Timers are to run as ever.
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        program.display().to_string(),
    ];
    wrapped.extend(arguments);
    (PathBuf::from("env"), wrapped)
}

/// Where everything built here is.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    target.parent().unwrap_or(target).join("electors")
}

/// Builds every program that is not in the control plane's folder; what is up to date takes seconds.
pub(crate) fn build_all() -> anyhow::Result<()> {
    let started = std::time::Instant::now();
    eprintln!("building the electors (the first time only: minutes) ...");
    faketime::ensure_installed()?;
    let path = |path: PathBuf| path.display().to_string();
    // One folder for both: what they have in common is built once.
    for name in ["kube-leader-election", "kubert"] {
        let arguments = ["build", "--quiet", "--locked", "--target-dir"].map(str::to_owned);
        let arguments = arguments.into_iter().chain([path(folder().join("rust"))]);
        build(name, "cargo", "Rust by rustup", arguments)?;
    }
    let arguments = ["build", "-mod=readonly", "-trimpath", "-o"].map(str::to_owned);
    let arguments = arguments
        .into_iter()
        .chain([path(folder().join("go/controller-runtime")), ".".to_owned()]);
    build("controller-runtime", "go", "Go 1.26 or later", arguments)?;
    let output = format!("-Doutput={}", path(folder().join("java")));
    let arguments = ["-B", "-q", "--no-transfer-progress", &output, "package"].map(str::to_owned);
    build("java", "mvn", "Maven and a JDK, 17 or later", arguments)?;
    ensure!(
        Command::new("java")
            .arg("-version")
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok(),
        "cannot run java, which runs tests/electors/java: install a Java runtime, 17 or later"
    );
    eprintln!("built the electors in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Runs a build tool in the folder of an elector.
fn build(
    name: &str,
    tool: &str,
    tool_is: &str,
    arguments: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    let status = Command::new(tool)
        .args(arguments)
        .env("CGO_ENABLED", "0")
        .current_dir(repository("tests/electors").join(name))
        .status()
        .with_context(|| {
            format!("cannot run {tool}, which builds tests/electors/{name}: install {tool_is}")
        })?;
    ensure!(
        status.success(),
        "{tool} failed to build tests/electors/{name} ({status}); its messages are above"
    );
    Ok(())
}
