//! `flapping`

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Case, Finding, Purposes, Rule, SEEN_HERE, quoted};
use crate::{
    lease::{MOST_HOLDER_CHANGES, REMEMBERED_SECONDS, Tolerance},
    policy::{
        Action, AdvisoryAction, Seconds,
        in_process::{Constant, InProcess},
    },
};

rule_settings! {
    /// A lease that changes hands too often: more than `changes` times within `window`.
    ///
    /// Each change costs the time that nobody leads, and the work of a new leader to find its place. Leaders that
    /// cannot keep a lease are mostly starved of CPU, cut off from the API server, or crash soon after they start.
    ///
    /// A change counts once a later write shows that it happened, so that candidates who race and lose are not
    /// counted. A roll-out that replaces a few replicas does not get over the default.
    ///
    /// This rule needs memory, so it only advises: the same review could get another answer from another replica, and
    /// one that sees half of the changes counts half.
    ///
    /// What to do: look at the restarts and the CPU throttling of the electors; give the lease a longer duration, and
    /// release it at shutdown. To see all changes, add up leasehold_holder_changes_total of all replicas, or read
    /// the holderChange records of their audit logs.
    pub struct Flapping = "flapping" {
        /// What flapping leads to: at most warn.
        action: AdvisoryAction = AdvisoryAction::Warn,
        /// How many changes of holder are well within the window; at most 31.
        changes: Changes = Changes(5),
        /// How long the window is; at most 1h, which is as long as a lease is remembered.
        window: Seconds = Seconds::new(600),
    }
    check with within_memory;
}

/// A number of changes of holder that a lease's memory can tell from one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Changes(u8);

impl Changes {
    const MOST: u8 = MOST_HOLDER_CHANGES as u8 - 1;

    /// The number.
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

plain_fields!(Changes);

impl Constant for Changes {
    fn number(&self) -> i64 {
        self.0.into()
    }
}

impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Changes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a whole number of changes, from 0 to {}", Changes::MOST)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Changes, E> {
                u8::try_from(number)
                    .ok()
                    .filter(|number| *number <= Changes::MOST)
                    .map(Changes)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Changes, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Changes {
    fn schema_name() -> Cow<'static, str> {
        "Changes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": Self::MOST})
    }
}

fn within_memory(settings: &Flapping) -> Result<(), String> {
    let window = settings.window;
    if window.get() > REMEMBERED_SECONDS {
        return Err(format!("window ({window}) is over 1h in flapping: a lease is remembered no longer"));
    }
    Ok(())
}

impl Rule for Flapping {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action.into()
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let changes = &case.history?.holder_changes;
        let within = |change: &&jiff::Timestamp| {
            write.reviewed.duration_since(**change) <= self.window.duration()
        };
        let count = changes.iter().filter(within).count();
        if count <= self.changes.get() {
            return None;
        }
        Some(Finding::new(format!(
            "{SEEN_HERE}, lease {} changed hands {count} times within {} (more than {}), last to {}",
            write.lease,
            self.window,
            self.changes,
            quoted(write.old.record.holder.as_deref()),
        )))
    }

    fn in_process(_: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Not {
            reason: "CEL has no memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            History,
            testing::{at, held, update},
        },
        policy::{
            Policy,
            rules::testing::{check, check_with_history},
        },
    };

    fn judge(rule: &Flapping, changes: &[i64], now: i64) -> Option<Finding> {
        let history = History {
            holder_changes: changes.iter().map(|seconds| at(*seconds)).collect(),
            ..History::default()
        };
        let mut renewal = update(held("b").renewed_at(4), held("b").renewed_at(6));
        renewal.reviewed = at(now);
        check_with_history(rule, &renewal, Some(&history))
    }

    #[test]
    fn more_changes_than_the_policy_allows_within_the_window_fire() {
        let rule = Flapping::default();
        for (changes, now, fires) in [
            (&[][..], 0, false),
            (&[0, 60, 120, 180, 240], 240, false),
            (&[0, 60, 120, 180, 240, 300], 300, true),
            (&[0, 60, 120, 180, 240, 300], 600, true),
            (&[0, 60, 120, 180, 240, 300], 601, false),
        ] {
            assert_eq!(judge(&rule, changes, now).is_some(), fires, "{changes:?} at {now}");
        }
        let never = Flapping {
            changes: Changes(0),
            ..rule
        };
        assert!(judge(&never, &[0], 0).is_some());
        assert!(judge(&never, &[], 0).is_none());
    }

    #[test]
    fn the_message_counts() {
        assert_eq!(
            judge(&Flapping::default(), &[0, 60, 120, 180, 240, 300], 300).unwrap().message,
            "as far as this replica saw, lease shop/payments changed hands 6 times within 10m (more than 5), last to \
             \"b\""
        );
        assert_eq!(check(&Flapping::default(), &update(held("a"), held("b"))), None);
    }

    #[test]
    fn settings_beyond_what_is_remembered_are_refused() {
        for (settings, mistake) in [
            ("changes: 32", "line 1, column 20, rules.flapping: invalid value: integer `32`, expected a whole number of changes, from 0 to 31"),
            ("changes: -1", "invalid value: integer `-1`, expected a whole number of changes, from 0 to 31"),
            ("changes: few", "invalid type: string \"few\", expected a whole number of changes, from 0 to 31"),
            ("changes: 2.5", "invalid type: floating point `2.5`, expected a whole number of changes, from 0 to 31"),
            ("window: 61m", "window (1h1m) is over 1h in flapping: a lease is remembered no longer"),
            ("action: enforce", "this rule cannot enforce: it judges by what one replica remembers"),
        ] {
            let refused = Policy::parse(&format!("rules: {{flapping: {{{settings}}}}}")).unwrap_err();
            assert!(refused.to_string().contains(mistake), "{refused}");
        }
        assert!(Policy::parse("rules: {flapping: {changes: 31, window: 1h}}").is_ok());
    }
}
