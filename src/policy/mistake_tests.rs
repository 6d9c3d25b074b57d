//! Every mistake that a person makes, and what is said of it.

use super::*;
use crate::policy::{LeasePolicy, Policy};

fn refusal(document: &str) -> String {
    LeasePolicy::parse(document).unwrap_err().to_string()
}

#[track_caller]
fn assert_refused(cases: &[(&str, &str)]) {
    for (document, expected) in cases {
        let message = refusal(document);
        assert!(
            message.contains(expected),
            "{document:?}\n  says     {message}\n  expected {expected}"
        );
        for jargon in [
            "variant",
            "sequence start",
            "mapping start",
            "Option",
            "enum",
            "scalar",
            "deserialize",
            "unit value",
            "from_str",
        ] {
            assert!(!message.contains(jargon), "{document:?}: {message}");
        }
    }
}

#[test]
fn mistakes_in_settings_are_named_with_their_place() {
    assert_refused(&[
        (
            "mode: enforce\nmood: audit\n",
            "line 2, column 1: unknown field `mood`, expected one of",
        ),
        (
            "mode: enforced\n",
            "line 1, column 7, mode: unknown value `enforced`, expected one of off, audit, enforce; did you mean `enforce`?",
        ),
        ("mode: Audit\n", "; did you mean `audit`?"),
        (
            "mode: warn\n",
            "line 1, column 7, mode: unknown value `warn`, expected one of off, audit, enforce",
        ),
        (
            "mode:\n",
            "mode: the value is missing, expected one of off, audit, enforce",
        ),
        ("mode: [audit]\n", "line 1, column 7, mode: expected one word"),
        (
            "clockSlack: 1\n",
            "line 1, column 13, clockSlack: \"1\" is not a duration: the unit is missing; write whole seconds, minutes, hours or days, as in 5s",
        ),
        ("clockSlack: 500ms\n", "it is not a whole number of seconds"),
        (
            "clockSlack: 1w\n",
            "line 1, column 13, clockSlack: \"1w\" is not a duration: it cannot be read",
        ),
        (
            "maxSkew: -5s\n",
            "line 1, column 10, maxSkew: \"-5s\" is not a duration: it is negative",
        ),
        (
            "rules:\n  takeover-before-expirey: {}\n",
            "; did you mean `takeover-before-expiry`?",
        ),
        (
            "rules:\n  takeover_before_expiry: {}\n",
            "line 2, column 3, rules: unknown field `takeover_before_expiry`",
        ),
        (
            "rules:\n  takeover-before-expiry: {acton: warn}\n",
            "rules.takeover-before-expiry: unknown field `acton`, expected one of action, claimed; did you mean `action`?",
        ),
        (
            "rules:\n  takeover-before-expiry: warn\n",
            "line 2, column 27, rules.takeover-before-expiry: expected fields, as in {name: value}",
        ),
        (
            "rules: [takeover-before-expiry]\n",
            "line 1, column 8, rules: expected fields",
        ),
        (
            "rules:\n  duration-out-of-bounds: {min: 8d}\n",
            "line 2, column 27, rules.duration-out-of-bounds: min (8d) is over max (7d)",
        ),
        (
            "rules:\n  duration-out-of-bounds:\n    min: 8d\n    max: 1h\n",
            "line 3, column 5, rules.duration-out-of-bounds",
        ),
        (
            "clockSlack: null\n",
            "line 1, column 13, clockSlack: the value is missing; give one, or leave the field out",
        ),
        ("clockSlack:\nmode: audit\n", "clockSlack: the value is missing"),
        (
            "maxSkew: [5s]\n",
            "line 1, column 10, maxSkew: expected plain text, as in 5s",
        ),
        (
            "mode: null\n",
            "mode: the value is missing, expected one of off, audit, enforce",
        ),
        (
            "rules: {duration-out-of-bounds: {min: null}}\n",
            "line 1, column 39, rules.duration-out-of-bounds.min: the value is missing",
        ),
        (
            "rules:\n  flapping: {changes: null}\n",
            "rules.flapping: the value is missing, expected a whole number of changes, from 0 to 31",
        ),
        ("breakglass: {groups: []}\n", "; did you mean `breakGlass`?"),
        (
            "breakGlass: {group: [ops]}\n",
            "line 1, column 14, breakGlass: unknown field `group`, expected one of groups, requireAnnotation; did you mean `groups`?",
        ),
        (
            "breakGlass: {groups: ops}\n",
            "line 1, column 22, breakGlass.groups: expected a list",
        ),
        (
            "breakGlass:\n  groups:\n",
            "breakGlass.groups: the list of groups is missing; write [] for nobody",
        ),
        (
            "breakGlass: {requireAnnotation: perhaps}\n",
            "line 1, column 33, breakGlass.requireAnnotation: expected true or false",
        ),
    ]);
}

#[test]
fn mistakes_in_overrides_are_named_with_their_place() {
    assert_refused(&[
        (
            "override: []\n",
            "line 1, column 1: unknown field `override`, expected one of",
        ),
        ("override: []\n", "; did you mean `overrides`?"),
        (
            "overrides: audit\n",
            "line 1, column 12, overrides: expected a list",
        ),
        (
            "overrides: {match: {names: [a]}, mode: audit}\n",
            "line 1, column 12, overrides: expected a list",
        ),
        (
            "overrides:\n- mode: audit\n",
            "line 2, column 3, override 1: missing field `match`",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  mode: audit\n-\n",
            "override 2: missing field `match`",
        ),
        (
            "overrides:\n- match: {}\n  mode: audit\n",
            "line 2, column 10, override 1, match: match is empty and would silently mean every lease; state namespaces, names, labels or serviceAccounts",
        ),
        (
            "overrides:\n- match:\n  mode: audit\n",
            "override 1, match: match is empty",
        ),
        (
            "overrides:\n- match: {namespace: [a]}\n",
            "override 1, match: unknown field `namespace`, expected one of namespaces, names, labels, serviceAccounts; did you mean `namespaces`?",
        ),
        (
            "overrides:\n- match: {namespaces: []}\n",
            "line 2, column 23, override 1, match.namespaces: the list of patterns is empty",
        ),
        (
            "overrides:\n- match:\n    namespaces:\n  mode: audit\n",
            "line 3, column 15, override 1, match.namespaces: the list of patterns is empty",
        ),
        (
            "overrides:\n- match: {namespaces: team-a}\n",
            "override 1, match.namespaces: expected a list",
        ),
        (
            "overrides:\n- match: {namespaces: [x, Team-A]}\n",
            "line 2, column 27, override 1, match.namespaces: pattern \"Team-A\" matches nothing: a namespace holds no 'T', only a to z, 0 to 9 and -",
        ),
        (
            "overrides:\n- match: {namespaces: [team/a]}\n",
            "a namespace holds no '/'",
        ),
        (
            "overrides:\n- match: {names: [shop/payments]}\n",
            "override 1, match.names: pattern \"shop/payments\" matches nothing: a lease's name holds no '/'",
        ),
        (
            "overrides:\n- match: {names: [null]}\n",
            "override 1, match.names: the value is missing",
        ),
        (
            "overrides:\n- match: {names: ['pay?']}\n",
            "the one wildcard is *",
        ),
        (
            "overrides:\n- match: {names: [*]}\n",
            "line 2, column 19: a * in front is YAML's mark of an alias",
        ),
        (
            "overrides:\n- match: {names: [*-legacy]}\n",
            "put a pattern that begins with * in quotes, as in \"*-legacy\"",
        ),
        (
            "overrides:\n- match: {labels: {}}\n",
            "override 1, match.labels: labels is empty",
        ),
        (
            "overrides:\n- match: {labels: [app]}\n",
            "override 1, match.labels: expected fields",
        ),
        (
            "overrides:\n- match: {labels: {app*: x}}\n",
            "override 1, match.labels: label key \"app*\" has a *",
        ),
        (
            "overrides:\n- match: {labels: {a/b/c: x}}\n",
            "\"a/b/c\" is no label's key: no lease can have it; write it as in app or example.com/team",
        ),
        (
            "overrides:\n- match: {labels: {app: 'a b'}}\n",
            "override 1, match.labels.app: pattern \"a b\" matches nothing: a label's value holds no ' '",
        ),
        (
            "overrides:\n- match: {serviceAccounts: []}\n",
            "override 1, match.serviceAccounts: the list of patterns is empty",
        ),
        (
            "overrides:\n- match: {serviceAccounts: ['system:serviceaccount:a:b']}\n",
            "override 1, match.serviceAccounts: \"system:serviceaccount:a:b\" names no service account; write NAMESPACE/NAME",
        ),
        (
            "overrides:\n- match: {serviceAccounts: [a/B]}\n",
            "service account \"a/B\": pattern \"B\" matches nothing: a service account's name holds no 'B'",
        ),
        (
            "overrides:\n- match: {labels: {app: a, app: b}}\n",
            "line 2, column 28: duplicate field: app",
        ),
        (
            "overrides:\n- match: {names: [a]}\n",
            "line 2, column 3, override 1: the override sets nothing; give it a mode, or rules with a field each",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules: {stamp-tampered: {}}\n",
            "override 1: the override sets nothing",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  mode: adit\n",
            "line 3, column 9, override 1, mode: unknown value `adit`, expected one of off, audit, enforce; did you mean `audit`?",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  maxSkew: 5s\n",
            "line 3, column 3, override 1: unknown field `maxSkew`, expected one of match, mode, rules",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules: {stamp-tempered: {}}\n",
            "; did you mean `stamp-tampered`?",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules: {stamp-tampered: {action: of}}\n",
            "override 1, rules.stamp-tampered.action: unknown value `of`",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules: {duration-out-of-bounds: {max: 5}}\n",
            "line 3, column 41, override 1, rules.duration-out-of-bounds.max: \"5\" is not a duration: the unit is missing",
        ),
    ]);
}

#[test]
fn what_is_no_policy_at_all_is_named() {
    assert_refused(&[
        (
            "rules:\n\ttransition-overflow: {}\n",
            "line 2, column 2: a tab; indent with spaces",
        ),
        (
            "mode: audit\nmode: audit\n",
            "line 2, column 1: duplicate field: mode",
        ),
        (
            "apiVersion: leasehold.dev/v2\n",
            "line 1, column 13, apiVersion: unknown value `leasehold.dev/v2`, expected",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n",
            "of a ConfigMap, the policy is only what stands in its data, under policy.yaml",
        ),
        (
            "kind: ConfigMap\n",
            "line 1, column 7, kind: unknown value `ConfigMap`",
        ),
        ("- mode\n", "line 1, column 1: expected fields"),
        ("just text\n", "line 1, column 1: expected fields"),
        (
            "mode: audit\n---\nmode: audit\n",
            "line 3, column 1: another document begins here, and a policy is one alone",
        ),
        ("mode: {\n", "line 1, column 7: unclosed bracket"),
        ("mode: \"audit\n", "line 2, column 1: "),
    ]);
}

#[test]
fn a_suggestion_is_made_only_where_a_name_is_near() {
    assert!(!refusal("xyz: 1").contains("did you mean"), "nothing is near");
}

#[test]
fn documents_of_any_size_are_read_or_refused_by_a_clear_cap() {
    let one = "- match: {names: [a]}\n  mode: audit\n";
    let overrides = |count: usize| format!("overrides:\n{}", one.repeat(count));
    assert_eq!(
        Policy::parse(&overrides(256)).unwrap().document().overrides.len(),
        256
    );
    let megabyte = overrides((1024 * 1024 - 11) / one.len());
    assert!(megabyte.len() > 1_000_000);
    for document in [overrides(257), megabyte] {
        assert!(
            refusal(&document).contains(
                "line 514, column 3, override 257: one override too many: there may be 256; match several leases by one"
            ),
            "{}",
            refusal(&document)
        );
    }
    let patterns = |count: usize| {
        let names = vec!["a"; count].join(",");
        format!(
            "overrides:\n- match: {{names: [{names}]}}\n  mode: audit\n- match: {{names: [b]}}\n  mode: audit\n"
        )
    };
    Policy::parse(&patterns(1023)).unwrap();
    assert!(
        refusal(&patterns(1024)).contains(
            "line 4, column 3, override 2: too many patterns: all overrides together may have 1024"
        )
    );
    let long = format!("overrides:\n- match: {{names: [{}]}}\n", "a".repeat(1_000_000));
    let message = refusal(&long);
    assert!(
        message.contains("it states 1000000 characters, and a lease's name has at most 253")
            && message.len() < 600,
        "{message}"
    );
    let too_long = "#".repeat(1024 * 1024 + 1);
    assert_eq!(
        refusal(&too_long),
        "the document is 1048577 bytes long, over the 1048576 that a ConfigMap holds"
    );
    let deep = format!("rules: {}", "[".repeat(1_000_000));
    assert!(refusal(&deep).starts_with("line 1, column "));
}

#[test]
fn words_are_as_far_apart_as_the_edits_between_them() {
    for (from, to, expected) in [
        ("", "", 0),
        ("a", "", 1),
        ("", "ab", 2),
        ("audit", "edit", 2),
        ("warn", "warn", 0),
    ] {
        assert_eq!(distance(from, to), expected, "{from} {to}");
    }
}

#[test]
fn a_path_reads_as_it_is_spoken_of() {
    for (path, expected) in [
        ("rules/clock-skewed/action", "rules.clock-skewed.action"),
        ("overrides/1", "override 2"),
        ("overrides/1/match/names/0", "override 2, match.names"),
        ("overrides", "overrides"),
        ("breakGlass/groups/3", "breakGlass.groups"),
    ] {
        assert_eq!(readable(path), expected);
    }
}
