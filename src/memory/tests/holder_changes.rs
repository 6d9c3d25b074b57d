//! How often a lease changes hands.

use super::*;

const HOLDERS: [&str; 2] = ["a", "b"];

/// The `n`th takeover of a lease that changes hands at each full minute.
fn takeover(n: usize) -> Write<'static> {
    let minute = i64::try_from(n).unwrap() * 60;
    let old = state("u1", n as u64 + 1, held(HOLDERS[n % 2]), 0, minute - 60);
    change(old, held(HOLDERS[(n + 1) % 2]), minute)
}

#[test]
fn each_counts_from_when_it_was_tried_once_it_is_seen() {
    let memory = memory();
    let told: Vec<_> = (0..4)
        .map(|n| review(&memory, &takeover(n)).holder_changes)
        .collect();
    assert_eq!(
        told,
        [
            vec![],
            vec![at(0)],
            vec![at(0), at(60)],
            vec![at(0), at(60), at(120)]
        ]
    );
}

#[test]
fn candidates_that_lose_count_nothing() {
    let memory = memory();
    let old = || state("u1", 5, held("a"), 0, 0);
    for second in 0..100 {
        for loser in ["b", "c", "d"] {
            assert_eq!(
                review(&memory, &change(old(), held(loser), second)),
                History::default()
            );
        }
    }
    // One that fails later, having read what was true before.
    assert_eq!(review(&memory, &takeover(5)).holder_changes.len(), 1);
    assert_eq!(
        review(&memory, &change(old(), held("c"), 301)),
        History::default()
    );
    let again = change(state("u1", 6, held("b"), 0, 0), held("a"), 302);
    assert_eq!(review(&memory, &again), History::default());
}

#[test]
fn a_release_and_an_acquire_are_one_change() {
    let memory = memory();
    for (version, old, new, changes) in [
        (1, held("a"), free(), 0),
        (2, free(), held("b"), 0),
        (3, held("b"), free(), 1),
        (4, free(), held("b"), 0),
        (5, held("b"), free(), 2),
    ] {
        let write = change(state("u1", version, old, 0, 0), new, 60);
        assert_eq!(review(&memory, &write).holder_changes.len(), changes, "{version}");
    }
}
