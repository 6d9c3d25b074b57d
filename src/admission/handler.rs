//! From the bytes of one HTTP body to the bytes of the answer.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{audit::AuditLog, metrics::Metrics, policy::ActivePolicy};

/// What goes back over HTTP for one review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 for every review that could be read, allowed or denied; 400 for one that could not.
    pub status: http::StatusCode,
    /// An `AdmissionReview` document with status 200, else `{"error": "…"}`. JSON in both cases.
    pub body: Vec<u8>,
}

/// Judges reviews: decodes, decides, answers, and tells the audit log and the metrics.
///
/// Synchronous and without I/O of its own: the audit log is a queue that never blocks.
#[derive(Clone, Debug)]
pub struct Handler {
    policy: ActivePolicy,
    metrics: Arc<Metrics>,
    audit_log: AuditLog,
}

impl Handler {
    /// A handler that judges by whatever policy is active when a review arrives.
    pub fn new(policy: ActivePolicy, metrics: Arc<Metrics>, audit_log: AuditLog) -> Self {
        Self {
            policy,
            metrics,
            audit_log,
        }
    }

    /// Judges one HTTP body. `now` is this machine's clock, read once by the caller.
    pub fn handle(&self, body: &[u8], now: Timestamp) -> Answer {
        let _ = (&self.policy, &self.metrics, &self.audit_log, now);
        Answer {
            status: http::StatusCode::BAD_REQUEST,
            body: body.to_vec(),
        }
    }
}
