//! `transition-miscounted`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Tolerance},
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A leaseTransitions that falls, or that moves although nobody else holds the lease now.
    ///
    /// leaseTransitions counts the changes of holder. A holder that renews or releases counts nothing; whoever counts
    /// there, or starts anew, makes two terms look like one, or one like two.
    ///
    /// Judged while the holder stays, and on a release; a new holder's count is the rule transition-not-counted's.
    ///
    /// What to do: write leaseTransitions only when you become the holder, as the number in the lease plus one, and
    /// never start it anew on a lease that exists.
    pub struct TransitionMiscounted = "transition-miscounted" {
        /// What a miscounted write leads to.
        action: Action = Action::Warn,
    }
}

impl Rule for TransitionMiscounted {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if !matches!(write.change, Change::Amend | Change::Release) {
            return None;
        }
        let (before, after) = (write.old.record.transitions_or_zero(), write.new.record.transitions_or_zero());
        if before == after {
            return None;
        }
        let holder = quoted(write.old.record.holder.as_deref());
        let lease = &write.lease;
        let what = if write.change == Change::Release { "releases" } else { "keeps" };
        Some(Finding::new(format!(
            "{holder} {what} lease {lease} and moves leaseTransitions from {before} to {after}: nobody else holds it, so \
             there is nothing to count"
        )))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Fully(vec![Check::new(
            "variables.change in ['amend', 'release'] && variables.newTransitions != variables.oldTransitions",
            &settings.action,
            words(
                "{variables.quotedOldHolder} {variables.change == 'release' ? 'releases' : 'keeps'} lease \
                 {variables.lease} and moves leaseTransitions from {string(variables.oldTransitions)} to \
                 {string(variables.newTransitions)}: nobody else holds it, so there is nothing to count",
            ),
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{create, free, held, takeover, update},
        policy::rules::testing::check,
    };

    #[test]
    fn only_a_new_holder_moves_the_count() {
        for (before, after, fires) in [
            (Some(3), Some(3), false),
            (None, None, false),
            (None, Some(0), false),
            (Some(3), Some(4), true),
            (Some(3), Some(2), true),
            (Some(3), None, true),
            (None, Some(1), true),
        ] {
            let old = held("a").transitions(before).renewed_at(0);
            for new in [held("a").duration(20), free().renewed_at(1)] {
                let write = update(old.clone(), new.transitions(after));
                let finding = check(&TransitionMiscounted::default(), &write);
                assert_eq!(finding.is_some(), fires, "{before:?} -> {after:?} {}", write.change);
            }
        }
    }

    #[test]
    fn a_new_holder_is_judged_elsewhere() {
        for write in [
            takeover(held("a").transitions(3), held("b").transitions(1)),
            update(free().transitions(3), held("b").transitions(1)),
            create(held("a").transitions(7)),
        ] {
            assert_eq!(check(&TransitionMiscounted::default(), &write), None);
        }
    }
}
