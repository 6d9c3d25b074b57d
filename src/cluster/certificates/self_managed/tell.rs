//! What the loop says of itself: to the log, to the metrics, and as readiness.

use super::{
    super::rotation::{Observed, Reason, Step},
    SelfManaged,
};
use crate::{
    metrics::certificates::{Repair, StepLabel},
    server::reload::CERTIFICATE_CHECK,
};

impl SelfManaged {
    /// Says what comes next, once.
    pub(super) fn tell(&mut self, step: &Step, observed: &Observed) -> StepLabel {
        let news = self.told.as_ref().is_none_or(|told| !same_kind(told, step));
        let metrics = &self.metrics.certificates;
        let mut behind_count = 0;
        let label = match step {
            Step::NewAuthority { reason, retiring } => {
                // No Secret, and CAs that are trusted: it was lost.
                let lost = *reason == Reason::Absent && !retiring.is_empty();
                if lost || reason.is_repair() {
                    metrics.repaired(Repair::Authority);
                    tracing::warn!(%reason, "certificates: the CA in the Secret is made anew");
                } else {
                    tracing::info!(%reason, "certificates: a CA is made");
                }
                StepLabel::NewAuthority
            }
            Step::KeepTrusted { repair, .. } => {
                if *repair {
                    metrics.repaired(Repair::Authority);
                }
                tracing::warn!(
                    "certificates: caBundle has a CA that the Secret does not know; it stays trusted until every replica is known to serve by another"
                );
                StepLabel::KeepTrusted
            }
            Step::Publish { repair } => {
                if *repair {
                    metrics.repaired(Repair::Bundle);
                    tracing::warn!(
                        "certificates: a caBundle lacked the serving CA or was broken: it is patched"
                    );
                } else {
                    tracing::info!("certificates: caBundle is patched");
                }
                StepLabel::Publish
            }
            Step::WaitForApiServers { remaining } => {
                if news {
                    tracing::info!(
                        ?remaining,
                        "certificates: waiting for the API servers to use caBundle"
                    );
                }
                StepLabel::WaitForApiServers
            }
            Step::IssueLeaf { reason } => {
                let lost = *reason == Reason::Absent && self.serving.is_some();
                if lost || reason.is_repair() {
                    metrics.repaired(Repair::Leaf);
                    tracing::warn!(%reason, "certificates: the leaf in the Secret is made anew");
                } else {
                    tracing::info!(%reason, "certificates: a leaf is issued");
                }
                StepLabel::IssueLeaf
            }
            Step::WaitForReplicas { behind } => {
                behind_count = behind.len();
                if news {
                    tracing::info!(
                        ?behind,
                        "certificates: waiting for every replica to serve the new leaf"
                    );
                }
                StepLabel::WaitForReplicas
            }
            Step::Retire { .. } => {
                tracing::info!("certificates: the old CA is dropped");
                StepLabel::Retire
            }
            Step::Idle { until } => {
                if news {
                    tracing::info!(next_renewal = %until, "certificates: all is well");
                    if observed.webhooks.is_none() {
                        let configuration = &self.settings.configuration;
                        tracing::warn!(
                            "--webhook-configuration {configuration}: there is no such ValidatingWebhookConfiguration, so that no API server calls; apply the manifests"
                        );
                    }
                }
                StepLabel::Idle
            }
        };
        metrics.stands_at(Some(label), behind_count);
        self.told = Some(step.clone());
        label
    }

    pub(super) fn tell_readiness(&self) {
        let trouble = self
            .trouble
            .as_ref()
            .map(|trouble| format!("; {trouble}"))
            .unwrap_or_default();
        let Some(serving) = &self.serving else {
            let why = format!("there is none yet in Secret {}{trouble}", self.settings.secret);
            return self.readiness.set(CERTIFICATE_CHECK, Err(why));
        };
        let not_after = serving.validity.not_after;
        if not_after <= self.objects.now() {
            let why = format!("expired at {not_after}{trouble}");
            self.readiness.set(CERTIFICATE_CHECK, Err(why));
        } else if trouble.is_empty() {
            self.readiness.set(CERTIFICATE_CHECK, Ok(()));
        } else {
            let detail = format!("the last good one stays, it expires at {not_after}{trouble}");
            self.readiness.pass_with_detail(CERTIFICATE_CHECK, detail);
        }
    }
}

fn same_kind(one: &Step, other: &Step) -> bool {
    match (one, other) {
        (Step::WaitForApiServers { .. }, Step::WaitForApiServers { .. }) => true,
        (one, other) => one == other,
    }
}
