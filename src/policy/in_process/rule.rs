//! What a rule says of itself: which part of it the API server can hold, and the CEL for that.

use super::setting::Setting;
use crate::cel;

/// Which part of a rule the API server can hold by itself, as CEL in a ValidatingAdmissionPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InProcess {
    /// All of it, for the writes that a lean registration sends.
    Fully(Vec<Check>),
    /// Part of it.
    Partly {
        /// That part.
        checks: Vec<Check>,
        /// What is left to the webhook, and why, as the second half of a sentence.
        left: &'static str,
    },
    /// None of it.
    Not {
        /// Why, as the second half of a sentence.
        reason: &'static str,
    },
}

impl InProcess {
    /// `fully`, `partly` or `not`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Fully(_) => "fully",
            Self::Partly { .. } => "partly",
            Self::Not { .. } => "not",
        }
    }

    /// What is left to the webhook, and why; `None` where nothing is.
    pub fn left(&self) -> Option<&'static str> {
        match self {
            Self::Fully(_) => None,
            Self::Partly { left, .. } => Some(left),
            Self::Not { reason } => Some(reason),
        }
    }

    /// The part that the API server holds.
    pub fn checks(&self) -> &[Check] {
        match self {
            Self::Fully(checks) | Self::Partly { checks, .. } => checks,
            Self::Not { .. } => &[],
        }
    }
}

/// One finding of a rule, as CEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// When it fires: CEL of a boolean, over `object`, `oldObject`, `request` and the shared variables.
    pub fires: String,
    /// The actions that it leads to, of which the least counts.
    pub actions: Vec<Setting>,
    /// What was wrong and by which numbers, without the rule's name: CEL of a string. The words are those of the
    /// rule's [`crate::policy::rules::Finding`].
    pub message: String,
}

impl Check {
    /// A finding that leads to the rule's own action.
    pub(crate) fn new(fires: impl Into<String>, action: &Setting, message: String) -> Self {
        Self {
            fires: fires.into(),
            actions: vec![action.clone()],
            message,
        }
    }

    /// The same, with one more action of which it leads to the least.
    pub(crate) fn at_most(mut self, action: Setting) -> Self {
        self.actions.push(action);
        self
    }
}

/// CEL of a string, from words with CEL of strings in braces: `words("{variables.lease} is held")`.
pub(crate) fn words(template: &str) -> String {
    let mut parts = Vec::new();
    for (index, piece) in template.split(['{', '}']).enumerate() {
        match (piece.is_empty(), index % 2) {
            (true, _) => {}
            (false, 0) => parts.push(cel::literal(piece)),
            // A choice binds less than +.
            (false, _) if piece.contains('?') => parts.push(format!("({piece})")),
            (false, _) => parts.push(piece.to_owned()),
        }
    }
    parts.join("\n+ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_literals_and_braces_hold_cel() {
        assert_eq!(
            words("{variables.who} says \"no\" {string(1)} times"),
            "variables.who\n+ \" says \\\"no\\\" \"\n+ string(1)\n+ \" times\""
        );
        assert_eq!(words("plain"), r#""plain""#);
    }
}
