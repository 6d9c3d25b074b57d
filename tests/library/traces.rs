//! Every elector's trace, played through the real handler by reviews in the API server's own shape; and the table of
//! electors in the documentation, which is written from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::Arc,
};

use leasehold::{
    admission::{Handler, Subject, decode},
    audit::AuditLog,
    metrics::Metrics,
    policy::{ActivePolicy, CATALOGUE, Policy, Profile},
};
use serde_json::Value;

use crate::{
    fixtures::response,
    trace_format::{self, Phase, Step, Trace, Verb, instant},
    trace_reviews::{review, written},
};

/// What came of one step.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    change: String,
    profile: Option<String>,
    /// The rules that fired, in the order of the catalogue, with what came of each.
    told: Vec<(&'static str, Decision)>,
}

/// What came of a rule that fired, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Decision {
    Denied,
    Warned,
    Noted,
}

impl Decision {
    /// As the API server's audit annotation begins, and as the table says it.
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Denied, "denied", "denied"),
        (Self::Warned, "warned", "warned"),
        (Self::Noted, "audited", "noted"),
    ];
}

/// Plays a trace from its beginning, by this policy document. A write that is denied is not stored.
fn play(file: &str, trace: &Trace, policy: &str) -> Vec<Played> {
    let handler = Handler::new(
        ActivePolicy::new(Policy::parse(policy).unwrap()),
        Arc::new(Metrics::new()),
        AuditLog::disabled(),
    );
    let mut stored: Option<Value> = None;
    let mut before = 0.0;
    let mut played = Vec::new();
    for (number, step) in trace.steps.iter().enumerate() {
        assert!(step.at >= before, "{file}: step {} goes back in time", number + 1);
        before = step.at;
        let writer = &trace.writers[&step.by];
        let new = (step.verb != Verb::Delete).then(|| written(trace, number, stored.as_ref()));
        let review = review(trace, step, writer, stored.as_ref(), new.as_ref());
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
            change: write.change.to_string(),
            profile: Profile::of(&write).map(|profile| profile.as_str().to_owned()),
            told,
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
        change: write.change.to_string(),
        profile: None,
        told: Vec::new(),
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
fn expected(step: &Step) -> Played {
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
    Played {
        change: step.change.clone(),
        profile: step.profile.clone(),
        told,
    }
}

#[test]
fn traces_get_exactly_the_verdicts_that_they_state() {
    let mut wrong = String::new();
    for (file, trace) in trace_format::all() {
        for (number, (step, played)) in trace.steps.iter().zip(play(&file, &trace, "")).enumerate() {
            let expected = expected(step);
            if played != expected {
                let (number, at) = (number + 1, step.at);
                write!(
                    wrong,
                    "{file}: step {number}, at {at}: {played:?}\n    expected {expected:?}\n"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn traces_of_correct_electors_hold_no_denial_and_the_others_say_what_becomes_of_them() {
    let traces = trace_format::all();
    assert!(traces.len() > 30);
    for (file, trace) in traces {
        let denied = trace.steps.iter().any(|step| !step.deny.is_empty());
        assert!(
            !denied || trace.wrong.is_some(),
            "{file}: a correct elector is denied"
        );
        assert_eq!(
            trace.in_enforce.is_some(),
            denied,
            "{file}: inEnforce is for electors that are denied"
        );
        assert!(denied || trace.remedy.is_none(), "{file}: nothing is denied");
    }
}

/// The phases among a trace's steps.
fn phases(trace: &Trace) -> BTreeSet<Phase> {
    trace.steps.iter().filter_map(Step::phase).collect()
}

#[test]
fn traces_show_each_part_of_an_electors_life_or_say_why_there_is_none() {
    let traces = trace_format::all();
    let mut wrong = String::new();
    for (file, trace) in &traces {
        let shown = phases(trace);
        let rest = trace.rest.as_ref().map(|name| {
            let (_, rest) = traces
                .iter()
                .find(|(file, _)| file == name)
                .unwrap_or_else(|| panic!("{file}: there is no trace {name}"));
            assert!(rest.rest.is_none(), "{file}: {name} has a rest itself");
            rest
        });
        for phase in Phase::ALL {
            let never = trace.never.get(&phase).map(|why| why.len() > 10);
            let elsewhere =
                rest.is_some_and(|rest| phases(rest).contains(&phase) || rest.never.contains_key(&phase));
            match (shown.contains(&phase), never) {
                (true, None) | (false, Some(true)) => {}
                (false, None) if elsewhere => {}
                (true, Some(_)) => writeln!(wrong, "{file}: {phase:?} is shown, and never").unwrap(),
                (false, _) => writeln!(wrong, "{file}: {phase:?} is missing").unwrap(),
            }
        }
        // Who restarts was there before, in the same pod or by the same identity.
        for (number, step) in trace.steps.iter().enumerate() {
            if step.phase != Some(Phase::Restart) {
                continue;
            }
            let writer = &trace.writers[&step.by];
            let was_there = trace.steps[..number].iter().any(|before| {
                let before = &trace.writers[&before.by];
                before.identity == writer.identity || before.pod.is_some() && before.pod == writer.pod
            });
            if !was_there {
                writeln!(wrong, "{file}: {} cannot restart in step {}", step.by, number + 1).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn traces_whose_elector_is_refused_for_ever_name_a_policy_that_lets_it_work() {
    for (file, trace) in trace_format::all() {
        let Some(remedy) = &trace.remedy else { continue };
        for played in play(&file, &trace, remedy) {
            let denied = |(rule, decision): &(&str, Decision)| {
                *decision == Decision::Denied && *rule != "takeover-before-expiry"
            };
            assert!(!played.told.iter().any(denied), "{file}: {played:?}");
        }
    }
}

#[test]
fn traces_show_every_rule() {
    let mut told: Vec<_> = trace_format::all()
        .iter()
        .flat_map(|(_, trace)| &trace.steps)
        .flat_map(|step| expected(step).told)
        .map(|(rule, _)| rule)
        .collect();
    told.sort_unstable();
    told.dedup();
    let silent: Vec<_> = CATALOGUE
        .iter()
        .map(|rule| rule.name.as_str())
        .filter(|rule| !told.contains(rule))
        .collect();
    // No elector forges stamps, jumps towards the limit or leaves acquireTime: these are for attackers and accidents.
    assert_eq!(
        silent,
        ["transition-overflow", "stamp-tampered", "acquire-time-stale"]
    );
}

/// One rule in the table: what came of it, its name, and whether only pure renewals showed it.
type Said = BTreeMap<(Decision, &'static str), bool>;

fn said(trace: &Trace) -> Said {
    let mut said = Said::new();
    for step in &trace.steps {
        for (rule, decision) in expected(step).told {
            let only_renewals = said.entry((decision, rule)).or_insert(true);
            *only_renewals &= step.change == "renew";
        }
    }
    said
}

/// How much an operator must care: what is denied comes first, then what is warned of, and so on.
fn concern(said: &Said) -> Decision {
    said.keys()
        .next()
        .map_or(Decision::Noted, |(decision, _)| *decision)
}

const HEADER: &str = "\
# What happens to my elector?

<!-- Written by `LEASEHOLD_BLESS=1 cargo test --test library traces` from tests/data/traces; do not edit. -->

This table is written from the traces in [tests/data/traces](../tests/data/traces), each of which states what one
elector writes and what Leasehold must answer; the tests play them through the real handler, by the default policy, and
fail when this page is stale. To renew it: `LEASEHOLD_BLESS=1 cargo test --test library traces`. An elector that is
missing is added by writing a trace like those.

How to read it, before you switch to `mode: enforce`:

- *Undisturbed*: nothing that this elector does is ever refused. What is *warned* of reaches the client as a warning and
  the audit log; what is *noted* reaches the audit log alone. Nothing else changes for it.
- **Act first**: retrying does not help this elector, so settle it before you enforce. These stand at the top, each with
  settings under which it works; put them into an override for its leases, so that all others stay strict.
- Where anything else is refused, *in mode enforce* says what that means in practice. A refused takeover only comes
  later, for electors retry; the old leader, if it still works, works on alone meanwhile.
- *On renewals* marks what shows only in namespaces that send pure renewals too (the label `leasehold.dev/watch: full`).
- The *profile* is the name by which the audit log knows such a writer.
- By default `kube-system`, `kube-node-lease` and `leasehold-system` are not watched at all.

| elector | version | what it does wrong | what Leasehold says | profile | in mode enforce | known from |
|---|---|---|---|---|---|---|
";

fn table() -> String {
    let mut rows: Vec<_> = trace_format::all()
        .into_iter()
        .map(|(file, trace)| {
            let said = said(&trace);
            let order = (
                trace.remedy.is_none(),
                concern(&said),
                said.is_empty(),
                trace.elector.to_lowercase(),
            );
            (order, row(&file, &trace, &said))
        })
        .collect();
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    format!("{HEADER}{rows}")
}

fn in_enforce(trace: &Trace) -> String {
    let text = trace.in_enforce.as_deref().unwrap_or("undisturbed");
    match &trace.remedy {
        Some(remedy) => format!("**Act first:** {text}; or `{remedy}`"),
        None => text.to_owned(),
    }
}

fn row(file: &str, trace: &Trace, said: &Said) -> String {
    let says: Vec<_> = Decision::ALL
        .iter()
        .filter_map(|(decision, _, word)| {
            let rules: Vec<_> = said
                .iter()
                .filter(|((of, _), _)| of == decision)
                .map(|((_, rule), only_renewals)| {
                    format!("`{rule}`{}", if *only_renewals { " (on renewals)" } else { "" })
                })
                .collect();
            (!rules.is_empty()).then(|| format!("{word}: {}", rules.join(", ")))
        })
        .collect();
    let mut profiles: Vec<_> = trace
        .steps
        .iter()
        .filter_map(|step| step.profile.as_ref().map(|profile| format!("`{profile}`")))
        .collect();
    profiles.sort();
    profiles.dedup();
    let used_by = trace
        .used_by
        .as_ref()
        .map_or_else(String::new, |used_by| format!("; used by: {used_by}"));
    let cells = [
        format!("[{}](../tests/data/traces/{file}){used_by}", trace.elector),
        trace.version.clone(),
        trace.wrong.clone().unwrap_or_else(|| "nothing".to_owned()),
        if says.is_empty() {
            "nothing".to_owned()
        } else {
            says.join("; ")
        },
        profiles.join(", "),
        in_enforce(trace),
        trace.source.clone(),
    ];
    let cells = cells.map(|cell| {
        cell.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|")
    });
    format!("| {} |\n", cells.join(" | "))
}

#[test]
fn traces_and_the_table_of_electors_agree() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/electors.md");
    let expected = table();
    if std::env::var_os("LEASEHOLD_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let documented = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        documented == expected,
        "docs/electors.md is stale; renew it with LEASEHOLD_BLESS=1 cargo test --test library traces, and read the diff"
    );
}
