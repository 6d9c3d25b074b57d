//! `leasehold policy suggest`, over all logs: what was seen is not refused again, and nothing is lost in silence.

use jiff::Timestamp;
use leasehold::{
    admission::{Attempt, Subject, decode},
    audit::AuditRecord,
    lease::{Change, LeaseName, ObjectKind, Record, Stamp, Stamps, State, Write, Writer},
    policy::{Action, CATALOGUE, MOST_OVERRIDES, MOST_PATTERNS, Mode, Policy},
    suggest::{Cause, Judge, Line, Log, Suggestion, never_excused, read},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    trace_format::{self, Script, Verb},
    trace_reviews::{review, written},
};

/// Policies to start from, each with the mode on its first line.
const POLICIES: [&str; 8] = [
    "mode: audit\n",
    "mode: audit\nrules:\n  takeover-before-expiry: {claimed: enforce}\n  transition-not-counted: {untracked: enforce}\n",
    "mode: audit\nrules: {transition-miscounted: {action: enforce}, clock-skewed: {action: enforce}}\n",
    "mode: audit\noverrides:\n- match: {labels: {app: \"*\"}}\n  rules: {duration-out-of-bounds: {min: 1s, max: 30d}}\n",
    "mode: audit\noverrides: [{match: {names: [n0]}, mode: enforce}, {match: {labels: {app: a}}, mode: off}]\n",
    "mode: audit\noverrides:\n- match: {namespaces: [shop]}\n  mode: audit\n- match: {labels: {app: a}}\n  mode: enforce\n",
    "mode: audit\nclockSlack: 3s\noverrides:\n- match: {names: [n1]}\n  rules: {transition-not-counted: {action: warn}}\n",
    "mode: audit\nrules: {duration-out-of-bounds: {min: 6s, long: {after: 20s, action: enforce}, max: 30s}}\noverrides:\n\
     - match: {labels: {app: a}}\n  rules: {duration-out-of-bounds: {max: 40s}, stamp-tampered: {action: warn}}\n",
];

/// So many seconds after an arbitrary beginning.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

prop_compose! {
    fn record()(
        holder in prop_oneof![Just(None), Just(Some("web-7d4b9c6f5-x2x9k_a")), Just(Some("web-7d4b9c6f5-q8w4m_b"))],
        duration in prop_oneof![Just(None), (0..60_i32).prop_map(Some), (0..2_000_000_i32).prop_map(Some)],
        transitions in prop_oneof![Just(None), (0..4_i32).prop_map(Some), Just(Some(i32::MAX))],
        times in proptest::option::of(0..30_i64),
    ) -> Record<'static> {
        Record {
            holder: holder.map(Into::into),
            duration_seconds: duration,
            transitions,
            acquire_time: times.map(at),
            renew_time: times.map(at),
            ..Record::default()
        }
    }
}

prop_compose! {
    fn state()(
        record in record(), stamped in proptest::option::weighted(0.8, 0..30_i64),
        labels in prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))],
    ) -> State<'static> {
        let stamp = stamped.map_or(Stamp::Absent, |seconds| Stamp::At(at(seconds)));
        State {
            record,
            stamps: Stamps { holder: stamp, renew_time: stamp, acquire_time: stamp, created: Some(at(-3600)) },
            tracked: stamped.is_some(),
            labels: labels.map(|label| ("app".into(), label.into())).into_iter().collect(),
            ..State::default()
        }
    }
}

prop_compose! {
    fn write()(
        old in state(), new in state(), namespace in prop_oneof![Just("shop"), Just("bank")], name in 0..14_u8,
        is_new in proptest::bool::weighted(0.3), sibling in any::<bool>(), kind in any::<bool>(),
    ) -> Write<'static> {
        let change = if is_new { Change::Create } else { Change::between(&old.record, &new.record) };
        Write {
            lease: LeaseName {
                kind: if kind { ObjectKind::Lease } else { ObjectKind::ConfigMap },
                namespace: namespace.into(),
                name: format!("n{}-{name}", name % 2).into(),
            },
            writer: Writer {
                user: "system:serviceaccount:shop:web".into(),
                pod: sibling.then(|| "web-7d4b9c6f5-q8w4m".into()),
                ..Writer::default()
            },
            change,
            old: if is_new { State::default() } else { old },
            new,
            reviewed: at(20),
        }
    }
}

/// The lines that a write leaves in the audit log.
fn logged(policy: &Policy, write: &Write<'_>, uid: usize) -> Vec<String> {
    let attempt = Attempt {
        uid: format!("uid-{uid}").into(),
        dry_run: false,
        subject: Subject::Other(String::new()),
    };
    lines(policy, &attempt, write)
}

fn lines(policy: &Policy, attempt: &Attempt<'_>, write: &Write<'_>) -> Vec<String> {
    let verdict = policy.decide(write);
    let records = AuditRecord::of(attempt, write, &verdict);
    records
        .map(|record| serde_json::to_string(&record).unwrap())
        .collect()
}

/// The reviews of one elector, as its trace tells them, each with its instant.
fn reviews(trace: Script<'_>) -> Vec<(String, Timestamp)> {
    let mut reviews = Vec::new();
    let mut stored: Option<Value> = None;
    for (number, step) in trace.steps.iter().enumerate() {
        let new = (step.verb != Verb::Delete).then(|| written(trace, number, stored.as_ref()));
        if step.guarded {
            let writer = &trace.writers[&step.by];
            let review = review(trace, step, writer, stored.as_ref(), new.as_ref());
            reviews.push((review.to_string(), trace_format::instant(step.at)));
        }
        if step.deny.is_empty() {
            stored = new;
        }
    }
    reviews
}

/// The audit log of these reviews.
fn judged(policy: &Policy, reviews: &[(String, Timestamp)]) -> Vec<String> {
    let judged = reviews.iter().enumerate().flat_map(|(number, (body, now))| {
        let mut attempt = decode(body.as_bytes(), *now).unwrap();
        attempt.uid = format!("review-{number}").into();
        let Subject::Lease(write) = &attempt.subject else {
            panic!("a lease is a lease");
        };
        lines(policy, &attempt, write)
    });
    judged.collect()
}

/// From audit to enforce, for every elector and every other use that is known.
#[test]
fn no_known_elector_or_other_use_meets_a_surprise() {
    let (mut excused, mut refused) = (0, 0);
    let electors = trace_format::all();
    let uses = trace_format::uses();
    let electors = electors.iter().map(|(file, trace)| (file, trace.script()));
    let uses = uses.iter().map(|(file, of)| (file, of.script()));
    for (file, script) in electors.chain(uses) {
        let reviews = reviews(script);
        let seen = judged(&Policy::parse("mode: audit").unwrap(), &reviews);
        let suggestion = suggested("mode: enforce\n", &seen);
        let enforced = Policy::parse(&suggestion.policy).unwrap();
        let denied: Vec<_> = judged(&enforced, &reviews)
            .into_iter()
            .filter(|line| line.contains("\"decision\":\"denied\""))
            .collect();
        assert!(
            denied.iter().all(|line| stays(line)),
            "{file}: {denied:?}\n{}",
            suggestion.policy
        );
        let listed: u64 = suggestion.not_excused.iter().map(|it| it.seen.count).sum();
        assert_eq!(
            denied.len() as u64,
            listed,
            "{file}: what stays refused is listed"
        );
        excused += suggestion.entries.len();
        refused += denied.len();
    }
    assert!(
        excused > 5 && refused > 5,
        "{excused} overrides, {refused} refusals"
    );
}

fn suggested(document: &str, lines: &[String]) -> Suggestion {
    let mut log = Log::new(Judge::new(&Policy::parse(document).unwrap()), [], false);
    log.read("audit.log", lines.join("\n").as_bytes()).unwrap();
    assert!(!log.summary().may_hide_a_denial(), "{:?}", log.summary());
    Suggestion::of(&log, document).unwrap()
}

/// Whether a denial in a record is one that stays.
fn stays(line: &str) -> bool {
    read(line.as_bytes())
        .iter()
        .all(|line| matches!(line, Line::Denial(it) if never_excused(it.rule, it.cause)))
}

proptest! {
    /// What is promised: the very writes, by the very rules.
    #[test]
    fn writes_that_were_seen_in_mode_audit_are_not_refused_in_mode_enforce(
        writes in proptest::collection::vec(write(), 1..40), which in 0..POLICIES.len(),
    ) {
        let document = POLICIES[which];
        let policy = Policy::parse(document).unwrap();
        let lines: Vec<_> =
            writes.iter().enumerate().flat_map(|(uid, write)| logged(&policy, write, uid)).collect();
        let suggestion = suggested(document, &lines);
        let enforced = suggestion.policy.replacen("mode: audit", "mode: enforce", 1);
        let enforced = Policy::parse(&enforced).unwrap();
        for (uid, write) in writes.iter().enumerate() {
            for line in logged(&enforced, write, uid) {
                let record: Value = serde_json::from_str(&line).unwrap();
                prop_assert!(record["decision"] != "denied" || stays(&line), "{line}\n{}", suggestion.policy);
            }
        }
        // Once more: nothing to add, and not a byte.
        let again = suggested(&suggestion.policy, &lines);
        prop_assert_eq!(again.entries, vec![]);
        prop_assert_eq!(again.policy, suggestion.policy);
    }

    /// By the settings alone, for every rule that can deny, and for more leases than a policy has room for.
    #[test]
    fn no_rule_that_was_seen_denying_enforces_for_its_lease(
        denials in proptest::collection::vec(
            (0..CATALOGUE.len(), 0..40_u16, 0..400_u16, any::<bool>(), 1..3000_i64), 1..60
        ),
        many in prop_oneof![9 => Just(1), 1 => Just(60)],
    ) {
        let mut lines = Vec::new();
        for (index, (rule, namespace, name, shaped, seconds)) in denials.into_iter().enumerate() {
            for more in 0..many {
                let name = if shaped { format!("n-{name}-{more}") } else { format!("n{name}x{more}") };
                let namespace = format!("team{}", namespace + more);
                let message = format!("\"b\" sets a duration of {seconds} s on lease x/y, under the minimum of 1h");
                lines.push(json!({
                    "record": "violation", "uid": format!("{index}/{more}"), "namespace": namespace, "name": name,
                    "rule": CATALOGUE[rule].name, "decision": "denied", "message": message, "user": "u", "oldTransitions": 3,
                }));
            }
        }
        // What can deny does.
        let rules: Vec<_> = CATALOGUE
            .iter()
            .map(|entry| format!("{}: {{action: enforce}}", entry.name))
            .filter(|rule| Policy::parse(&format!("rules: {{{rule}}}")).is_ok())
            .collect();
        let document = format!("rules: {{{}}}\n", rules.join(", "))
            .replace("duration-out-of-bounds: {", "duration-out-of-bounds: {min: 1h, ");
        let texts: Vec<_> = lines.iter().map(Value::to_string).collect();
        let suggestion = suggested(&document, &texts);
        let policy = Policy::parse(&suggestion.policy).unwrap();
        let overrides = &policy.document().overrides;
        let patterns: usize = overrides.iter().map(|it| it.r#match.namespaces.len() + it.r#match.names.len()).sum();
        prop_assert!(overrides.len() <= MOST_OVERRIDES && patterns <= MOST_PATTERNS);
        for line in &texts {
            let Some(Line::Denial(denial)) = read(line.as_bytes()).pop() else {
                return Err(TestCaseError::fail(line.clone()));
            };
            let lease = LeaseName {
                kind: ObjectKind::Lease,
                namespace: denial.namespace.as_str().into(),
                name: denial.name.as_str().into(),
            };
            let settings = policy.settings_for(&lease, &[], "");
            let mut actions = settings.rules.actions();
            let (_, action) = actions.find(|(entry, _)| entry.name == denial.rule).unwrap();
            let excused = match denial.cause {
                Cause::Duration(seconds) => settings.rules.duration_out_of_bounds.min.get() <= i64::from(seconds),
                _ => false,
            };
            let stays = never_excused(denial.rule, denial.cause);
            prop_assert_eq!(settings.mode, Mode::Enforce);
            prop_assert_eq!(action == Action::Enforce && !excused, stays, "{}\n{}", line, suggestion.policy);
            // And listed as what stays, if it does.
            let listed = suggestion.not_excused.iter().any(|it| {
                it.rule == denial.rule && it.namespace == denial.namespace && it.name.as_ref() == Some(&denial.name)
            });
            prop_assert_eq!(listed, stays);
        }
    }

    #[test]
    fn every_line_is_a_record_or_skipped_for_a_reason(
        before in proptest::collection::vec(any::<u8>(), 0..20), after in proptest::collection::vec(any::<u8>(), 0..20),
        cut in any::<prop::sample::Index>(), damage in any::<prop::sample::Index>(), by in any::<u8>(),
    ) {
        let policy = Policy::parse(POLICIES[0]).unwrap();
        let write = Write {
            lease: LeaseName { kind: ObjectKind::Lease, namespace: "shop".into(), name: "payments".into() },
            writer: Writer::default(),
            change: Change::Create,
            old: State::default(),
            new: State { record: Record { holder: Some("a".into()), duration_seconds: Some(1), ..Record::default() }, ..State::default() },
            reviewed: at(0),
        };
        let line = logged(&policy, &write, 0).remove(0).into_bytes();
        let mut bytes = before;
        bytes.extend(&line[..cut.index(line.len())]);
        bytes.extend(after);
        if !bytes.is_empty() {
            let place = damage.index(bytes.len());
            bytes[place] = by;
        }
        let text = bytes.trim_ascii();
        prop_assert!(text.is_empty() || !read(text).is_empty());
        let mut log = Log::new(Judge::new(&policy), [], false);
        log.read("audit.log", bytes.as_slice()).unwrap();
        let summary = log.summary();
        let skipped: u64 = summary.skipped.values().map(|skipped| skipped.count).sum();
        prop_assert!(summary.denials + summary.nothing_denied + skipped >= summary.lines);
        prop_assert!(Policy::parse(&Suggestion::of(&log, "").unwrap().policy).is_ok());
    }

    /// Whatever a document looks like, as long as it is a policy.
    #[test]
    fn a_policys_text_is_added_to_or_refused_with_a_reason(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("mode: audit"), Just("# a comment"), Just(""), Just("maxSkew: 4s"), Just("overrides:"),
                Just("overrides: []"), Just("overrides: ["), Just("]"), Just("- match: {names: [\"a # ]\", 'it']}"),
                Just("- match: {names: [a]}"), Just("  mode: off"), Just("  - match:"), Just("      names: [a, 'b']"),
                Just("    mode: off"), Just("{match: {names: [a]}, mode: off}"), Just(","), Just("breakGlass: {groups: []}"),
                Just("---"), Just("..."), Just("{"), Just("}"), Just("rules: {}"), Just("  # indented"),
            ],
            0..8,
        ),
        newline in prop_oneof![Just("\n"), Just("\r\n")], ended in any::<bool>(),
    ) {
        let mut document = parts.join(newline);
        if ended {
            document.push_str(newline);
        }
        let record = json!({
            "record": "violation", "uid": "1", "namespace": "shop", "name": "payments", "rule": "transition-miscounted",
            "decision": "denied", "user": "u",
        });
        let document = format!("rules: {{transition-miscounted: {{action: enforce}}}}{newline}{document}");
        let Ok(policy) = Policy::parse(&document) else {
            return Ok(());
        };
        let mut log = Log::new(Judge::new(&policy), [], false);
        log.read("audit.log", record.to_string().as_bytes()).unwrap();
        match Suggestion::of(&log, &document) {
            Ok(suggestion) => {
                let mut characters = suggestion.policy.chars();
                prop_assert!(document.chars().all(|it| characters.any(|other| other == it)));
                let count = Policy::parse(&suggestion.policy).unwrap().document().overrides.len();
                prop_assert_eq!(count, policy.document().overrides.len() + 1);
            }
            Err(error) => prop_assert!(error.to_string().contains("write overrides as a plain list"), "{error}"),
        }
    }
}
