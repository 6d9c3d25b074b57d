//! Tests against a real control plane: etcd and kube-apiserver, real electors, the manifests of this repository.
//!
//! What admission sees on a real API server (stamps, match conditions, dry runs) is asserted here rather than
//! assumed, and so is that Leasehold, deployed as its manifests say, refuses what it must and never stops a correct
//! elector.
//!
//! - The control plane's binaries come from `KUBEBUILDER_ASSETS`, or are built by `tests/controlplane/build.sh`, of
//!   version `LEASEHOLD_TEST_KUBERNETES` (1.36.3).
//! - Where root allows, everything runs in a network namespace of its own, so that the manifests are applied
//!   unchanged; otherwise the registration is rewritten to call a loopback URL. `LEASEHOLD_TEST_NETWORK=loopback`
//!   asks for the latter. The first line printed says which it is.
//! - One control plane serves all tests, each in a namespace of its own. Tests overlap within a phase
//!   (`harness/schedule.rs`), since most of their time is waiting for leases to expire.
//! - When a test fails, the ends of all logs are shown and the folder of logs is kept.
//! - `LEASEHOLD_TEST_CAPTURE=1` writes real reviews to `tests/data/reviews`.

#![allow(
    clippy::print_stderr,
    reason = "what a test program says besides its results belongs there"
)]

mod annotation_locks;
mod attacks;
mod captured;
mod components;
mod electors;
mod exceptions;
mod guard;
mod harness;
mod manifests;
mod policy;
mod renewals;
mod roll_out;
mod stamps;

use std::{future::Future, process::ExitCode, sync::OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::harness::{
    assets::Assets,
    network::Network,
    schedule::{Phase, Schedule},
    world::World,
};

/// Set before the first test runs, and not at all for `--list`.
static WORLD: OnceLock<(Runtime, World)> = OnceLock::new();
static SCHEDULE: OnceLock<Schedule> = OnceLock::new();

/// Waiting tests cost nothing, so there are more of them than processors.
const TEST_THREADS: usize = 16;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(TEST_THREADS));
    if !arguments.list
        && let Err(error) = prepare()
    {
        eprintln!("the API-server tests cannot start: {error:#}");
        return ExitCode::FAILURE;
    }
    let conclusion = libtest_mimic::run(&arguments, tests());
    if let Some((_, world)) = WORLD.get()
        && let Err(error) = world.clear_away(conclusion.has_failed())
    {
        eprintln!("{error:#}");
    }
    conclusion.exit_code()
}

/// All tests, in the order of their phases.
fn tests() -> Vec<Trial> {
    let minor_version = WORLD
        .get()
        .and_then(|(_, world)| world.assets.minor_version().ok());
    let mut tests = [
        stamps::tests(),
        captured::tests(),
        electors::tests(minor_version),
        attacks::tests(),
        policy::tests(),
        exceptions::tests(),
        renewals::tests(),
        components::tests(),
        annotation_locks::tests(),
        manifests::tests(),
        roll_out::tests(),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    // Stable: within a phase, as they are listed.
    tests.sort_by_key(|test| test.phase);
    tests.into_iter().map(|test| test.trial).collect()
}

fn prepare() -> anyhow::Result<()> {
    let assets = Assets::find_or_build()?;
    let network = Network::settle(&assets)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let world = World::new(assets, network)?;
    let (runtime, world) = WORLD.get_or_init(|| (runtime, world));
    runtime.spawn(async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        let _ = world.clear_away(false);
        std::process::exit(130);
    });
    Ok(())
}

/// One test, and when it may run.
struct Test {
    phase: Phase,
    trial: Trial,
}

/// One test: when it may run, its name, and what it does.
fn test<F, Fut>(phase: Phase, name: impl Into<String>, body: F) -> Test
where
    F: FnOnce(&'static World) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let trial = Trial::test(name, move || {
        let (runtime, world) = WORLD
            .get()
            .ok_or_else(|| Failed::from("the world was not prepared"))?;
        let _turn = SCHEDULE.get_or_init(Schedule::default).enter(phase);
        runtime
            .block_on(Box::pin(body(world)))
            .map_err(|error| Failed::from(format!("{error:#}")))
    });
    Test { phase, trial }
}
