//! `leasehold demo --assets`: the story on a real API server of its own, to its end.

use std::ffi::OsStr;

use anyhow::{Context, ensure};

use crate::{
    Test,
    harness::{assets::Assets, process::Process, schedule::Phase, world::World},
    test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    // Alone: it is told in real time, and a machine that is busy for a second lets through what the guard would deny.
    vec![test(
        Phase::Alone(0),
        "demo::is_told_to_its_end_on_a_real_api_server",
        is_told_to_its_end,
    )]
}

async fn is_told_to_its_end(world: &'static World) -> anyhow::Result<()> {
    let arguments = [
        OsStr::new("demo"),
        OsStr::new("--assets"),
        world.assets.control_plane.as_os_str(),
    ];
    let mut demo = Process::start(world.folder(), "demo", Assets::leasehold(), arguments).await?;
    let status = demo.wait().await?;
    let told = demo.log_tail(usize::MAX);
    ensure!(status.success(), "the demo ended ({status}):\n{told}");
    let version = format!("a real kube-apiserver v1.{}.", world.assets.minor_version()?);
    ensure!(told.contains(&version), "no word of {version}:\n{told}");

    let two_leaders = tally(&told, "seconds with two leaders")?;
    ensure!(
        two_leaders[0] > 0.0,
        "nothing went wrong without a guard:\n{told}"
    );
    ensure!(
        two_leaders[1] == 0.0,
        "two leaders in spite of the guard:\n{told}"
    );
    ensure!(
        tally(&told, "leases created, acquired or taken over")?[1] > 0.0,
        "nobody led behind the guard:\n{told}"
    );
    let denied = told
        .lines()
        .filter(|line| line.trim_start().starts_with("denied"));
    let denied = denied.filter_map(|line| line.split_whitespace().last()?.parse::<u32>().ok());
    ensure!(denied.max() > Some(0), "nothing was denied:\n{told}");
    Ok(())
}

/// A row of the tally: without a guard, and with it.
fn tally(told: &str, row: &str) -> anyhow::Result<[f64; 2]> {
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix(row))
        .with_context(|| format!("the tally has no {row:?}:\n{told}"))?;
    let numbers: Vec<f64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    numbers
        .try_into()
        .map_err(|numbers| anyhow::anyhow!("{row:?} has {numbers:?} for its numbers"))
}
