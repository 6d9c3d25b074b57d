//! What Leasehold remembers between reviews: true, advice only, and nothing of a dry run.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use leasehold::{
    admission::{Handler, Subject, decode},
    audit::AuditLog,
    lease::{Change, History, LeaseName, Record, Recreation, SharedIdentity, Stamp, State, Write},
    memory::Memory,
    metrics::{Metrics, memory::MemoryMetrics},
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

#[test]
fn a_lease_deleted_and_created_anew_is_told_by_the_replica_that_saw_it() {
    let [deletion, creation, renewal] = deleted_and_created_anew();
    let replica = Replica::new("");
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
    let replica = Replica::new("");
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
    let recreation =
        (instant(), instant(), -10..10_000_i64).prop_map(|(renewed, created, valid_seconds)| Recreation {
            deleted_holder: "a".into(),
            renewed,
            valid_seconds,
            new_holder: "b".into(),
            created,
        });
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

/// What one client tries, and whether the API server then stores it.
#[derive(Clone, Debug)]
struct Step {
    action: Action,
    pod: usize,
    /// Under which identity; fewer than pods, so that some share one.
    identity: usize,
    /// Whether the write is stored, where it can be; else another webhook refuses it, or the connection breaks.
    stored: bool,
    /// Whether this replica reviews it.
    reviewed: bool,
    /// Seconds since the step before.
    after: i64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Create,
    Write,
    Release,
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        2 => Just(Action::Create),
        8 => Just(Action::Write),
        1 => Just(Action::Release),
        2 => Just(Action::Delete),
    ];
    let step = (
        action,
        0..3_usize,
        0..2_usize,
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.9),
        0..6_i64,
    )
        .prop_map(|(action, pod, identity, stored, reviewed, after)| Step {
            action,
            pod,
            identity,
            stored,
            reviewed,
            after,
        });
    proptest::collection::vec(step, 0..120)
}

/// What an API server stores, and all that ever happened to it.
#[derive(Default)]
struct World {
    now: i64,
    version: u64,
    uids: usize,
    stored: Option<State<'static>>,
    holder: Option<String>,
    /// When the holder became another than the one before.
    changes: Vec<i64>,
    /// Deleted while held: holder, renewed; and then who created it.
    deleted: Option<(String, i64)>,
    recreations: Vec<(String, String)>,
    /// How many deletions were stored.
    deletions: usize,
    /// Who wrote under an identity, in order, without repetitions.
    authors: HashMap<String, Vec<String>>,
}

const PODS: [&str; 3] = ["p", "q", "r"];
const IDENTITIES: [&str; 2] = ["a", "b"];
const VALID: i64 = 15;

impl World {
    fn at(&self) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + self.now).unwrap()
    }

    /// The attempt that a step makes, if the API server gets as far as a review with it. A create is reviewed even
    /// where the lease exists.
    fn attempt(&mut self, step: &Step) -> Option<Write<'static>> {
        let record = Record {
            holder: Some(IDENTITIES[step.identity].into()),
            duration_seconds: Some(VALID.try_into().unwrap()),
            // A client's own clock, of which no two say the same.
            renew_time: Some(self.at() + SignedDuration::from_micros(self.uids.try_into().unwrap())),
            ..Record::default()
        };
        self.uids += 1;
        let old = match step.action {
            Action::Create => None,
            _ => Some(self.stored.clone()?),
        };
        let new = match step.action {
            Action::Create => State {
                record,
                uid: Some(self.uids.to_string().into()),
                ..State::default()
            },
            Action::Write => State {
                record,
                ..old.clone()?
            },
            Action::Release => State {
                record: Record {
                    holder: None,
                    ..record
                },
                ..old.clone()?
            },
            Action::Delete => State::default(),
        };
        let mut new = new;
        let stamp = Stamp::At(self.at());
        new.stamps.renew_time = stamp;
        new.stamps.holder = stamp;
        if matches!(step.action, Action::Create) {
            new.stamps.created = Some(self.at());
        }
        let change = match (&old, step.action) {
            (None, _) => Change::Create,
            (Some(_), Action::Delete) => Change::Delete,
            (Some(old), _) => Change::between(&old.record, &new.record),
        };
        let mut write = Write {
            lease: LeaseName {
                kind: leasehold::lease::ObjectKind::default(),
                namespace: "shop".into(),
                name: "payments".into(),
            },
            writer: Default::default(),
            change,
            old: old.unwrap_or_default(),
            new,
            reviewed: self.at(),
        };
        write.writer.pod = Some(PODS[step.pod].into());
        Some(write)
    }

    /// Stores an attempt, and notes what truly happened.
    fn store(&mut self, write: &Write<'static>, pod: usize) {
        self.version += 1;
        let holder = write.new.record.holder.as_deref().map(str::to_owned);
        match write.change {
            Change::Create if self.stored.is_some() => return,
            Change::Delete => {
                let old = &write.old;
                self.deleted = old.record.holder.as_deref().map(|holder| {
                    (
                        holder.to_owned(),
                        old.renewed().unwrap().as_second() - 1_795_000_000,
                    )
                });
                self.deletions += 1;
                self.stored = None;
                return;
            }
            Change::Create => {
                if let (Some((before, renewed)), Some(holder)) = (self.deleted.take(), &holder)
                    && before != *holder
                    && self.now - renewed < VALID - 1
                {
                    self.recreations.push((before, holder.clone()));
                }
            }
            _ => {}
        }
        if let Some(holder) = &holder {
            let authors = self.authors.entry(holder.clone()).or_default();
            if authors.last().map(String::as_str) != Some(PODS[pod]) {
                authors.push(PODS[pod].to_owned());
            }
        }
        if holder != self.holder && holder.is_some() {
            self.changes.push(self.now);
        }
        self.holder = holder;
        self.stored = Some(State {
            resource_version: Some(self.version),
            ..write.new.clone()
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any clients, any failures: what is told has happened. A replica that sees only part of the reviews may take
    /// one deletion for another that it did not see, but never tells of one where there was none.
    #[test]
    fn what_is_told_is_true(steps in steps(), sees_all in any::<bool>()) {
        let memory = Memory::new(MemoryMetrics::default());
        let policy = Policy::parse("rules: {flapping: {changes: 0, window: 1h}}").unwrap();
        let mut world = World::default();
        let mut told = 0;
        for step in &steps {
            world.now += step.after;
            let Some(write) = world.attempt(step) else { continue };
            if step.reviewed || sees_all {
                let history = memory.recall(&write).unwrap_or_default();
                memory.remember(&write);
                let verdict = policy.decide_with_history(&write, Some(&history));
                let fired = |rule| verdict.violations.iter().any(|violation| violation.rule.as_str() == rule);
                if fired("recreated-early") {
                    let recreation = history.recreation.as_ref().unwrap();
                    let truly = (recreation.deleted_holder.clone(), recreation.new_holder.clone());
                    told += 1;
                    prop_assert!(told <= world.deletions);
                    if sees_all {
                        prop_assert!(world.recreations.contains(&truly), "{truly:?} of {:?}", world.recreations);
                        prop_assert!(told <= world.recreations.len(), "each once");
                    }
                }
                prop_assert!(history.holder_changes.len() <= world.changes.len());
                if let Some(SharedIdentity { pod, other }) = &history.shared_identity {
                    let authors = &world.authors[write.old.record.holder.as_deref().unwrap()];
                    let first = authors.iter().position(|author| author == pod).unwrap();
                    let between = authors[first..].iter().position(|author| author == other);
                    let back = between.and_then(|between| {
                        authors[first + between..].iter().position(|author| author == pod)
                    });
                    prop_assert!(back.is_some(), "{pod}, {other} of {authors:?}");
                }
            }
            if step.stored {
                world.store(&write, step.pod);
            }
        }
    }
}

/// The same machine finds something to tell, or the property above proves nothing.
#[test]
fn the_machine_finds_what_there_is() {
    let found = |steps: &[(Action, usize, usize)]| {
        let memory = Memory::new(MemoryMetrics::default());
        let mut world = World::default();
        let mut last = History::default();
        for (action, pod, identity) in steps {
            world.now += 1;
            let step = Step {
                action: *action,
                pod: *pod,
                identity: *identity,
                stored: true,
                reviewed: true,
                after: 1,
            };
            let write = world.attempt(&step).unwrap();
            last = memory.recall(&write).unwrap_or_default();
            memory.remember(&write);
            world.store(&write, *pod);
        }
        last
    };
    use Action::{Create, Delete, Write};
    let recreated = found(&[
        (Create, 0, 0),
        (Write, 0, 0),
        (Delete, 1, 0),
        (Create, 1, 1),
        (Write, 1, 1),
    ]);
    assert!(recreated.recreation.is_some(), "{recreated:?}");
    assert_eq!(recreated.holder_changes.len(), 1, "{recreated:?}");
    let shared = found(&[(Create, 0, 0), (Write, 1, 0), (Write, 0, 0), (Write, 1, 0)]);
    assert!(shared.shared_identity.is_some(), "{shared:?}");
}
