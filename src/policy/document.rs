//! The policy document, as people write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BreakGlassSettings, Mode, Override, Rules, Seconds,
    lines::Lines,
    overrides::{self, Contradiction},
};

/// The longest document, in bytes: what fits into a ConfigMap
/// (`k8s.io/kubernetes/pkg/apis/core/validation`: `MaxSecretSize`, 1 MiB for both).
const LARGEST: usize = 1024 * 1024;

/// A policy document, in the manner of Kubernetes' component configuration.
///
/// Every field has a default, and an empty document is valid. What is not known is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LeasePolicy {
    /// The version of the document's format.
    pub api_version: ApiVersion,
    /// The document's kind.
    pub kind: Kind,
    /// The ceiling on all actions. enforce: each rule's own action is taken. audit: violations are logged as
    /// what would be denied, every write is allowed, and no client is told. off: no rule is asked.
    pub mode: Mode,
    /// How far the clocks of several API servers may differ. A takeover that is early by no more than this
    /// passes.
    pub clock_slack: Seconds,
    /// How far any other clock, a client's or Leasehold's own, may be from the API server's before it counts as
    /// wrong.
    pub max_skew: Seconds,
    /// The rules, by name. What each means: leasehold explain RULE.
    pub rules: Rules,
    /// Other settings for some leases: each has a match (namespaces, names, labels; * is a wildcard) and a mode
    /// or rules. The lowest that matches and states a field decides it; labels count as before the write. What
    /// applies to a lease and why: leasehold policy explain NAMESPACE/NAME.
    #[serde(deserialize_with = "overrides::list")]
    pub overrides: Vec<Override>,
    /// Who may write what a rule would deny: an operator must always be able to take a lease by hand.
    pub break_glass: BreakGlassSettings,
}

impl Default for LeasePolicy {
    fn default() -> Self {
        Self {
            api_version: ApiVersion::V1Alpha1,
            kind: Kind::LeasePolicy,
            mode: Mode::Enforce,
            clock_slack: Seconds::new(1),
            max_skew: Seconds::new(5),
            rules: Rules::default(),
            overrides: Vec::new(),
            break_glass: BreakGlassSettings::default(),
        }
    }
}

/// The versions of the document's format that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// `leasehold.dev/v1alpha1`
    #[serde(rename = "leasehold.dev/v1alpha1")]
    V1Alpha1,
}

/// The kinds of document that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// `LeasePolicy`
    LeasePolicy,
}

/// Why a policy document was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}{}", Position(*.position), Suggestion(.suggestion.as_deref()))]
pub struct PolicyError {
    /// Line and column of the mistake, from 1, where it has a place.
    pub position: Option<(u64, u64)>,
    /// What is wrong.
    pub problem: String,
    /// The known name that the unknown one was probably meant to be.
    pub suggestion: Option<String>,
}

struct Position(Option<(u64, u64)>);

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some((line, column)) => write!(formatter, "line {line}, column {column}: "),
            None => Ok(()),
        }
    }
}

struct Suggestion<'a>(Option<&'a str>);

impl std::fmt::Display for Suggestion<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(name) => write!(formatter, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

impl LeasePolicy {
    /// Reads a document.
    ///
    /// # Errors
    /// [`PolicyError`] for the first mistake.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        if document.len() > LARGEST {
            return Err(PolicyError {
                position: None,
                problem: format!(
                    "the document is {} bytes long, over the {LARGEST} that a ConfigMap holds",
                    document.len()
                ),
                suggestion: None,
            });
        }
        let policy: Self =
            serde_saphyr::from_str(document).map_err(|error| PolicyError::from_yaml(&error))?;
        match overrides::contradiction(&policy.rules, &policy.overrides) {
            Some(contradiction) => Err(PolicyError::of_overrides(contradiction, document)),
            None => Ok(policy),
        }
    }
}

impl PolicyError {
    fn of_overrides(contradiction: Contradiction, document: &str) -> Self {
        let Contradiction { index, rule, problem } = contradiction;
        let lines = Lines::of(document).unwrap_or_default();
        let path = [
            format!("overrides/{index}/rules/{rule}"),
            format!("overrides/{index}"),
        ];
        Self {
            position: path.iter().find_map(|path| lines.position(path)),
            problem,
            suggestion: None,
        }
    }

    pub(super) fn from_yaml(error: &serde_saphyr::Error) -> Self {
        let position = error
            .location()
            .map(|location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        // The place stands in front of the message, where editors look for it.
        let problem = match text.rfind(" at line ") {
            Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
            None => text,
        };
        // A library's advice to programmers is no advice to whoever writes a policy.
        let problem = problem
            .trim_end_matches(", set DuplicateKeyPolicy in Options if acceptable")
            .to_owned();
        let suggestion = suggestion(&problem);
        Self {
            position,
            problem,
            suggestion,
        }
    }
}

/// The expected name nearest to the unknown one in a message of serde's making, if one is near.
fn suggestion(problem: &str) -> Option<String> {
    let rest = problem
        .strip_prefix("unknown field `")
        .or_else(|| problem.strip_prefix("unknown variant `"))?;
    let (unknown, rest) = rest.split_once('`')?;
    let (_, expected) = rest.split_once("expected ")?;
    let names = expected
        .trim_start_matches("one of ")
        .split(", ")
        .map(|name| name.trim_matches('`'));
    names
        .map(|name| (distance(&unknown.to_lowercase(), &name.to_lowercase()), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name.to_owned())
}

/// The number of characters to insert, remove or replace to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (above, expected) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *expected);
            diagonal = *above;
            left = replaced.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(document: &str) -> String {
        LeasePolicy::parse(document).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_document_is_the_default_policy() {
        for document in [
            "",
            "{}",
            "# nothing\n",
            "apiVersion: leasehold.dev/v1alpha1\nkind: LeasePolicy\n",
            "rules: {}",
        ] {
            assert_eq!(
                LeasePolicy::parse(document),
                Ok(LeasePolicy::default()),
                "{document:?}"
            );
        }
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let policy =
            LeasePolicy::parse("rules:\n  duration-out-of-bounds: {max: 2h}\n  transition-overflow:\n")
                .unwrap();
        let mut expected = LeasePolicy::default();
        expected.rules.duration_out_of_bounds.max = Seconds::new(7200);
        assert_eq!(policy, expected);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            (
                "mode: enforce\nmood: audit\n",
                "line 2, column 1: unknown field `mood`, expected one of",
            ),
            (
                "mode: enforced\n",
                "line 1, column 7: unknown variant `enforced`, expected one of",
            ),
            (
                "rules:\n  takeover-before-expirey: {}\n",
                "; did you mean `takeover-before-expiry`?",
            ),
            (
                "rules:\n  takeover-before-expiry: {acton: warn}\n",
                "; did you mean `action`?",
            ),
            ("mode: Audit\n", "; did you mean `audit`?"),
            (
                "rules:\n  duration-out-of-bounds: {min: 2h}\n",
                "line 2, column 27: min (2h) is over max (1h) in duration-out-of-bounds: no duration would do",
            ),
            (
                "clockSlack: 1\n",
                "line 1, column 13: \"1\" is not a duration: the unit is missing",
            ),
            (
                "maxSkew: -5s\n",
                "line 1, column 10: \"-5s\" is not a duration: it is negative",
            ),
            (
                "rules:\n\ttransition-overflow: {}\n",
                "line 2, column 2: tabs disallowed",
            ),
            (
                "mode: audit\nmode: audit\n",
                "line 2, column 1: duplicate mapping key: mode",
            ),
            (
                "apiVersion: leasehold.dev/v2\n",
                "line 1, column 13: unknown variant `leasehold.dev/v2`",
            ),
            (
                "kind: ConfigMap\n",
                "line 1, column 7: unknown variant `ConfigMap`",
            ),
            ("- mode\n", "line 1, column 1: expected mapping"),
            (
                "mode: audit\n---\nmode: audit\n",
                "line 3, column 1: multiple YAML documents",
            ),
            ("mode: {\n", "line 1, column 7: unclosed bracket"),
        ];
        for (document, expected) in cases {
            let message = refusal(document);
            assert!(message.contains(expected), "{document:?}: {message}");
        }
    }

    #[test]
    fn a_message_is_meant_for_whoever_writes_policies() {
        assert!(!refusal("mode: audit\nmode: audit\n").contains("Options"));
        assert!(!refusal("xyz: 1").contains("did you mean"), "nothing is near");
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
}
