//! The memory against histories of attempts, some of which never become writes.

use std::borrow::Cow;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::lease::{
    Record, SharedIdentity, Stamp, State,
    testing::{Draft, at, create, free, held, update},
};

fn memory() -> Memory {
    Memory::new(MemoryMetrics::default())
}

/// Reviews an allowed write.
fn review(memory: &Memory, write: &Write<'_>) -> History {
    let history = memory.recall(write).unwrap_or_default();
    memory.remember(write);
    history
}

/// The state of an object, stamped `written` seconds after the beginning.
fn state(uid: &'static str, version: u64, draft: Draft, created: i64, written: i64) -> State<'static> {
    let mut state = State {
        record: draft.0,
        uid: Some(uid.into()),
        resource_version: Some(version),
        ..State::default()
    };
    state.stamps.created = Some(at(created));
    state.stamps.renew_time = Stamp::At(at(written));
    state.stamps.holder = Stamp::At(at(written));
    state
}

fn delete(old: State<'static>, now: i64) -> Write<'static> {
    let mut write = update(free(), free());
    (write.change, write.old, write.new, write.reviewed) = (Change::Delete, old, State::default(), at(now));
    write
}

fn creation(new: State<'static>, now: i64) -> Write<'static> {
    let mut write = create(free());
    (write.new, write.reviewed) = (new, at(now));
    write
}

fn change(old: State<'static>, new: Draft, now: i64) -> Write<'static> {
    let mut write = update(Draft(old.record.clone()), new);
    write.new.uid.clone_from(&old.uid);
    (write.old, write.reviewed) = (old, at(now));
    write
}

mod recreation;

mod holder_changes;

mod shared_identity;

/// Any review of one of a few leases, however absurd.
fn any_write() -> impl Strategy<Value = Write<'static>> {
    let holder = || proptest::option::of(prop::sample::select(vec!["a", "b", "c"]));
    let uid = || proptest::option::of(prop::sample::select(vec!["u1", "u2", "u3"]));
    let record = move || {
        (
            holder(),
            proptest::option::of(0..60_i32),
            proptest::option::of(0..60_i64),
        )
            .prop_map(|(holder, duration, renewed)| Record {
                holder: holder.map(Cow::Borrowed),
                duration_seconds: duration,
                renew_time: renewed.map(at),
                ..Record::default()
            })
    };
    let state = move || {
        (record(), uid(), proptest::option::of(0..50_u64), 0..60_i64).prop_map(
            |(record, uid, version, stamp)| {
                let mut state = State {
                    record,
                    uid: uid.map(Cow::Borrowed),
                    resource_version: version,
                    ..State::default()
                };
                state.stamps.created = Some(at(stamp));
                state.stamps.renew_time = Stamp::At(at(stamp));
                state
            },
        )
    };
    let pod = proptest::option::of(prop::sample::select(vec!["p", "q", "r", "s", "t", "v"]));
    (state(), state(), pod, 0..3_u8, -7200..7200_i64, 0..500_u32).prop_map(
        |(old, new, pod, kind, now, lease)| {
            let mut write = update(Draft(old.record.clone()), Draft(new.record.clone()));
            write.lease.name = lease.to_string().into();
            write.writer.pod = pod.map(Cow::Borrowed);
            write.reviewed = at(now);
            (write.old, write.new) = (old, new);
            match kind {
                0 => (write.change, write.old) = (Change::Create, State::default()),
                1 => (write.change, write.new) = (Change::Delete, State::default()),
                _ => {}
            }
            write
        },
    )
}

/// The most bytes that one lease can be made to take, as documented.
const WORST: usize = 2600;

#[test]
fn the_worst_that_one_lease_can_take_is_what_the_documentation_says() {
    let memory = memory();
    let of = |kind: &str, number: u64| format!("{kind}-{number}-{}", "x".repeat(1000));
    for number in 0..100_u64 {
        let second = number.cast_signed();
        let record = |step: u64| Record {
            holder: Some(of("identity", step / 40 + step % 2).into()),
            duration_seconds: Some(15),
            renew_time: Some(at(step.cast_signed())),
            ..Record::default()
        };
        let mut old = state("u1", number + 1, free(), 0, 0);
        old.record = record(number);
        let mut write = change(old, Draft(record(number + 1)), second);
        write.writer.pod = Some(of("pod", number % 7).into());
        review(&memory, &write);
    }
    let deletion = delete(
        State {
            record: Record {
                holder: Some(of("a", 0).into()),
                duration_seconds: Some(15),
                ..Record::default()
            },
            ..state("u1", 200, free(), 0, 0)
        },
        100,
    );
    review(&memory, &deletion);
    for uid in ["u2", "u3", "u4", "u5", "u6"] {
        let mut attempt = creation(state(uid, 0, held("b"), 0, 0), 101);
        attempt.new.record.holder = Some(of("b", 1).into());
        attempt.writer.pod = Some(of("pod", 1).into());
        review(&memory, &attempt);
    }
    let shard = memory.locked().find(|shard| !shard.leases.is_empty()).unwrap();
    let bytes = shard.leases.values().next().unwrap().bytes();
    println!("{bytes} bytes");
    assert!(
        (WORST * 3 / 4..=WORST).contains(&bytes),
        "{bytes} instead of {WORST}"
    );
}

proptest! {
    #[test]
    fn memory_is_bounded_in_number_and_in_age_whatever_comes(
        writes in proptest::collection::vec(any_write(), 0..400), later in 0..20_000_i64,
    ) {
        let metrics = MemoryMetrics::default();
        let memory = Memory::with_capacity(128, metrics.clone());
        for write in &writes {
            review(&memory, write);
            prop_assert!(memory.len() <= 128);
            prop_assert_eq!(metrics.leases(), memory.len());
        }
        prop_assert!(memory.bytes() <= 128 * WORST + 64 * 100, "{}", memory.bytes());
        // Whatever is told is no older than a lease is remembered.
        for write in &writes {
            let mut write = write.clone();
            write.reviewed = at(7200 + later);
            for change in memory.recall(&write).unwrap_or_default().holder_changes {
                prop_assert!(write.reviewed.duration_since(change).as_secs() <= REMEMBERED_SECONDS);
            }
        }
    }

    /// Candidates try whatever they like, and nothing becomes a write: the object seen is always the same.
    #[test]
    fn attempts_that_fail_confirm_nothing(writes in proptest::collection::vec(any_write(), 0..200)) {
        let memory = memory();
        for (version, mut write) in (1..).zip(writes) {
            write.lease.name = "payments".into();
            if write.change != Change::Create {
                write.old = state("u0", version, held("z").renewed_at(-5), 0, 0);
            }
            prop_assert_eq!(review(&memory, &write), History::default());
        }
    }
}

#[test]
fn the_least_recently_reviewed_go_first() {
    let metrics = MemoryMetrics::default();
    let memory = Memory::with_capacity(SHARDS * 8, metrics.clone());
    let write = |name: usize, now: i64| {
        let mut write = change(state("u1", 1, held("a"), 0, 0), held("b"), now);
        write.lease.name = name.to_string().into();
        write
    };
    let second = |name: usize| i64::try_from(name / 100).unwrap();
    for name in 0..4000 {
        review(&memory, &write(name, second(name)));
    }
    assert!(
        memory.len() > SHARDS * 6 && memory.len() <= SHARDS * 8,
        "{}",
        memory.len()
    );
    assert_eq!(metrics.evictions(), 4000 - memory.len() as u64);
    let is_known = |name: usize| {
        let key = memory.hasher.of(&write(name, 0).lease);
        memory.shard(key).unwrap().leases.contains_key(&key)
    };
    assert!((3900..4000).all(is_known), "the latest");
    assert!(!(0..2000).any(is_known), "the oldest");
    assert_eq!(metrics.leases(), memory.len());
}

#[test]
fn what_is_old_is_forgotten() {
    let metrics = MemoryMetrics::default();
    let memory = Memory::new(metrics.clone());
    let write = |name: u64, now: i64| {
        let mut write = change(state("u1", name, held("a"), 0, 0), held("b"), now);
        write.lease.name = (name / 2).to_string().into();
        write
    };
    for name in 0..2000 {
        review(&memory, &write(name * 2, 0));
    }
    review(&memory, &write(0, 10));
    assert_eq!(metrics.leases(), 2000);
    for name in 2000..4000 {
        review(&memory, &write(name * 2, REMEMBERED_SECONDS + 1));
    }
    assert_eq!(
        (metrics.leases(), memory.len(), metrics.evictions()),
        (2001, 2001, 0),
        "and the one reviewed since"
    );
    // Its own sweep may be a minute away: what is too old is not believed for all that.
    let mut returned = write(1, REMEMBERED_SECONDS + 11);
    returned.old.record.holder = Some("c".into());
    assert_eq!(memory.recall(&returned), None);
}

#[test]
fn a_review_that_finds_its_shard_taken_goes_without_memory() {
    let metrics = MemoryMetrics::default();
    let memory = Memory::with_capacity(128, metrics.clone());
    let write = change(state("u1", 1, held("a"), 0, 0), held("b"), 0);
    let key = memory.hasher.of(&write.lease);
    let taken = memory.shard(key).unwrap();
    assert_eq!(memory.recall(&write), None);
    memory.remember(&write);
    drop(taken);
    assert_eq!((metrics.skipped_reviews(), memory.len()), (2, 0));
}

/// Some reviews of one lease, with names, identities and pods as long as in the field: a few renewals and one
/// takeover, or, where `in_turn`, two pods that take turns under one identity with all their renewals sent.
fn of_the_field(number: usize, in_turn: bool) -> impl Iterator<Item = Write<'static>> {
    const STEPS: u64 = 5;
    let node = format!("node-{number}.zone-a.region-b.example.net");
    let pods = [
        format!("payments-{number:08}-x2x9k"),
        format!("payments-{number:08}-q8w4m"),
    ];
    (0..STEPS).map(move |step| {
        let (second, takes_over) = (step.cast_signed() * 2, step == STEPS - 2);
        let record = |second: i64, pod: usize| Record {
            holder: Some(if in_turn {
                node.clone().into()
            } else {
                format!("{}_0b7c1c5e-0d6f-4b3f-9a55-0c9d5c1b2f3a", pods[pod]).into()
            }),
            duration_seconds: Some(15),
            renew_time: Some(at(second)),
            ..Record::default()
        };
        let has_taken_over = usize::from(step >= STEPS - 1);
        let old = State {
            record: record(second, has_taken_over),
            ..state("u1", step + 1, free(), 0, 0)
        };
        let new = record(second + 2, usize::from(takes_over || has_taken_over > 0));
        let mut write = change(old, Draft(new), second);
        write.lease.name = format!("payments-{number}").into();
        write.writer.pod = in_turn.then(|| pods[usize::from(step % 2 == 1)].clone().into());
        write
    })
}

#[test]
fn memory_per_lease_is_what_the_documentation_says() {
    for (in_turn, documented) in [(false, 130), (true, 330)] {
        let count = 100_000;
        let memory = Memory::with_capacity(count * 2, MemoryMetrics::default());
        for number in 0..count {
            for write in of_the_field(number, in_turn) {
                review(&memory, &write);
            }
        }
        assert_eq!(memory.len(), count);
        let per_lease = memory.bytes() / count;
        println!(
            "{per_lease} bytes per lease (in turn: {in_turn}), {} in all",
            memory.bytes()
        );
        assert!(
            (documented * 3 / 4..=documented).contains(&per_lease),
            "{per_lease} instead of {documented}"
        );
    }
}

#[test]
fn all_that_is_remembered_of_a_hundred_thousand_leases_stays_under_the_cap() {
    let metrics = MemoryMetrics::default();
    let memory = Memory::new(metrics.clone());
    for number in 0..100_000 {
        for write in of_the_field(number, true) {
            review(&memory, &write);
        }
    }
    println!("{} leases, {} bytes", memory.len(), memory.bytes());
    assert!(
        (MOST_LEASES / 2..=MOST_LEASES).contains(&memory.len()),
        "{}",
        memory.len()
    );
    assert!(memory.bytes() <= 6_000_000, "{}", memory.bytes());
    assert_eq!(metrics.evictions(), 100_000 - memory.len() as u64);
}

#[test]
fn times_beyond_any_calendar_are_borne() {
    let memory = memory();
    for now in [Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH] {
        let mut write = change(state("u1", 1, held("a"), 0, 0), held("b"), 0);
        write.reviewed = now;
        review(&memory, &write);
    }
    assert_eq!(memory.len(), 1);
}
