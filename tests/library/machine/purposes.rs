//! Every route of up to three writes by which somebody who does not hold a live election could make it pass for a lock, a
//! status board or a claim, and take it then.
//!
//! A write that is denied changes nothing, so a route goes on from each write that passes.

use leasehold::{
    lease::{Ownership, Writer},
    policy::Policy,
};

use super::api_server::{ApiServers, Client, Request, Spec, timestamp};

/// The longest route, in writes.
const LONGEST: usize = 3;
/// Long enough that no route outlives it; the model's time is in milliseconds.
const VALID_SECONDS: i32 = 600;
const THIEF: &str = "payments-7d4b9c6f5-q8w4m_91c7";

/// One write of a route: its words for a failure, and the request.
type Write = (String, Request);

/// Who holds the lease at the beginning, and who writes.
struct Cast {
    holder: &'static str,
    writer: Client,
}

/// A sibling of the holder's pod: provably not the holder.
fn stranger() -> Cast {
    Cast {
        holder: "payments-7d4b9c6f5-x2x9k_0b7c",
        writer: Client {
            pod: Some("payments-7d4b9c6f5-q8w4m".to_owned()),
            manager: "payments".to_owned(),
        },
    }
}

/// Somebody of whom nobody can tell whether it is the holder.
fn unknown() -> Cast {
    Cast {
        holder: "broker-a",
        writer: Client {
            pod: None,
            manager: "payments".to_owned(),
        },
    }
}

/// Every write of a route that could follow on the present record: each holder with each choice of fields removed, what
/// touches the stamps, and what ends or begins the object.
fn writes(api: &ApiServers, now: i64) -> Vec<Write> {
    let mut writes = Vec::new();
    let Some(stored) = &api.lease else {
        for (what, transitions, duration_seconds) in [
            ("a lock", None, None),
            ("an election", Some(0), Some(VALID_SECONDS)),
        ] {
            let spec = Spec {
                holder: Some(THIEF.to_owned()),
                duration_seconds,
                transitions,
                renew_time: duration_seconds.map(|_| now),
                acquire_time: duration_seconds.map(|_| now),
                ..Spec::default()
            };
            writes.push((format!("create {what}"), Request::Create(spec)));
        }
        return writes;
    };
    let holders = [
        stored.spec.holder.clone(),
        Some(THIEF.to_owned()),
        None,
        Some(String::new()),
    ];
    for holder in holders {
        for removed in 0..16_u8 {
            let keeps = |bit: u8| removed & bit == 0;
            let given = stored.spec.holder != holder && holder.as_deref() == Some(THIEF);
            let spec = &stored.spec;
            let spec = Spec {
                holder: holder.clone(),
                duration_seconds: spec.duration_seconds.filter(|_| keeps(1)),
                transitions: spec
                    .transitions
                    .map(|count| count + i32::from(given))
                    .filter(|_| keeps(2)),
                renew_time: Some(now)
                    .filter(|_| given)
                    .or(spec.renew_time)
                    .filter(|_| keeps(4)),
                acquire_time: Some(now)
                    .filter(|_| given)
                    .or(spec.acquire_time)
                    .filter(|_| keeps(8)),
                ..spec.clone()
            };
            let what = format!("write {spec:?}");
            writes.push((what, Request::Write { spec, version: None }));
        }
    }
    let shorter = Spec {
        duration_seconds: stored.spec.duration_seconds.map(|_| 1),
        ..stored.spec.clone()
    };
    writes.extend([
        (
            "shorten".to_owned(),
            Request::Write {
                spec: shorter,
                version: None,
            },
        ),
        ("label".to_owned(), Request::Label(format!("label-{now}"))),
        ("clear the stamps".to_owned(), Request::ClearStamps),
        (
            "set the stamps back".to_owned(),
            Request::ForgeStamps {
                seconds: -3600,
                label: format!("forged-{now}"),
            },
        ),
        ("delete".to_owned(), Request::Delete),
    ]);
    writes
}

/// A write that passed, and the lease before and after it.
struct Passed<'a> {
    route: &'a [String],
    before: &'a ApiServers,
    after: &'a ApiServers,
    rules: Vec<&'static str>,
}

/// Walks every route, and calls `check` with each write that passes. Returns how many writes were judged.
fn walk(cast: &Cast, transitions: Option<i32>, policy: &Policy, check: &mut dyn FnMut(&Passed<'_>)) -> usize {
    let mut api = ApiServers::new(vec![0]);
    let elector = Client {
        pod: None,
        manager: "payments".to_owned(),
    };
    let election = Spec {
        holder: Some(cast.holder.to_owned()),
        duration_seconds: Some(VALID_SECONDS),
        acquire_time: Some(0),
        renew_time: Some(0),
        transitions,
        ..Spec::default()
    };
    let created = api.propose(0, &elector, &Request::Create(election), 0).unwrap();
    api.store(created);
    go_on(cast, policy, &api, &mut Vec::new(), check)
}

fn go_on(
    cast: &Cast,
    policy: &Policy,
    before: &ApiServers,
    route: &mut Vec<String>,
    check: &mut dyn FnMut(&Passed<'_>),
) -> usize {
    if route.len() == LONGEST {
        return 0;
    }
    let now = 2000 * (i64::try_from(route.len()).unwrap() + 1);
    let mut judged = 0;
    for (what, request) in writes(before, now) {
        let Some(proposal) = before.propose(0, &cast.writer, &request, now) else {
            continue;
        };
        judged += 1;
        let verdict = policy.decide(&proposal.write(timestamp(now)));
        if verdict.would_be_denied() {
            continue;
        }
        let mut after = before.clone();
        after.store(proposal);
        route.push(what);
        check(&Passed {
            route,
            before,
            after: &after,
            rules: verdict
                .violations
                .iter()
                .map(|violation| violation.rule.as_str())
                .collect(),
        });
        judged += go_on(cast, policy, &after, route, check);
        route.pop();
    }
    judged
}

/// Whether the lease is still the election that it was: its holder's, with its duration, and renewed by it.
fn is_the_election(api: &ApiServers, holder: &str) -> bool {
    api.lease.as_ref().is_some_and(|stored| {
        stored.spec.held_by() == Some(holder)
            && stored.spec.duration_seconds == Some(VALID_SECONDS)
            && stored.spec.renew_time == Some(0)
            && stored.stamp_moved().is_some()
    })
}

fn holder(api: &ApiServers) -> Option<&str> {
    api.lease.as_ref().and_then(|stored| stored.spec.held_by())
}

#[test]
fn a_stranger_changes_nothing_of_a_live_election_by_any_route() {
    let cast = stranger();
    for transitions in [Some(3), None] {
        let mut passed = 0;
        let judged = walk(&cast, transitions, &Policy::default(), &mut |write| {
            passed += 1;
            assert!(is_the_election(write.after, cast.holder), "{:#?}", write.route);
        });
        assert!(judged > 200 && passed > 0, "{judged} judged, {passed} passed");
    }
}

#[test]
fn only_a_release_or_a_deletion_by_somebody_unknown_ends_a_live_election() {
    let cast = unknown();
    for transitions in [Some(3), None] {
        let (mut releases, mut deletions) = (0, 0);
        let judged = walk(&cast, transitions, &Policy::default(), &mut |write| {
            if !is_the_election(write.before, cast.holder) {
                return;
            }
            let counted = write
                .before
                .lease
                .as_ref()
                .is_some_and(|stored| stored.spec.transitions.is_some());
            let Some(after) = &write.after.lease else {
                deletions += 1;
                assert_eq!(write.rules, ["deleted-while-held"], "it is noted");
                return;
            };
            match holder(write.after) {
                None => {
                    releases += 1;
                    // An election that counts is known for one afterwards, too. One that does not may be a lock with expiry,
                    // and clearing it is how some of these are unlocked.
                    let is_known = after.spec.duration_seconds.is_some() || after.spec.transitions.is_some();
                    assert!(!counted || is_known, "{:#?}", write.route);
                }
                // fabric8's release, too, as nobody knows better.
                Some(_) if after.spec.duration_seconds == Some(1) => releases += 1,
                Some(_) => assert!(is_the_election(write.after, cast.holder), "{:#?}", write.route),
            }
        });
        assert!(
            judged > 10_000 && releases > 0 && deletions > 0,
            "{judged} {releases} {deletions}"
        );
    }
}

#[test]
fn the_routes_lead_somewhere_without_the_rules_against_them() {
    let untimed = |api: &ApiServers| {
        api.lease.as_ref().is_some_and(|stored| {
            stored.spec.held_by().is_some()
                && stored.spec.duration_seconds.is_none()
                && stored.spec.transitions.is_none()
        })
    };
    for (rules, lengths) in [
        ("duration-out-of-bounds", [true, true, true]),
        ("foreign-release", [false, true, true]),
    ] {
        let policy = Policy::parse(&format!("rules: {{{rules}: {{action: off}}}}")).unwrap();
        let cast = if rules == "foreign-release" {
            stranger()
        } else {
            unknown()
        };
        let mut found = [false; LONGEST];
        walk(&cast, Some(3), &policy, &mut |write| {
            found[write.route.len() - 1] |= untimed(write.after);
        });
        assert_eq!(found, lengths, "{rules}: a disguise after so many writes");
    }
}

/// What the routes rest on: who writes is who the cast says.
#[test]
fn the_cast_is_what_it_is_called() {
    for (cast, expected) in [
        (stranger(), Ownership::Foreign),
        (unknown(), Ownership::CannotTell),
    ] {
        let writer = Writer {
            pod: cast.writer.pod.clone().map(Into::into),
            field_manager: Some(cast.writer.manager.clone().into()),
            ..Writer::default()
        };
        assert_eq!(writer.ownership_of(cast.holder, Some("payments")), expected);
    }
}
