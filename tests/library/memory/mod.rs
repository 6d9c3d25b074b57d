//! What Leasehold remembers between reviews: true, advice only, and nothing of a dry run.

mod machine;

use std::sync::Arc;

use jiff::Timestamp;
use leasehold::{
    admission::{Handler, Subject, decode},
    audit::AuditLog,
    lease::{History, Recreation, SharedIdentity},
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    verdict::Outcome,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{self, instant, response, review};

/// One process, through its handler.
struct Replica {
    handler: Handler,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn new(policy: &str) -> Self {
        let metrics = Arc::new(Metrics::new());
        let policy = ActivePolicy::new(Policy::parse(policy).unwrap());
        Self {
            handler: Handler::new(policy, Arc::clone(&metrics), AuditLog::disabled()),
            metrics,
        }
    }

    fn review(&self, review: &Value) -> Value {
        // A deletion has no stamp of its own; these are of the second of the last write.
        let now = match review["request"]["oldObject"].as_object() {
            Some(old) if review["request"]["object"].is_null() => {
                instant(&json!({"request": {"object": old}}))
            }
            _ => instant(review),
        };
        let answer = self.handler.handle(review.to_string().as_bytes(), now);
        response(&answer, review)
    }

    /// The warnings of one rule.
    fn warnings(&self, review: &Value, rule: &str) -> Vec<String> {
        let response = self.review(review);
        assert_eq!(response["allowed"], true, "{response}");
        let warnings = response["warnings"].as_array().cloned().unwrap_or_default();
        let warnings = warnings
            .iter()
            .map(|warning| warning.as_str().unwrap().to_owned());
        warnings.filter(|warning| warning.contains(rule)).collect()
    }

    fn remembered(&self) -> String {
        let text = self.metrics.encode().unwrap();
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("leasehold_memory_"))
            .collect();
        lines.join(" ")
    }
}

/// A captured review with some fields set, each by its path.
fn with(mut review: Value, fields: &[(&str, Value)]) -> Value {
    for (path, value) in fields {
        *review.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
    }
    review
}

const SUCCESSOR: &str = "payments-7d4b9c6f5-q8w4m";

/// "x2x9k" holds the lease until it is deleted by hand at 11:13:04; "q8w4m" creates it anew in the same second.
fn deleted_and_created_anew() -> [Value; 3] {
    let mut deletion = review("delete");
    deletion["request"]["userInfo"] = json!({"username": "kubernetes-admin", "groups": ["system:masters"]});
    let created = json!("2026-11-21T11:13:05Z");
    let identity = json!(format!("{SUCCESSOR}_91c7"));
    let creation = with(
        review("create"),
        &[
            (
                "/request/userInfo/extra/authentication.kubernetes.io~1pod-name/0",
                json!(SUCCESSOR),
            ),
            (
                "/request/object/metadata/uid",
                json!("c0000000-0000-4000-8000-000000000001"),
            ),
            ("/request/object/metadata/creationTimestamp", created.clone()),
            ("/request/object/metadata/managedFields/0/time", created.clone()),
            ("/request/object/spec/holderIdentity", identity.clone()),
        ],
    );
    let mut renewal = review("renew");
    for object in ["object", "oldObject"] {
        let version = &mut renewal["request"][object];
        version["metadata"]["uid"] = creation["request"]["object"]["metadata"]["uid"].clone();
        version["metadata"]["resourceVersion"] = json!("450");
        version["metadata"]["creationTimestamp"] = created.clone();
        version["spec"]["holderIdentity"] = identity.clone();
    }
    [deletion, creation, renewal]
}

/// Nothing proves who deletes the lease in these reviews, which is noted by default.
const WARNS_OF_ANY_DELETION: &str = "rules: {recreated-early: {unknown: warn}}";

#[test]
fn a_lease_deleted_and_created_anew_is_told_by_the_replica_that_saw_it() {
    let [deletion, creation, renewal] = deleted_and_created_anew();
    let replica = Replica::new(WARNS_OF_ANY_DELETION);
    assert!(replica.warnings(&deletion, "recreated-early").is_empty());
    assert!(
        replica.warnings(&creation, "recreated-early").is_empty(),
        "it may fail"
    );
    let told = replica.warnings(&renewal, "recreated-early");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(
            "recreated-early: as far as this replica saw, lease shop/payments was deleted while \
             \"payments-7d4b9c6f5-x2x9k_5e0b\" held it, and \"payments-7d4b9c6f5-q8w4m_91c7\" created it anew 1 s after \
             the last renewal"
        ),
        "{told:?}"
    );
    assert!(
        replica.warnings(&renewal, "recreated-early").is_empty(),
        "told once"
    );

    let [one, other] = [Replica::new(""), Replica::new("")];
    one.review(&deletion);
    other.review(&creation);
    for half in [one, other] {
        assert!(
            half.warnings(&renewal, "recreated-early").is_empty(),
            "half of it is nothing"
        );
    }
}

#[test]
fn two_pods_under_one_identity_are_told_at_full_registration() {
    let replica = Replica::new("");
    let pods = ["payments-7d4b9c6f5-x2x9k", SUCCESSOR];
    let told: Vec<_> = (0..4)
        .map(|turn| {
            let time = |second: usize| json!(format!("2026-11-21T11:13:{:02}.000000Z", 10 + second));
            let renewal = with(
                review("renew"),
                &[
                    (
                        "/request/userInfo/extra/authentication.kubernetes.io~1pod-name/0",
                        json!(pods[turn % 2]),
                    ),
                    (
                        "/request/oldObject/metadata/resourceVersion",
                        json!((500 + turn).to_string()),
                    ),
                    ("/request/oldObject/spec/holderIdentity", json!("payments")),
                    ("/request/object/spec/holderIdentity", json!("payments")),
                    ("/request/oldObject/spec/renewTime", time(turn)),
                    ("/request/object/spec/renewTime", time(turn + 1)),
                ],
            );
            replica.warnings(&renewal, "shared-identity")
        })
        .collect();
    assert!(told[..3].iter().all(Vec::is_empty), "{told:?}");
    assert_eq!(
        told[3],
        [
            "shared-identity: as far as this replica saw, the pods \"payments-7d4b9c6f5-x2x9k\" and \
             \"payments-7d4b9c6f5-q8w4m\" write lease shop/payments in turn, both as \"payments\": each believes that it \
             leads. See: leasehold explain shared-identity"
        ]
    );
}

#[test]
fn a_lease_that_changes_hands_too_often_is_told() {
    let replica = Replica::new("rules: {flapping: {changes: 2}}");
    let identities = ["payments-7d4b9c6f5-x2x9k_5e0b", "payments-7d4b9c6f5-q8w4m_91c7"];
    let told: Vec<_> = (0..5)
        .map(|turn| {
            let takeover = with(
                review("takeover-after-expiry"),
                &[
                    (
                        "/request/oldObject/metadata/resourceVersion",
                        json!((500 + turn).to_string()),
                    ),
                    (
                        "/request/oldObject/spec/holderIdentity",
                        json!(identities[turn % 2]),
                    ),
                    (
                        "/request/object/spec/holderIdentity",
                        json!(identities[(turn + 1) % 2]),
                    ),
                    ("/request/oldObject/spec/leaseTransitions", json!(turn)),
                    ("/request/object/spec/leaseTransitions", json!(turn + 1)),
                ],
            );
            replica.warnings(&takeover, "flapping").len()
        })
        .collect();
    assert_eq!(
        told,
        [0, 0, 0, 1, 1],
        "each of the last two confirms one more than 2"
    );
}

#[test]
fn a_dry_run_neither_leaves_nor_reads_a_trace() {
    let replica = Replica::new(WARNS_OF_ANY_DELETION);
    let before = replica.remembered();
    assert!(before.contains("leasehold_memory_leases 0"), "{before}");
    let dry = |review: &Value| with(review.clone(), &[("/request/dryRun", json!(true))]);
    for (_, text) in fixtures::all() {
        replica.review(&dry(&serde_json::from_str(&text).unwrap()));
    }
    assert_eq!(replica.remembered(), before);

    let reviews = deleted_and_created_anew();
    for review in &reviews {
        assert!(replica.warnings(&dry(review), "recreated-early").is_empty());
    }
    let [deletion, creation, renewal] = &reviews;
    replica.review(deletion);
    replica.review(creation);
    assert!(
        replica.warnings(&dry(renewal), "recreated-early").is_empty(),
        "a dry run is told nothing"
    );
    assert_eq!(
        replica.warnings(renewal, "recreated-early").len(),
        1,
        "and takes nothing away"
    );
    assert!(
        replica.remembered().contains("leasehold_memory_leases 1"),
        "{}",
        replica.remembered()
    );
}

#[test]
fn a_denied_write_is_not_remembered() {
    // Denied as long as deletions by a stranger are; allowed, and remembered, where that is only logged.
    let [mut deletion, creation, renewal] = deleted_and_created_anew();
    deletion["request"]["userInfo"] = creation["request"]["userInfo"].clone();
    for (policy, told) in [("", 0), ("rules: {foreign-release: {action: audit}}", 1)] {
        let replica = Replica::new(policy);
        let answer = replica.review(&deletion);
        assert_eq!(answer["allowed"], told == 1, "{answer}");
        replica.review(&creation);
        assert_eq!(
            replica.warnings(&renewal, "recreated-early").len(),
            told,
            "{policy}"
        );
    }
}

#[test]
fn memory_may_not_enforce() {
    for rule in ["recreated-early", "shared-identity", "flapping"] {
        let refused = Policy::parse(&format!("rules:\n  {rule}: {{action: enforce}}\n")).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("this rule cannot enforce: it judges by what one replica remembers"),
            "{refused}"
        );
        assert!(refused.to_string().starts_with("line 2, column "), "{refused}");
        for action in ["warn", "audit", "off"] {
            Policy::parse(&format!("rules: {{{rule}: {{action: {action}}}}}")).unwrap();
        }
    }
}

/// Any history that rules could be told, true or not.
fn any_history() -> impl Strategy<Value = History> {
    let instant =
        || (0..100_000_i64).prop_map(|second| Timestamp::from_second(1_795_000_000 + second).unwrap());
    let recreation = (instant(), instant(), -10..10_000_i64, any::<bool>()).prop_map(
        |(renewed, created, valid_seconds, deleted_by_stranger)| Recreation {
            deleted_holder: "a".into(),
            renewed,
            valid_seconds,
            deleted_by_stranger,
            new_holder: "b".into(),
            created,
        },
    );
    let shared = Just(SharedIdentity {
        pod: "p".into(),
        other: "q".into(),
    });
    (
        proptest::collection::vec(instant(), 0..40),
        proptest::option::of(recreation),
        proptest::option::of(shared),
    )
        .prop_map(|(holder_changes, recreation, shared_identity)| History {
            holder_changes,
            recreation,
            shared_identity,
        })
}

proptest! {
    /// Whatever is remembered, a review is denied if and only if it is denied without memory, by the same rules.
    #[test]
    fn memory_never_changes_what_is_denied(
        which in any::<prop::sample::Index>(), history in any_history(),
        policy in prop::sample::select(vec!["", "rules: {flapping: {changes: 0, window: 1h}}", "mode: audit"]),
    ) {
        let all = fixtures::all();
        let (_, text) = which.get(&all);
        let now = instant(&serde_json::from_str(text).unwrap());
        let attempt = decode(text.as_bytes(), now).unwrap();
        let Subject::Lease(write) = &attempt.subject else { panic!("a lease") };
        let policy = Policy::parse(policy).unwrap();
        let (without, with) = (policy.decide(write), policy.decide_with_history(write, Some(&history)));
        prop_assert_eq!(without.outcome() == Outcome::Deny, with.outcome() == Outcome::Deny);
        prop_assert_eq!(without.would_be_denied(), with.would_be_denied());
        prop_assert_eq!(without.denial(), with.denial());
    }

    /// The same through the handler: what a replica has seen before never changes what it denies.
    #[test]
    fn a_replica_with_a_past_denies_what_a_new_one_denies(
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        let mut all: Vec<Value> =
            fixtures::all().iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
        all.extend(deleted_and_created_anew());
        let seasoned = Replica::new("rules: {flapping: {changes: 0}}");
        for index in order {
            let review = index.get(&all);
            let (seasoned, new) = (seasoned.review(review), Replica::new("").review(review));
            prop_assert_eq!(&seasoned["allowed"], &new["allowed"]);
            prop_assert_eq!(&seasoned["status"], &new["status"]);
        }
    }
}
