//! What CEL says of a write is what the Rust says of it: thousands of writes to the real API server, each judged by
//! both.
//!
//! The exported policies only tell the audit log here, so that every write goes on to the recording webhook, and from
//! there to the rules: of one and the same write, the annotations of the one are compared with the violations of the
//! other, word for word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use leasehold::{
    admission::{Subject, decode},
    lease::{Change, Clock, Stamp, Write},
    policy::{Action, Policy, Profile, in_process::Export},
    verdict::Violation,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use super::{LABEL, install, until_asked};
use crate::{
    Test,
    harness::{
        api::{Api, Reply},
        audit::text,
        leases::{Edit, Leases, Verb},
        recorder::Recorder,
        schedule::Phase,
        world::World,
    },
    test,
};

/// How many leases are written at the same time, and how often each.
const LEASES: usize = 12;
const WRITES_PER_LEASE: usize = 140;

/// A policy in which much differs by lease.
const ELABORATE: &str = r#"
clockSlack: 2s
maxSkew: 3s
rules:
  takeover-before-expiry: {claimed: enforce}
  transition-miscounted: {action: enforce}
  duration-out-of-bounds: {min: 3s, max: 1m}
  acquire-time-stale: {action: warn}
  transition-overflow: {action: off}
overrides:
  - match: {names: ["lock-1", "*-2", "no*c*-3"]}
    mode: audit
  - match: {labels: {app: "old*"}}
    rules:
      duration-out-of-bounds: {max: 1h, action: warn}
      stamp-tampered: {action: audit}
  - match: {namespaces: ["equal-e*"], names: ["lock-4", "lock-5"]}
    rules:
      takeover-before-expiry: {action: warn}
      transition-overflow: {action: enforce}
  - match: {names: ["lock-5", "lock-6"], labels: {app: "*"}}
    mode: "off"
breakGlass: {groups: ["writers"], requireAnnotation: true}
"#;

pub(super) fn tests() -> Vec<Test> {
    [("default", ""), ("elaborate", ELABORATE)]
        .map(|(name, document)| {
            test(
                Phase::InProcess,
                format!("in_process::cel_judges_as_the_rules_do::{name}"),
                move |world| cel_judges_as_the_rules_do(world, name, document),
            )
        })
        .into()
}

/// What becomes of a field.
#[derive(Clone, Debug)]
enum Field<T> {
    Keep,
    Remove,
    Set(T),
}

/// A time to write.
#[derive(Clone, Debug)]
enum Time {
    /// Milliseconds from now, by a clock that is right.
    FromNow(i64),
    Literal(&'static str),
}

/// What a write does to managedFields.
#[derive(Clone, Debug)]
enum Stamps {
    Echoed,
    Cleared,
    Emptied,
    /// All times set to this one.
    Forged(Time),
    /// An entry more, by a manager of its own, that claims all fields since then.
    Extra(Time),
    /// All times removed.
    Undated,
}

#[derive(Clone, Debug)]
struct Step {
    who: usize,
    manager: &'static str,
    verb: usize,
    delete: bool,
    dry_run: bool,
    holder: Field<&'static str>,
    duration: Field<i32>,
    /// From the count before, or a number.
    transitions: Field<Result<i64, i64>>,
    renew_time: Field<Time>,
    acquire_time: Field<Time>,
    label: Field<&'static str>,
    annotation: Field<(&'static str, &'static str)>,
    stamps: Stamps,
}

fn field<T: Clone + std::fmt::Debug + 'static>(
    keep: u32,
    set: u32,
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Field<T>> {
    prop_oneof![
        keep => Just(Field::Keep),
        1 => Just(Field::Remove),
        set => value.prop_map(Field::Set),
    ]
    .boxed()
}

fn a_time(literals: &'static [&'static str]) -> impl Strategy<Value = Time> + 'static {
    prop_oneof![
        12 => Just(Time::FromNow(0)),
        3 => (-8_000..8_000_i64).prop_map(Time::FromNow),
        1 => prop::sample::select(vec![-3_600_000, 3_600_000, -5_000, 5_000, -6_000, 6_000_i64]).prop_map(Time::FromNow),
        1 => prop::sample::select(literals).prop_map(Time::Literal),
    ]
}

/// Around the ends of what can be written, read, and told apart.
const MICRO_TIMES: &[&str] = &[
    "2001-02-03T04:05:06.000007Z",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:01.000000Z",
    "0000-01-01T00:00:00.000000Z",
    "9998-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.000000-01:00",
    "0000-01-01T00:00:00.000000+01:00",
];
const STAMPS: &[&str] = &[
    "2001-02-03T04:05:06Z",
    "1969-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "2099-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "0000-01-01T00:00:00+01:00",
];

/// Its number among those who write.
const ISTIOD: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![14 => Just(0_usize), 2 => Just(1_usize), 2 => Just(2_usize), 2 => Just(ISTIOD)];
    let manager = prop_oneof![
        5 => Just("a"), 5 => Just("b"), 2 => Just("c"), 1 => Just("kube-lease-manager-a"),
    ];
    let holder = prop_oneof![
        6 => Just("a"),
        6 => Just("b"),
        3 => Just("web-7d4b9c6f5-x2x9k_0b7c"),
        2 => Just(""),
        1 => Just("o\"dd\\ \u{e9}ne' {x} %s"),
        1 => Just(LONG),
    ];
    let duration = prop_oneof![
        6 => 1..8_i32,
        2 => prop::sample::select(vec![15, 59, 60, 61, 3599, 3600, 3601, i32::MAX]),
    ];
    let transitions = prop_oneof![
        12 => Just(Ok(1)),
        2 => (-1..3_i64).prop_map(Ok),
        2 => prop::sample::select(vec![0, 1, 2, 70_000, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, 2_147_483_647]).prop_map(Err),
    ];
    let stamps = prop_oneof![
        24 => Just(Stamps::Echoed),
        1 => Just(Stamps::Cleared),
        1 => Just(Stamps::Emptied),
        2 => (-8_000..8_000_i64).prop_map(|offset| Stamps::Forged(Time::FromNow(offset))),
        1 => prop::sample::select(STAMPS).prop_map(|time| Stamps::Forged(Time::Literal(time))),
        1 => prop::sample::select(STAMPS).prop_map(|time| Stamps::Extra(Time::Literal(time))),
        1 => (-20_000..20_000_i64).prop_map(|offset| Stamps::Extra(Time::FromNow(offset))),
        1 => Just(Stamps::Undated),
    ];
    let annotation = prop::sample::select(vec![
        ("leasehold.dev/break-glass", "node 7 is lost"),
        ("leasehold.dev/break-glass", " "),
        ("leader.istio.io/holder-key", "default"),
        ("leader.istio.io/holder-key", "canary"),
    ]);
    (
        (
            who,
            manager,
            0..Verb::ALL.len(),
            prop::bool::weighted(0.03),
            prop::bool::weighted(0.1),
        ),
        (
            field(6, 8, holder),
            field(10, 5, duration),
            field(8, 8, transitions),
            field(5, 12, a_time(MICRO_TIMES)),
            field(6, 8, a_time(MICRO_TIMES)),
        ),
        (
            field(16, 3, prop::sample::select(vec!["old-thing", "new"])),
            field(20, 3, annotation),
            stamps,
        ),
    )
        .prop_map(
            |(
                (who, manager, verb, delete, dry_run),
                (holder, duration, transitions, renew_time, acquire_time),
                (label, annotation, stamps),
            )| Step {
                // Istio's elector states its revision with each write.
                annotation: match annotation {
                    Field::Keep if who == ISTIOD => {
                        let revision = if manager == "a" { "default" } else { "canary" };
                        Field::Set(("leader.istio.io/holder-key", revision))
                    }
                    annotation => annotation,
                },
                who,
                manager,
                verb,
                delete,
                dry_run,
                holder,
                duration,
                transitions,
                renew_time,
                acquire_time,
                label,
                stamps,
            },
        )
}

/// Longer than what messages show of an identity.
const LONG: &str = "an-identity-that-nobody-meant-to-be-read-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-\
                    0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-end";

impl Time {
    fn micro(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::FromNow(offset) => format!("{:.6}", from_now(*offset)?),
            Self::Literal(time) => (*time).to_owned(),
        })
    }

    fn second(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::FromNow(offset) => format!("{:.0}", from_now(*offset)?),
            Self::Literal(time) => (*time).to_owned(),
        })
    }
}

fn from_now(milliseconds: i64) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::now().checked_add(SignedDuration::from_millis(milliseconds))?)
}

impl Step {
    /// The change of a lease, as it is now. Every request is told apart by a parameter that the API server does not
    /// know and writes to its audit log.
    fn edit(&self, lease: Option<&Value>, verb: Verb, tag: usize) -> anyhow::Result<Edit> {
        let is_there = |path: &str| lease.and_then(|lease| lease.pointer(path)).is_some();
        let mut spec = Map::new();
        let before = lease
            .and_then(|lease| lease.pointer("/spec/leaseTransitions"))
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let mut set = |name: &str, field: Field<Value>| {
            match field {
                Field::Set(value) => spec.insert(name.to_owned(), value),
                Field::Remove if verb != Verb::Apply && is_there(&format!("/spec/{name}")) => {
                    spec.insert(name.to_owned(), Value::Null)
                }
                Field::Remove | Field::Keep => None,
            };
        };
        set(
            "holderIdentity",
            self.holder.value(|holder| Ok((*holder).into()))?,
        );
        set(
            "leaseDurationSeconds",
            self.duration.value(|seconds| Ok((*seconds).into()))?,
        );
        set(
            "leaseTransitions",
            self.transitions.value(|count| {
                Ok(match count {
                    Ok(more) => (before + more).clamp(0, i32::MAX.into()).into(),
                    Err(number) => (*number).into(),
                })
            })?,
        );
        set(
            "renewTime",
            self.renew_time.value(|time| Ok(time.micro()?.into()))?,
        );
        set(
            "acquireTime",
            self.acquire_time.value(|time| Ok(time.micro()?.into()))?,
        );
        let mut edit = Edit::spec(&format!("{}&tag={tag}", self.manager), Value::Object(spec));
        edit.dry_run = self.dry_run;
        if let Field::Set(label) = self.label {
            edit.labels.insert("app".to_owned(), label.into());
        }
        if let (Field::Set((name, value)), true) = (&self.annotation, verb != Verb::JsonPatch) {
            edit.annotations.insert((*name).to_owned(), (*value).into());
        }
        let entries = lease.and_then(|lease| lease.pointer("/metadata/managedFields"));
        if let (Some(Value::Array(entries)), true) = (entries, verb != Verb::Apply) {
            edit.managed_fields = self.stamps.of(entries.clone())?;
        }
        Ok(edit)
    }
}

impl<T> Field<T> {
    fn value(&self, of: impl FnOnce(&T) -> anyhow::Result<Value>) -> anyhow::Result<Field<Value>> {
        Ok(match self {
            Self::Keep => Field::Keep,
            Self::Remove => Field::Remove,
            Self::Set(value) => Field::Set(of(value)?),
        })
    }
}

impl Stamps {
    fn of(&self, mut entries: Vec<Value>) -> anyhow::Result<Option<Value>> {
        match self {
            Self::Echoed => return Ok(None),
            Self::Cleared => return Ok(Some(json!([{}]))),
            Self::Emptied => return Ok(Some(json!([]))),
            Self::Forged(time) => {
                for entry in &mut entries {
                    entry["time"] = time.second()?.into();
                }
            }
            Self::Extra(time) => {
                let mut extra = entries.first().cloned().context("no entries")?;
                extra["manager"] = "forger".into();
                extra["operation"] = "Update".into();
                extra["time"] = time.second()?.into();
                extra["fieldsV1"]["f:spec"] =
                    json!({"f:holderIdentity": {}, "f:renewTime": {}, "f:acquireTime": {}});
                entries.push(extra);
            }
            Self::Undated => {
                for entry in &mut entries {
                    if let Some(entry) = entry.as_object_mut() {
                        entry.remove("time");
                    }
                }
            }
        }
        Ok(Some(Value::from(entries)))
    }
}

/// What is told, by the policy that tells it and the rule.
type Findings = BTreeMap<(String, String), String>;

#[derive(Debug, Default)]
struct Tally {
    writes: usize,
    reviewed: usize,
    findings: BTreeMap<(String, String), usize>,
    changes: BTreeMap<&'static str, usize>,
    profiles: BTreeMap<&'static str, usize>,
    differences: Vec<String>,
}

async fn cel_judges_as_the_rules_do(
    world: &'static World,
    name: &'static str,
    document: &'static str,
) -> anyhow::Result<()> {
    let which = format!("equal-{name}");
    let (leases, recorder) = world.recorded_leases(&which).await?;
    let admin = world.admin().await?;
    let label = json!({"metadata": {"labels": {LABEL: which}}});
    admin
        .merge_patch(&format!("/api/v1/namespaces/{which}"), &label)
        .await?
        .accepted()?;
    let names = install(world, &which, document, true).await?;
    until_asked(world, &leases, &names, async || provoke(&leases).await).await?;

    let [api_server, istiod] = world.plane().await?.known_users()?;
    let who = [leases.api.clone(), admin, api_server, istiod];
    let mut runner = TestRunner::deterministic();
    let tag = AtomicUsize::new(0);
    let mut histories = Vec::new();
    for _ in 0..LEASES {
        let steps = prop::collection::vec(step(), WRITES_PER_LEASE)
            .new_tree(&mut runner)
            .map_err(|reason| anyhow::anyhow!("no steps: {reason}"))?
            .current();
        histories.push(steps);
    }
    let written = try_join_all(
        histories
            .iter()
            .enumerate()
            .map(|(number, steps)| write_all(&leases, recorder, &who, number, steps, &tag)),
    )
    .await?;
    let told = told(world, &which, &names).await?;
    let policy = Policy::parse(document)?;
    let claimed = claimed(document)?;
    let mut tally = Tally::default();
    for (number, writes) in written.iter().enumerate() {
        let reviews = recorder.of(&which, &lock(number));
        compare(&mut tally, &reviews, writes, &told, |write| {
            findings(&which, &policy, &claimed, write)
        })?;
    }
    eprintln!(
        "equivalence, {name} policy: {} writes, {} of them admitted and judged by both; changes {:?}; profiles {:?}; findings {:?}",
        tally.writes, tally.reviewed, tally.changes, tally.profiles, tally.findings
    );
    ensure!(
        tally.differences.is_empty(),
        "{} differences, the first of which: {}",
        tally.differences.len(),
        tally
            .differences
            .iter()
            .take(5)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    let found: BTreeSet<_> = tally.findings.keys().map(|(_, rule)| rule.as_str()).collect();
    ensure!(
        claimed.iter().all(|rule| found.contains(rule)),
        "some rule never fired: of {claimed:?} only {found:?}"
    );
    // Its service account is of the namespace of the first policy.
    ensure!(
        name != "default" || tally.profiles.contains_key("istio-priority-lock"),
        "Istio never took its lease: {:?}",
        tally.profiles
    );
    ensure!(
        Change::ALL
            .iter()
            .filter(|change| **change != Change::Delete)
            .all(|change| tally.changes.contains_key(change.as_str())),
        "some change was never made: {:?}",
        tally.changes
    );
    Ok(())
}

/// A lease's name; some are of Istio's.
fn lock(number: usize) -> String {
    if number % 4 == 3 {
        format!("istio-lock-{number}")
    } else {
        format!("lock-{number}")
    }
}

/// A write that breaks a rule of each policy.
async fn provoke(leases: &Leases) -> anyhow::Result<()> {
    // The elaborate policy only audits the second.
    for (name, holder) in [("probe", "a"), ("probe", "b"), ("probe-2", "a"), ("probe-2", "b")] {
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": 3600, "leaseTransitions": 0,
            "renewTime": "2001-02-03T04:05:06.000007Z",
        });
        if holder == "a" {
            leases.create(name, "a", spec).await?.accepted()?;
        } else {
            leases
                .edit(Verb::MergePatch, name, &Edit::spec("b", spec))
                .await?
                .accepted()?;
            leases.delete(name).await?.accepted()?;
        }
    }
    Ok(())
}

/// One request.
struct Written {
    tag: usize,
    /// CEL judges none.
    is_deletion: bool,
    /// How many reviews it led to.
    reviews: usize,
}

/// Writes one lease, one step after the other; what the API server refuses by itself is no write.
async fn write_all(
    leases: &Leases,
    recorder: &Recorder,
    who: &[Api],
    number: usize,
    steps: &[Step],
    tag: &AtomicUsize,
) -> anyhow::Result<Vec<Written>> {
    let name = lock(number);
    let mut written = Vec::new();
    let (mut is_stuck, mut reviewed) = (false, 0);
    for step in steps {
        let tag = tag.fetch_add(1, Ordering::Relaxed);
        let leases = Leases {
            api: who.get(step.who).context("no such user")?.clone(),
            namespace: leases.namespace.clone(),
        };
        let found = leases.api.get(&leases.path(&name)).await?;
        let lease = (found.code == 200).then_some(&found.body);
        let is_deletion = lease.is_some() && (step.delete || is_stuck);
        let verb = Verb::ALL.get(step.verb).copied().context("no such verb")?;
        let reply: Reply = match lease {
            Some(_) if is_deletion => leases.delete(&name).await?,
            Some(_) => leases.edit(verb, &name, &step.edit(lease, verb, tag)?).await?,
            None => {
                let edit = step.edit(None, Verb::Put, tag)?;
                let mut manager = edit.manager.clone();
                if edit.dry_run {
                    manager.push_str("&dryRun=All");
                }
                leases.create(&name, &manager, Value::Object(edit.spec)).await?
            }
        };
        ensure!(
            reply.code < 300 || [400, 409, 422, 500].contains(&reply.code),
            "{step:?}: {} {}",
            reply.code,
            reply.message()
        );
        // A time that cannot be read again fails after admission, and every later write of the object.
        is_stuck = reply.code >= 300;
        // None where the API server refuses by itself; two where it first takes an older state for the present one.
        let reviews = recorder.count(&leases.namespace, &name) - reviewed;
        reviewed += reviews;
        written.push(Written {
            tag,
            is_deletion,
            reviews,
        });
    }
    Ok(written)
}

/// What the exported policies told the API server's audit log, by the tag of the write.
async fn told(world: &World, namespace: &str, names: &[String]) -> anyhow::Result<BTreeMap<usize, Findings>> {
    let mut told = BTreeMap::new();
    for event in world.plane().await?.audit()?.lease_writes(namespace) {
        let Some(tag) = text(event, "/requestURI")
            .split(['?', '&'])
            .find_map(|parameter| parameter.strip_prefix("tag="))
        else {
            continue;
        };
        let annotations = event.pointer("/annotations").and_then(Value::as_object);
        let findings = annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                let (policy, rule) = key.split_once('/')?;
                let policy = names.iter().find(|name| *name == policy)?;
                {
                    let told = without_ages(value.as_str().unwrap_or_default());
                    Some(((policy.clone(), rule.to_owned()), told))
                }
            })
            .collect();
        told.insert(tag.parse()?, findings);
    }
    Ok(told)
}

/// The rules of which the export claims something.
fn claimed(document: &str) -> anyhow::Result<Vec<&'static str>> {
    let export = Export::of(document)?;
    let rules = export.rules().iter().filter(|rule| !rule.policies.is_empty());
    Ok(rules.map(|rule| rule.rule).collect())
}

/// What the rules find in a write, as far as the export claims it.
fn findings(which: &str, policy: &Policy, claimed: &[&str], write: &Write<'_>) -> Findings {
    let verdict = policy.decide(write);
    let slack = policy.tolerance().clock_slack.as_secs();
    let is_claimed = |violation: &&Violation| {
        let message = &violation.message;
        let moved_back = message
            .split_once("back by ")
            .and_then(|(_, rest)| rest.split(' ').next())
            .and_then(|seconds| seconds.parse::<i64>().ok());
        claimed.contains(&violation.rule.as_str())
            && match violation.rule.as_str() {
                // Without a stamp of its own a write tells no time.
                "takeover-before-expiry" => verdict
                    .evidence
                    .is_some_and(|evidence| evidence.clock == Clock::ApiServer),
                // CEL has no clock to tell a forged stamp from a writer's own.
                "stamp-tampered" => {
                    !message.contains("into the future") && moved_back.is_none_or(|seconds| seconds > slack)
                }
                "renew-time-regressed" => {
                    let in_range = |time: Option<Timestamp>| {
                        let year = time.map(|time| time.to_string());
                        year.is_some_and(|time| ("1970".."2200").contains(&time.as_str()))
                    };
                    write.change == Change::Amend
                        && in_range(write.old.record.renew_time)
                        && in_range(write.new.record.renew_time)
                }
                _ => true,
            }
    };
    verdict
        .violations
        .iter()
        .filter(is_claimed)
        .map(|violation| {
            let level = match violation.taken {
                Action::Enforce => "deny",
                Action::Warn => "warn",
                Action::Audit | Action::Off => "audit",
            };
            (
                (
                    format!("{which}.{level}.leases.leasehold.dev"),
                    violation.rule.to_string(),
                ),
                without_ages(&format!(
                    "{}: {}",
                    violation.decision().as_str(),
                    violation.message
                )),
            )
        })
        .collect()
}

/// What the policies' matchCondition, like the webhook's, leaves out.
fn is_pure_renewal(review: &Value, write: &Write<'_>) -> bool {
    let is_same = |field: &str| {
        let of = |object: &str| review.pointer(&format!("/request/{object}/spec/{field}"));
        of("object") == of("oldObject")
    };
    let others = [
        "holderIdentity",
        "leaseTransitions",
        "leaseDurationSeconds",
        "acquireTime",
    ];
    write.change != Change::Create
        && others.iter().all(|field| is_same(field))
        && !is_same("renewTime")
        && write.new.stamps.renew_time != Stamp::Absent
}

/// A message without the numbers that count from before the year 1 or to after the year 9998: there CEL takes the ends
/// of its own calendar.
fn without_ages(message: &str) -> String {
    let mut text = String::new();
    let mut digits = String::new();
    for character in message.chars().chain([' ']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        text.push_str(if digits.len() > 10 { "ages" } else { &digits });
        digits.clear();
        text.push(character);
    }
    text
}

fn compare(
    tally: &mut Tally,
    reviews: &[Value],
    writes: &[Written],
    told: &BTreeMap<usize, Findings>,
    expected: impl Fn(&Write<'_>) -> Findings,
) -> anyhow::Result<()> {
    let mut reviews = reviews.iter();
    for write in writes {
        tally.writes += 1;
        let reviews: Vec<_> = reviews.by_ref().take(write.reviews).collect();
        if write.is_deletion || reviews.is_empty() {
            continue;
        }
        let mut wanted = Findings::new();
        for review in &reviews {
            let body = review.to_string();
            let attempt = decode(body.as_bytes(), Timestamp::now())?;
            let Subject::Lease(judged) = attempt.subject else {
                anyhow::bail!("no lease: {body}");
            };
            tally.reviewed += 1;
            *tally.changes.entry(judged.change.as_str()).or_default() += 1;
            if let Some(profile) = Profile::of(&judged) {
                *tally.profiles.entry(profile.as_str()).or_default() += 1;
            }
            // A pure renewal stays out of both halves.
            if is_pure_renewal(review, &judged) {
                continue;
            }
            // The audit log keeps what it was told first.
            for (rule, text) in expected(&judged) {
                wanted.entry(rule).or_insert(text);
            }
        }
        let found = told.get(&write.tag).cloned().unwrap_or_default();
        for (policy, rule) in found.keys() {
            let level = policy.split('.').nth(1).unwrap_or_default().to_owned();
            *tally.findings.entry((level, rule.clone())).or_default() += 1;
        }
        if found != wanted {
            let alone = |one: &Findings, other: &Findings| -> Vec<_> {
                let one = one.iter();
                one.filter(|(rule, text)| other.get(*rule) != Some(*text))
                    .map(|(rule, text)| format!("{}: {text}", rule.0))
                    .collect()
            };
            tally.differences.push(format!(
                "CEL alone {:?}; Rust alone {:?}; {}",
                alone(&found, &wanted),
                alone(&wanted, &found),
                json!(reviews),
            ));
        }
    }
    ensure!(reviews.next().is_none(), "a review that belongs to no write");
    Ok(())
}
