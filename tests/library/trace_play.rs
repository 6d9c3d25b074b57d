//! Plays a trace through the real handler, by reviews in the API server's own shape.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use leasehold::{
    admission::{Handler, Subject, decode},
    audit::AuditLog,
    lease::Purpose,
    metrics::Metrics,
    policy::{ActivePolicy, CATALOGUE, Policy, Profile},
};
use serde_json::Value;

use crate::{
    fixtures::response,
    trace_format::{Script, Step, Verb, instant},
    trace_reviews::{review, written},
};

/// What came of one step, and what the lease is for by its records before and after.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) outcome: Outcome,
    pub(crate) purpose: Purpose,
}

/// What came of one step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) change: String,
    pub(crate) profile: Option<String>,
    /// The rules that fired, in the order of the catalogue, with what came of each.
    pub(crate) told: Vec<(&'static str, Decision)>,
}

/// What came of a rule that fired, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Decision {
    Denied,
    Warned,
    Noted,
}

impl Decision {
    /// As the API server's audit annotation begins, and as the table says it.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Denied, "denied", "denied"),
        (Self::Warned, "warned", "warned"),
        (Self::Noted, "audited", "noted"),
    ];
}

/// Plays a script from its beginning, by this policy document. A write that is denied is not stored.
pub(crate) fn play(file: &str, script: Script<'_>, policy: &str) -> Vec<Played> {
    let handler = Handler::new(
        ActivePolicy::new(Policy::parse(policy).unwrap()),
        Arc::new(Metrics::new()),
        AuditLog::disabled(),
    );
    let mut stored: Option<Value> = None;
    let mut before = 0.0;
    let mut played = Vec::new();
    for (number, step) in script.steps.iter().enumerate() {
        assert!(step.at >= before, "{file}: step {} goes back in time", number + 1);
        before = step.at;
        let writer = &script.writers[&step.by];
        let new = (step.verb != Verb::Delete).then(|| written(script, number, stored.as_ref()));
        let review = review(script, step, writer, stored.as_ref(), new.as_ref());
        let body = review.to_string();
        if !step.guarded {
            stored = new;
            played.push(unjudged(&body, step));
            continue;
        }
        let answer = response(&handler.handle(body.as_bytes(), instant(step.at)), &review);
        let told = told(&answer);
        let Subject::Lease(write) = decode(body.as_bytes(), instant(step.at)).unwrap().subject else {
            panic!("{file}: a lease is a lease");
        };
        let denied = told.iter().any(|(_, decision)| *decision == Decision::Denied);
        assert_eq!(answer["allowed"], !denied, "{file}: {answer}");
        if !denied {
            stored = new;
        }
        played.push(Played {
            outcome: Outcome {
                change: write.change.to_string(),
                profile: Profile::of(&write).map(|profile| profile.as_str().to_owned()),
                told,
            },
            purpose: write.purpose(),
        });
    }
    played
}

/// What a write is that was never sent to the handler.
fn unjudged(body: &str, step: &Step) -> Played {
    let Subject::Lease(write) = decode(body.as_bytes(), instant(step.at)).unwrap().subject else {
        panic!("a lease is a lease");
    };
    Played {
        outcome: Outcome {
            change: write.change.to_string(),
            profile: None,
            told: Vec::new(),
        },
        purpose: write.purpose(),
    }
}

/// The rules that an answer names, by its audit annotations, which its message and its warnings must bear out.
fn told(answer: &Value) -> Vec<(&'static str, Decision)> {
    let told: Vec<_> = CATALOGUE
        .iter()
        .filter_map(|rule| {
            let text = answer["auditAnnotations"][rule.name.as_str()].as_str()?;
            let (decision, ..) = Decision::ALL
                .iter()
                .find(|(_, begins, _)| text.starts_with(begins))
                .unwrap();
            Some((rule.name.as_str(), *decision))
        })
        .collect();
    let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
    for (rule, decision) in &told {
        match decision {
            Decision::Denied => {
                assert_eq!(answer["status"]["code"], 403);
                assert!(
                    answer["status"]["message"]
                        .as_str()
                        .unwrap()
                        .contains(&format!("{rule}: "))
                );
            }
            Decision::Warned => {
                assert!(
                    warnings
                        .iter()
                        .any(|text| text.as_str().unwrap().starts_with(rule)),
                    "{answer}"
                );
            }
            Decision::Noted => {}
        }
    }
    let warned = told
        .iter()
        .filter(|(_, decision)| *decision == Decision::Warned)
        .count();
    assert_eq!(warnings.len(), warned, "{answer}");
    told
}

/// What a step says must come of it.
pub(crate) fn expected(step: &Step) -> Outcome {
    let lists = [
        (&step.deny, Decision::Denied),
        (&step.warn, Decision::Warned),
        (&step.audit, Decision::Noted),
    ];
    let named: BTreeMap<&str, Decision> = lists
        .iter()
        .flat_map(|(rules, decision)| rules.iter().map(|rule| (rule.as_str(), *decision)))
        .collect();
    let told: Vec<_> = CATALOGUE
        .iter()
        .filter_map(|rule| Some((rule.name.as_str(), *named.get(rule.name.as_str())?)))
        .collect();
    assert_eq!(told.len(), named.len(), "unknown rules in {named:?}");
    Outcome {
        change: step.change.clone(),
        profile: step.profile.clone(),
        told,
    }
}

/// Every step at which a script does not get exactly what it states, a paragraph each.
pub(crate) fn surprises(file: &str, script: Script<'_>) -> String {
    let mut wrong = String::new();
    for (number, (step, played)) in script.steps.iter().zip(play(file, script, "")).enumerate() {
        let (played, expected) = (played.outcome, expected(step));
        if played != expected {
            let (number, at) = (number + 1, step.at);
            writeln!(
                wrong,
                "{file}: step {number}, at {at}: {played:?}\n    expected {expected:?}"
            )
            .unwrap();
        }
    }
    wrong
}
