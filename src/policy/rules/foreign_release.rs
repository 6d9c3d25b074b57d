//! `foreign-release`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Ownership, Tolerance},
    policy::{Action, in_process::InProcess},
};

rule_settings! {
    /// A release, a deletion or a shorter duration of a lease that has not expired, by somebody who is provably not its
    /// holder.
    ///
    /// It is the first half of a takeover in two steps: clear the live lease, then take it, free as it looks. It is also
    /// what client-go does since v0.34 when a stalled leader releases late: it reads the lease again and blanks it,
    /// although a successor holds it by then; a third candidate acquires at once, and two lead.
    ///
    /// Provably not the holder is a pod (by its bound token) that is plainly a sibling of the pod that the holder's
    /// identity names (of the same ReplicaSet, of another one of the same Deployment, of the same StatefulSet or
    /// DaemonSet), or another field manager where the holder's carries its identity. Whoever cannot be told passes.
    /// All spellings of a release count: the holder empty, the holder removed, the holder kept with a duration of one
    /// second; and so does each lower duration, after which the lease would look expired too soon. A lease that has
    /// expired may be cleared by anybody.
    ///
    /// A write that only removes fields moves no stamp, and a deletion has none. Then Leasehold's own clock stands in, with
    /// maxSkew as slack.
    ///
    /// What to do: release only a lease that you still hold, with the resourceVersion that you last saw. The successor
    /// leads on; the late release needs no repeating. An elector whose identities are numbered apart from its pods (the pod
    /// worker-0 holds as worker-1) is taken for a sibling of itself and refused its own release, so that each failover
    /// takes a full duration: make the identity of the pod's name, or set the action to warn for its leases.
    pub struct ForeignRelease = "foreign-release" {
        /// What such a release leads to.
        action: Action = Action::Enforce,
    }
}

impl Rule for ForeignRelease {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::TIMED;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let verb = match write.change {
            Change::Delete => "delete",
            _ if write.is_release() => "release",
            _ if write.shortens() => "shorten",
            _ => return None,
        };
        if write.ownership() != Ownership::Foreign {
            return None;
        }
        let holder = write.old.record.holder.as_deref()?;
        let left = case.provably_valid_for()?;
        let writer = write.writer.pod.as_deref().or(write.writer.field_manager.as_deref());
        Some(Finding::new(format!(
            "{} may not {verb} lease {}, which {} holds for {left} s more",
            quoted(writer),
            write.lease,
            quoted(Some(holder)),
        )))
    }

    fn in_process(_: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Not {
            reason: "a removal of fields and a deletion carry no stamp of their own, and CEL has no clock; nor has it the forms \
                     of identities by which a pod is told from its siblings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{
            State, Write,
            testing::{at, free, held, update},
        },
        policy::rules::testing::check,
    };

    const HOLDER: &str = "payments-7d4b9c6f5-x2x9k_0b7c";
    const SIBLING: &str = "payments-7d4b9c6f5-q8w4m";

    fn releases() -> [Write<'static>; 4] {
        let old = held(HOLDER).renewed_at(0);
        let mut delete = update(old.clone(), free());
        delete.change = Change::Delete;
        let writes = [
            update(old.clone(), free().renewed_at(4).duration(1)),
            update(old.clone(), free()),
            update(old, held(HOLDER).renewed_at(4).duration(1)),
            delete,
        ];
        writes.map(|write| {
            let mut write = write.stamped(0, 4);
            if write.change == Change::Delete {
                write.new = State::default();
            }
            write
        })
    }

    fn judge(write: &Write<'_>) -> Option<String> {
        check(&ForeignRelease::default(), write).map(|finding| finding.message)
    }

    #[test]
    fn a_sibling_may_not_let_go_of_a_live_lease_in_any_spelling() {
        for write in releases() {
            let message = judge(&write.clone().by_pod(SIBLING)).unwrap();
            assert!(message.contains("for 11 s more"), "{}: {message}", write.change);
        }
    }

    #[test]
    fn a_sibling_may_not_make_it_look_expired() {
        for (seconds, refused) in [(None, true), (Some(0), true), (Some(2), true), (Some(14), true), (Some(16), false)] {
            for renewed in [0, 4] {
                let new = held(HOLDER).renewed_at(renewed).duration(seconds);
                let write = update(held(HOLDER).renewed_at(0), new).stamped(0, renewed);
                let of_a_sibling = judge(&write.clone().by_pod(SIBLING));
                assert_eq!(of_a_sibling.is_some(), refused, "{seconds:?} renewed at {renewed}: {of_a_sibling:?}");
                assert_eq!(judge(&write.by_pod("payments-7d4b9c6f5-x2x9k")), None, "the holder's own");
            }
        }
    }

    #[test]
    fn the_holder_and_whoever_cannot_be_told_may() {
        for write in releases() {
            assert_eq!(judge(&write), None, "no pod");
            assert_eq!(judge(&write.clone().by_pod("payments-7d4b9c6f5-x2x9k")), None, "the holder");
            assert_eq!(judge(&write.by_pod("janitor-5c8f7d9bb-q8w4m")), None, "no sibling");
        }
    }

    #[test]
    fn an_expired_lease_may_be_cleared_by_anybody() {
        for write in releases() {
            let mut late = write.stamped(0, 15).by_pod(SIBLING);
            late.reviewed = at(15);
            assert_eq!(judge(&late), None, "{}", late.change);
        }
    }

    #[test]
    fn our_own_clock_has_the_larger_slack() {
        let [_, nulls, ..] = releases();
        for (now, refused) in [(9, true), (10, false)] {
            let mut write = nulls.clone().by_pod(SIBLING);
            write.reviewed = at(now);
            assert_eq!(judge(&write).is_some(), refused, "{now} s of 15, maxSkew 5");
        }
    }
}
