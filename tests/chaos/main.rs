//! Leasehold, as its manifests deploy it, under what a cluster does to it: replicas that end and that are killed, an
//! API server and an etcd that go away, clocks that jump, clients that mean no good, and more load than it can bear.
//!
//! `make chaos` runs it: it takes longer than the tests of `tests/apiserver`, on whose harness it stands, and must be
//! alone on the machine's processors to say anything by its figures. What is asserted are counts, never times. The
//! table at the end tells what was done and what was seen.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what a test program says besides its results belongs there"
)]

#[path = "../apiserver/electors.rs"]
#[allow(dead_code, reason = "its own tests run with those of the API server")]
mod electors;
#[path = "../apiserver/guard/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the API-server tests, which use all of it"
)]
mod guard;
#[path = "../apiserver/harness/mod.rs"]
#[allow(dead_code, reason = "shared with the API-server tests, which use all of it")]
mod harness;

mod clock;
mod flood;
mod kills;
mod load;
mod outage;
mod overload;
mod process;
mod reviews;
mod roll_out;
mod table;

use std::process::ExitCode;

use anyhow::ensure;

use crate::{
    guard::Guard,
    harness::{
        assets::Assets,
        network::Network,
        run::{Test, run, test},
        world::World,
    },
};

/// Open files that the floods take: connections at this end, and some more.
const OPEN_FILES: usize = 20_000;

fn main() -> ExitCode {
    raise_open_files();
    run(tests, Assets::find_or_build, table::print)
}

fn tests(_minor_version: Option<u32>) -> Vec<Test> {
    let tests = [
        roll_out::tests(),
        kills::tests(),
        outage::tests(),
        clock::tests(),
        flood::tests(),
        overload::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// Raises the limit of open files, where it is lower and this user may. Where not, the flood that needs them fails, and
/// says so.
fn raise_open_files() {
    let (process, limit) = (std::process::id().to_string(), OPEN_FILES.to_string());
    let _ = std::process::Command::new("prlimit")
        .args(["--pid", &process, "--nofile", &format!("{limit}:{limit}")])
        .stderr(std::process::Stdio::null())
        .status();
}

/// Leasehold as the manifests deploy it: two replicas behind a Service, which takes a network namespace.
async fn guard(world: &'static World) -> anyhow::Result<&'static Guard> {
    ensure!(
        world.network == Network::Namespace,
        "this needs two replicas behind a Service, and so a network namespace: run it as root, with unshare and ip \
         installed"
    );
    world.guard().await
}
