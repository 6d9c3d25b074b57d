//! Real electors of many kinds, each as its users run it, under the guard and without it.
//!
//! `tests/apiserver` holds client-go and the control plane's own electors to the guard in every test run; these are
//! the others, which take their own tools and longer, so that `make conformance` runs them. They stand on the same
//! harness. What they assert:
//!
//! - Correct electors, two instances each, fail over, release, restart and renew, and nothing at all is denied, by
//!   Leasehold's metrics and audit log and by the API server's.
//! - Electors with a flaw that lets two of them lead are brought to it on purpose: without the guard two leaders are
//!   seen, with it one.
//!
//! The programs are in `tests/electors`, a folder each. The table at the end tells, per elector and scenario, what was
//! seen.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what a test program says besides its results belongs there"
)]

#[path = "../apiserver/control_plane_electors.rs"]
#[allow(dead_code, reason = "its own tests run with those of the API server")]
mod control_plane_electors;
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

mod candidate;
mod late_release;
mod programs;
mod race;
mod table;
mod terms;

use std::process::ExitCode;

use crate::harness::{
    assets::Assets,
    network::Network,
    run::{Test, run, test},
};

fn main() -> ExitCode {
    let find_or_build = || {
        let assets = Assets::find_or_build()?;
        // In the namespace nothing can be downloaded; what started the program there has built everything.
        if !Network::is_cut_off() {
            programs::build_all()?;
        }
        Ok(assets)
    };
    run(tests, find_or_build, table::print)
}

fn tests(_minor_version: Option<u32>) -> Vec<Test> {
    let tests = [terms::tests(), race::tests(), late_release::tests()];
    tests.into_iter().flatten().collect()
}
