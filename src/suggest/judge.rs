//! Whether a policy would refuse again what was refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Cause, Denial, Easing};
use crate::policy::{Action, Mode, Override, Policy, RuleName, Seconds};

/// A policy, as far as it decides what a denial of the log would come to.
///
/// The log does not say which labels a lease has, nor everything else that an override may match by. Where an override
/// depends on that, the stricter of both cases counts: what is taken for allowed is allowed in either. The policy's own
/// mode does not count, for it is the one to be raised to enforce; an override's does.
pub struct Judge {
    base: BTreeMap<String, Stated>,
    overrides: Vec<Case>,
}

/// One override.
struct Case {
    of: Override,
    /// Whether namespaces and names tell alone whether it matches.
    certain: bool,
    rules: BTreeMap<String, Stated>,
}

/// The settings of one rule that decide whether it denies. Rules without one leave it out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Stated {
    action: Option<Action>,
    claimed: Option<Action>,
    untracked: Option<Action>,
    min: Option<Seconds>,
    max: Option<Seconds>,
    long: Long,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Long {
    after: Option<Seconds>,
    action: Option<Action>,
}

impl Stated {
    /// Puts what an override states over what was there; `strict`: of both, what denies more.
    fn combine(&mut self, over: &Self, strict: bool) {
        let put = |field: &mut Option<Action>, over: Option<Action>| {
            *field = if strict {
                (*field).max(over)
            } else {
                over.or(*field)
            };
        };
        put(&mut self.action, over.action);
        put(&mut self.claimed, over.claimed);
        put(&mut self.untracked, over.untracked);
        put(&mut self.long.action, over.long.action);
        let put = |field: &mut Option<Seconds>,
                   over: Option<Seconds>,
                   stricter: fn(Seconds, Seconds) -> Seconds| {
            *field = match (*field, over) {
                (Some(before), Some(over)) if strict => Some(stricter(before, over)),
                (before, over) => over.or(before),
            };
        };
        put(&mut self.min, over.min, Ord::max);
        put(&mut self.max, over.max, Ord::min);
        put(&mut self.long.after, over.long.after, Ord::min);
    }

    /// Whether a duration of so many seconds is under the minimum, and whether it is over the maximum.
    fn passes(&self, seconds: u32) -> (bool, bool) {
        let seconds = Seconds::new(seconds);
        (
            self.min.is_some_and(|min| seconds < min),
            self.max.is_some_and(|max| seconds > max),
        )
    }

    /// Whether a duration is refused for being long, within the bounds or not.
    fn refuses_as_long(&self, seconds: u32) -> bool {
        let is_long = self.long.after.is_some_and(|after| Seconds::new(seconds) > after);
        is_long && self.long.action == Some(Action::Enforce)
    }

    fn denies(&self, cause: Cause) -> bool {
        let enforces = |action: Option<Action>| action == Some(Action::Enforce);
        if !enforces(self.action) {
            return false;
        }
        match cause {
            Cause::Other => true,
            Cause::Claimed => enforces(self.claimed),
            Cause::Untracked => enforces(self.untracked),
            Cause::Duration(of) => {
                let (min, max) = self.passes(of);
                min || max || self.refuses_as_long(of)
            }
        }
    }
}

impl Judge {
    /// Judges by this policy.
    pub fn new(policy: &Policy) -> Self {
        let document = policy.document();
        let overrides: Vec<_> = document
            .overrides
            .iter()
            .map(|one| Case {
                of: one.clone(),
                certain: depends_on_place_alone(one),
                rules: stated(&one.rules),
            })
            .collect();
        Self {
            base: stated(&document.rules),
            overrides,
        }
    }

    /// Whether, in mode enforce, the policy would refuse again what was refused.
    pub fn denies(&self, denial: &Denial) -> bool {
        let (mode, stated) = self.settings(denial.rule, &denial.namespace, &denial.name);
        mode == Mode::Enforce && stated.denies(denial.cause)
    }

    /// The mildest change by which the policy would not deny this.
    pub(super) fn easing(&self, denial: &Denial) -> Easing {
        let Cause::Duration(seconds) = denial.cause else {
            return Easing::of(denial.rule, denial.cause);
        };
        let (_, stated) = self.settings(denial.rule, &denial.namespace, &denial.name);
        let (under, over) = stated.passes(seconds);
        let easing = Easing::of_duration(denial.rule, seconds, under, over, stated.refuses_as_long(seconds));
        if easing.moves_a_bound() && self.bounds_are_uncertain(denial) {
            return easing.by_action();
        }
        easing
    }

    /// Whether an override states bounds of durations.
    pub(super) fn bounds_overridden(&self) -> bool {
        self.overrides.iter().any(Case::states_bounds)
    }

    /// Whether an override that may match the lease, or may not, states bounds of durations: others below it could be
    /// stricter.
    fn bounds_are_uncertain(&self, denial: &Denial) -> bool {
        let may_match = |case: &&Case| case.may_match(&denial.namespace, &denial.name);
        let uncertain = self
            .overrides
            .iter()
            .filter(|case| !case.certain)
            .filter(may_match);
        uncertain.into_iter().any(Case::states_bounds)
    }

    /// The strictest mode, and settings of the rule, that the lease may have.
    fn settings(&self, rule: RuleName, namespace: &str, name: &str) -> (Mode, Stated) {
        let mut mode = Mode::Enforce;
        let mut settings = self.base.get(rule.as_str()).cloned().unwrap_or_default();
        for case in self
            .overrides
            .iter()
            .filter(|case| case.may_match(namespace, name))
        {
            if let Some(stated) = case.of.mode {
                mode = match (case.certain, mode, stated) {
                    (false, Mode::Enforce, _) | (false, _, Mode::Enforce) => Mode::Enforce,
                    _ => stated,
                };
            }
            if let Some(stated) = case.rules.get(rule.as_str()) {
                settings.combine(stated, !case.certain);
            }
        }
        (mode, settings)
    }
}

impl Case {
    fn states_bounds(&self) -> bool {
        let bounds = self.rules.get("duration-out-of-bounds");
        bounds.is_some_and(|bounds| bounds.min.is_some() || bounds.max.is_some())
    }

    fn may_match(&self, namespace: &str, name: &str) -> bool {
        let criteria = &self.of.r#match;
        (criteria.namespaces.is_empty() || criteria.namespaces.iter().any(|it| it.matches(namespace)))
            && (criteria.names.is_empty() || criteria.names.iter().any(|it| it.matches(name)))
    }
}

/// Whether an override matches by namespaces and names, and by nothing else that a match may hold.
fn depends_on_place_alone(one: &Override) -> bool {
    let criteria = serde_json::to_value(&one.r#match).unwrap_or_default();
    let mut names = criteria.as_object().into_iter().flat_map(serde_json::Map::keys);
    names.all(|name| name == "namespaces" || name == "names")
}

/// What is stated of each rule, by its name.
fn stated(rules: &impl serde::Serialize) -> BTreeMap<String, Stated> {
    let rules = serde_json::to_value(rules).unwrap_or_default();
    let rules = rules.as_object().into_iter().flatten();
    rules
        .map(|(name, settings)| {
            let settings = Stated::deserialize(settings).unwrap_or_default();
            (name.clone(), settings)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suggest::Writer;

    fn denial(rule: &str, cause: Cause) -> Denial {
        Denial {
            rule: RuleName::find(rule).unwrap(),
            namespace: "shop".into(),
            name: "payments".into(),
            cause,
            time: None,
            uid: String::new(),
            writer: Writer::default(),
        }
    }

    #[track_caller]
    fn assert_denies(policy: &str, rule: &str, cause: Cause, expected: bool) {
        let judge = Judge::new(&Policy::parse(policy).unwrap());
        assert_eq!(
            judge.denies(&denial(rule, cause)),
            expected,
            "{policy}: {rule} {cause:?}"
        );
    }

    #[test]
    fn the_policys_own_mode_does_not_count_and_an_overrides_does() {
        let rule = "transition-not-counted";
        assert_denies("mode: audit", rule, Cause::Other, true);
        assert_denies("mode: off", rule, Cause::Other, true);
        for (mode, expected) in [("audit", false), ("off", false), ("enforce", true)] {
            let policy = format!("overrides: [{{match: {{names: [pay*]}}, mode: {mode}}}]");
            assert_denies(&policy, rule, Cause::Other, expected);
        }
        assert_denies(
            "overrides: [{match: {names: [other]}, mode: audit}]",
            rule,
            Cause::Other,
            true,
        );
    }

    #[test]
    fn each_cause_is_answered_by_its_own_setting() {
        let duration = "duration-out-of-bounds";
        for (settings, rule, cause, expected) in [
            ("{action: warn}", "stamp-tampered", Cause::Other, false),
            (
                "{claimed: enforce}",
                "takeover-before-expiry",
                Cause::Claimed,
                true,
            ),
            ("{claimed: warn}", "takeover-before-expiry", Cause::Claimed, false),
            ("{claimed: warn}", "takeover-before-expiry", Cause::Other, true),
            (
                "{untracked: enforce}",
                "transition-not-counted",
                Cause::Untracked,
                true,
            ),
            (
                "{untracked: warn}",
                "transition-not-counted",
                Cause::Untracked,
                false,
            ),
            ("{min: 4s}", duration, Cause::Duration(3), true),
            ("{min: 4s}", duration, Cause::Duration(4), false),
            ("{min: 4s}", duration, Cause::Other, true),
            ("{max: 8d}", duration, Cause::Duration(700_000), true),
            ("{max: 9d}", duration, Cause::Duration(700_000), false),
            ("{action: warn}", duration, Cause::Other, false),
        ] {
            assert_denies(&format!("rules: {{{rule}: {settings}}}"), rule, cause, expected);
        }
    }

    #[test]
    fn the_lowest_override_that_surely_matches_decides_and_one_by_label_only_makes_it_stricter() {
        let rule = "transition-overflow";
        let of = |criteria: &str, action: &str| {
            format!("- match: {{{criteria}}}\n  rules: {{{rule}: {{action: {action}}}}}\n")
        };
        for (overrides, expected) in [
            (of("names: [payments]", "warn"), false),
            (of("names: [payments], namespaces: [other]", "warn"), true),
            (of("labels: {app: \"*\"}", "warn"), true),
            (
                of("names: [payments]", "warn") + &of("labels: {app: a}", "enforce"),
                true,
            ),
            (
                of("labels: {app: a}", "enforce") + &of("names: [payments]", "warn"),
                false,
            ),
            (
                of("names: [payments]", "warn") + &of("names: [pay*]", "enforce"),
                true,
            ),
        ] {
            assert_denies(&format!("overrides:\n{overrides}"), rule, Cause::Other, expected);
        }
        let mode = "overrides:\n- {match: {names: [\"*\"]}, mode: audit}\n- {match: {labels: {a: b}}, mode: enforce}\n";
        assert_denies(mode, rule, Cause::Other, true);
    }
}
