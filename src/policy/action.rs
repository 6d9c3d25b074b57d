//! What a violation leads to, and the ceiling on that.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
