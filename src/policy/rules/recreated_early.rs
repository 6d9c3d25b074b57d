//! `recreated-early`

use super::{Case, Finding, Rule, SEEN_HERE, quoted};
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
    /// What to do: find out who deletes the lease, by deleted-while-held in the audit logs of all replicas, or by
    /// the API server's own audit log. Release a lease instead of deleting it.
    pub struct RecreatedEarly = "recreated-early" {
        /// What such a lease leads to: at most warn.
        action: AdvisoryAction = AdvisoryAction::Warn,
    }
}

impl Rule for RecreatedEarly {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;

    fn action(&self) -> Action {
        self.action.into()
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let Recreation {
            deleted_holder,
            renewed,
            valid_seconds,
            new_holder,
            created,
        } = case.history?.recreation.as_ref()?;
        let elapsed = created.duration_since(*renewed).as_secs();
        // An object that is older than the renewal is not the one that replaced it.
        if !(0..valid_seconds - case.tolerance.clock_slack.as_secs()).contains(&elapsed) {
            return None;
        }
        Some(Finding::new(format!(
            "{SEEN_HERE}, lease {} was deleted while {} held it, and {} created it anew {elapsed} s after the last \
             renewal (API server clock), though it was valid for {valid_seconds} s: both may have led for {} s",
            case.write.lease,
            quoted(Some(deleted_holder)),
            quoted(Some(new_holder)),
            valid_seconds - elapsed,
        )))
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
        let history = History {
            recreation: Some(Recreation {
                deleted_holder: "a".into(),
                renewed: at(renewed),
                valid_seconds: 15,
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
