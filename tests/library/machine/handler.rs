//! The real handler under any writes, honest or not, in the API server's own words.

use std::{collections::BTreeMap, sync::Arc};

use leasehold::{
    admission::{Answer, Handler, Subject, decode},
    audit::AuditLog,
    lease::{Change, Write},
    metrics::Metrics,
    policy::{Action, ActivePolicy, Policy},
    verdict::{Outcome, Verdict},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use super::{
    api_server::{ApiServers, Client, Instant, Request, Spec, timestamp},
    review::review,
    scenario::a_quarter_of_the_cases,
};

/// Rules that remember: a policy asked about a single write knows nothing of them.
const FROM_MEMORY: [&str; 3] = ["recreated-early", "shared-identity", "flapping"];

const POLICIES: [&str; 5] = [
    "",
    "mode: audit",
    "mode: off",
    "clockSlack: 0s\nmaxSkew: 1s\nrules: {foreign-write: {action: enforce}, clock-skewed: {action: enforce}}",
    "overrides: [{match: {names: [pay*]}, rules: {takeover-before-expiry: {action: warn}}}]",
];

const PODS: [&str; 2] = ["payments-7d4b9c6f5-x2x9k", "payments-7d4b9c6f5-q8w4m"];

/// A spec whose times are so many milliseconds from now.
#[derive(Clone, Debug)]
struct Draft(Spec);

impl Draft {
    fn at(&self, now: Instant) -> Spec {
        let Spec {
            acquire_time,
            renew_time,
            ..
        } = self.0;
        Spec {
            acquire_time: acquire_time.map(|time| now + time),
            renew_time: renew_time.map(|time| now + time),
            ..self.0.clone()
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Create(Draft),
    Replace(Draft),
    /// A renewal, as it should be.
    Renew,
    Label,
    ClearStamps,
    ForgeStamps(i64),
    Delete,
    /// Something that is no lease.
    Node,
    /// Something that is no review.
    Garbage,
}

#[derive(Clone, Debug)]
struct Step {
    pass: i64,
    client: Client,
    server: usize,
    act: Act,
    dry_run: bool,
}

prop_compose! {
    fn draft()(
        holder in prop::option::of(prop::sample::select(vec![
            "", "payments-7d4b9c6f5-x2x9k_0", "payments-7d4b9c6f5-q8w4m_1", "a \"b\"\n",
        ])),
        duration_seconds in prop::option::of(prop::sample::select(vec![1, 5, 15, 3600, 7200])),
        acquire_time in prop::option::of(-20_000..20_000_i64),
        renew_time in prop::option::weighted(0.8, -20_000..20_000_i64),
        transitions in prop::option::of(prop_oneof![8 => 0..4_i32, 1 => Just(i32::MAX)]),
        strategy in prop::option::weighted(0.1, Just("OldestEmulationVersion")),
    ) -> Draft {
        Draft(Spec {
            holder: holder.map(Into::into),
            duration_seconds,
            acquire_time,
            renew_time,
            transitions,
            strategy: strategy.map(Into::into),
        })
    }
}

prop_compose! {
    fn step()(
        pass in prop_oneof![0..3000_i64, 0..20_000_i64],
        pod in prop::option::of(prop::sample::select(PODS.to_vec())),
        manager in prop::sample::select(vec!["payments", "kubectl", "payments-7d4b9c6f5-x2x9k_0"]),
        server in 0..2_usize,
        act in prop_oneof![
            2 => draft().prop_map(Act::Create),
            6 => draft().prop_map(Act::Replace),
            4 => Just(Act::Renew),
            2 => Just(Act::Label),
            1 => Just(Act::ClearStamps),
            1 => (-60..60_i64).prop_map(Act::ForgeStamps),
            1 => Just(Act::Delete),
            1 => Just(Act::Node),
            1 => Just(Act::Garbage),
        ],
        dry_run in prop::bool::weighted(0.1),
    ) -> Step {
        Step { pass, client: Client { pod: pod.map(Into::into), manager: manager.into() }, server, act, dry_run }
    }
}

/// One replica.
struct Replica {
    handler: Handler,
    metrics: Arc<Metrics>,
}

impl Replica {
    fn new(policy: &Policy) -> Self {
        let metrics = Arc::new(Metrics::new());
        let policy = ActivePolicy::new(policy.clone());
        Self {
            handler: Handler::new(policy, Arc::clone(&metrics), AuditLog::disabled()),
            metrics,
        }
    }

    /// The sum of a counter's series whose labels contain all these.
    fn counted(&self, counter: &str, labels: &[&str]) -> u64 {
        let text = self.metrics.encode().unwrap();
        let name = format!("leasehold_{counter}_total");
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(&name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some((rest, value))
        });
        let asked = series.filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
        asked.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }
}

fn answered(answer: &Answer) -> Result<Value, TestCaseError> {
    prop_assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    prop_assert_eq!(&body["kind"], "AdmissionReview");
    Ok(body["response"].clone())
}

fn agrees(response: &Value, verdict: &Verdict) -> Result<(), TestCaseError> {
    prop_assert_eq!(&response["allowed"], verdict.outcome() != Outcome::Deny);
    match verdict.denial() {
        None => prop_assert!(response["status"].is_null()),
        Some(text) => {
            prop_assert_eq!(&response["status"]["code"], 403);
            prop_assert_eq!(&response["status"]["message"], &text);
        }
    }
    let warned = response["warnings"].as_array().into_iter().flatten();
    let mut warned: Vec<_> = warned
        .map(|text| text.as_str().unwrap().split(':').next().unwrap())
        .collect();
    warned.retain(|rule| !FROM_MEMORY.contains(rule));
    let expected: Vec<_> = verdict
        .taken(Action::Warn)
        .map(|violation| violation.rule.as_str())
        .collect();
    prop_assert_eq!(warned, expected);
    Ok(())
}

/// What was asked of a replica, by the names of the metrics' labels.
#[derive(Default)]
struct Tally {
    by_change: BTreeMap<&'static str, u64>,
    denied: u64,
    rules_that_denied: BTreeMap<&'static str, u64>,
    dry_runs: u64,
    other: u64,
    unreadable: u64,
}

impl Tally {
    fn add(&mut self, write: &Write<'_>, verdict: &Verdict, dry_run: bool) {
        *self.by_change.entry(write.change.as_str()).or_default() += 1;
        self.denied += u64::from(verdict.outcome() == Outcome::Deny);
        self.dry_runs += u64::from(dry_run);
        for violation in verdict.taken(Action::Enforce) {
            *self.rules_that_denied.entry(violation.rule.as_str()).or_default() += 1;
        }
    }

    fn agrees(&self, replica: &Replica) -> Result<(), TestCaseError> {
        prop_assert_eq!(
            replica.counted("reviews", &[]),
            self.by_change.values().sum::<u64>()
        );
        for (change, count) in &self.by_change {
            prop_assert_eq!(
                replica.counted("reviews", &[&format!("change=\"{change}\"")]),
                *count,
                "{}",
                change
            );
        }
        prop_assert_eq!(replica.counted("reviews", &["verdict=\"deny\""]), self.denied);
        let denied = "decision=\"denied\"";
        prop_assert_eq!(
            replica.counted("violations", &[denied]),
            self.rules_that_denied.values().sum::<u64>()
        );
        for (rule, count) in &self.rules_that_denied {
            let labels = [denied, &format!("rule=\"{rule}\"")];
            prop_assert_eq!(replica.counted("violations", &labels), *count, "{}", rule);
        }
        prop_assert_eq!(replica.counted("dry_run_reviews", &[]), self.dry_runs);
        prop_assert_eq!(replica.counted("unguarded_reviews", &[]), self.other);
        prop_assert_eq!(replica.counted("unreadable_reviews", &[]), self.unreadable);
        Ok(())
    }
}

fn request(act: &Act, servers: &ApiServers, now: Instant) -> Option<Request> {
    Some(match act {
        Act::Create(draft) => Request::Create(draft.at(now)),
        Act::Replace(draft) => Request::Write {
            spec: draft.at(now),
            version: None,
        },
        Act::Renew => {
            let spec = servers.lease.as_ref()?.spec.clone();
            Request::Write {
                spec: Spec {
                    renew_time: Some(now),
                    ..spec
                },
                version: None,
            }
        }
        Act::Label => Request::Label(now.to_string()),
        Act::ClearStamps => Request::ClearStamps,
        Act::ForgeStamps(seconds) => Request::ForgeStamps {
            seconds: *seconds,
            label: now.to_string(),
        },
        Act::Delete => Request::Delete,
        Act::Node | Act::Garbage => return None,
    })
}

/// Lets the API server write, and two replicas and their policy judge. Returns the tally.
fn run(document: &str, our_skew: i64, steps: &[Step]) -> Result<Tally, TestCaseError> {
    let policy = Policy::parse(document).unwrap();
    let (replica, other) = (Replica::new(&policy), Replica::new(&policy));
    let mut servers = ApiServers::new(vec![0, 700]);
    let mut tally = Tally::default();
    let mut now = 0;
    for (number, step) in steps.iter().enumerate() {
        now += step.pass;
        let reviewed = timestamp(now + our_skew);
        let uid = format!("review-{number}");
        match step.act {
            Act::Garbage => {
                let answer = replica
                    .handler
                    .handle(b"{\"kind\": \"AdmissionReview\"", reviewed);
                prop_assert_eq!(answer.status, 400);
                tally.unreadable += 1;
                continue;
            }
            Act::Node => {
                let body = json!({
                    "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                    "request": {"uid": uid, "operation": "CREATE", "object": {},
                        "resource": {"group": "", "version": "v1", "resource": "nodes"}},
                });
                let response = answered(&replica.handler.handle(body.to_string().as_bytes(), reviewed))?;
                prop_assert_eq!(
                    (&response["uid"], &response["allowed"]),
                    (&json!(uid), &json!(true))
                );
                tally.other += 1;
                continue;
            }
            _ => {}
        }
        let request = request(&step.act, &servers, now);
        let Some(proposal) =
            request.and_then(|request| servers.propose(step.server, &step.client, &request, now))
        else {
            continue;
        };
        let body = review(&proposal, &uid, step.dry_run).to_string();
        let write = proposal.write(reviewed);
        match decode(body.as_bytes(), reviewed).unwrap().subject {
            Subject::Lease(decoded) => prop_assert_eq!(&*decoded, &write),
            other => prop_assert!(false, "{other:?}"),
        }
        let verdict = policy.decide(&write);
        tally.add(&write, &verdict, step.dry_run);

        let answer = replica.handler.handle(body.as_bytes(), reviewed);
        let response = answered(&answer)?;
        prop_assert_eq!(&response["uid"], &uid);
        agrees(&response, &verdict)?;
        prop_assert_eq!(
            &answer,
            &other.handler.handle(body.as_bytes(), reviewed),
            "the same history, the same answer"
        );
        // After a restart only advice is forgotten.
        let restarted = Replica::new(&policy).handler.handle(body.as_bytes(), reviewed);
        agrees(&answered(&restarted)?, &verdict)?;

        if verdict.outcome() != Outcome::Deny && !step.dry_run {
            servers.store(proposal);
        }
    }
    tally.agrees(&replica)?;
    Ok(tally)
}

proptest! {
    #![proptest_config(a_quarter_of_the_cases())]
    #[test]
    fn the_handler_answers_as_the_policy_decides_and_counts_each_review(
        document in prop::sample::select(POLICIES.to_vec()),
        our_skew in prop_oneof![-3000..3000_i64, -86_400_000..86_400_000_i64],
        steps in proptest::collection::vec(step(), 1..25),
    ) {
        run(document, our_skew, &steps)?;
    }
}

/// What the property above rests on: that the machine gets to every kind of write, and that much is denied.
#[test]
fn the_machine_gets_everywhere() {
    let mut runner = TestRunner::deterministic();
    let steps = proptest::collection::vec(step(), 600)
        .new_tree(&mut runner)
        .unwrap()
        .current();
    let tally = run("", 0, &steps).unwrap();
    for change in Change::ALL {
        assert!(
            tally.by_change.contains_key(change.as_str()),
            "{change}: {:?}",
            tally.by_change
        );
    }
    for rule in [
        "takeover-before-expiry",
        "transition-not-counted",
        "transition-overflow",
        "duration-out-of-bounds",
        "stamp-tampered",
        "foreign-release",
    ] {
        assert!(
            tally.rules_that_denied.contains_key(rule),
            "{rule}: {:?}",
            tally.rules_that_denied
        );
    }
}
