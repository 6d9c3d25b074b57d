//! The policy: what is judged, how strictly, and for whom.
//!
//! Pure: no I/O, no clock, no async. A [`Policy`] comes from a document by [`Policy::parse`], and
//! [`Policy::decide`] turns a write into a verdict, by nothing but its arguments.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod action;
mod active;
mod break_glass;
mod clock_bounds;
mod document;
mod explanation;
pub mod in_process;
mod lines;
mod mistake;
mod overrides;
mod pattern;
pub mod profiles;
mod reference;
pub mod rules;
mod seconds;
mod service_account;

pub use action::{Action, AdvisoryAction, Mode};
pub use active::ActivePolicy;
pub use break_glass::{
    ANNOTATION as BREAK_GLASS_ANNOTATION, BreakGlass, BreakGlassOutcome, BreakGlassSettings,
};
pub use document::LeasePolicy;
pub use explanation::{DecidedBy, Explanation, OverrideExplanation, RuleExplanation, Setting};
pub use mistake::PolicyError;
pub use overrides::{Criterion, LabelKey, Labels, MOST_OVERRIDES, MOST_PATTERNS, Match, Override};
pub use pattern::{AccountName, LabelValue, Name, Namespace, Pattern, PatternError, Subject};
pub use profiles::Profile;
pub use reference::{documented_default, json_schema};
pub use rules::{CATALOGUE, CatalogueEntry, Purposes, RuleName, Rules};
pub use seconds::{Seconds, SecondsError};
pub use service_account::{ServiceAccount, user as service_account_user};

use std::borrow::Cow;

use self::rules::Case;
use crate::{
    lease::{Change, Evidence, History, LeaseName, Tolerance, Write},
    verdict::{Verdict, Violation},
};

/// A checked policy, ready to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    document: LeasePolicy,
}

/// What applies to one lease.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The ceiling on all actions.
    pub mode: Mode,
    /// The settings of every rule.
    pub rules: Cow<'a, Rules>,
}

impl Policy {
    /// Reads a policy document (YAML; JSON is YAML too). An empty one is the default policy.
    ///
    /// # Errors
    /// [`PolicyError`], which names line, column and field of the first mistake.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        Ok(Self {
            document: LeasePolicy::parse(document)?,
        })
    }

    /// The document with every default filled in.
    pub fn document(&self) -> &LeasePolicy {
        &self.document
    }

    /// How far clocks may differ.
    pub fn tolerance(&self) -> Tolerance {
        Tolerance {
            clock_slack: self.document.clock_slack.duration(),
            max_skew: self.document.max_skew.duration(),
        }
    }

    /// What applies to a lease with these labels, as this user writes it: the policy's own settings, under every override
    /// that matches.
    pub fn settings_for(&self, lease: &LeaseName<'_>, labels: &Labels<'_>, user: &str) -> Settings<'_> {
        let LeasePolicy {
            mode,
            rules,
            overrides,
            ..
        } = &self.document;
        let (mode, rules) = overrides::resolve(*mode, rules, overrides, lease, labels, user);
        Settings { mode, rules }
    }

    /// Judges one write by itself.
    pub fn decide(&self, write: &Write<'_>) -> Verdict {
        self.decide_with_history(write, None)
    }

    /// Judges one write by itself and by what was seen of its lease before. A history may add advice; it never
    /// changes whether the write is denied.
    pub fn decide_with_history(&self, write: &Write<'_>, history: Option<&History>) -> Verdict {
        // Labels as they were, so that no write exempts itself; a lease that is new has only those to come.
        let labels = match write.change {
            Change::Create => &write.new.labels,
            _ => &write.old.labels,
        };
        let Settings { mode, rules } = self.settings_for(&write.lease, labels, &write.writer.user);
        let tolerance = self.tolerance();
        let evidence = Evidence::of(write, tolerance);
        let profile = Profile::of(write);
        let mut violations = Vec::new();
        let mut break_glass = None;
        if mode != Mode::Off {
            let case = Case {
                write,
                evidence: evidence.as_ref(),
                tolerance,
                profile,
                history,
            };
            rules.check(&case, |rule, action, finding| {
                violations.push(Violation {
                    rule,
                    action,
                    taken: mode.cap(action),
                    excused: false,
                    message: finding.message,
                });
            });
            break_glass = self.break_glass(write, mode, &mut violations);
        }
        Verdict {
            change: write.change,
            purpose: write.purpose(),
            mode,
            profile,
            evidence,
            skew: write.skew(),
            violations,
            break_glass,
        }
    }

    /// Turns denials into warnings if the writer may break glass.
    fn break_glass(&self, write: &Write<'_>, mode: Mode, violations: &mut [Violation]) -> Option<BreakGlass> {
        let would_deny = violations
            .iter()
            .any(|violation| violation.action == Action::Enforce);
        let judged = self.document.break_glass.judge(write, would_deny)?;
        if judged.outcome == BreakGlassOutcome::Used {
            for violation in violations.iter_mut().filter(|it| it.action == Action::Enforce) {
                violation.excused = true;
                violation.taken = violation.taken.min(mode.cap(Action::Warn));
            }
        }
        Some(judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{held, takeover},
        verdict::Outcome,
    };

    fn early() -> Write<'static> {
        takeover(
            held("a").transitions(3).renewed_at(0),
            held("b").transitions(4).acquired_at(4).renewed_at(4),
        )
        .stamped(0, 4)
    }

    #[test]
    fn the_mode_caps_what_a_violation_leads_to() {
        for (mode, outcome, count) in [
            ("enforce", Outcome::Deny, 1),
            ("audit", Outcome::Allow, 1),
            ("off", Outcome::Allow, 0),
        ] {
            let policy = Policy::parse(&format!("mode: {mode}")).unwrap();
            let verdict = policy.decide(&early());
            assert_eq!(
                (verdict.outcome(), verdict.violations.len()),
                (outcome, count),
                "{mode}"
            );
        }
    }

    #[test]
    fn each_rule_has_its_own_action() {
        for (action, outcome, count) in [
            ("enforce", Outcome::Deny, 1),
            ("warn", Outcome::Warn, 1),
            ("audit", Outcome::Allow, 1),
            ("off", Outcome::Allow, 0),
        ] {
            let document = format!("rules: {{takeover-before-expiry: {{action: {action}}}}}");
            let verdict = Policy::parse(&document).unwrap().decide(&early());
            assert_eq!(
                (verdict.outcome(), verdict.violations.len()),
                (outcome, count),
                "{action}"
            );
        }
    }

    #[test]
    fn every_violation_is_reported_not_only_the_first() {
        let write = takeover(
            held("a").renewed_at(0),
            held("b").duration(1).transitions(9).acquired_at(1).renewed_at(1),
        )
        .stamped(0, 1);
        let rules: Vec<_> = Policy::default()
            .decide(&write)
            .violations
            .iter()
            .map(|violation| violation.rule.as_str())
            .collect();
        assert_eq!(
            rules,
            [
                "takeover-before-expiry",
                "transition-not-counted",
                "duration-out-of-bounds"
            ]
        );
    }

    #[test]
    fn the_slack_is_the_policys() {
        let strict = Policy::parse("clockSlack: 0s").unwrap();
        let write = takeover(held("a").renewed_at(0), held("b").transitions(4).renewed_at(14)).stamped(0, 14);
        assert_eq!(strict.decide(&write).outcome(), Outcome::Deny);
        assert_eq!(Policy::default().decide(&write).outcome(), Outcome::Allow);
    }
}
