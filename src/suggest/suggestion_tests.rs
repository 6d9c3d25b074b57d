use super::*;
use crate::suggest::{
    Widening,
    testing::{denial, denial_by, duration, log, suggest},
};

fn easings(suggestion: &Suggestion) -> Vec<String> {
    suggestion
        .entries
        .iter()
        .map(|entry| entry.easing.to_string())
        .collect()
}

#[test]
fn a_bound_that_the_policy_has_no_place_for_becomes_a_warning() {
    let lines = [duration("shop", "payments", 3)];
    assert_eq!(
        easings(&suggest("", &lines)),
        ["{duration-out-of-bounds: {min: 3s}}"]
    );
    for policy in [
        // A clock slack over the duration would switch a rule off.
        "clockSlack: 4s\n",
        "maxSkew: 10s\nrules: {duration-out-of-bounds: {min: 12s}}\n",
        // Bounds that contradict.
        "overrides:\n- match: {labels: {a: b}}\n  rules: {duration-out-of-bounds: {min: 1s, max: 2s}}\n",
    ] {
        assert_eq!(
            easings(&suggest(policy, &lines)),
            ["{duration-out-of-bounds: {action: warn}}"],
            "{policy}"
        );
    }
}

#[test]
fn a_pattern_never_tightens_what_the_policy_allows_others() {
    let lines: Vec<_> = (0..10)
        .map(|index| duration("shop", &format!("w-{index}"), 3))
        .collect();
    let wider = "overrides:\n- match: {names: [w-x]}\n  rules: {duration-out-of-bounds: {min: 1s}}\n";
    let suggestion = suggest(wider, &lines);
    let [entry] = suggestion.entries.as_slice() else {
        panic!("{suggestion:?}")
    };
    assert_eq!(entry.widening, Widening::NamePatterns);
    assert_eq!(
        entry.easing.to_string(),
        "{duration-out-of-bounds: {action: warn}}"
    );
}

#[test]
fn what_is_provably_wrong_is_excused_only_when_somebody_says_so() {
    let lines: Vec<_> = super::super::NEVER_EXCUSED
        .iter()
        .map(|rule| denial_by(rule, "shop", "payments"))
        .collect();
    let suggestion = suggest("", &lines);
    assert_eq!(suggestion.entries, []);
    assert_eq!(suggestion.not_excused.len(), lines.len());
    let rule = RuleName::find("foreign-release").unwrap();
    let mut log = Log::new(Judge::new(&Policy::default()), [rule], false);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    log.read("a", text.as_bytes()).unwrap();
    let suggestion = Suggestion::of(&log, "").unwrap();
    assert_eq!(easings(&suggestion), ["{foreign-release: {action: warn}}"]);
    assert_eq!(suggestion.not_excused.len(), lines.len() - 1);
}

#[test]
fn a_takeover_that_only_a_client_calls_early_is_excused_by_what_says_just_that() {
    let mut line = denial_by("takeover-before-expiry", "shop", "payments");
    line["evidence"] = serde_json::json!({"kind": "claimed"});
    let policy = "rules: {takeover-before-expiry: {claimed: enforce}}";
    assert_eq!(
        easings(&suggest(policy, &[line])),
        ["{takeover-before-expiry: {claimed: warn}}"]
    );
}

#[test]
fn an_uncounted_lease_is_excused_by_what_says_just_that() {
    let mut line = denial("shop", "payments");
    line["oldTransitions"] = serde_json::Value::Null;
    line["newTransitions"] = serde_json::Value::Null;
    let policy = "rules: {transition-not-counted: {untracked: enforce}}";
    assert_eq!(
        easings(&suggest(policy, &[line])),
        ["{transition-not-counted: {untracked: warn}}"]
    );
}

#[test]
fn a_maximum_that_is_raised_takes_the_word_of_long_durations_along_where_that_denies() {
    let lines = [duration("shop", "payments", 864_000)];
    assert_eq!(
        easings(&suggest("", &lines)),
        ["{duration-out-of-bounds: {max: 10d}}"]
    );
    let policy = "rules: {duration-out-of-bounds: {long: {action: enforce}}}";
    assert_eq!(
        easings(&suggest(policy, &lines)),
        ["{duration-out-of-bounds: {long: {action: warn}, max: 10d}}"]
    );
}

#[test]
fn a_policy_that_is_full_is_refused_with_what_to_do() {
    let one = |index| format!("- match: {{names: [n{index}]}}\n  mode: audit\n");
    let full: String = (0..MOST_OVERRIDES).map(one).collect();
    let policy = format!("overrides:\n{full}");
    let log = log(&policy, &[denial("shop", "payments")]);
    let message = Suggestion::of(&log, &policy).unwrap_err().to_string();
    assert!(
        message.contains("the policy has 256 overrides with 256 patterns, and there may be 256 with 1024"),
        "{message}"
    );
}

#[test]
fn a_comment_says_rule_count_period_writers_cost_and_what_is_wider() {
    let mut lines: Vec<_> = (0..12)
        .map(|index| denial("shop", &format!("w-{index}")))
        .collect();
    lines[3]["time"] = "2026-11-22T09:30:00Z".into();
    lines[4]["user"] = "a\nmode: off".into();
    let text = suggest("", &lines).policy;
    for expected in [
        "  # transition-not-counted: 12 writes to 12 leases, 2026-11-20T09:30:00Z to 2026-11-22T09:30:00Z.\n",
        "  # By \"a\\nmode: off\"; system:serviceaccount:shop:payments.\n",
        "  # Cost: the second of two candidates",
        "  # Wider than what was seen: 1 pattern stands for ten names or more each, and it matches others of",
        "      names: [\"w-*\"]\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn leases_that_are_no_longer_told_apart_are_not_counted_as_one() {
    let rules = ["transition-not-counted", "stamp-tampered"];
    let mut log = Log::new(Judge::new(&Policy::default()), [], false);
    for rule in rules {
        let record = denial_by(rule, "shop", "NAME").to_string();
        let lines =
            (0..=super::super::MOST_LEASES).map(|index| record.replace("NAME", &format!("n{index}")) + "\n");
        log.read("audit.log", lines.collect::<String>().as_bytes())
            .unwrap();
    }
    let text = Suggestion::of(&log, "").unwrap().policy;
    for rule in rules {
        let expected = format!("# {rule}: 50001 writes to 1 lease or more");
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
}

#[test]
fn patterns_that_overlap_do_not_take_back_what_another_allows() {
    let mut lines = vec![duration("shop", "w-x", 2)];
    for index in 0..10 {
        lines.push(duration("shop", &format!("w-{index}"), 2));
        lines.push(duration("shop", &format!("v{index}-x"), 3));
    }
    let suggestion = suggest("", &lines);
    assert_eq!(easings(&suggestion), ["{duration-out-of-bounds: {min: 2s}}"]);
    assert_eq!(suggestion.entries[0].names, ["*-x", "w-*"]);
    let again = log(&suggestion.policy, &lines);
    assert_eq!(again.summary().allowed_already, 21);
}
