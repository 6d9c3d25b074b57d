//! What CEL says of a write is what the Rust says of it: thousands of writes to the real API server, each judged by
//! both.
//!
//! The exported policies only tell the audit log here, so that every write goes on to the recording webhook, and from
//! there to the rules: of one and the same write, the annotations of the one are compared with the violations of the
//! other, word for word.

mod findings;
mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use leasehold::{
    admission::{Subject, decode},
    lease::{Change, Purpose, Write},
    policy::{Policy, Profile},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};

use self::{
    findings::{Findings, claimed, findings, is_pure_renewal, told},
    steps::{Step, step},
};
use super::{LABEL, install, until_asked};
use crate::{
    Test,
    harness::{
        api::{Api, Reply},
        leases::{Edit, Leases, Verb},
        pods,
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
  duration-out-of-bounds: {min: 3s, long: {after: 30s, action: audit}, max: 1m, undeclared: audit}
  acquire-time-stale: {action: warn}
  transition-overflow: {action: off}
overrides:
  - match: {names: ["lock-1", "*-2", "no*c*-3"]}
    mode: audit
  - match: {labels: {app: "old*"}}
    rules:
      duration-out-of-bounds: {long: {action: "off"}, max: 1h, action: warn}
      stamp-tampered: {action: audit}
  - match: {namespaces: ["equal-e*"], names: ["lock-4", "lock-5", "istio-*"]}
    rules:
      takeover-before-expiry: {action: warn}
      transition-overflow: {action: enforce}
  - match: {names: ["lock-5", "lock-6"], labels: {app: "*"}}
    mode: "off"
  - match: {names: ["lock-7", "lock-8"], serviceAccounts: ["equal-*/longhorn-*", "shop/istiod"]}
    rules:
      takeover-before-expiry: {action: audit}
      duration-out-of-bounds: {action: audit}
      transition-not-counted: {action: warn}
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

#[derive(Debug, Default)]
struct Tally {
    writes: usize,
    reviewed: usize,
    findings: BTreeMap<(String, String), usize>,
    changes: BTreeMap<&'static str, usize>,
    profiles: BTreeMap<&'static str, usize>,
    purposes: BTreeMap<&'static str, usize>,
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
    // The pods of the holder that steps name, and of a sibling.
    pods::create_account(world, &which).await?;
    let mut who = vec![leases.api.clone(), admin, api_server, istiod];
    for suffix in ["x2x9k", "q8w4m"] {
        let token = pods::token(world, &which, &format!("web-7d4b9c6f5-{suffix}")).await?;
        who.push(world.plane().await?.client(&token)?);
    }
    let token = pods::account_token(world, &which, "longhorn-service-account").await?;
    who.push(world.plane().await?.client(&token)?);
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
        "equivalence, {name} policy: {} writes, {} of them admitted and judged by both; changes {:?}; purposes {:?}; profiles {:?}; findings {:?}",
        tally.writes, tally.reviewed, tally.changes, tally.purposes, tally.profiles, tally.findings
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
    let refused = tally.findings.get(&("deny".to_owned(), "refusal".to_owned()));
    ensure!(
        refused.is_some_and(|refused| *refused > 100),
        "few were refused: {refused:?}"
    );
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
    for profile in ["longhorn-share-manager", "whereabouts"] {
        ensure!(
            tally.profiles.contains_key(profile),
            "{profile} was never seen: {:?}",
            tally.profiles
        );
    }
    ensure!(
        Purpose::ALL
            .iter()
            .all(|purpose| tally.purposes.contains_key(purpose.as_str())),
        "some purpose was never seen: {:?}",
        tally.purposes
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

/// A lease's name; some are of Istio's, and one is whereabouts'.
fn lock(number: usize) -> String {
    if number == 8 {
        "whereabouts".to_owned()
    } else if number % 4 == 3 {
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
                // Some are a share manager's.
                let owner = (number % 4 == 1).then(|| {
                    json!({
                        "apiVersion": "longhorn.io/v1beta2", "kind": "ShareManager", "name": name,
                        "uid": "0b7c1c5e-0d6f-4b3f-9a55-0c9d5c1b2f3a",
                    })
                });
                leases
                    .create_owned(&name, &manager, Value::Object(edit.spec), owner)
                    .await?
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
            *tally.purposes.entry(judged.purpose().as_str()).or_default() += 1;
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
