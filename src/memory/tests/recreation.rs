//! A lease deleted while held, and created anew.

use super::*;

/// "a" holds u1, renewed at 0; it is deleted at 2.
fn deletion() -> Write<'static> {
    delete(state("u1", 10, held("a").renewed_at(0), -60, 0), 2)
}

/// The renewal of `holder`, which shows the object `uid` that it created at 3.
fn renewal_of(uid: &'static str, holder: &'static str) -> Write<'static> {
    let old = state(uid, 20, held(holder).renewed_at(3), 3, 3);
    change(old, held(holder).renewed_at(5), 5)
}

fn create_at_3(uid: &'static str, holder: &'static str) -> Write<'static> {
    creation(state(uid, 0, held(holder).renewed_at(3), 3, 3), 3)
}

#[test]
fn it_is_told_once_when_the_new_object_is_seen() {
    let memory = memory();
    assert_eq!(review(&memory, &deletion()), History::default());
    assert_eq!(
        review(&memory, &create_at_3("u2", "b")),
        History::default(),
        "an attempt"
    );
    let told = review(&memory, &renewal_of("u2", "b")).recreation.unwrap();
    assert_eq!(
        (told.deleted_holder.as_str(), told.new_holder.as_str()),
        ("a", "b")
    );
    assert_eq!(
        (told.renewed, told.created, told.valid_seconds),
        (at(0), at(3), 15)
    );
    assert_eq!(review(&memory, &renewal_of("u2", "b")).recreation, None, "once");
}

#[test]
fn a_race_to_create_names_only_the_winner() {
    for (winner, uid, told) in [("a", "u2", false), ("b", "u3", true)] {
        let memory = memory();
        for attempt in [deletion(), create_at_3("u2", "a"), create_at_3("u3", "b")] {
            assert_eq!(review(&memory, &attempt).recreation, None);
        }
        let seen = review(&memory, &renewal_of(uid, winner)).recreation;
        assert_eq!(seen.is_some(), told, "{winner} won");
    }
}

#[test]
fn a_race_to_create_without_a_deletion_is_nothing() {
    let memory = memory();
    for attempt in [
        create_at_3("u2", "a"),
        create_at_3("u3", "b"),
        renewal_of("u3", "b"),
    ] {
        assert_eq!(review(&memory, &attempt).recreation, None);
    }
}

#[test]
fn a_deletion_that_failed_is_none() {
    let memory = memory();
    let survivor = state("u1", 11, held("a").renewed_at(4), -60, 4);
    for attempt in [
        deletion(),
        create_at_3("u2", "b"),
        change(survivor, held("a").renewed_at(6), 6),
        renewal_of("u2", "b"),
    ] {
        assert_eq!(review(&memory, &attempt).recreation, None);
    }
}

#[test]
fn an_attempt_that_crossed_the_deletion_does_not_hide_it() {
    let memory = memory();
    let before_it = state("u1", 10, held("a").renewed_at(0), -60, 0);
    for attempt in [
        deletion(),
        change(before_it, held("a").renewed_at(2), 2),
        create_at_3("u2", "b"),
    ] {
        review(&memory, &attempt);
    }
    assert!(review(&memory, &renewal_of("u2", "b")).recreation.is_some());
}

#[test]
fn the_api_servers_tries_to_create_what_is_there_leave_no_trace() {
    let memory = memory();
    for second in 0..10 {
        let elected = held("b").strategy("OldestEmulationVersion").renewed_at(second);
        let attempt = creation(state("u9", 0, elected, second, second), second);
        assert_eq!(review(&memory, &attempt), History::default());
    }
    assert!(memory.is_empty());
    review(&memory, &deletion());
    review(&memory, &create_at_3("u2", "b"));
    for second in 3..20 {
        let elected = held("c").strategy("OldestEmulationVersion").renewed_at(second);
        review(
            &memory,
            &creation(state("u9", 0, elected, second, second), second),
        );
    }
    assert!(
        review(&memory, &renewal_of("u2", "b")).recreation.is_some(),
        "nor do they push others out"
    );
}

#[test]
fn nobody_loses_what_nobody_held_or_the_holder_lets_go() {
    let own = delete(state("u1", 10, held("web-0").renewed_at(0), -60, 0), 2).by_pod("web-0");
    let nobodys = delete(state("u1", 10, free(), -60, 0), 2);
    let without_duration = delete(state("u1", 10, held("a").duration(None), -60, 0), 2);
    for deletion in [own, nobodys, without_duration] {
        let memory = memory();
        review(&memory, &deletion);
        review(&memory, &create_at_3("u2", "b"));
        assert_eq!(review(&memory, &renewal_of("u2", "b")).recreation, None);
    }
}
