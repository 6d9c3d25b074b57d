//! The policy document, as people write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BreakGlassSettings, Mode, Override, PolicyError, Rules, Seconds, clock_bounds, overrides};

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
    /// passes, so over 1s it must be shorter than every lease duration that the policy lets pass (min of
    /// duration-out-of-bounds; 5s where that rule is off).
    pub clock_slack: Seconds,
    /// How far any other clock, a client's or Leasehold's own, may be from the API server's before it counts as
    /// wrong. A release or deletion that is early by no more than this passes, so over 5s it must be no longer
    /// than any lease duration that the policy lets pass (min of duration-out-of-bounds; 5s where that rule is off).
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
            clock_slack: clock_bounds::DEFAULT_CLOCK_SLACK,
            max_skew: clock_bounds::DEFAULT_MAX_SKEW,
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

impl LeasePolicy {
    /// Reads a document.
    ///
    /// # Errors
    /// [`PolicyError`] for the first mistake.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        if document.len() > LARGEST {
            return Err(PolicyError::too_long(document.len(), LARGEST));
        }
        let policy: Self =
            serde_saphyr::from_str(document).map_err(|error| PolicyError::from_yaml(&error, document))?;
        if let Some(contradiction) = overrides::contradiction(&policy.rules, &policy.overrides) {
            return Err(PolicyError::of_overrides(contradiction, document));
        }
        match clock_bounds::excess(&policy) {
            Some(excess) => Err(PolicyError::of_field(excess.field, excess.problem, document)),
            None => Ok(policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
