//! How a test binary runs: the world is prepared once, each test waits for its phase, everything is cleared away.

use std::{future::Future, process::ExitCode, sync::OnceLock, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{
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

/// After this a test hangs. The longest, a thousand rotations of certificates, takes a quarter of an hour on a busy
/// machine.
const HANGS_AFTER: Duration = Duration::from_secs(20 * 60);

/// One test, and when it may run.
pub(crate) struct Test {
    phase: Phase,
    trial: Trial,
}

/// One test: when it may run, its name, and what it does.
pub(crate) fn test<F, Fut>(phase: Phase, name: impl Into<String>, body: F) -> Test
where
    F: FnOnce(&'static World) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let trial = Trial::test(name, move || {
        let (runtime, world) = WORLD
            .get()
            .ok_or_else(|| Failed::from("the world was not prepared"))?;
        let schedule = SCHEDULE
            .get()
            .ok_or_else(|| Failed::from("no schedule was made"))?;
        let _turn = schedule.enter(phase);
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = Box::pin(body(world)) => outcome,
                // Nothing would ever come of what waits for it.
                error = world.control_plane_ended() => Err(error),
                () = tokio::time::sleep(HANGS_AFTER) => {
                    Err(anyhow::anyhow!("hangs: it did not end within {} s", HANGS_AFTER.as_secs()))
                }
            }
        });
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    });
    Test { phase, trial }
}

/// Runs the tests that the arguments ask for, in the order of their phases.
///
/// `tests` is given the minor version of Kubernetes, where it is known: not for `--list`. `find_or_build` runs while
/// there is a network to download from; `at_the_end`, when all results are told.
pub(crate) fn run(
    tests: impl FnOnce(Option<u32>) -> Vec<Test>,
    find_or_build: impl FnOnce() -> anyhow::Result<Assets>,
    at_the_end: impl FnOnce(),
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(TEST_THREADS));
    if !arguments.list
        && let Err(error) = prepare(find_or_build)
    {
        eprintln!("the tests cannot start: {error:#}");
        return ExitCode::FAILURE;
    }
    let minor_version = WORLD
        .get()
        .and_then(|(_, world)| world.assets.minor_version().ok());
    let mut tests = tests(minor_version);
    // Stable: within a phase, as they are listed.
    tests.sort_by_key(|test| test.phase);
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().map(|test| test.trial).collect());
    at_the_end();
    if let Some((_, world)) = WORLD.get()
        && let Err(error) = world.clear_away(conclusion.has_failed())
    {
        eprintln!("{error:#}");
    }
    conclusion.exit_code()
}

fn prepare(find_or_build: impl FnOnce() -> anyhow::Result<Assets>) -> anyhow::Result<()> {
    let assets = find_or_build()?;
    let minor_version = assets.minor_version()?;
    let network = Network::settle(&assets)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    SCHEDULE.get_or_init(|| Schedule::new(minor_version));
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
