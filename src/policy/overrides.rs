//! Overrides: what applies to some leases, or to some writers of leases, in place of what applies to all.
//!
//! # Which value counts
//!
//! A write has the policy's own settings, and over them those of every override that matches its lease and its writer, from the
//! top of the document to its bottom. So for each field the lowest override that matches **and states that field**
//! decides; what it leaves out is decided above it. Overrides may be stricter or milder than what they override.
//!
//! # Exceptions are as narrow as they are written
//!
//! - Within a match every criterion that is stated must hold; within a list one pattern suffices. A match
//!   without criteria, an empty list and an override that sets nothing are refused: silence never means *all*.
//! - Labels count as they were **before** the write, so that no write can exempt itself. A lease that is being
//!   created has no before: its labels count as they will be. There is nothing to exempt itself from then, for
//!   there is no holder yet to take the lease from. Two writes can: whoever may write a lease may label it first and
//!   take it then, and a label that rides on a pure renewal is not sent to the webhook at all. Where electors are not
//!   to be trusted with that, match by namespace or name.
//! - A service account is what the API server says of the writer, and no object can claim it. It is as broad as its use:
//!   an exception for it holds for every pod that runs under it.
//! - An action is capped by the mode, by a profile and by break-glass, each on its own; none of them raises what
//!   another has lowered, and no override changes who may break glass.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    Mode,
    pattern::{LabelValue, Name, Namespace, Pattern},
    rules::{PartialRules, RuleName, Rules},
    service_account::ServiceAccount,
};
use crate::lease::LeaseName;

/// The most overrides of one policy. Every one is held against every reviewed write, and every two against each
/// other when the policy is read.
pub const MOST_OVERRIDES: usize = 256;

/// The most patterns of all overrides together: some 10 us of a verdict.
pub const MOST_PATTERNS: usize = 1024;

/// Settings of the writes that match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Override {
    /// The leases and writers that it is about. Every criterion that is stated must hold.
    #[serde(deserialize_with = "stated")]
    pub r#match: Match,
    /// The ceiling on all actions, for these leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The rules' settings for these leases; what is left out stays as it is.
    #[serde(default, skip_serializing_if = "PartialRules::is_empty")]
    pub rules: PartialRules,
}

/// Which leases an override is about, and by which writers. In patterns, * stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Match {
    /// Patterns of namespaces, of which one must match.
    #[serde(deserialize_with = "patterns", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub namespaces: Vec<Pattern<Namespace>>,
    /// Patterns of names, of which one must match.
    #[serde(deserialize_with = "patterns", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub names: Vec<Pattern<Name>>,
    /// Labels that the lease must have had before the write, each with a pattern of its value.
    #[serde(deserialize_with = "labels", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1), with = "BTreeMap<String, Pattern<LabelValue>>")]
    pub labels: BTreeMap<LabelKey, Pattern<LabelValue>>,
    /// Patterns of the service accounts that write, as NAMESPACE/NAME, of which one must match. Another writer never matches.
    #[serde(deserialize_with = "patterns", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub service_accounts: Vec<ServiceAccount>,
}

/// A criterion of a [`Match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The namespace.
    Namespaces,
    /// The name.
    Names,
    /// The labels.
    Labels,
    /// The writer's service account.
    ServiceAccounts,
}

impl Criterion {
    /// Its name in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Names => "names",
            Self::Labels => "labels",
            Self::ServiceAccounts => "serviceAccounts",
        }
    }
}

/// The labels of a lease, by key.
pub type Labels<'a> = [(Cow<'a, str>, Cow<'a, str>)];

impl Match {
    /// The first criterion that does not hold; `None` if the lease and its writer match. The writer is looked at last.
    pub fn failing(&self, lease: &LeaseName<'_>, labels: &Labels<'_>, user: &str) -> Option<Criterion> {
        let Self {
            namespaces,
            names,
            labels: wanted,
            service_accounts,
        } = self;
        if !namespaces.is_empty() && !namespaces.iter().any(|it| it.matches(&lease.namespace)) {
            return Some(Criterion::Namespaces);
        }
        if !names.is_empty() && !names.iter().any(|it| it.matches(&lease.name)) {
            return Some(Criterion::Names);
        }
        let has = |key: &LabelKey, value: &Pattern<LabelValue>| {
            labels
                .iter()
                .any(|(name, label)| *name == *key.0 && value.matches(label))
        };
        if !wanted.iter().all(|(key, value)| has(key, value)) {
            return Some(Criterion::Labels);
        }
        if !service_accounts.is_empty() && !service_accounts.iter().any(|it| it.matches(user)) {
            return Some(Criterion::ServiceAccounts);
        }
        None
    }

    fn patterns(&self) -> usize {
        self.namespaces.len() + self.names.len() + self.labels.len() + self.service_accounts.len()
    }
}

impl Override {
    /// Whether it is about this lease, as this user writes it.
    pub fn matches(&self, lease: &LeaseName<'_>, labels: &Labels<'_>, user: &str) -> bool {
        self.r#match.failing(lease, labels, user).is_none()
    }
}

/// The rules' settings of one lease, as one user writes it: `rules` under every override that matches. Borrowed where none does.
pub(super) fn resolve<'a>(
    mode: Mode,
    rules: &'a Rules,
    overrides: &[Override],
    lease: &LeaseName<'_>,
    labels: &Labels<'_>,
    user: &str,
) -> (Mode, Cow<'a, Rules>) {
    let mut resolved = (mode, Cow::Borrowed(rules));
    for matching in overrides.iter().filter(|it| it.matches(lease, labels, user)) {
        resolved.0 = matching.mode.unwrap_or(resolved.0);
        if !matching.rules.is_empty() {
            resolved.1.to_mut().apply(&matching.rules);
        }
    }
    resolved
}

/// Settings that contradict each other where overrides meet, by the index of the lowest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    pub(super) index: usize,
    pub(super) rule: RuleName,
    pub(super) problem: String,
}

/// Looks for settings that contradict each other once overrides are applied, each alone and every two together,
/// whether or not a lease could match both: an override that states both fields agrees with all others.
/// Contradictions are between two fields, so no three overrides contradict where no two do.
pub(super) fn contradiction(rules: &Rules, overrides: &[Override]) -> Option<Contradiction> {
    let refused = |merged: &Rules, index: usize, how: &dyn Fn() -> String| {
        let (rule, problem) = merged.consistent().err()?;
        let problem = format!("{problem}; this is {}", how());
        Some(Contradiction { index, rule, problem })
    };
    let with_rules = || {
        overrides
            .iter()
            .enumerate()
            .filter(|(_, it)| !it.rules.is_empty())
    };
    for (index, one) in with_rules() {
        let mut merged = rules.clone();
        merged.apply(&one.rules);
        let alone = || {
            format!(
                "override {} over the policy's own rules, which hold for what it leaves out",
                index + 1
            )
        };
        if let Some(found) = refused(&merged, index, &alone) {
            return Some(found);
        }
        for (lower, other) in with_rules().filter(|(lower, _)| *lower > index) {
            let mut both = merged.clone();
            both.apply(&other.rules);
            let together = || {
                let (upper, lower) = (index + 1, lower + 1);
                format!(
                    "override {lower} over override {upper}, for a lease that matches both; state in override {lower} all \
                     that must agree"
                )
            };
            if let Some(found) = refused(&both, lower, &together) {
                return Some(found);
            }
        }
    }
    None
}

/// The key of a label: an optional DNS prefix and `/`, then a name (`IsQualifiedName`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct LabelKey(Box<str>);

impl fmt::Display for LabelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LabelKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Cow::<'de, str>::deserialize(deserializer)?;
        let (prefix, name) = key
            .rsplit_once('/')
            .map_or((None, &*key), |(prefix, name)| (Some(prefix), name));
        if key.contains('*') {
            return Err(de::Error::custom(format_args!(
                "label key {key:?} has a *: only a label's value may be a pattern"
            )));
        }
        let prefix = prefix.map_or(Ok(()), |prefix| Pattern::<Name>::new(prefix).map(drop));
        let name = Pattern::<LabelValue>::new(name);
        if prefix.is_err() || name.map_or(true, |name| name.as_str().is_empty()) {
            return Err(de::Error::custom(format_args!(
                "{key:?} is no label's key: no lease can have it; write it as in app or example.com/team"
            )));
        }
        Ok(Self(key.into()))
    }
}

fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Match, D::Error> {
    let stated = Match::deserialize(deserializer)?;
    if stated == Match::default() {
        return Err(de::Error::custom(
            "match is empty and would silently mean every lease; state namespaces, names, labels or \
             serviceAccounts (namespaces: [\"*\"] for every lease)",
        ));
    }
    Ok(stated)
}

fn patterns<'de, D: Deserializer<'de>, P: Deserialize<'de>>(deserializer: D) -> Result<Vec<P>, D::Error> {
    let patterns = Option::<Vec<P>>::deserialize(deserializer)?.unwrap_or_default();
    if patterns.is_empty() {
        return Err(de::Error::custom(
            "the list of patterns is empty and would match nothing; name what it is about, or leave the field out",
        ));
    }
    Ok(patterns)
}

fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<LabelKey, Pattern<LabelValue>>, D::Error> {
    let labels = Option::<BTreeMap<_, _>>::deserialize(deserializer)?.unwrap_or_default();
    if labels.is_empty() {
        return Err(de::Error::custom(
            "labels is empty and would mean any; name one as in {app: \"*\"}, or leave the field out",
        ));
    }
    Ok(labels)
}

/// Reads the list of overrides, and stops at the first that is one too many.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Override>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Override>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of overrides, each with a match")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_seq(self)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut overrides = Vec::new();
            while sequence.next_element_seed(Next(&mut overrides))?.is_some() {}
            Ok(overrides)
        }
    }

    deserializer.deserialize_option(Visitor)
}

/// Reads one more override, so that what is wrong with it is told where it stands.
struct Next<'a>(&'a mut Vec<Override>);

impl<'de> de::DeserializeSeed<'de> for Next<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let overrides = self.0;
        let one = Override::deserialize(deserializer)?;
        if one.mode.is_none() && one.rules.is_empty() {
            return Err(de::Error::custom(
                "the override sets nothing; give it a mode, or rules with a field each",
            ));
        }
        overrides.push(one);
        if overrides.len() > MOST_OVERRIDES {
            return Err(de::Error::custom(format_args!(
                "one override too many: there may be {MOST_OVERRIDES}; match several leases by one, with lists and with *"
            )));
        }
        let patterns: usize = overrides.iter().map(|it| it.r#match.patterns()).sum();
        if patterns > MOST_PATTERNS {
            return Err(de::Error::custom(format_args!(
                "too many patterns: all overrides together may have {MOST_PATTERNS}; match several names by one, with *"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "overrides_tests.rs"]
mod tests;
