//! What either judge finds in a write, told alike.

use std::collections::BTreeMap;

use jiff::Timestamp;
use leasehold::{
    lease::{Change, Clock, Stamp, Write},
    policy::{
        Action, Policy,
        in_process::{Export, ExportOptions},
    },
    verdict::Violation,
};
use serde_json::Value;

use super::super::failed_validation;
use crate::harness::{audit::text, world::World};

/// What a refusal stands under: it is one for all rules.
const REFUSAL: &str = "refusal";

/// What is told, by the policy that tells it and the rule.
pub(super) type Findings = BTreeMap<(String, String), String>;

/// What the exported policies told the API server's audit log, by the tag of the write.
pub(super) async fn told(
    world: &World,
    namespace: &str,
    names: &[String],
) -> anyhow::Result<BTreeMap<usize, Findings>> {
    let mut told = BTreeMap::new();
    for event in world.plane().await?.audit()?.lease_writes(namespace) {
        let Some(tag) = text(event, "/requestURI")
            .split(['?', '&'])
            .find_map(|parameter| parameter.strip_prefix("tag="))
        else {
            continue;
        };
        let annotations = event.pointer("/annotations").and_then(Value::as_object);
        let mut findings: Findings = annotations
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
        if let Some((policy, message)) = failed_validation(event) {
            findings.insert((policy, REFUSAL.to_owned()), without_ages(&message));
        }
        told.insert(tag.parse()?, findings);
    }
    Ok(told)
}

/// The rules of which the export claims something.
pub(super) fn claimed(document: &str) -> anyhow::Result<Vec<&'static str>> {
    let options = ExportOptions {
        advice: true,
        ..ExportOptions::default()
    };
    let export = Export::of(document, options)?;
    let rules = export.rules().iter().filter(|rule| !rule.policies.is_empty());
    Ok(rules.map(|rule| rule.rule).collect())
}

/// What the rules find in a write, as far as the export claims it.
pub(super) fn findings(which: &str, policy: &Policy, claimed: &[&str], write: &Write<'_>) -> Findings {
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
                // A release that removes fields carries no stamp.
                "duration-out-of-bounds" => write.change != Change::Release,
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
    let mut findings = Findings::new();
    for violation in verdict.violations.iter().filter(is_claimed) {
        let Violation { rule, message, .. } = violation;
        let annotation = format!("{}: {message}", violation.decision().as_str());
        findings.insert(
            (format!("{which}.advice.leases.leasehold.dev"), rule.to_string()),
            without_ages(&annotation),
        );
        // The first in the order of the catalogue is what the client reads.
        if violation.taken == Action::Enforce {
            let refusal = format!("{rule}: {message}. See: leasehold explain {rule}");
            findings
                .entry((format!("{which}.deny.leases.leasehold.dev"), REFUSAL.to_owned()))
                .or_insert_with(|| without_ages(&refusal));
        }
    }
    findings
}

/// What the policies' matchCondition, like the webhook's, leaves out.
pub(super) fn is_pure_renewal(review: &Value, write: &Write<'_>) -> bool {
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
