//! The uses of Leases that elect nobody by time, or elect in their own way: each one's trace, and the second table of
//! `docs/electors.md`, which is written from them.

use leasehold::lease::Purpose;

use crate::{
    trace_format::{self, Kind, Use},
    trace_play::{Decision, Outcome, Played, play, surprises},
    trace_table::{concern, in_enforce, profiles, row, said, says},
};

/// What is refused to a use all the same, by the trace's file name: none of these waits until the record has expired, and a
/// takeover that is provably early does not pass.
const REFUSED: [&str; 4] = [
    "fleetlock-drain.yaml",
    "ironcore-machine-pool.yaml",
    "solo-interval-lock.yaml",
    "statefulset-leader-operator.yaml",
];

fn denied(outcome: &Outcome) -> bool {
    outcome
        .told
        .iter()
        .any(|(_, decision)| *decision == Decision::Denied)
}

/// What all the records of a use together are for: its purpose is the first in the order of [`Purpose`].
fn purpose(played: &[Played]) -> Purpose {
    played.iter().map(|played| played.purpose).min().unwrap()
}

#[test]
fn uses_get_exactly_the_verdicts_that_they_state() {
    let uses = trace_format::uses();
    assert!(uses.len() >= 18);
    let wrong: String = uses
        .iter()
        .map(|(file, of)| surprises(file, of.script()))
        .collect();
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn uses_are_for_what_they_say() {
    for (file, of) in trace_format::uses() {
        let played = play(&file, of.script(), "");
        assert_eq!(purpose(&played).as_str(), of.purpose, "{file}");
    }
}

#[test]
fn uses_are_never_denied_but_those_that_say_what_becomes_of_them() {
    let refused: Vec<_> = trace_format::uses()
        .into_iter()
        .filter_map(|(file, of)| {
            let denies = play(&file, of.script(), "")
                .iter()
                .any(|played| denied(&played.outcome));
            assert_eq!(of.in_enforce.is_some(), denies, "{file}: inEnforce");
            assert!(denies || of.remedy.is_none(), "{file}: nothing is denied");
            denies.then_some(file)
        })
        .collect();
    assert_eq!(refused, REFUSED);
}

#[test]
fn uses_are_not_denied_by_the_policy_that_they_name() {
    for (file, of) in trace_format::uses() {
        let Some(remedy) = &of.remedy else { continue };
        for Played { outcome, .. } in play(&file, of.script(), remedy) {
            assert!(!denied(&outcome), "{file}: {outcome:?}");
        }
    }
}

/// The policy of `docs/third-party-holders.md`, word by word.
#[test]
fn uses_where_a_third_party_decides_work_by_the_policy_that_the_documentation_gives() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/third-party-holders.md");
    let document = std::fs::read_to_string(path).unwrap();
    let policy = document
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let file = "statefulset-leader-operator.yaml";
    let uses = trace_format::uses();
    let (_, of) = uses.iter().find(|(name, _)| name == file).unwrap();
    let refusals = |policy: &str| {
        let played = play(file, of.script(), policy);
        played.iter().filter(|it| denied(&it.outcome)).count()
    };
    assert_eq!(refusals(policy), 0);
    let of_another = policy.replace("sts-leader-system/", "other/");
    assert_eq!(refusals(&of_another), refusals(""));
    assert!(refusals("") > 0);
}

#[test]
fn uses_without_a_duration_a_count_and_both_times_are_not_even_warned() {
    let mut untimed = 0;
    for (file, of) in trace_format::uses() {
        let played = play(&file, of.script(), "");
        if purpose(&played) != Purpose::Untimed {
            continue;
        }
        untimed += 1;
        for Played { outcome, .. } in played {
            assert!(outcome.told.is_empty(), "{file}: {outcome:?}");
        }
    }
    assert!(untimed >= 8);
}

#[test]
fn uses_show_every_kind_and_every_purpose_but_a_probable_election() {
    let uses = trace_format::uses();
    for kind in Kind::ALL {
        assert!(uses.iter().any(|(_, of)| of.kind == kind), "{kind:?}");
    }
    for purpose in ["timed", "counted", "untimed"] {
        assert!(uses.iter().any(|(_, of)| of.purpose == purpose), "{purpose}");
    }
}

const HEADER: &str = "\
# What happens to other uses of Leases?

Not every Lease is an election. This table is written from the traces in [tests/data/uses](../tests/data/uses), in the
same way. The *purpose* is what Leasehold reads from the record:

- *timed*: it has `leaseDurationSeconds`, and expires. A takeover can be early.
- *counted*: it has `leaseTransitions` and no duration. With a renewTime it is an election that forgot its duration, and
  refused; without, mostly a lock, and warned of.
- *beating*: it has `renewTime` and `acquireTime`, and neither a duration nor a count. Probably an election.
- *untimed*: anything else. It elects nobody by time, and Leasehold neither refuses it anything nor warns of it.

Uses that are refused something stand at the top.

| use | kind | what it writes | purpose | what Leasehold says | profile | in mode enforce | what to do | known from |
|---|---|---|---|---|---|---|---|---|
";

/// The second table of `docs/electors.md`.
pub(crate) fn table() -> String {
    let mut rows: Vec<_> = trace_format::uses()
        .into_iter()
        .map(|(file, of)| {
            let said = said(&of.steps);
            let order = (
                of.remedy.is_none(),
                concern(&said),
                said.is_empty(),
                of.kind,
                of.name.to_lowercase(),
            );
            (order, line(&file, &of))
        })
        .collect();
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    format!("{HEADER}{rows}")
}

fn line(file: &str, of: &Use) -> String {
    row([
        format!("[{}](../tests/data/uses/{file})", of.name),
        of.kind.in_words().to_owned(),
        of.writes.clone(),
        of.purpose.clone(),
        says(&said(&of.steps)),
        profiles(&of.steps),
        in_enforce(of.in_enforce.as_deref(), of.remedy.as_deref()),
        of.advice.clone().unwrap_or_else(|| "nothing".to_owned()),
        of.source.clone(),
    ])
}
