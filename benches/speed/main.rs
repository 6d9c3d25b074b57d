//! How fast Leasehold is, as ratios: each pair is measured side by side within one run.
//!
//! `cargo bench --bench speed [-- PART...]`, where a part is `verdict`, `server`, `memory` or `apiserver`. The last two
//! need a control plane, as the API-server tests do, and share what starts it. Writes `target/speed.json`, and the
//! same as a table for people to `target/speed.md`; a run of some parts writes `target/speed-PART.json` and `.md`.

#![allow(clippy::print_stdout, reason = "what was measured is to be read")]
#![allow(clippy::unwrap_used, reason = "the input is the benchmark's own")]

mod apiserver;
mod client;
#[path = "../../tests/apiserver/guard/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::print_stderr,
    reason = "the tests use all of it"
)]
mod guard;
#[path = "../../tests/apiserver/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::print_stderr,
    reason = "the tests use all of it"
)]
mod harness;
mod memory;
mod pair;
mod remember;
mod report;
mod server;
mod verdict;

use std::path::{Path, PathBuf};

use anyhow::bail;
use tokio::runtime::Runtime;

use crate::{
    harness::{
        assets::{self, Assets},
        network::Network,
        world::World,
    },
    report::Report,
};

const PARTS: [&str; 4] = ["verdict", "server", "memory", "apiserver"];

fn main() -> anyhow::Result<()> {
    let mut chosen: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if let Some(unknown) = chosen.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!(
            "{unknown:?} is no part of this benchmark; give some of {}",
            PARTS.join(", ")
        );
    }
    // A run of some parts leaves the table of all of them as it is.
    let name = match chosen.as_slice() {
        [] => "speed".to_owned(),
        some => format!("speed-{}", some.join("-")),
    };
    if chosen.is_empty() {
        chosen = PARTS.map(str::to_owned).into();
    }
    let wanted = |part: &str| chosen.iter().any(|name| name == part);

    // First of all: this program may start anew in a network of its own.
    let world = if wanted("memory") || wanted("apiserver") {
        let assets = Assets {
            control_plane: assets::control_plane()?,
            electors: PathBuf::new(),
            helm: PathBuf::new(),
            tofu: PathBuf::new(),
        };
        let network = Network::settle(&assets)?;
        Some(World::new(assets, network)?)
    } else {
        None
    };
    let mut report = Report::begin();
    if wanted("verdict") {
        verdict::run(&mut report)?;
        remember::run(&mut report)?;
    }
    if wanted("server") {
        server::run(&mut report)?;
    }
    if let Some(world) = world {
        let runtime = Runtime::new()?;
        let measured = runtime.block_on(async {
            if wanted("memory") {
                memory::run(&world, &mut report).await?;
            }
            if wanted("apiserver") {
                apiserver::run(&world, &mut report).await?;
            }
            anyhow::Ok(())
        });
        world.clear_away(measured.is_err())?;
        measured?;
    }
    report.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), &name)
}
