//! How a rule's cases are judged in tests.

use super::{Case, Finding, Rule};
use crate::{
    lease::{Evidence, History, Write},
    policy::Policy,
};

/// Judges one write by one rule, with the default tolerance of clocks.
pub(crate) fn check(rule: &impl Rule, write: &Write<'_>) -> Option<Finding> {
    check_with_history(rule, write, None)
}

/// Judges one write by one rule and by what was seen of its lease before.
pub(crate) fn check_with_history(
    rule: &impl Rule,
    write: &Write<'_>,
    history: Option<&History>,
) -> Option<Finding> {
    let tolerance = Policy::default().tolerance();
    let evidence = Evidence::of(write, tolerance);
    rule.check(&Case {
        write,
        evidence: evidence.as_ref(),
        tolerance,
        profile: None,
        history,
    })
}
