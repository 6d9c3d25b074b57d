//! Tests against a real control plane: etcd and kube-apiserver, real electors, the manifests of this repository.
//!
//! What admission sees on a real API server (stamps, match conditions, dry runs) is asserted here rather than
//! assumed, and so is that Leasehold, deployed as its manifests say, refuses what it must and never stops a correct
//! elector.
//!
//! - The control plane's binaries come from `KUBEBUILDER_ASSETS`, or are built by `tests/controlplane/build.sh`, of
//!   version `LEASEHOLD_TEST_KUBERNETES` (1.37.2).
//! - helm is `LEASEHOLD_TEST_HELM`, or is built by `tests/helm/build.sh`; OpenTofu is `LEASEHOLD_TEST_TOFU`, or is built
//!   by `tests/opentofu/build.sh`.
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
mod cel;
mod certificates;
mod chart;
mod components;
mod control_plane_electors;
mod coordinated_electors;
mod demo;
mod electors;
mod events;
mod exceptions;
mod fence;
mod guard;
mod harness;
mod in_process;
mod installation;
mod manifests;
mod opentofu;
mod policy;
mod policy_admission;
mod purpose;
mod registration;
mod renewals;
mod replay;
mod roll_out;
mod stamps;
mod suggest;

use std::process::ExitCode;

use crate::harness::{
    assets::Assets,
    run::{Test, run, test},
};

fn main() -> ExitCode {
    run(tests, Assets::find_or_build, || {})
}

/// All tests, on this minor version of Kubernetes where it is known.
fn tests(minor_version: Option<u32>) -> Vec<Test> {
    let tests = [
        stamps::tests(),
        in_process::tests(minor_version),
        captured::tests(),
        cel::tests(),
        electors::tests(),
        control_plane_electors::tests(),
        coordinated_electors::tests(minor_version),
        attacks::tests(),
        purpose::tests(),
        policy::tests(),
        policy_admission::tests(),
        suggest::tests(),
        replay::tests(),
        exceptions::tests(),
        fence::tests(),
        events::tests(),
        renewals::tests(),
        opentofu::tests(),
        components::tests(),
        demo::tests(),
        annotation_locks::tests(),
        certificates::tests(),
        manifests::tests(),
        installation::tests(),
        chart::tests(),
        roll_out::tests(),
        registration::tests(),
    ];
    tests.into_iter().flatten().collect()
}
