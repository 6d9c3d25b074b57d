//! `deleted-while-held`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Ownership, Tolerance},
    policy::{Action, in_process::InProcess, profiles::is_controller},
};

rule_settings! {
    /// The deletion of a lease that is held and has not expired.
    ///
    /// Whoever deletes a lease and creates it anew walks around every other rule: the new one is anybody's at once, and
    /// leaseTransitions starts again. The old holder finds out at its next renewal, and works on until then.
    ///
    /// A holder that deletes its own lease releases it: lock libraries and several electors do that. The rule says nothing
    /// of it, nor of the garbage collector and the namespace controller. Where nothing tells whether the writer is the
    /// holder, the deletion leads to the action `unknown`.
    ///
    /// What to do: release a lease instead of deleting it. To hand one over by force, stop its holder first.
    pub struct DeletedWhileHeld = "deleted-while-held" {
        /// What a deletion leads to by a pod or field manager that is provably not the holder.
        action: Action = Action::Warn,
        /// What a deletion leads to by a writer who may be the holder. At most `action`.
        unknown: Action = Action::Audit,
    }
}

impl Rule for DeletedWhileHeld {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::TIMED;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        if write.change != Change::Delete
            || write.old.terminating
            || is_controller(&write.writer.user)
        {
            return None;
        }
        let action = match write.ownership() {
            Ownership::Own => return None,
            Ownership::Foreign => None,
            Ownership::CannotTell => Some(self.action.min(self.unknown)),
        };
        let holder = write.old.record.holder.as_deref()?;
        let left = case.provably_valid_for()?;
        Some(Finding {
            message: format!(
                "lease {} is deleted while {} holds it for {left} s more",
                write.lease,
                quoted(Some(holder)),
            ),
            action,
        })
    }

    fn in_process(_: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Not {
            reason: "a deletion carries no stamp of its own, and CEL has no clock",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            State, Write,
            testing::{Draft, at, free, held, update},
        },
        policy::rules::testing::check,
    };

    fn delete(old: Draft, elapsed: i64) -> Write<'static> {
        let mut write = update(old, free().transitions(99)).stamped(0, elapsed);
        write.change = Change::Delete;
        write.new = State::default();
        write.reviewed = at(elapsed);
        write
    }

    fn fires(write: &Write<'_>) -> bool {
        check(&DeletedWhileHeld::default(), write).is_some()
    }

    #[test]
    fn only_a_live_lease_is_missed() {
        assert!(fires(&delete(held("a"), 4)));
        assert!(fires(&delete(held("a"), 9)));
        assert!(!fires(&delete(held("a"), 10)), "maxSkew off 15 s");
        assert!(!fires(&delete(held("a").duration(None), 4)));
        assert!(!fires(&delete(free(), 4)));
    }

    #[test]
    fn only_a_provable_stranger_is_warned() {
        const HOLDER: &str = "payments-7d4b9c6f5-x2x9k_0b7c";
        let rule = DeletedWhileHeld::default();
        for (pod, expected) in [
            (None, Some(Action::Audit)),
            (Some("elsewhere-0"), Some(Action::Audit)),
            (Some("payments-7d4b9c6f5-q8w4m"), Some(Action::Warn)),
            (Some("payments-7d4b9c6f5-x2x9k"), None),
        ] {
            let mut write = delete(held(HOLDER), 4);
            write.writer.pod = pod.map(Into::into);
            let action = check(&rule, &write).map(|finding| finding.action.unwrap_or(rule.action));
            assert_eq!(action, expected, "{pod:?}");
        }
    }

    #[test]
    fn whoever_deletes_for_good_reason_is_let_through() {
        for user in [
            "system:serviceaccount:kube-system:generic-garbage-collector",
            "system:serviceaccount:kube-system:namespace-controller",
            "system:apiserver",
        ] {
            let mut write = delete(held("a"), 4);
            write.writer.user = user.into();
            assert!(!fires(&write), "{user}");
        }
        let own = delete(held("payments-7d4b9c6f5-x2x9k_0b7c"), 4).by_pod("payments-7d4b9c6f5-x2x9k");
        assert!(!fires(&own));
        let mut terminating = delete(held("a"), 4);
        terminating.old.terminating = true;
        assert!(!fires(&terminating));
    }
}
