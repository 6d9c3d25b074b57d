//! The mildest change of a rule's settings by which what was seen is not denied.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Cause;
use crate::policy::{RuleName, Seconds};

/// A change of one rule's settings, in an override. Nothing is stated that need not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Easing {
    rule: RuleName,
    /// `action: warn`, which answers every cause.
    action: bool,
    claimed: bool,
    untracked: bool,
    min: Option<u32>,
    max: Option<u32>,
    long: bool,
}

impl Easing {
    /// What answers a denial; a duration by the rule's action.
    pub(super) fn of(rule: RuleName, cause: Cause) -> Self {
        Self {
            rule,
            action: matches!(cause, Cause::Other | Cause::Duration(_)),
            claimed: cause == Cause::Claimed,
            untracked: cause == Cause::Untracked,
            min: None,
            max: None,
            long: false,
        }
    }

    /// What answers a duration: where it is under the minimum, over the maximum, or refused for being long.
    pub(super) fn of_duration(rule: RuleName, seconds: u32, under: bool, over: bool, long: bool) -> Self {
        Self {
            rule,
            action: false,
            claimed: false,
            untracked: false,
            min: under.then_some(seconds),
            max: over.then_some(seconds),
            long,
        }
    }

    /// What answers both, of one rule.
    pub(super) fn and(self, other: Self) -> Self {
        if self.action || other.action {
            return self.by_action();
        }
        Self {
            rule: self.rule,
            action: false,
            claimed: self.claimed || other.claimed,
            untracked: self.untracked || other.untracked,
            min: [self.min, other.min].into_iter().flatten().min(),
            max: self.max.max(other.max),
            long: self.long || other.long,
        }
    }

    /// What answers every denial of the rule.
    pub(super) fn by_action(self) -> Self {
        Self::of(self.rule, Cause::Other)
    }

    /// Whether it moves a bound of durations.
    pub(super) fn moves_a_bound(self) -> bool {
        self.min.is_some() || self.max.is_some()
    }

    /// What it answers, as far as settings can tell.
    pub(super) fn causes(self) -> Vec<Cause> {
        let stated = [
            self.action.then_some(Cause::Other),
            self.claimed.then_some(Cause::Claimed),
            self.untracked.then_some(Cause::Untracked),
            self.min.map(Cause::Duration),
            self.max.map(Cause::Duration),
        ];
        stated.into_iter().flatten().collect()
    }

    /// The rule.
    pub fn rule(self) -> RuleName {
        self.rule
    }

    /// Whether it is only the minimum, or only the maximum, that is moved.
    pub(super) fn bounds(self) -> (Option<Seconds>, Option<Seconds>) {
        (self.min.map(Seconds::new), self.max.map(Seconds::new))
    }

    /// Whether the rule still denies, for other causes.
    pub(super) fn still_denies(self) -> bool {
        !self.action
    }

    /// The rule's settings as they stand in an override.
    pub(super) fn settings(self) -> serde_json::Value {
        let mut settings = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| drop(settings.insert(name.to_owned(), value));
        for (stated, name) in [
            (self.action, "action"),
            (self.claimed, "claimed"),
            (self.untracked, "untracked"),
        ] {
            if stated {
                put(name, "warn".into());
            }
        }
        let (min, max) = self.bounds();
        if let Some(min) = min {
            put("min", min.to_string().into());
        }
        if self.long {
            put("long", serde_json::json!({"action": "warn"}));
        }
        if let Some(max) = max {
            put("max", max.to_string().into());
        }
        settings.into()
    }
}

impl fmt::Display for Easing {
    /// As a flow mapping of YAML: `{duration-out-of-bounds: {min: 3s}}`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn flow(value: &serde_json::Value) -> String {
            match value {
                serde_json::Value::Object(fields) => {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(name, value)| format!("{name}: {}", flow(value)))
                        .collect();
                    format!("{{{}}}", fields.join(", "))
                }
                value => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            }
        }
        write!(formatter, "{{{}: {}}}", self.rule, flow(&self.settings()))
    }
}

impl Serialize for Easing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.rule.as_str(), self.settings())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mildest_change_that_answers_every_cause_is_stated_and_no_other() {
        let rule = RuleName::find("duration-out-of-bounds").unwrap();
        let under = |seconds| Easing::of_duration(rule, seconds, true, false, false);
        let over = |seconds, long| Easing::of_duration(rule, seconds, false, true, long);
        let long = Easing::of_duration(rule, 7200, false, false, true);
        for (easings, expected) in [
            (&[under(3)][..], "{min: 3s}"),
            (&[under(3), under(1), under(2)], "{min: 1s}"),
            (
                &[under(3), over(864_000, false), over(7, false)],
                "{max: 10d, min: 3s}",
            ),
            (&[long], "{long: {action: warn}}"),
            (&[over(864_000, true)], "{long: {action: warn}, max: 10d}"),
            (&[under(3), Easing::of(rule, Cause::Other)], "{action: warn}"),
        ] {
            let easing = easings.iter().copied().reduce(Easing::and).unwrap();
            assert_eq!(
                easing.to_string(),
                format!("{{duration-out-of-bounds: {expected}}}")
            );
        }
    }
}
