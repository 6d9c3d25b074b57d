//! Verdicts, and the words that users read.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

use std::fmt;

use jiff::SignedDuration;

use crate::{
    lease::{Change, Evidence, Purpose},
    policy::{Action, BreakGlass, Mode, Profile, RuleName},
};

/// What came of a violation, in the words that users read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The write was refused.
    Denied,
    /// It would have been, were the mode not audit.
    WouldBeDenied,
    /// The client was warned.
    Warned,
    /// It would have been, were the mode not audit.
    WouldBeWarned,
    /// Only the audit log was told.
    Audited,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 5] = [
        Self::Denied,
        Self::WouldBeDenied,
        Self::Warned,
        Self::WouldBeWarned,
        Self::Audited,
    ];

    /// The decision as people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldBeDenied => "would be denied",
            Self::Warned => "warned",
            Self::WouldBeWarned => "would be warned",
            Self::Audited => "audited",
        }
    }

    /// The decision as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldBeDenied => "would_be_denied",
            Self::Warned => "warned",
            Self::WouldBeWarned => "would_be_warned",
            Self::Audited => "audited",
        }
    }
}

/// A rule that fired on a write, and what that leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: RuleName,
    /// What the rule asks for, by its own action.
    pub action: Action,
    /// What is done, under the policy's mode.
    pub taken: Action,
    /// Whether it would deny, had its writer not broken glass.
    pub excused: bool,
    /// What was wrong and by which numbers; one line, without the rule's name.
    pub message: String,
}

impl Violation {
    /// What came of it.
    pub fn decision(&self) -> Decision {
        let action = if self.excused {
            self.action.min(Action::Warn)
        } else {
            self.action
        };
        match (action, self.taken) {
            (_, Action::Enforce) => Decision::Denied,
            (_, Action::Warn) => Decision::Warned,
            (Action::Enforce, _) => Decision::WouldBeDenied,
            (Action::Warn, _) => Decision::WouldBeWarned,
            (Action::Audit | Action::Off, _) => Decision::Audited,
        }
    }
}

impl fmt::Display for Violation {
    /// The text that users read: the rule, what was wrong, and where to read more.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, message, .. } = self;
        write!(formatter, "{rule}: {message}. See: leasehold explain {rule}")
    }
}

/// What a write gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It passes.
    Allow,
    /// It passes, and its client is warned.
    Warn,
    /// It is refused.
    Deny,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Warn, Self::Deny];

    /// The outcome's name in JSON output and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }
}

/// The outcome for one write, and all that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the write does.
    pub change: Change,
    /// What the lease is for.
    pub purpose: Purpose,
    /// The mode that applied to this lease.
    pub mode: Mode,
    /// The kind of writer, where it is a known one with a contract of its own.
    pub profile: Option<Profile>,
    /// What was known about the age of the record that the write replaces.
    pub evidence: Option<Evidence>,
    /// How far the writer's clock is ahead of the API server's.
    pub skew: Option<SignedDuration>,
    /// Every rule that fired, in the order of the catalogue.
    pub violations: Vec<Violation>,
    /// That the writer broke glass, or tried to.
    pub break_glass: Option<BreakGlass>,
}

impl Verdict {
    /// What the write gets.
    pub fn outcome(&self) -> Outcome {
        match self.violations.iter().map(|violation| violation.taken).max() {
            Some(Action::Enforce) => Outcome::Deny,
            Some(Action::Warn) => Outcome::Warn,
            Some(Action::Audit | Action::Off) | None => Outcome::Allow,
        }
    }

    /// Whether the write is denied, or would be if it were not for the mode.
    pub fn would_be_denied(&self) -> bool {
        self.violations
            .iter()
            .any(|violation| violation.action == Action::Enforce && !violation.excused)
    }

    /// The text of the denial: every violation that denies, each whole. `None` where nothing denies.
    pub fn denial(&self) -> Option<String> {
        let texts: Vec<_> = self.taken(Action::Enforce).map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(" "))
    }

    /// The violations that lead to this action.
    pub fn taken(&self, action: Action) -> impl Iterator<Item = &Violation> {
        self.violations
            .iter()
            .filter(move |violation| violation.taken == action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(actions: &[(Action, Action)]) -> Verdict {
        let rule = RuleName::find("transition-overflow").unwrap();
        let violations = actions
            .iter()
            .map(|&(action, taken)| Violation {
                rule,
                action,
                taken,
                excused: false,
                message: "it is too much".into(),
            })
            .collect();
        Verdict {
            change: Change::Takeover,
            purpose: Purpose::Timed,
            mode: Mode::Enforce,
            profile: None,
            evidence: None,
            skew: None,
            violations,
            break_glass: None,
        }
    }

    #[test]
    fn the_strictest_action_taken_decides() {
        use Action::{Audit, Enforce, Warn};
        for (actions, outcome, would) in [
            (&[][..], Outcome::Allow, false),
            (&[(Audit, Audit)][..], Outcome::Allow, false),
            (&[(Audit, Audit), (Warn, Warn)][..], Outcome::Warn, false),
            (&[(Enforce, Enforce), (Warn, Warn)][..], Outcome::Deny, true),
            (&[(Enforce, Audit)][..], Outcome::Allow, true),
        ] {
            let verdict = verdict(actions);
            assert_eq!(
                (verdict.outcome(), verdict.would_be_denied()),
                (outcome, would),
                "{actions:?}"
            );
        }
    }

    #[test]
    fn a_denial_says_what_and_where_to_read_more() {
        let denied = verdict(&[(Action::Warn, Action::Warn), (Action::Enforce, Action::Enforce)]);
        assert_eq!(
            denied.denial().as_deref(),
            Some("transition-overflow: it is too much. See: leasehold explain transition-overflow")
        );
        assert_eq!(verdict(&[(Action::Enforce, Action::Audit)]).denial(), None);
    }
}
