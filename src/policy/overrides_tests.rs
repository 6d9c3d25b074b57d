//! Which settings a lease gets.

use proptest::prelude::*;

use super::*;
use crate::{
    lease::{
        ObjectKind, Write,
        testing::{create, held, takeover},
    },
    policy::{Action, Explanation, Policy},
    verdict::Outcome,
};

fn lease(namespace: &'static str, name: &'static str) -> LeaseName<'static> {
    LeaseName {
        kind: ObjectKind::default(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn labels(pairs: &[(&'static str, &'static str)]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    pairs
        .iter()
        .map(|&(key, value)| (key.into(), value.into()))
        .collect()
}

fn early() -> Write<'static> {
    takeover(
        held("a").renewed_at(0),
        held("b").transitions(4).acquired_at(4).renewed_at(4),
    )
    .stamped(0, 4)
}

#[test]
fn every_criterion_must_hold_and_one_pattern_of_each() {
    let policy = Policy::parse(
        "overrides:\n- match: {namespaces: [team-*, shop], names: ['*-legacy'], labels: {app: old-*, tier: ''}}\n  mode: \
         audit\n",
    )
    .unwrap();
    let matching = &policy.document().overrides[0].r#match;
    let both = [("app", "old-thing"), ("tier", "")];
    for (namespace, name, given, failing) in [
        ("team-a", "x-legacy", &both[..], None),
        ("shop", "x-legacy", &both[..], None),
        ("shops", "x-legacy", &both[..], Some(Criterion::Namespaces)),
        ("shop", "legacy", &both[..], Some(Criterion::Names)),
        ("shop", "x-legacy", &[][..], Some(Criterion::Labels)),
        (
            "shop",
            "x-legacy",
            &[("app", "old-thing")][..],
            Some(Criterion::Labels),
        ),
        (
            "shop",
            "x-legacy",
            &[("app", "new"), ("tier", "")][..],
            Some(Criterion::Labels),
        ),
        (
            "shop",
            "x-legacy",
            &[("app", "old-a"), ("tier", "web")][..],
            Some(Criterion::Labels),
        ),
    ] {
        assert_eq!(
            matching.failing(&lease(namespace, name), &labels(given), ""),
            failing,
            "{namespace}/{name} {given:?}"
        );
    }
}

#[test]
fn the_lowest_that_matches_and_states_a_field_decides_it() {
    let policy = Policy::parse(
        "\
mode: audit
rules:
  duration-out-of-bounds: {min: 10s}
  transition-not-counted: {untracked: audit}
overrides:
  - match: {namespaces: ['*']}
    mode: enforce
    rules:
      duration-out-of-bounds: {max: 2h, action: warn}
  - match: {namespaces: [shop]}
    rules:
      duration-out-of-bounds: {action: audit}
      transition-overflow: {action: warn}
  - match: {namespaces: [other]}
    mode: off
",
    )
    .unwrap();
    let resolved = |namespace| policy.settings_for(&lease(namespace, "x"), &[], "");
    let shop = resolved("shop");
    assert_eq!(shop.mode, Mode::Enforce);
    assert_eq!(shop.rules.duration_out_of_bounds.action, Action::Audit);
    assert_eq!(shop.rules.duration_out_of_bounds.max.get(), 7200);
    assert_eq!(shop.rules.duration_out_of_bounds.min.get(), 10);
    assert_eq!(shop.rules.transition_overflow.action, Action::Warn);
    assert_eq!(shop.rules.transition_not_counted.untracked, Action::Audit);
    let other = resolved("other");
    assert_eq!(
        (other.mode, other.rules.transition_overflow.action),
        (Mode::Off, Action::Enforce)
    );
    assert_eq!(other.rules.duration_out_of_bounds.action, Action::Warn);
}

#[test]
fn an_override_may_be_milder_or_stricter() {
    for (document, expected) in [
        (
            "overrides: [{match: {namespaces: [shop]}, mode: audit}]",
            Outcome::Allow,
        ),
        (
            "overrides: [{match: {names: [orders]}, mode: audit}]",
            Outcome::Deny,
        ),
        (
            "{mode: audit, overrides: [{match: {names: [pay*]}, mode: enforce}]}",
            Outcome::Deny,
        ),
        (
            "overrides: [{match: {names: [pay*]}, rules: {takeover-before-expiry: {action: warn}}}]",
            Outcome::Warn,
        ),
    ] {
        assert_eq!(
            Policy::parse(document).unwrap().decide(&early()).outcome(),
            expected,
            "{document}"
        );
    }
}

#[test]
fn no_write_exempts_itself_by_a_label() {
    let policy = Policy::parse("overrides: [{match: {labels: {app: old-thing}}, mode: audit}]").unwrap();
    let exempt = labels(&[("app", "old-thing")]);
    for (before, after, expected) in [
        (false, false, Outcome::Deny),
        (false, true, Outcome::Deny),
        (true, true, Outcome::Allow),
        (true, false, Outcome::Allow),
    ] {
        let mut write = early();
        for (state, has) in [(&mut write.old, before), (&mut write.new, after)] {
            if has {
                state.labels.clone_from(&exempt);
            }
        }
        assert_eq!(policy.decide(&write).outcome(), expected, "{before} {after}");
    }
    let mut born = create(held("a").duration(1).renewed_at(0).acquired_at(0));
    assert_eq!(policy.decide(&born).outcome(), Outcome::Deny);
    born.new.labels = exempt;
    assert_eq!(
        policy.decide(&born).outcome(),
        Outcome::Allow,
        "it has no labels but these"
    );
}

#[test]
fn an_exception_for_a_service_account_holds_for_no_other_writer() {
    let document = "overrides: [{match: {namespaces: [shop], serviceAccounts: [storage/manager]}, rules: \
                    {takeover-before-expiry: {action: audit}}}]";
    let policy = Policy::parse(document).unwrap();
    for (user, expected) in [
        ("system:serviceaccount:storage:manager", Outcome::Allow),
        ("system:serviceaccount:shop:manager", Outcome::Deny),
        ("system:serviceaccount:storage:other", Outcome::Deny),
        ("storage/manager", Outcome::Deny),
        ("", Outcome::Deny),
    ] {
        let mut write = early();
        write.writer.user = user.into();
        assert_eq!(policy.decide(&write).outcome(), expected, "{user}");
    }
    let elsewhere = document.replace("[shop]", "[other]");
    let mut write = early();
    write.writer.user = "system:serviceaccount:storage:manager".into();
    assert_eq!(
        Policy::parse(&elsewhere).unwrap().decide(&write).outcome(),
        Outcome::Deny,
        "every criterion must hold"
    );
}

#[test]
fn a_write_that_takes_off_a_stricter_label_is_still_judged_by_it() {
    let policy =
        Policy::parse("{mode: audit, overrides: [{match: {labels: {guard: strict}}, mode: enforce}]}")
            .unwrap();
    let mut write = early();
    write.old.labels = labels(&[("guard", "strict")]);
    assert_eq!(policy.decide(&write).outcome(), Outcome::Deny);
}

#[test]
fn without_a_match_nothing_is_copied() {
    let policy = Policy::parse(
        "overrides: [{match: {names: [other]}, rules: {stamp-tampered: {action: warn}}}, {match: {names: [x]}, mode: \
         audit}]",
    )
    .unwrap();
    assert!(matches!(
        policy.settings_for(&lease("shop", "y"), &[], "").rules,
        Cow::Borrowed(_)
    ));
    assert!(
        matches!(
            policy.settings_for(&lease("shop", "x"), &[], "").rules,
            Cow::Borrowed(_)
        ),
        "a mode alone changes no rule"
    );
    assert!(matches!(
        policy.settings_for(&lease("shop", "other"), &[], "").rules,
        Cow::Owned(_)
    ));
}

#[test]
fn settings_that_contradict_each_other_once_they_meet_are_refused_where_they_stand() {
    for (document, expected) in [
        (
            "overrides:\n- match: {names: [a]}\n  rules:\n    duration-out-of-bounds: {min: 8d}\n",
            "line 4, column 29, override 1, rules.duration-out-of-bounds: min (8d) is over max (7d) in duration-out-of-bounds: no duration would do; this is \
             override 1 over the policy's own rules, which hold for what it leaves out",
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules: {duration-out-of-bounds: {min: 30m, max: 4h}}\n- match: {names: \
             [a]}\n  mode: audit\n- match: {names: [b]}\n  rules:\n    duration-out-of-bounds: {max: 10s}\n",
            "line 8, column 29, override 3, rules.duration-out-of-bounds: min (30m) is over max (10s) in duration-out-of-bounds: no duration would do; this is \
             override 3 over override 1, for a lease that matches both; state in override 3 all that must agree",
        ),
    ] {
        assert_eq!(Policy::parse(document).unwrap_err().to_string(), expected);
    }
    Policy::parse(
        "overrides:\n- match: {names: [a]}\n  rules: {duration-out-of-bounds: {min: 30m, max: 4h}}\n- match: {names: \
         [b]}\n  rules: {duration-out-of-bounds: {min: 5s, max: 10s}}\n",
    )
    .unwrap();
}

#[test]
fn an_override_prints_as_it_was_written() {
    let document =
        "overrides: [{match: {namespaces: [a*], labels: {app: x}}, rules: {stamp-tampered: {action: off}}}]";
    let policy = Policy::parse(document).unwrap();
    let printed = serde_json::to_value(&policy.document().overrides).unwrap();
    let expected = serde_json::json!([{
        "match": {"namespaces": ["a*"], "labels": {"app": "x"}},
        "rules": {"stamp-tampered": {"action": "off"}},
    }]);
    assert_eq!(printed, expected);
    let whole = serde_json::to_string(policy.document()).unwrap();
    assert_eq!(
        Policy::parse(&whole).unwrap(),
        policy,
        "what is printed can be read"
    );
}

/// Every value that is no object, with its path, as in `/long/after`.
fn leaves(value: &serde_json::Value) -> Vec<(String, &serde_json::Value)> {
    let Some(fields) = value.as_object() else {
        return vec![(String::new(), value)];
    };
    let below = fields.iter().flat_map(|(name, field)| {
        leaves(field)
            .into_iter()
            .map(move |(path, value)| (format!("/{name}{path}"), value))
    });
    below.collect()
}

/// An override, as a document's line, and what it says.
fn any_override() -> impl Strategy<Value = String> {
    let action = || proptest::option::of(proptest::sample::select(vec!["off", "audit", "warn", "enforce"]));
    let matching = proptest::sample::select(vec![
        "namespaces: [shop]",
        "namespaces: [s*, t*]",
        "names: [payments]",
        "names: ['*s']",
        "labels: {app: a*}",
        "namespaces: [shop], labels: {app: b}",
        "serviceAccounts: [storage/*]",
        "namespaces: [shop], serviceAccounts: [shop/payments, '*/manager']",
    ]);
    let mode = proptest::option::of(proptest::sample::select(vec!["off", "audit", "enforce"]));
    let seconds = || proptest::option::of(1_u32..40);
    let long = proptest::sample::select(vec!["", "long: {after: 2h}, ", "long: {action: off}, "]);
    (matching, mode, action(), action(), seconds(), long)
        .prop_filter("it sets something", |(_, mode, one, two, max, long)| {
            mode.is_some() || one.is_some() || two.is_some() || max.is_some() || !long.is_empty()
        })
        .prop_map(|(matching, mode, one, two, max, long)| {
            let mode = mode.map(|mode| format!("mode: {mode}, ")).unwrap_or_default();
            let field = |name: &str, value: Option<String>| {
                value.map(|value| format!("{name}: {value}, ")).unwrap_or_default()
            };
            format!(
                "{{match: {{{matching}}}, {mode}rules: {{duration-out-of-bounds: {{{}{long}{}}}, stamp-tampered: {{{}}}}}}}",
                field("action", one.map(str::to_owned)),
                field("max", max.map(|max| format!("{}m", max))),
                field("action", two.map(str::to_owned)),
            )
        })
}

proptest! {
    /// What is explained is what is judged by.
    #[test]
    fn the_explanation_is_the_truth(
        overrides in proptest::collection::vec(any_override(), 0..6),
        namespace in proptest::sample::select(vec!["shop", "team", "other"]),
        name in proptest::sample::select(vec!["payments", "orders", "x"]),
        app in proptest::option::of(proptest::sample::select(vec!["a", "b", "c"])),
        user in proptest::sample::select(vec!["", "system:serviceaccount:storage:manager", "system:serviceaccount:shop:payments"]),
    ) {
        let lines: String = overrides.iter().map(|one| format!("- {one}\n")).collect();
        let document = format!("overrides:\n{lines}");
        let policy = Policy::parse(&document).unwrap();
        let labels: Vec<_> = app.into_iter().flat_map(|app| labels(&[("app", app)])).collect();
        let lease = lease(namespace, name);
        let settings = policy.settings_for(&lease, &labels, user);
        let explanation = Explanation::of(&document, &lease, &labels, user).unwrap();
        let explained = |setting: &str| {
            explanation.settings.iter().find(|it| it.setting == setting).map(|it| it.value.clone()).unwrap()
        };
        prop_assert_eq!(explained("mode"), settings.mode.to_string());
        let rules = serde_json::to_value(&*settings.rules).unwrap();
        for (rule, fields) in rules.as_object().unwrap() {
            for (path, value) in leaves(fields) {
                let stated = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                prop_assert_eq!(explained(&format!("rules.{rule}{}", path.replace('/', "."))), stated);
            }
        }
        // And the line that is named states the value.
        for setting in &explanation.settings {
            if let Some(line) = setting.line {
                let text = document.lines().nth(usize::try_from(line).unwrap() - 1).unwrap();
                prop_assert!(text.contains(&setting.value), "{text} should state {setting:?}");
            }
        }
    }

    /// Asked the other way round: for each field, the first override from the bottom that matches and states it.
    #[test]
    fn the_first_match_from_the_bottom_wins_field_by_field(
        overrides in proptest::collection::vec(any_override(), 0..6),
        namespace in proptest::sample::select(vec!["shop", "team", "other"]),
        name in proptest::sample::select(vec!["payments", "orders", "x"]),
        app in proptest::option::of(proptest::sample::select(vec!["a", "b", "c"])),
        user in proptest::sample::select(vec!["", "system:serviceaccount:storage:manager", "system:serviceaccount:shop:payments"]),
    ) {
        let lines: String = overrides.iter().map(|one| format!("- {one}\n")).collect();
        let policy = Policy::parse(&format!("overrides:\n{lines}")).unwrap();
        let labels: Vec<_> = app.into_iter().flat_map(|app| labels(&[("app", app)])).collect();
        let lease = lease(namespace, name);
        let settings = policy.settings_for(&lease, &labels, user);
        let from_the_bottom = || policy.document().overrides.iter().rev().filter(|it| it.matches(&lease, &labels, user));
        let mode = from_the_bottom().find_map(|it| it.mode);
        prop_assert_eq!(settings.mode, mode.unwrap_or_else(|| policy.document().mode));
        let base = serde_json::to_value(&policy.document().rules).unwrap();
        let partials: Vec<_> = from_the_bottom().map(|it| serde_json::to_value(&it.rules).unwrap()).collect();
        let resolved = serde_json::to_value(&*settings.rules).unwrap();
        for (rule, fields) in base.as_object().unwrap() {
            for (field, value) in leaves(fields) {
                let path = format!("/{rule}{field}");
                let expected = partials.iter().find_map(|partial| partial.pointer(&path)).unwrap_or(value);
                prop_assert_eq!(resolved.pointer(&path), Some(expected), "{}", path);
            }
        }
    }
}
