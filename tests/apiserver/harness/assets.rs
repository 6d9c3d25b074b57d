//! The binaries that the tests start: the control plane, the electors, Leasehold itself.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// Where the ecosystem's tools look for a control plane's binaries (controller-runtime's envtest named it).
const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
/// Which of the control planes pinned in `tests/controlplane` to build when there are no assets.
const VERSION_VARIABLE: &str = "LEASEHOLD_TEST_KUBERNETES";
const DEFAULT_VERSION: &str = "1.37.2";
/// Set for the process inside the network namespace, where nothing can be downloaded any more.
const ELECTORS_VARIABLE: &str = "LEASEHOLD_TEST_ELECTORS";
/// A helm binary, which is built where this is not set.
const HELM_VARIABLE: &str = "LEASEHOLD_TEST_HELM";
/// An OpenTofu binary, which is built where this is not set.
const TOFU_VARIABLE: &str = "LEASEHOLD_TEST_TOFU";

/// The client-go versions that the elector is built with, as `go build -modfile` takes them.
const CLIENT_GO: [(&str, &str); 3] = [
    ("client-go-0.37", "go.mod"),
    ("client-go-0.36", "client-go-0.36.mod"),
    ("client-go-0.33", "client-go-0.33.mod"),
];

/// Folders of binaries, found or built.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    /// Holds `kube-apiserver`, `etcd`, `kubectl`, `kube-scheduler` and `kube-controller-manager`.
    pub(crate) control_plane: PathBuf,
    /// Holds one elector for each client-go version.
    pub(crate) electors: PathBuf,
    /// The program `helm`.
    pub(crate) helm: PathBuf,
    #[allow(dead_code, reason = "for tests/apiserver")]
    /// OpenTofu's program `tofu`.
    pub(crate) tofu: PathBuf,
}

impl Assets {
    /// Finds what is there and builds what is not; says on standard error what takes long.
    pub(crate) fn find_or_build() -> anyhow::Result<Self> {
        Ok(Self {
            control_plane: control_plane()?,
            electors: electors()?,
            helm: helm()?,
            tofu: tofu()?,
        })
    }

    /// The minor version of this Kubernetes 1, by the API server's own word.
    pub(crate) fn minor_version(&self) -> anyhow::Result<u32> {
        let output = Command::new(self.binary("kube-apiserver"))
            .arg("--version")
            .output()?;
        let printed = String::from_utf8(output.stdout)?;
        let version = printed
            .trim()
            .strip_prefix("Kubernetes v1.")
            .and_then(|rest| rest.split('.').next());
        version
            .with_context(|| format!("kube-apiserver --version printed {printed:?}"))?
            .parse()
            .with_context(|| format!("kube-apiserver --version printed {printed:?}"))
    }

    /// The names that [`Self::elector`] takes.
    pub(crate) fn elector_versions() -> impl Iterator<Item = &'static str> {
        CLIENT_GO.iter().map(|(name, _)| *name)
    }

    /// The elector that was built with this client-go.
    pub(crate) fn elector(&self, version: &str) -> PathBuf {
        self.electors.join(version)
    }

    /// One of the control plane's binaries.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.control_plane.join(name)
    }

    /// `leasehold` as this test run built it.
    pub(crate) fn leasehold() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_leasehold"))
    }

    /// Hands the folders to the same program started anew.
    pub(crate) fn pass_on(&self, command: &mut Command) {
        command
            .env(ASSETS_VARIABLE, &self.control_plane)
            .env(ELECTORS_VARIABLE, &self.electors)
            .env(HELM_VARIABLE, &self.helm)
            .env(TOFU_VARIABLE, &self.tofu);
    }
}

/// A folder of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder of the control plane's binaries, found or built.
pub(crate) fn control_plane() -> anyhow::Result<PathBuf> {
    let folder = match env::var_os(ASSETS_VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let version = env::var(VERSION_VARIABLE).unwrap_or_else(|_| DEFAULT_VERSION.to_owned());
            let otherwise = format!(
                "set {ASSETS_VARIABLE} to a folder that holds kube-apiserver, etcd, kubectl, kube-scheduler and \
                 kube-controller-manager"
            );
            built("tests/controlplane/build.sh", &[&version], &otherwise)?
        }
    };
    for name in [
        "etcd",
        "kube-apiserver",
        "kubectl",
        "kube-scheduler",
        "kube-controller-manager",
    ] {
        ensure!(
            folder.join(name).is_file(),
            "{} holds no {name}. Either put one there, or unset {ASSETS_VARIABLE} so that \
             tests/controlplane/build.sh builds it (it needs Go and a Go module proxy)",
            folder.display()
        );
    }
    Ok(folder)
}

/// Runs a script that builds what is not in its cache, and gives the path that it prints last.
fn built(script: &str, arguments: &[&str], otherwise: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new(repository(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {script}"))?;
    ensure!(
        output.status.success(),
        "{script} {} failed ({}). Either let it build (it needs Go and a Go module proxy), or {otherwise}",
        arguments.join(" "),
        output.status
    );
    let printed =
        String::from_utf8(output.stdout).with_context(|| format!("{script} printed no readable path"))?;
    let path = printed
        .lines()
        .last()
        .with_context(|| format!("{script} printed no path"))?;
    Ok(PathBuf::from(path))
}

fn helm() -> anyhow::Result<PathBuf> {
    program(
        HELM_VARIABLE,
        "tests/helm/build.sh",
        "a helm binary, 4.0 or later",
    )
}

fn tofu() -> anyhow::Result<PathBuf> {
    program(
        TOFU_VARIABLE,
        "tests/opentofu/build.sh",
        "a tofu binary, 1.12 or later",
    )
}

/// The program that this variable names, or else the one that a script builds.
fn program(variable: &str, script: &str, what: &str) -> anyhow::Result<PathBuf> {
    match env::var_os(variable).filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => built(script, &[], &format!("set {variable} to {what}")),
    }
}

fn electors() -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os(ELECTORS_VARIABLE) {
        return Ok(PathBuf::from(folder));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("electors");
    for (name, module_file) in CLIENT_GO {
        if !folder.join(name).exists() {
            eprintln!("building the elector with {name} (the first time only: a minute or two) ...");
        }
        let status = Command::new("go")
            .args([
                "build",
                "-mod=readonly",
                "-trimpath",
                "-modfile",
                module_file,
                "-o",
            ])
            .arg(folder.join(name))
            .arg(".")
            .env("CGO_ENABLED", "0")
            .current_dir(repository("tests/electors/elector"))
            .status()
            .context("cannot run go, which builds tests/electors: install Go 1.26 or later, or set LEASEHOLD_TEST_ELECTORS to a folder that holds client-go-0.37, client-go-0.36 and client-go-0.33")?;
        ensure!(
            status.success(),
            "go build of tests/electors/elector with {module_file} failed ({status})"
        );
    }
    Ok(folder)
}
