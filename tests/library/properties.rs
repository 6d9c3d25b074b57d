//! The two promises, for any electors and any clocks; and that no bytes can hurt.

use jiff::{SignedDuration, Timestamp};
use leasehold::{
    lease::{Change, LeaseName, Record, Stamp, Stamps, State, Write, Writer},
    policy::Policy,
    verdict::Outcome,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{self, judge};

const DAY: i64 = 86_400_000;

/// An instant in milliseconds after an arbitrary beginning.
fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_000_000_000 + milliseconds).unwrap()
}

/// What the API server stamps at an instant: whole seconds, rounded down.
fn stamp(milliseconds: i64) -> Stamp {
    let second = (1_795_000_000_000 + milliseconds).div_euclid(1000);
    Stamp::At(Timestamp::from_second(second).unwrap())
}

/// A history: a leader's last renewal, and the write of a candidate some time after it.
#[derive(Clone, Debug)]
struct History {
    duration_seconds: i32,
    transitions: Option<i32>,
    /// From the last renewal to the candidate's write, in true milliseconds.
    waited: i64,
    /// How far the clock of the API server that took the second write is ahead of the first's, in milliseconds.
    server_offset: i64,
    /// How far the clocks of leader, candidate and Leasehold are off, in milliseconds.
    leader_skew: i64,
    candidate_skew: i64,
    our_skew: i64,
    /// The candidate's own duration.
    own_duration_seconds: i32,
}

impl History {
    /// The candidate's write, stamped as an API server stamps it.
    fn takeover(&self) -> Write<'static> {
        let record = |holder: &'static str, skew: i64, now: i64, duration: i32, transitions| Record {
            holder: Some(holder.into()),
            duration_seconds: Some(duration),
            acquire_time: Some(at(now + skew)),
            renew_time: Some(at(now + skew)),
            transitions,
            ..Record::default()
        };
        let stamps = |stamp| Stamps {
            holder: stamp,
            renew_time: stamp,
            acquire_time: stamp,
            created: Some(at(-DAY)),
        };
        let counted = Some(self.transitions.unwrap_or(0) + 1);
        Write {
            lease: LeaseName {
                kind: leasehold::lease::ObjectKind::Lease,
                namespace: "shop".into(),
                name: "payments".into(),
            },
            writer: Writer::default(),
            change: Change::Takeover,
            old: State {
                record: record("a", self.leader_skew, 0, self.duration_seconds, self.transitions),
                stamps: stamps(stamp(0)),
                ..State::default()
            },
            new: State {
                record: record(
                    "b",
                    self.candidate_skew,
                    self.waited,
                    self.own_duration_seconds,
                    counted,
                ),
                stamps: stamps(stamp(self.waited + self.server_offset)),
                ..State::default()
            },
            reviewed: at(self.waited + self.our_skew),
        }
    }
}

prop_compose! {
    /// `waited` is a share of the duration, in thousandths.
    fn history(share: std::ops::Range<i64>)(
        duration_seconds in 5..=3600_i32, own_duration_seconds in 5..=3600_i32,
        transitions in proptest::option::of(0..1_000_000_i32),
        share in share, server_offset in -1000..=1000_i64,
        leader_skew in -DAY..=DAY, candidate_skew in -DAY..=DAY, our_skew in -DAY..=DAY,
    ) -> History {
        let waited = i64::from(duration_seconds) * share;
        History {
            duration_seconds, transitions, waited, server_offset, leader_skew, candidate_skew, our_skew,
            own_duration_seconds,
        }
    }
}

proptest! {
    #[test]
    fn a_candidate_that_waited_for_the_leases_duration_is_never_denied(history in history(1000..5000)) {
        let verdict = Policy::default().decide(&history.takeover());
        prop_assert!(!verdict.would_be_denied(), "{:?}", verdict.violations);
    }

    #[test]
    fn a_takeover_that_the_stamps_prove_early_never_passes(history in history(0..1000)) {
        // Both stamps are whole seconds and the slack is one more; what is early by less is not proven.
        let unproven = SignedDuration::from_millis(2000 - history.server_offset.min(0));
        let early = SignedDuration::from_millis(i64::from(history.duration_seconds) * 1000 - history.waited);
        prop_assume!(early - SignedDuration::from_millis(history.server_offset.max(0)) > unproven);
        let verdict = Policy::default().decide(&history.takeover());
        prop_assert_eq!(verdict.outcome(), Outcome::Deny);
        prop_assert_eq!(verdict.violations[0].rule.as_str(), "takeover-before-expiry");
    }

    #[test]
    fn no_renewal_by_whatever_clock_is_ever_denied(history in history(0..5000)) {
        let mut renewal = history.takeover();
        let (old, new) = (&renewal.old.record, &mut renewal.new.record);
        *new = Record { renew_time: new.renew_time, ..old.clone() };
        renewal.change = Change::between(old, new);
        prop_assert_eq!(renewal.change, Change::Renew);
        let verdict = Policy::default().decide(&renewal);
        prop_assert!(!verdict.would_be_denied(), "{:?}", verdict.violations);
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (answer, _) = judge("", &bytes, at(0));
        prop_assert_eq!(answer.status, 400);
        prop_assert!(serde_json::from_slice::<Value>(&answer.body).unwrap()["error"].is_string());
    }

    #[test]
    fn a_damaged_review_gets_a_verdict_or_a_reason(
        which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(),
        damage in proptest::collection::vec(any::<u8>(), 0..4), removed in 0..40_usize,
    ) {
        let all = fixtures::all();
        let mut bytes = which.get(&all).1.clone().into_bytes();
        let start = place.index(bytes.len());
        let end = (start + removed).min(bytes.len());
        bytes.splice(start..end, damage);
        let (answer, _) = judge("", &bytes, at(0));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        match answer.status.as_u16() {
            200 => prop_assert!(!body["response"]["uid"].as_str().unwrap().is_empty()),
            400 => prop_assert!(!body["error"].as_str().unwrap().is_empty()),
            other => prop_assert!(false, "status {other}"),
        }
        let (again, _) = judge("", &bytes, at(0));
        prop_assert_eq!(answer, again, "same review, same answer");
    }

    #[test]
    fn any_text_is_a_policy_or_a_mistake_with_a_reason(text in "(?s).{0,200}") {
        if let Err(error) = Policy::parse(&text) {
            prop_assert!(!error.problem.is_empty());
        }
    }
}
