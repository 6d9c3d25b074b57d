//! `transition-overflow`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Tolerance},
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

/// Half of what the field can hold. Counting one by one, a lease that changes hands every second takes 34 years
/// to get here; nothing that counts correctly jumps over it.
const ABSURD: i32 = 1 << 30;

rule_settings! {
    /// A jump of leaseTransitions towards the limit of its type.
    ///
    /// The field is a 32-bit integer, and the API server refuses negative values. One write of 2147483647 makes
    /// each later takeover fail, for the next holder must write one more: nobody can ever acquire the lease
    /// again until somebody repairs it by hand. So a value over 1073741824 is refused unless it was counted up
    /// to, one by one.
    ///
    /// What to do: find out who computes the number; it should be the one in the lease plus one.
    pub struct TransitionOverflow = "transition-overflow" {
        /// What such a jump leads to.
        action: Action = Action::Enforce,
    }
}

impl Rule for TransitionOverflow {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if matches!(write.change, Change::Delete | Change::Untouched) {
            return None;
        }
        let before = i64::from(write.old.record.transitions_or_zero());
        let after = write.new.record.transitions?;
        if after <= ABSURD || i64::from(after) - before <= 1 {
            return None;
        }
        Some(Finding::new(format!(
            "{} moves leaseTransitions of lease {} from {before} to {after}, near the field's limit of {}, where \
             nobody could ever acquire it again",
            quoted(write.new.record.holder.as_deref()),
            write.lease,
            i32::MAX,
        )))
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Fully(vec![Check::new(
            format!(
                "variables.newTransitions > {ABSURD} && variables.newTransitions - variables.oldTransitions > 1"
            ),
            &settings.action,
            words(&format!(
                "{{variables.quotedNewHolder}} moves leaseTransitions of lease {{variables.lease}} from \
                 {{string(variables.oldTransitions)}} to {{string(variables.newTransitions)}}, near the field's limit of {}, \
                 where nobody could ever acquire it again",
                i32::MAX
            )),
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{create, free, held, update},
        policy::rules::testing::check,
    };

    #[test]
    fn only_a_jump_into_the_upper_half_fires() {
        let cases = [
            (Some(3), Some(i32::MAX), true),
            (None, Some(i32::MAX), true),
            (Some(3), Some(ABSURD + 1), true),
            (Some(3), Some(ABSURD), false),
            (Some(ABSURD + 7), Some(ABSURD + 8), false),
            (Some(i32::MAX - 1), Some(i32::MAX), false),
            (Some(i32::MAX), Some(i32::MAX), false),
            (Some(i32::MAX), Some(0), false),
            (Some(3), None, false),
        ];
        for (before, after, fires) in cases {
            for new_holder in ["a", "b"] {
                let write = update(held("a").transitions(before), held(new_holder).transitions(after));
                let finding = check(&TransitionOverflow::default(), &write);
                assert_eq!(finding.is_some(), fires, "{before:?} -> {after:?} by {new_holder}");
            }
        }
    }

    #[test]
    fn a_lease_may_not_be_born_or_released_near_the_limit() {
        for write in [create(held("a").transitions(i32::MAX)), update(held("a"), free().transitions(i32::MAX))] {
            assert!(check(&TransitionOverflow::default(), &write).is_some());
        }
        assert_eq!(check(&TransitionOverflow::default(), &create(held("a").transitions(0))), None);
    }
}
