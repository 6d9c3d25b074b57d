//! `foreign-write`

use super::{Case, Finding, Purposes, Rule, quoted};
use crate::{
    lease::{Change, Ownership, Tolerance},
    policy::{Action, in_process::InProcess},
};

rule_settings! {
    /// A renewal or another write to a held lease by somebody who is provably not its holder, or a takeover in another
    /// pod's name.
    ///
    /// A stale leader that renews blindly, without looking who holds the lease, keeps its successor's lease alive: after
    /// the successor dies, nobody takes over. Who writes another's name into a lease takes it for somebody who does not know.
    ///
    /// Provably not the holder is a pod (by its bound token) that is plainly a sibling of the pod that the identity names (of
    /// the same ReplicaSet, of another one of the same Deployment, of the same StatefulSet or DaemonSet), or another field
    /// manager where the holder's carries its identity. Whoever cannot be told passes, and who numbers identities apart from
    /// the pods (worker-0 as worker-1) is taken for another. Pure renewals are only seen where the namespace is registered for them (the label leasehold.dev/watch: full).
    ///
    /// What to do: renew by an update with the resourceVersion that you last saw, and only while you are the holder.
    pub struct ForeignWrite = "foreign-write" {
        /// What such a write leads to.
        action: Action = Action::Warn,
    }
}

impl Rule for ForeignWrite {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let write = case.write;
        let writer = || quoted(write.writer.pod.as_deref().or(write.writer.field_manager.as_deref()));
        match write.change {
            Change::Renew | Change::Amend if !write.is_release() && write.ownership() == Ownership::Foreign => {
                Some(Finding::new(format!(
                    "{} writes to lease {}, which {} holds",
                    writer(),
                    write.lease,
                    quoted(write.old.record.holder.as_deref()),
                )))
            }
            Change::Takeover | Change::Acquire => {
                let named = write.new.record.holder.as_deref()?;
                // The new holder's manager is the writer's own, so only the pod can tell.
                (write.writer.ownership_of(named, None) == Ownership::Foreign).then(|| {
                    Finding::new(format!(
                        "{} takes lease {} in the name of {}, which is another pod's",
                        writer(),
                        write.lease,
                        quoted(Some(named)),
                    ))
                })
            }
            _ => None,
        }
    }

    fn in_process(_: &Self::Cel, _: Tolerance) -> InProcess {
        InProcess::Not {
            reason: "CEL has not the forms of identities by which a pod is told from its siblings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{free, held, takeover, update},
        policy::rules::testing::check,
    };

    const HOLDER: &str = "payments-7d4b9c6f5-x2x9k_0b7c";
    const SIBLING: &str = "payments-7d4b9c6f5-q8w4m";

    #[test]
    fn a_sibling_that_writes_to_a_held_lease_is_told_apart() {
        let renew = update(held(HOLDER).renewed_at(0), held(HOLDER).renewed_at(2));
        let amend = update(held(HOLDER).renewed_at(0), held(HOLDER).renewed_at(2).duration(30));
        for write in [renew, amend] {
            let finding = check(&ForeignWrite::default(), &write.clone().by_pod(SIBLING)).unwrap();
            assert!(finding.message.starts_with("\"payments-7d4b9c6f5-q8w4m\" writes to lease"), "{}", finding.message);
            assert_eq!(check(&ForeignWrite::default(), &write.clone().by_pod("payments-7d4b9c6f5-x2x9k")), None);
            assert_eq!(check(&ForeignWrite::default(), &write), None, "cannot tell");
        }
    }

    #[test]
    fn a_lease_is_taken_in_ones_own_name() {
        for old in [held("somebody"), free()] {
            let write = update(old, held(HOLDER));
            assert!(check(&ForeignWrite::default(), &write.clone().by_pod(SIBLING)).is_some());
            assert_eq!(check(&ForeignWrite::default(), &write.clone().by_pod("payments-7d4b9c6f5-x2x9k")), None);
            assert_eq!(check(&ForeignWrite::default(), &write), None);
        }
    }

    #[test]
    fn taking_over_from_a_sibling_and_releasing_are_judged_elsewhere() {
        let own = format!("{SIBLING}_77");
        let own: &'static str = own.leak();
        let write = takeover(held(HOLDER), held(own)).by_pod(SIBLING);
        assert_eq!(check(&ForeignWrite::default(), &write), None);
        for release in [update(held(HOLDER), free()), update(held(HOLDER), held(HOLDER).duration(1))] {
            assert_eq!(check(&ForeignWrite::default(), &release.by_pod(SIBLING)), None);
        }
    }
}
