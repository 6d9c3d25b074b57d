//! From what the logs say to a policy that refuses nothing of it but what is never excused.

use serde::Serialize;

use super::{
    Cause, Denial, Entry, Judge, Log, MergeError, Occurrences, Writer, cost,
    log::{InNamespace, Leases},
    merge::merge,
    plan::{Bounds, Room, entries},
};
use crate::policy::{MOST_OVERRIDES, MOST_PATTERNS, Policy, PolicyError, RuleName};

/// What a policy begins with where none is given: the default, and nothing of it stated that need not be.
pub const DEFAULT_DOCUMENT: &str = "\
# What is not stated has its default: leasehold policy default
apiVersion: leasehold.dev/v1alpha1
kind: LeasePolicy
mode: enforce
";

/// Overrides for what the logs say.
#[derive(Debug)]
pub struct Suggestion {
    /// The overrides that were added.
    pub entries: Vec<Entry>,
    /// What stays refused, by rule and lease.
    pub not_excused: Vec<NotExcused>,
    /// The policy with the overrides.
    pub policy: String,
}

/// Denials that are not excused: of one rule, by one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotExcused {
    /// The rule.
    pub rule: RuleName,
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name; absent where there are too many to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often, by whom and since when.
    #[serde(flatten)]
    pub seen: Occurrences,
}

impl NotExcused {
    /// The lease, as `namespace/name`.
    pub(super) fn lease(&self) -> String {
        format!("{}/{}", self.namespace, self.name.as_deref().unwrap_or("*"))
    }
}

/// Why there is no suggestion.
#[derive(Debug, thiserror::Error)]
pub enum SuggestionError {
    /// The policy cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The overrides cannot be added to it.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The policy has no room.
    #[error(
        "the policy has {overrides} overrides with {patterns} patterns, and there may be {MOST_OVERRIDES} with \
         {MOST_PATTERNS}: too few are left for what was seen; match several leases of the policy by one override, with lists \
         and with *"
    )]
    NoRoom {
        /// How many overrides it has.
        overrides: usize,
        /// How many patterns they have.
        patterns: usize,
    },
    /// Something that was seen would still be refused.
    #[error(
        "an override of the policy refuses what was seen of lease {namespace}/{name} whatever is added below it; change it by \
         hand (leasehold policy explain {namespace}/{name})"
    )]
    StillDenied {
        /// The lease's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A match in the JSON output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Match<'a> {
    namespaces: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    names: &'a [String],
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shown<'a> {
            rule: RuleName,
            r#match: Match<'a>,
            rules: super::Easing,
            leases: usize,
            more_leases: bool,
            #[serde(flatten)]
            seen: &'a Occurrences,
            cost: &'static str,
            widening: super::Widening,
        }
        let Self {
            easing,
            namespaces,
            names,
            leases,
            more_leases,
            seen,
            widening,
        } = self;
        Shown {
            rule: easing.rule(),
            r#match: Match { namespaces, names },
            rules: *easing,
            leases: *leases,
            more_leases: *more_leases,
            seen,
            cost: cost(*easing),
            widening: *widening,
        }
        .serialize(serializer)
    }
}

impl Suggestion {
    /// What this document, the policy by which the log was judged, must have added.
    ///
    /// # Errors
    /// [`SuggestionError`], where nothing that holds can be added to the document.
    pub fn of(log: &Log, document: &str) -> Result<Self, SuggestionError> {
        let policy = Policy::parse(document)?;
        let not_excused = list(&log.refused);
        let overrides = &policy.document().overrides;
        let (count, patterns) = (overrides.len(), overrides.iter().map(patterns_of).sum());
        let room = Room {
            overrides: MOST_OVERRIDES.saturating_sub(count),
            patterns: MOST_PATTERNS.saturating_sub(patterns),
        };
        let mut trouble = None;
        for bounds in [Bounds::Each, Bounds::Loosest, Bounds::Action] {
            let Some(mut entries) = entries(&log.needed, bounds, room) else {
                return Err(SuggestionError::NoRoom {
                    overrides: count,
                    patterns,
                });
            };
            for entry in &mut entries {
                // It may match leases for which the policy has wider bounds.
                let is_wide = entry.widening != super::Widening::None;
                if is_wide && entry.easing.moves_a_bound() && log.judge().bounds_overridden() {
                    entry.easing = entry.easing.by_action();
                }
            }
            let (text, merged) = match merge(document, &policy, &entries, &not_excused) {
                Ok(merged) => merged,
                // Bounds may contradict others of the policy, or be shorter than its clocks allow.
                Err(refused @ MergeError::Refused(_)) => {
                    trouble = trouble.or(Some(SuggestionError::Merge(refused)));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match still_denied(&log.needed, &Judge::new(&merged)) {
                None => {
                    return Ok(Self {
                        entries,
                        not_excused,
                        policy: text,
                    });
                }
                Some(denial) => {
                    trouble = trouble.or(Some(SuggestionError::StillDenied {
                        namespace: denial.namespace,
                        name: denial.name,
                    }));
                }
            }
        }
        Err(trouble.unwrap_or(SuggestionError::NoRoom {
            overrides: count,
            patterns,
        }))
    }
}

/// How many patterns an override has.
fn patterns_of(one: &crate::policy::Override) -> usize {
    let criteria = serde_json::to_value(&one.r#match).unwrap_or_default();
    let criteria = criteria.as_object().into_iter().flat_map(serde_json::Map::values);
    criteria
        .map(|criterion| match criterion {
            serde_json::Value::Array(patterns) => patterns.len(),
            serde_json::Value::Object(labels) => labels.len(),
            _ => 1,
        })
        .sum()
}

/// A denial that this policy would repeat, of those that it should not.
fn still_denied(needed: &Leases, judge: &Judge) -> Option<Denial> {
    let leases = needed.by_rule.iter().flat_map(|(rule, namespaces)| {
        namespaces.iter().flat_map(move |(namespace, leases)| {
            let (names, whole) = match leases {
                InNamespace::Names(names) => (Some(names), None),
                InNamespace::Whole(seen) => (None, Some(seen)),
            };
            let names = names
                .into_iter()
                .flatten()
                .map(|(name, seen)| (name.as_str(), seen));
            // Any name: no override by name stands below one that matches the whole namespace.
            let whole = whole.map(|seen| ("any", seen));
            names
                .chain(whole)
                .map(move |(name, seen)| (*rule, namespace, name, seen))
        })
    });
    leases
        .flat_map(|(rule, namespace, name, seen)| {
            seen.easing.causes().into_iter().map(move |cause: Cause| Denial {
                rule,
                namespace: namespace.clone(),
                name: name.to_owned(),
                cause,
                time: None,
                uid: String::new(),
                writer: Writer::default(),
            })
        })
        .find(|denial| judge.denies(denial))
}

fn list(refused: &Leases) -> Vec<NotExcused> {
    let mut all = Vec::new();
    for (rule, namespaces) in &refused.by_rule {
        for (namespace, leases) in namespaces {
            let mut push = |name: Option<&String>, seen: &super::log::Seen| {
                all.push(NotExcused {
                    rule: *rule,
                    namespace: namespace.clone(),
                    name: name.cloned(),
                    seen: seen.occurrences.clone(),
                });
            };
            match leases {
                InNamespace::Names(names) => names.iter().for_each(|(name, seen)| push(Some(name), seen)),
                InNamespace::Whole(seen) => push(None, seen),
            }
        }
    }
    all
}

#[cfg(test)]
#[path = "suggestion_tests.rs"]
mod tests;
