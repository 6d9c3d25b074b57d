//! What becomes of each kind of audit event, and of what is none.

mod picture;

use leasehold::{
    policy::Policy,
    replay::{Counts, LeaseReport, Merge, Replay, Selection, Source},
};
use serde_json::{Value, json};

/// `second` after ten o'clock.
fn at(second: f64) -> String {
    let start: jiff::Timestamp = "2026-11-27T10:00:00Z".parse().unwrap();
    let time = start + jiff::SignedDuration::from_secs_f64(second);
    format!("{time:.6}")
}

/// A successful PUT at level RequestResponse.
fn put(second: f64, holder: &str, transitions: i64) -> Value {
    let renewed = at(second - 0.002);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "payments", "namespace": "shop", "uid": "1", "resourceVersion": format!("{}", (second * 1000.0) as i64),
            "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions,
            "acquireTime": at(0.0), "renewTime": renewed},
    });
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse",
        "auditID": format!("id-{second}-{holder}"), "stage": "ResponseComplete",
        "requestURI": "/apis/coordination.k8s.io/v1/namespaces/shop/leases/payments", "verb": "update",
        "user": {"username": "system:serviceaccount:shop:payments", "groups": ["system:authenticated"], "extra": {
            "authentication.kubernetes.io/pod-name": [format!("payments-{holder}")],
            "authentication.kubernetes.io/pod-uid": [format!("uid-{holder}")],
        }},
        "sourceIPs": ["10.0.0.1"], "userAgent": "payments/v1 (linux/amd64) leader-election",
        "objectRef": {"resource": "leases", "namespace": "shop", "name": "payments", "apiGroup": "coordination.k8s.io", "apiVersion": "v1"},
        "responseStatus": {"code": 200}, "requestObject": lease, "responseObject": lease,
        "requestReceivedTimestamp": at(second - 0.003), "stageTimestamp": at(second),
    })
}

/// The same without bodies.
fn metadata(second: f64, pod: &str) -> Value {
    let mut event = put(second, pod, 0);
    event["level"] = "Metadata".into();
    for body in ["requestObject", "responseObject"] {
        event.as_object_mut().unwrap().remove(body);
    }
    event
}

fn changed(mut event: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut event);
    event
}

/// What is learned of files of events.
fn replay_files(files: &[String], selection: Selection) -> (Vec<LeaseReport>, Vec<Counts>, u64) {
    let policy = Policy::default();
    let sources = files
        .iter()
        .map(|file| Source::new("log", file.as_bytes()).unwrap())
        .collect();
    let mut merge = Merge::new(sources);
    let mut replay = Replay::new(&policy, selection);
    for event in &mut merge {
        replay.take(&event);
    }
    assert!(merge.errors().is_empty());
    let counts = merge
        .sources()
        .iter()
        .map(|source| source.counts().clone())
        .collect();
    (replay.finish(), counts, merge.copies())
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// The one lease of a file.
fn lease(events: &[Value]) -> LeaseReport {
    let (mut leases, ..) = replay_files(&[lines(events)], Selection::default());
    assert_eq!(leases.len(), 1);
    leases.remove(0)
}

fn holders(lease: &LeaseReport) -> Vec<&str> {
    lease.terms.iter().map(|term| term.holder.as_str()).collect()
}

#[test]
fn what_changed_nothing_or_was_refused_is_no_write() {
    let base = [put(0.0, "a", 0), put(2.0, "a", 0)];
    let plain = lease(&base);
    assert_eq!(
        (plain.writes, plain.renewals.count, holders(&plain)),
        (2, 1, vec!["a"])
    );
    let stored = |lease: &LeaseReport| (lease.writes, lease.changes, lease.renewals.count);
    for (name, event, told) in [
        (
            "a dry run, which only its URI tells",
            changed(put(3.0, "b", 1), |event| {
                event["requestURI"] = "/x?dryRun=All&fieldManager=b".into();
            }),
            "dryRuns",
        ),
        (
            "the loser of a race",
            changed(put(3.0, "b", 1), |event| {
                event["responseStatus"] = json!({"code": 409, "reason": "Conflict"});
                event["responseObject"] = json!({"kind": "Status"});
            }),
            "refused",
        ),
        (
            "a denial",
            changed(put(3.0, "b", 1), |event| {
                event["responseStatus"] = json!({"code": 403, "message":
                    "admission webhook \"leases.leasehold.dev\" denied the request: takeover-before-expiry: no"});
            }),
            "refused",
        ),
        (
            "the stage before",
            changed(put(3.0, "b", 1), |event| {
                event["stage"] = "RequestReceived".into();
            }),
            "",
        ),
        (
            "a read",
            changed(put(3.0, "b", 1), |event| event["verb"] = "get".into()),
            "",
        ),
        (
            "another kind of object",
            changed(put(3.0, "b", 1), |event| {
                event["objectRef"]["apiGroup"] = "example.com".into();
            }),
            "",
        ),
        (
            "a PUT that changes nothing",
            changed(put(2.0, "a", 0), |event| {
                event["auditID"] = "again".into();
                event["stageTimestamp"] = at(3.0).into();
            }),
            "",
        ),
    ] {
        let told_of = lease(&[base[0].clone(), base[1].clone(), event]);
        assert_eq!(stored(&told_of), stored(&plain), "{name}");
        let counted = [
            ("dryRuns", told_of.dry_runs),
            ("refused", told_of.refused.values().sum()),
        ];
        for (what, count) in counted {
            assert_eq!(count, u64::from(what == told), "{name}: {what}");
        }
    }
    let denied = lease(&[
        put(0.0, "a", 0),
        changed(put(3.0, "b", 1), |event| {
            event["responseStatus"] = json!({"code": 403, "message":
                "admission webhook \"leases.leasehold.dev\" denied the request: no"});
        }),
    ]);
    assert_eq!(
        denied.refused.keys().collect::<Vec<_>>(),
        ["webhook leases.leasehold.dev"]
    );
}

#[test]
fn a_takeover_is_early_by_the_times_of_the_events() {
    for (after, refused) in [(13.0, 1), (17.0, 0)] {
        let lease = lease(&[put(0.0, "a", 0), put(2.0, "a", 0), put(2.0 + after, "b", 1)]);
        assert_eq!(lease.would_be_refused, refused, "{after}: {:?}", lease.findings);
        assert_eq!(holders(&lease), ["a", "b"]);
        assert!((lease.longest_failover_seconds.unwrap() - after).abs() < 1e-6);
        assert!((lease.seconds_without_leader - (after - 15.0_f64).max(0.0)).abs() < 1e-6);
    }
}

#[test]
fn a_put_that_creates_begins_anew_and_a_name_is_found_in_the_answer() {
    let created = changed(put(0.0, "a", 0), |event| {
        event["responseStatus"]["code"] = 201.into();
        event["objectRef"].as_object_mut().unwrap().remove("name");
    });
    let lease = lease(&[created, put(2.0, "a", 0)]);
    assert_eq!((lease.name.as_str(), lease.not_judged), ("payments", 0));
    assert!(!lease.terms[0].began_before);
}

#[test]
fn nobody_knows_what_a_504_did_and_the_next_write_is_not_judged_by_it() {
    let timeout = changed(put(3.0, "b", 1), |event| {
        event["responseStatus"]["code"] = 504.into();
    });
    let lease = lease(&[put(0.0, "a", 0), put(2.0, "a", 0), timeout, put(5.0, "c", 2)]);
    assert_eq!(
        (lease.unknown, lease.would_be_refused, lease.not_judged),
        (1, 0, 2)
    );
    assert_eq!(holders(&lease), ["a", "c"]);
    assert_eq!(
        lease.terms[0].end.as_str(),
        "released or lost",
        "no early takeover out of a gap"
    );
}

#[test]
fn who_impersonates_writes_as_the_other() {
    let lease = lease(&[changed(put(0.0, "a", 0), |event| {
        event["impersonatedUser"] = json!({"username": "system:serviceaccount:shop:other"});
    })]);
    let term = &lease.terms[0];
    assert_eq!(
        (term.user.as_str(), term.pod.as_deref()),
        ("system:serviceaccount:shop:other", None)
    );
}

#[test]
fn patches_at_level_request_are_applied_where_that_can_be_done() {
    let patch = |second: f64, body: Value| {
        changed(put(second, "a", 0), |event| {
            event["verb"] = "patch".into();
            event["level"] = "Request".into();
            event["requestObject"] = body;
            event.as_object_mut().unwrap().remove("responseObject");
        })
    };
    let renewal = patch(2.0, json!({"spec": {"renewTime": at(2.0)}}));
    let forging = patch(
        3.0,
        json!({"spec": {"holderIdentity": "b", "leaseTransitions": 1}, "metadata": {"managedFields": [{}]}}),
    );
    let of_json = patch(
        4.0,
        json!([{"op": "replace", "path": "/spec/holderIdentity", "value": "c"}]),
    );
    let lease = lease(&[put(0.0, "a", 0), renewal, forging, of_json]);
    assert_eq!(
        (lease.renewals.count, lease.changes, lease.would_be_refused),
        (1, 1, 1)
    );
    assert_eq!(
        lease.not_judged, 2,
        "the first, whose past is unknown, and the JSON Patch"
    );
}

#[test]
fn without_bodies_a_change_of_the_writer_is_inferred_and_never_a_finding() {
    let events: Vec<_> = [
        (0.0, "a"),
        (2.0, "a"),
        (4.0, "a"),
        (7.0, "b"),
        (9.0, "b"),
        (40.0, "a"),
    ]
    .map(|(second, pod)| metadata(second, pod))
    .into();
    let selection = Selection {
        duration: Some(15),
        ..Selection::default()
    };
    let (leases, ..) = replay_files(&[lines(&events)], selection);
    let lease = &leases[0];
    assert_eq!(holders(lease), ["payments-a", "payments-b", "payments-a"]);
    assert!(lease.terms.iter().all(|term| term.inferred));
    assert_eq!(
        (lease.changes, lease.inferred_changes, lease.sooner_than_expiry),
        (0, 2, 1)
    );
    assert_eq!(
        (lease.renewals.count, lease.would_be_refused, lease.findings.len()),
        (3, 0, 0)
    );
    assert_eq!(lease.renewals.headroom_seconds, Some(13.0));
    assert!(
        (lease.seconds_without_leader - 16.0).abs() < 1e-6,
        "{}",
        lease.seconds_without_leader
    );
}

#[test]
fn several_files_are_one_log_in_the_order_of_time() {
    // Two API servers in turn, a rotated file after the current one, and a copy of half of it.
    let events: Vec<_> = (0..20)
        .map(|number| {
            put(
                f64::from(number) * 2.0,
                if number < 10 { "a" } else { "b" },
                i64::from(number >= 10),
            )
        })
        .collect();
    let part = |keep: &dyn Fn(usize) -> bool| {
        let kept: Vec<_> = events
            .iter()
            .enumerate()
            .filter(|(number, _)| keep(*number))
            .map(|(_, event)| event.clone())
            .collect();
        lines(&kept)
    };
    let whole = lease(&events);
    let files = [
        part(&|number| number >= 10 && number % 2 == 0),
        part(&|number| number < 10),
        part(&|number| number >= 10 && number % 2 == 1),
        part(&|number| number < 10 && number % 3 == 0),
    ];
    let (leases, _, copies) = replay_files(&files, Selection::default());
    assert_eq!(copies, 4);
    let told = |lease: &LeaseReport| serde_json::to_value(lease).unwrap();
    assert_eq!(told(&leases[0]), told(&whole));
}

#[test]
fn what_is_no_event_is_counted_with_its_line_and_hides_nothing() {
    let mut long = put(2.0, "a", 0);
    long["user"]["groups"] = vec!["x".repeat(70_000)].into();
    let cut = put(4.0, "a", 0).to_string();
    let cut = cut.split_at(cut.len() / 2).0;
    let skipped = changed(put(6.0, "a", 0), |event| {
        event["requestObject"] = "skipped-too-big-size-object".into();
        event["responseObject"] = "skipped-too-big-size-object".into();
    });
    let text = [
        put(0.0, "a", 0).to_string(),
        "I1127 10:00:00.000000 1 controller.go:1] klog of another component".to_owned(),
        long.to_string(),
        format!("{cut} [Truncated...]"),
        json!({"leases": "of something else"}).to_string(),
        changed(put(5.0, "a", 0), |event| {
            event["stageTimestamp"] = "yesterday".into();
        })
        .to_string(),
        skipped.to_string(),
        put(8.0, "a", 0).to_string(),
    ]
    .join("\n");
    let (leases, counts, _) = replay_files(&[text], Selection::default());
    let counts = &counts[0];
    assert_eq!(
        (
            counts.writes,
            counts.broken_lines,
            counts.first_broken_line,
            counts.foreign,
            counts.unreadable
        ),
        (4, 2, Some(2), 1, 1),
        "{counts:?}"
    );
    assert_eq!(
        leases[0].renewals.count, 1,
        "the intervals around what is not known are none"
    );
}

#[test]
fn selections_leave_out_the_rest() {
    let events = lines(&[put(0.0, "a", 0), put(2.0, "a", 0), put(4.0, "a", 0)]);
    let count = |selection: Selection| {
        let (leases, ..) = replay_files(std::slice::from_ref(&events), selection);
        leases.first().map_or(0, |lease| lease.writes)
    };
    let since = |second: f64| Some(at(second).parse().unwrap());
    assert_eq!(count(Selection::default()), 3);
    assert_eq!(
        count(Selection {
            since: since(1.0),
            ..Selection::default()
        }),
        2
    );
    assert_eq!(
        count(Selection {
            until: since(1.0),
            ..Selection::default()
        }),
        1
    );
    assert_eq!(
        count(Selection {
            namespace: Some("other".to_owned()),
            ..Selection::default()
        }),
        0
    );
    assert_eq!(
        count(Selection {
            name: Some("payments".to_owned()),
            ..Selection::default()
        }),
        3
    );
}
