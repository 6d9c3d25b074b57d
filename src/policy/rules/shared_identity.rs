//! `shared-identity`

use super::{Case, Finding, Purposes, Rule, SEEN_HERE, quoted};
use crate::{
    lease::Tolerance,
    policy::{Action, AdvisoryAction, in_process::InProcess},
};

rule_settings! {
    /// One holderIdentity under which two pods write in turn: one, then the other, then the one again.
    ///
    /// Each takes the other's lease for its own and renews it: both lead, for ever, and no takeover ever shows. It
    /// happens where the identity is a constant, the name of the service or the host name of a pod on the host's
    /// network.
    ///
    /// A pod that is replaced by another of the same identity does not fire: the old one never comes back. Pods are
    /// told apart by the tokens that they write with; a writer without a token bound to its pod is not counted.
    ///
    /// This rule needs memory, so it only advises: the same review could get another answer from another replica. It
    /// needs the renewals too, which reach Leasehold only from namespaces labelled `leasehold.dev/watch: full`.
    ///
    /// What to do: give each instance an identity of its own, as client-go does with the host name and a UUID. To see
    /// who writes, compare the pods of one holder in the audit logs of all replicas.
    pub struct SharedIdentity = "shared-identity" {
        /// What a shared identity leads to: at most warn.
        action: AdvisoryAction = AdvisoryAction::Warn,
    }
}

impl Rule for SharedIdentity {
    const NAME: &'static str = Self::NAME_AND_DOCUMENTATION.0;
    const DOCUMENTATION: &'static str = Self::NAME_AND_DOCUMENTATION.1;
    const PURPOSES: Purposes = Purposes::ELECTIONS;

    fn action(&self) -> Action {
        self.action.into()
    }

    fn check(&self, case: &Case<'_>) -> Option<Finding> {
        let shared = case.history?.shared_identity.as_ref()?;
        Some(Finding::new(format!(
            "{SEEN_HERE}, the pods {} and {} write lease {} in turn, both as {}: each believes that it leads",
            quoted(Some(&shared.pod)),
            quoted(Some(&shared.other)),
            case.write.lease,
            quoted(case.write.old.record.holder.as_deref()),
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
            self, History,
            testing::{held, update},
        },
        policy::rules::testing::{check, check_with_history},
    };

    #[test]
    fn two_pods_in_turn_are_named() {
        let renewal = update(held("payments").renewed_at(4), held("payments").renewed_at(6));
        let history = History {
            shared_identity: Some(lease::SharedIdentity {
                pod: "payments-x2x9k".into(),
                other: "payments-q8w4m".into(),
            }),
            ..History::default()
        };
        let rule = SharedIdentity::default();
        assert_eq!(
            check_with_history(&rule, &renewal, Some(&history)).unwrap().message,
            "as far as this replica saw, the pods \"payments-x2x9k\" and \"payments-q8w4m\" write lease shop/payments \
             in turn, both as \"payments\": each believes that it leads"
        );
        assert_eq!(check_with_history(&rule, &renewal, Some(&History::default())), None);
        assert_eq!(check(&rule, &renewal), None);
    }
}
