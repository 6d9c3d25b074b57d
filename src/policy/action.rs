//! What a violation leads to, and the ceiling on that.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// What a violation leads to. Ordered from nothing to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing: the rule is not asked.
    Off,
    /// Allow, and tell the audit log.
    Audit,
    /// Allow, and tell the client and the audit log.
    Warn,
    /// Deny.
    Enforce,
}

impl Action {
    /// Every action, from nothing to most.
    pub const ALL: [Self; 4] = [Self::Off, Self::Audit, Self::Warn, Self::Enforce];

    /// The action's name in the policy, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a violation of a rule that only advises leads to: at most a warning.
///
/// For rules that judge by what this replica remembers. Another replica may remember otherwise, and the same
/// review must get the same verdict from each, so they never deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdvisoryAction {
    /// Nothing: the rule is not asked.
    Off,
    /// Allow, and tell the audit log.
    Audit,
    /// Allow, and tell the client and the audit log.
    Warn,
}

impl From<AdvisoryAction> for Action {
    fn from(action: AdvisoryAction) -> Self {
        match action {
            AdvisoryAction::Off => Self::Off,
            AdvisoryAction::Audit => Self::Audit,
            AdvisoryAction::Warn => Self::Warn,
        }
    }
}

impl<'de> Deserialize<'de> for AdvisoryAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Action::deserialize(deserializer)? {
            Action::Off => Ok(Self::Off),
            Action::Audit => Ok(Self::Audit),
            Action::Warn => Ok(Self::Warn),
            Action::Enforce => Err(de::Error::custom(
                "this rule cannot enforce: it judges by what one replica remembers, and another may remember \
                 otherwise; use warn, audit or off",
            )),
        }
    }
}

/// The ceiling on all actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No rule is asked.
    Off,
    /// Violations are logged, as what would have happened; every write is allowed and no client is told.
    Audit,
    /// Each rule's own action is taken.
    #[default]
    Enforce,
}

impl Mode {
    /// The mode's name in the policy, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }

    /// What a rule's action comes to under this mode.
    pub fn cap(self, action: Action) -> Action {
        match self {
            Self::Off => Action::Off,
            Self::Audit => action.min(Action::Audit),
            Self::Enforce => action,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_a_ceiling() {
        for action in Action::ALL {
            assert_eq!(Mode::Off.cap(action), Action::Off);
            assert_eq!(Mode::Enforce.cap(action), action);
        }
        assert_eq!(
            Action::ALL.map(|action| Mode::Audit.cap(action)),
            [Action::Off, Action::Audit, Action::Audit, Action::Audit]
        );
    }
}
