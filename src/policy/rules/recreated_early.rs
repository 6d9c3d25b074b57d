//! `recreated-early`

use super::{Case, Finding, Purposes, Rule, SEEN_HERE, quoted};
use crate::{
    lease::{Recreation, Tolerance},
    policy::{Action, AdvisoryAction, in_process::InProcess},
};

rule_settings! {
    /// A lease that was deleted while somebody held it, and created anew by another before the old one would have
    /// expired.
    ///
    /// Deleting a lease and creating it again walks around every rule about takeovers. The old holder does not
    /// see it go: until its next renewal fails it leads on, beside the one who created the lease anew.
    ///
    /// This rule needs memory, so it only advises: the same review could get another answer from another replica.
    /// It is told by the first later write that shows the new object (the next renewal where every write is sent,
    /// else the next takeover, release or label), for an attempt to delete or to create may have failed. A replica
    /// that did not review the deletion, the creation and that write is silent.
    ///
    /// A holder that deletes its own lease releases it, and the rule says nothing of what follows. Where nothing tells whether
    /// it was the holder that deleted, the creation leads to the action `unknown`.
    ///
    /// What to do: find out who deletes the lease, by deleted-while-held in the audit logs of all replicas, or by
    /// the API server's own audit log. Release a lease instead of deleting it.
    pub struct RecreatedEarly = "recreated-early" {
        /// What such a lease leads to where the deletion was provably not the holder's: at most warn.
        action: AdvisoryAction = AdvisoryAction::Warn,
        /// What it leads to where the holder may have deleted it. At most `action`.
        unknown: AdvisoryAction = AdvisoryAction::Audit,
    }
}

impl Rule for RecreatedEarly {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes {
        timed: Action::Enforce,
        counted: Action::Enforce,
        beating: Action::Audit,
        untimed: Action::Audit,
    };

    fn action(&self) -> Action {
        self.action.into()
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let Recreation {
            deleted_holder,
            renewed,
            valid_seconds,
            deleted_by_stranger,
            new_holder,
            created,
        } = case.history?.recreation.as_ref()?;
        let elapsed = created.duration_since(*renewed).as_secs();
        // An object that is older than the renewal is not the one that replaced it.
        if !(0..valid_seconds - case.tolerance.clock_slack.as_secs()).contains(&elapsed) {
            return None;
        }
        let action = (!deleted_by_stranger).then(|| self.action().min(self.unknown.into()));
        let message = format!(
            "{SEEN_HERE}, lease {} was deleted while {} held it, and {} created it anew {elapsed} s after the last \
             renewal (API server clock), though it was valid for {valid_seconds} s: both may have led for {} s",
            case.write.lease,
            quoted(Some(deleted_holder)),
            quoted(Some(new_holder)),
            valid_seconds - elapsed,
        );
        Some(Finding { message, action })
    }

    fn in_process(_: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Not {
            reason: "CEL has no memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            History,
            testing::{at, held, update},
        },
        policy::rules::testing::{check, check_with_history},
    };

    fn judge(renewed: i64, created: i64) -> Option<Finding> {
        judge_deletion(renewed, created, true)
    }

    fn judge_deletion(renewed: i64, created: i64, deleted_by_stranger: bool) -> Option<Finding> {
        let history = History {
            recreation: Some(Recreation {
                deleted_holder: "a".into(),
                renewed: at(renewed),
                valid_seconds: 15,
                deleted_by_stranger,
                new_holder: "b".into(),
                created: at(created),
            }),
            ..History::default()
        };
        let renewal = update(held("b").renewed_at(20), held("b").renewed_at(22));
        check_with_history(&RecreatedEarly::default(), &renewal, Some(&history))
    }

    #[test]
    fn what_the_old_duration_still_covered_is_early() {
        for (created, fires) in [(-1, false), (0, true), (3, true), (13, true), (14, false), (15, false), (900, false)] {
            assert_eq!(judge(0, created).is_some(), fires, "{created}");
        }
    }

    #[test]
    fn a_deletion_that_may_be_the_holders_is_only_noted() {
        assert_eq!(judge_deletion(0, 3, true).unwrap().action, None);
        assert_eq!(judge_deletion(0, 3, false).unwrap().action, Some(Action::Audit));
    }

    #[test]
    fn the_message_says_who_how_long_and_how_far_one_replica_sees() {
        assert_eq!(
            judge(0, 3).unwrap().message,
            "as far as this replica saw, lease shop/payments was deleted while \"a\" held it, and \"b\" created it anew \
             3 s after the last renewal (API server clock), though it was valid for 15 s: both may have led for 12 s"
        );
    }

    #[test]
    fn without_memory_there_is_nothing_to_say() {
        let renewal = update(held("b").renewed_at(20), held("b").renewed_at(22));
        assert_eq!(check(&RecreatedEarly::default(), &renewal), None);
        let nothing = History::default();
        assert_eq!(check_with_history(&RecreatedEarly::default(), &renewal, Some(&nothing)), None);
    }
}
