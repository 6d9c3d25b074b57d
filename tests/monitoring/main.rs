//! What operators see, held against what is served: metrics, alerts, the dashboard, the runbooks, logs.
//!
//! Judged by Prometheus's own promtool, which `tests/promtool/build.sh` builds from its Go module the first time
//! (or `PROMTOOL` names), and by what a real `leasehold serve` answers on `/metrics`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests say what they expect by unwrapping it"
)]

mod alerts;
mod dashboard;
mod expressions;
#[allow(dead_code, reason = "shared with tests/socket, which uses all of it")]
#[path = "../socket/harness.rs"]
mod harness;
mod logs;
mod metrics;
mod promtool;
mod serving;

use std::path::{Path, PathBuf};

/// A file or folder of this repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
