//! A network of the tests' own, so that the manifests can be applied as they are.
//!
//! A webhook that is registered by Service is called at the addresses of the Service's endpoints, and no process can
//! listen on a made-up address in an ordinary machine's network. In a network namespace of its own it can: the
//! addresses are put on the loopback device there, and nothing leaves the machine.

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::assets::Assets;

/// `loopback` asks for the ordinary network; `inside` is what this program sets for itself.
const VARIABLE: &str = "LEASEHOLD_TEST_NETWORK";

/// The addresses of the two Leasehold replicas in a namespace.
const REPLICAS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)),
];

/// How the API server reaches Leasehold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// A network namespace: manifests unchanged, a Service with two endpoints.
    Namespace,
    /// The machine's own loopback: the registration is rewritten to call one URL.
    Loopback,
}

impl Network {
    /// Where each Leasehold replica listens.
    pub(crate) fn replicas(self) -> &'static [IpAddr] {
        match self {
            Self::Namespace => &REPLICAS,
            Self::Loopback => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        }
    }

    #[allow(dead_code, reason = "for tests/conformance")]
    /// Whether this is the program started anew in a namespace, where nothing can be downloaded.
    pub(crate) fn is_cut_off() -> bool {
        env::var(VARIABLE).is_ok_and(|value| value == "inside")
    }

    /// Settles on a network. Where root allows, this does not return: the program starts anew in a namespace.
    pub(crate) fn settle(assets: &Assets) -> anyhow::Result<Self> {
        match env::var(VARIABLE).as_deref() {
            Ok("inside") => {
                run("ip", &["link", "set", "lo", "up"])?;
                for address in REPLICAS {
                    run("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"])?;
                }
                eprintln!(
                    "network: a namespace of its own; manifests unchanged, two replicas behind the Service"
                );
                return Ok(Self::Namespace);
            }
            Ok("loopback") => {
                eprintln!("network: loopback, as {VARIABLE} asks; the webhook is called by URL, one replica");
                return Ok(Self::Loopback);
            }
            Ok(other) => anyhow::bail!("{VARIABLE}={other:?}: give 'loopback', or leave it unset"),
            Err(_) => {}
        }
        // Whether this user may is best asked by doing it.
        let allowed = Command::new("unshare")
            .args(["--net", "ip", "link", "set", "lo", "up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !allowed {
            eprintln!(
                "network: loopback, since a network namespace needs root, unshare and ip; the webhook is called by \
                 URL, one replica"
            );
            return Ok(Self::Loopback);
        }
        let mut command = Command::new("unshare");
        command
            .arg("--net")
            .arg(env::current_exe().context("cannot find this program's own path")?)
            .args(env::args_os().skip(1))
            .env(VARIABLE, "inside");
        assets.pass_on(&mut command);
        // Only a failure returns.
        Err(command.exec()).context("cannot start anew in a network namespace")
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        status.success(),
        "{program} {} failed ({status})",
        arguments.join(" ")
    );
    Ok(())
}
