//! From the bytes of one HTTP body to the bytes of the answer.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    decode::{Attempt, Subject, decode},
    response::Response,
};
use crate::{
    audit::{AuditLog, AuditRecord, to_line},
    events::EventQueue,
    lease::Write,
    memory::Memory,
    metrics::Metrics,
    policy::{Action, ActivePolicy, BREAK_GLASS_ANNOTATION, BreakGlass, BreakGlassOutcome, Mode},
    verdict::{Outcome, Verdict},
};

/// What goes back over HTTP for one review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 for every review that could be read, allowed or denied; 400 for one that could not.
    pub status: http::StatusCode,
    /// An `AdmissionReview` document with status 200, else `{"error": "…"}`. JSON in both cases.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer that is no verdict: `{"error": "…"}` with this status.
    pub fn error(status: http::StatusCode, message: &str) -> Self {
        #[derive(Serialize)]
        struct Problem<'a> {
            error: &'a str,
        }
        Self {
            status,
            body: serde_json::to_vec(&Problem { error: message }).unwrap_or_default(),
        }
    }

    /// The answer that carries this response.
    pub(super) fn of(response: &Response<'_>) -> Self {
        match response.to_bytes() {
            Ok(body) => Self {
                status: http::StatusCode::OK,
                body,
            },
            // Strings and booleans always serialise; should they ever not, failurePolicy decides.
            Err(error) => Self::error(http::StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// Judges reviews: decodes, decides, answers, and tells the audit log, the metrics and the Events.
///
/// Synchronous and without I/O of its own: audit log and Events are queues that never block.
#[derive(Clone, Debug)]
pub struct Handler {
    policy: ActivePolicy,
    metrics: Arc<Metrics>,
    audit_log: AuditLog,
    memory: Arc<Memory>,
    events: EventQueue,
}

impl Handler {
    /// A handler that judges by whatever policy is active when a review arrives.
    pub fn new(policy: ActivePolicy, metrics: Arc<Metrics>, audit_log: AuditLog) -> Self {
        let memory = Arc::new(Memory::new(metrics.memory.clone()));
        Self {
            policy,
            metrics,
            audit_log,
            memory,
            events: EventQueue::disabled(),
        }
    }

    /// The same, which tells of denials and warnings on the leases themselves, too.
    #[must_use]
    pub fn with_events(self, events: EventQueue) -> Self {
        Self { events, ..self }
    }

    /// Judges one HTTP body. `now` is this machine's clock, read once by the caller.
    pub fn handle(&self, body: &[u8], now: Timestamp) -> Answer {
        let attempt = match decode(body, now) {
            Ok(attempt) => attempt,
            Err(error) => {
                self.metrics.admission.record_unreadable();
                return Answer::error(http::StatusCode::BAD_REQUEST, &error.to_string());
            }
        };
        let response = match &attempt.subject {
            Subject::Lease(write) => {
                let verdict = self.judge(write, attempt.dry_run);
                self.metrics.admission.record(write, &verdict, attempt.dry_run);
                self.metrics.leases.record(write, &verdict, attempt.dry_run);
                self.events.report_verdict(write, &verdict, attempt.dry_run);
                self.log(&attempt, write, &verdict);
                respond(&attempt, write, &verdict)
            }
            Subject::NoLease(_) => Response::allow(&attempt.uid),
            Subject::Malformed(lease, error) => {
                self.metrics.admission.record_malformed();
                tracing::warn!(%lease, %error, "a leader-election record cannot be read, so nothing guards it");
                let mut response = Response::allow(&attempt.uid);
                response.warn(&format!(
                    "the leader-election record of {lease} cannot be read ({error}), so Leasehold does not guard it"
                ));
                response
            }
            Subject::Other(resource) => {
                self.metrics.admission.record_unguarded();
                let mut response = Response::allow(&attempt.uid);
                response.warn(&format!(
                    "leasehold does not judge {resource}; restrict the rules of its ValidatingWebhookConfiguration"
                ));
                response
            }
        };
        Answer::of(&response)
    }

    /// Decides, by what was seen of the lease before too, and remembers what may now become a write. A dry run
    /// neither asks the memory nor leaves a trace in it.
    fn judge(&self, write: &Write<'_>, dry_run: bool) -> Verdict {
        let policy = self.policy.load();
        if dry_run {
            return policy.decide(write);
        }
        let history = self.memory.recall(write);
        let verdict = policy.decide_with_history(write, history.as_ref());
        if verdict.outcome() != Outcome::Deny {
            self.memory.remember(write);
        }
        verdict
    }

    fn log(&self, attempt: &Attempt<'_>, write: &Write<'_>, verdict: &Verdict) {
        if !self.audit_log.is_enabled() {
            return;
        }
        for record in AuditRecord::of(attempt, write, verdict) {
            match to_line(&record) {
                Ok(line) => self.audit_log.record(line),
                Err(error) => tracing::error!(%error, "an audit record could not be written as JSON"),
            }
        }
    }
}

fn respond<'a>(attempt: &'a Attempt<'_>, write: &Write<'_>, verdict: &Verdict) -> Response<'a> {
    let mut response = match verdict.denial() {
        Some(message) => Response::deny(&attempt.uid, message),
        None => Response::allow(&attempt.uid),
    };
    if let Some(break_glass) = &verdict.break_glass {
        annotate_break_glass(&mut response, break_glass, write, verdict);
    }
    for violation in verdict.taken(Action::Warn) {
        response.warn(&violation.to_string());
    }
    let is_news =
        !verdict.violations.is_empty() || write.change.changes_the_holder() || verdict.break_glass.is_some();
    if is_news {
        response.annotate("change", verdict.change.as_str());
        response.annotate("mode", verdict.mode.as_str());
        response.annotate("verdict", annotated_outcome(verdict));
        if let Some(evidence) = &verdict.evidence {
            response.annotate(
                "evidence",
                format!(
                    "{}: renewed {}, now {} ({}), {} s",
                    evidence.kind.as_str(),
                    evidence.renewed,
                    evidence.now,
                    evidence.clock.as_str(),
                    evidence.elapsed_seconds()
                ),
            );
        }
        for violation in &verdict.violations {
            let text = format!("{}: {}", violation.decision().as_str(), violation.message);
            response.annotate(violation.rule.as_str(), text);
        }
    }
    response
}

/// Says who broke glass and why, or why it did not help. In mode audit no client is told.
fn annotate_break_glass(
    response: &mut Response<'_>,
    break_glass: &BreakGlass,
    write: &Write<'_>,
    verdict: &Verdict,
) {
    let BreakGlass {
        outcome,
        group,
        reason,
    } = break_glass;
    let user = &write.writer.user;
    let group = group.as_deref().unwrap_or("none");
    let because = reason.as_ref().map_or_else(
        || "no reason given".to_owned(),
        |reason| format!("reason: {reason:?}"),
    );
    response.annotate(
        "break-glass",
        format!("{}: user {user:?}, group {group}: {because}", outcome.as_str()),
    );
    if verdict.mode != Mode::Enforce {
        return;
    }
    match outcome {
        BreakGlassOutcome::Used => response.warn(&format!(
            "break-glass: user {user:?} of group {group} passes where others are denied, and the audit log says so; \
             {because}"
        )),
        BreakGlassOutcome::Refused => response.warn(&format!(
            "annotation {BREAK_GLASS_ANNOTATION} changes nothing: the policy lets user {user:?} break no glass; it is in \
             the audit log"
        )),
        BreakGlassOutcome::Unneeded => {}
    }
}

fn annotated_outcome(verdict: &Verdict) -> Cow<'static, str> {
    let outcome = verdict.outcome();
    if outcome != Outcome::Deny && verdict.would_be_denied() {
        return format!("{} (would be denied)", outcome.as_str()).into();
    }
    outcome.as_str().into()
}
