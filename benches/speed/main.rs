//! How fast Leasehold is, as ratios: each pair is measured side by side within one run.
//!
//! `cargo bench --bench speed [-- PART...]`, where a part is `verdict`, `server`, `memory` or `apiserver`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has nothing to report"
)]

mod pair;
mod remember;
mod report;
mod verdict;

use std::path::PathBuf;

fn main() {
    let chosen: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    let mut report = report::Report::default();
    if wanted("verdict") {
        verdict::run(&mut report);
        remember::run(&mut report);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/speed.json");
    report.write(&path).unwrap();
    println!("written to {}", path.display());
}
