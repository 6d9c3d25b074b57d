//! Every elector's trace, played through the real handler by reviews in the API server's own shape; and the table of
//! electors in the documentation, which is written from them.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use leasehold::policy::CATALOGUE;

use crate::{
    trace_format::{self, Phase, Step, Trace},
    trace_play::{Decision, Played, expected, play, surprises},
    trace_table::{self, Said, concern, in_enforce, profiles, said, says},
    uses,
};

#[test]
fn traces_get_exactly_the_verdicts_that_they_state() {
    let wrong: String = trace_format::all()
        .iter()
        .map(|(file, trace)| surprises(file, trace.script()))
        .collect();
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
        for Played { outcome, .. } in play(&file, trace.script(), remedy) {
            let denied = |(rule, decision): &(&str, Decision)| {
                *decision == Decision::Denied && *rule != "takeover-before-expiry"
            };
            assert!(!outcome.told.iter().any(denied), "{file}: {outcome:?}");
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

const HEADER: &str = "\
# What happens to my elector?

<!-- Written by `LEASEHOLD_BLESS=1 cargo test --test library traces` from tests/data/traces and tests/data/uses; do not edit. -->

Locks, heartbeats and other uses of Leases have [a table of their own](#what-happens-to-other-uses-of-leases).

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
            let said = said(&trace.steps);
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
    format!("{HEADER}{rows}\n{}", uses::table())
}

fn row(file: &str, trace: &Trace, said: &Said) -> String {
    let used_by = trace
        .used_by
        .as_ref()
        .map_or_else(String::new, |used_by| format!("; used by: {used_by}"));
    trace_table::row([
        format!("[{}](../tests/data/traces/{file}){used_by}", trace.elector),
        trace.version.clone(),
        trace.wrong.clone().unwrap_or_else(|| "nothing".to_owned()),
        says(said),
        profiles(&trace.steps),
        in_enforce(trace.in_enforce.as_deref(), trace.remedy.as_deref()),
        trace.source.clone(),
    ])
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
