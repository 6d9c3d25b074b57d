//! Two pods under one identity.

use super::*;

/// Reviews renewals of one lease, each by a pod, all under one identity; whether the last but one is told.
fn renewals(memory: &Memory, identity: &'static str, pods: &[&'static str]) -> Vec<Option<SharedIdentity>> {
    (1..)
        .zip(pods)
        .map(|(second, pod)| {
            let old = state(
                "u1",
                second,
                held(identity).renewed_at(second.cast_signed() - 1),
                0,
                0,
            );
            let new = held(identity).renewed_at(second.cast_signed());
            review(memory, &change(old, new, second.cast_signed()).by_pod(pod)).shared_identity
        })
        .collect()
}

#[test]
fn a_pod_that_comes_back_after_another_is_told() {
    let told = renewals(&memory(), "payments", &["p", "q", "p", "q"]);
    let shared = SharedIdentity {
        pod: "p".into(),
        other: "q".into(),
    };
    assert_eq!(told, [None, None, None, Some(shared)]);
    let three = renewals(&memory(), "payments", &["p", "q", "r", "p", "p"]);
    assert!(
        three[4].is_some() && three[..4].iter().all(Option::is_none),
        "{three:?}"
    );
}

#[test]
fn one_pod_after_another_is_a_restart() {
    let told = renewals(&memory(), "node-7", &["p", "p", "q", "q", "r", "r"]);
    assert!(told.iter().all(Option::is_none), "{told:?}");
}

#[test]
fn attempts_that_fail_are_nobodys_writes() {
    let memory = memory();
    let old = |second: i64| {
        state(
            "u1",
            second.unsigned_abs() + 1,
            held("payments").renewed_at(second),
            0,
            0,
        )
    };
    for second in 0..20 {
        // "q" tries each time, with a renewTime of its own, and loses.
        for (pod, renewed) in [("q", second + 1000), ("p", second + 1)] {
            let write = change(old(second), held("payments").renewed_at(renewed), second).by_pod(pod);
            assert_eq!(review(&memory, &write), History::default());
        }
    }
}

#[test]
fn the_same_attempt_by_two_pods_proves_nothing() {
    let memory = memory();
    for second in 0..20_i64 {
        for pod in ["p", "q", "r"] {
            let old = state(
                "u1",
                second.cast_unsigned() + 1,
                held("payments").renewed_at(second),
                0,
                0,
            );
            let write = change(old, held("payments").renewed_at(second + 1), second).by_pod(pod);
            assert_eq!(review(&memory, &write), History::default());
        }
    }
}

#[test]
fn a_stranger_who_renews_is_no_namesake() {
    let told = renewals(
        &memory(),
        "web-0",
        &["web-0", "web-1", "web-0", "web-1", "web-0", "web-0"],
    );
    assert!(told.iter().all(Option::is_none), "{told:?}");
}
