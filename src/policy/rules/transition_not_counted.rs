//! `transition-not-counted`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::Tolerance,
    policy::{
        Action,
        in_process::{Check, InProcess, words},
    },
};

rule_settings! {
    /// A new holder that does not count its takeover: leaseTransitions is not exactly one more than before.
    ///
    /// leaseTransitions is the term number of the lease: fencing, metrics and people tell terms apart by it.
    /// Two candidates that patch without a resourceVersion both believe that they won, and write the same
    /// number; the second of them is told apart by just that. An elector counts when it takes a lease over and
    /// when it acquires a free one; a release counts nothing.
    ///
    /// What to do: count leaseTransitions + 1 on each change to a new holder, from the record that you read, and
    /// send its resourceVersion with the write.
    ///
    /// Electors that never write the field at all (kubernetes_asyncio, the official Python client, Bonny,
    /// Pekko) are *untracked*: on a lease where nobody ever counted, their takeovers lead to the action
    /// `untracked`. On a lease that another elector counted they are refused, for ever: give them a lease of
    /// their own.
    ///
    /// The first holder of a lease that nobody ever held may leave the field out, or start with 0 or 1. Where the
    /// API server itself elects the holder (KEP-4355) it does not count, and is not asked to.
    pub struct TransitionNotCounted = "transition-not-counted" {
        /// What an uncounted change of holder leads to.
        action: Action = Action::Enforce,
        /// What it leads to where the field is absent before and after. At most `action`.
        untracked: Action = Action::Warn,
    }
}

impl Rule for TransitionNotCounted {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let (old, new) = (&write.old.record, &write.new.record);
        if !write.change.gives_a_new_holder() {
            return None;
        }
        let new_holder = || quoted(new.holder.as_deref());
        let lease = &write.lease;
        match (old.transitions, new.transitions) {
            (_, None | Some(0 | 1)) if old.was_never_held() => None,
            (None, None) => Some(Finding {
                message: format!(
                    "{} does not count leaseTransitions on lease {lease}, and nobody before it did: its terms cannot \
                     be told apart",
                    new_holder(),
                ),
                action: Some(self.action.min(self.untracked)),
            }),
            (before, after) => {
                let expected = i64::from(old.transitions_or_zero()) + 1;
                if after.map(i64::from) == Some(expected) {
                    return None;
                }
                let before = before.map_or_else(|| "absent".to_owned(), |count| count.to_string());
                let wrote = match after {
                    None => "removes the field; an elector that never counts needs a lease of its own".to_owned(),
                    Some(after) if Some(after) == old.transitions => format!(
                        "leaves it at {after}; if two candidates raced, the other one won: send resourceVersion"
                    ),
                    Some(after) => format!("writes {after}"),
                };
                Some(Finding::new(format!(
                    "{} must set leaseTransitions of lease {lease} to {expected} (it was {before}), and {wrote}",
                    new_holder(),
                )))
            }
        }
    }

    fn in_process(settings: &Self::Cel, _: Tolerance) -> InProcess {
        let counted = "object.?spec.?leaseTransitions.hasValue() && variables.newTransitions == variables.oldTransitions + 1";
        let first = "variables.neverHeld && variables.newTransitions in [0, 1]";
        let untracked = "!object.?spec.?leaseTransitions.hasValue() && !oldObject.?spec.?leaseTransitions.hasValue()";
        InProcess::Fully(vec![
            Check::new(
                format!("{untracked} && variables.givesNewHolder && !({first})"),
                &settings.action,
                words(
                    "{variables.quotedNewHolder} does not count leaseTransitions on lease {variables.lease}, and nobody \
                     before it did: its terms cannot be told apart",
                ),
            )
            .at_most(settings.untracked.clone()),
            Check::new(
                format!("!({counted}) && variables.givesNewHolder && !({untracked}) && !({first})"),
                &settings.action,
                words(
                    "{variables.quotedNewHolder} must set leaseTransitions of lease {variables.lease} to \
                     {string(variables.oldTransitions + 1)} (it was {oldObject.?spec.?leaseTransitions.hasValue() \
                     ? string(variables.oldTransitions) : 'absent'}), and {!object.?spec.?leaseTransitions.hasValue() \
                     ? 'removes the field; an elector that never counts needs a lease of its own' \
                     : object.?spec.?leaseTransitions == oldObject.?spec.?leaseTransitions \
                     ? 'leaves it at ' + string(variables.newTransitions) + '; if two candidates raced, the other one won: \
                     send resourceVersion' : 'writes ' + string(variables.newTransitions)}",
                ),
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{Draft, create, free, held, untouched, update},
        policy::rules::testing::check,
    };

    fn judge(old: Draft, new: Draft) -> Option<Action> {
        let rule = TransitionNotCounted::default();
        check(&rule, &update(old, new)).map(|finding| finding.action.unwrap_or(rule.action))
    }

    #[test]
    fn a_new_holder_counts_exactly_one() {
        let enforced = Some(Action::Enforce);
        for (before, after, expected) in [
            (Some(3), Some(4), None),
            (Some(3), Some(3), enforced),
            (Some(3), Some(5), enforced),
            (Some(3), Some(0), enforced),
            (Some(3), None, enforced),
            (None, Some(1), None),
            (None, Some(0), enforced),
            (Some(0), Some(1), None),
            (Some(i32::MAX), Some(i32::MIN), enforced),
            (None, None, Some(Action::Warn)),
        ] {
            let takeover = judge(held("a").transitions(before), held("b").transitions(after));
            assert_eq!(takeover, expected, "takeover {before:?} -> {after:?}");
            let once_held = free().renewed_at(0).transitions(before);
            assert_eq!(judge(once_held, held("b").transitions(after)), expected, "acquire {before:?} -> {after:?}");
        }
    }

    #[test]
    fn the_first_holder_may_start_as_it_likes() {
        for before in [None, Some(0)] {
            for (after, fires) in [(None, false), (Some(0), false), (Some(1), false), (Some(2), true)] {
                let first = judge(untouched().transitions(before), held("b").transitions(after));
                assert_eq!(first.is_some(), fires, "{before:?} -> {after:?}");
            }
        }
    }

    #[test]
    fn whoever_keeps_or_frees_a_lease_counts_nothing() {
        assert_eq!(judge(held("a").renewed_at(1), held("a").renewed_at(2)), None);
        assert_eq!(judge(held("a"), free()), None);
        assert_eq!(check(&TransitionNotCounted::default(), &create(held("a").transitions(7))), None);
    }

    #[test]
    fn a_lost_race_is_named() {
        let write = update(held("a").transitions(1), held("b").transitions(1));
        assert_eq!(
            check(&TransitionNotCounted::default(), &write).unwrap().message,
            "\"b\" must set leaseTransitions of lease shop/payments to 2 (it was 1), and leaves it at 1; if two \
             candidates raced, the other one won: send resourceVersion"
        );
    }
}
