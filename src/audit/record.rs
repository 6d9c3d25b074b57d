//! The audit log's schema: one JSON object a line, one line per violation and per allowed holder change.
//!
//! The names and meanings of the fields are API. A new field may come; none changes its meaning. A name or a reason of more
//! than 1,024 bytes is cut, and ends in `…`.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::line::{cut, cut_option};
use crate::{
    admission::Attempt,
    lease::{Evidence, Write},
    policy::Profile,
    verdict::{Outcome, Verdict, Violation},
};

/// One line of the audit log.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord<'a> {
    /// What the line is about: `violation`, `holderChange` or `breakGlass`.
    pub record: RecordKind,
    /// When the review was read, by Leasehold's clock. RFC 3339, UTC.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// The review's uid. Lines of one review share it.
    pub uid: &'a str,
    /// What carries the lease: `Lease`, or in an annotation `ConfigMap` or `Endpoints`.
    pub kind: &'static str,
    /// The lease's namespace.
    pub namespace: &'a str,
    /// The lease's name.
    pub name: &'a str,
    /// What the write does: `create`, `renew`, `amend`, `takeover`, `handover`, `acquire`, `release`, `untouched` or `delete`.
    pub change: &'static str,
    /// What the lease is for, by its fields before and after: `timed` (it has a duration), `counted` (it counts its holders),
    /// `beating` (it has both times) or `untimed` (it elects nobody by time).
    pub purpose: &'static str,
    /// What the write got: `allow`, `warn` or `deny`.
    pub verdict: &'static str,
    /// The policy's mode for this lease: `enforce` or `audit` (or `off`, for a holder change).
    pub mode: &'static str,
    /// The rule that fired. Only for a violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// The rule's own action: `enforce`, `warn` or `audit`. Only for a violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// What came of the violation: `denied`, `would be denied`, `warned`, `would be warned` or `audited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<&'static str>,
    /// What was wrong, in words. Only for a violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// The user who wrote, by the API server's word.
    #[serde(serialize_with = "cut")]
    pub user: &'a str,
    /// The pod that the user's token is bound to; absent for other credentials.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub pod: Option<&'a str>,
    /// The writer's field manager; absent where it gave none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub field_manager: Option<&'a str>,
    /// The kind of writer, where it is a known one with a contract of its own, such as
    /// `coordinated-leader-election`; absent for most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
    /// Who held the lease; absent when it was free or new.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub old_holder: Option<&'a str>,
    /// Who holds it if the write succeeds; absent when it is free or gone.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub new_holder: Option<&'a str>,
    /// leaseTransitions before; absent where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_transitions: Option<i32>,
    /// leaseTransitions after; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_transitions: Option<i32>,
    /// What was known about the lease's age; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceRecord>,
    /// How many seconds the writer's clock is ahead of the API server's (negative: behind); absent where the
    /// write does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew_seconds: Option<f64>,
    /// What came of breaking glass: `used` (the write would have been denied and passed), `unneeded` (nothing
    /// would have been denied) or `refused` (the write gave a reason, and its user may not); absent where nobody
    /// asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<&'static str>,
    /// The group by which the user may break glass.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub break_glass_group: Option<&'a str>,
    /// The reason that the write gave in the annotation `leasehold.dev/break-glass`; absent where it gave none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cut_option")]
    pub break_glass_reason: Option<&'a str>,
    /// Whether nothing was to be stored.
    pub dry_run: bool,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RecordKind {
    /// A rule fired.
    Violation,
    /// A write that changes who holds the lease was allowed. It may still fail in the API server.
    HolderChange,
    /// Somebody broke glass, or tried to.
    BreakGlass,
}

/// What was known about the lease's age.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceRecord {
    /// `stamped`, `created`, `claimed` or `implausible`.
    pub kind: &'static str,
    /// When the lease was last renewed. RFC 3339, UTC.
    #[schemars(with = "String")]
    pub renewed: Timestamp,
    /// When this write happened. RFC 3339, UTC.
    #[schemars(with = "String")]
    pub now: Timestamp,
    /// Whose clock `now` is: `apiServer` or `leasehold`.
    pub clock: &'static str,
    /// From `renewed` to `now`, in whole seconds, rounded down.
    pub elapsed_seconds: i64,
    /// How long the lease was valid after its last renewal, in seconds; absent where it had no duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i32>,
}

impl EvidenceRecord {
    /// The evidence on a write, as users see it.
    pub fn of(evidence: &Evidence, write: &Write<'_>) -> Self {
        Self {
            kind: evidence.kind.as_str(),
            renewed: evidence.renewed,
            now: evidence.now,
            clock: evidence.clock.as_str(),
            elapsed_seconds: evidence.elapsed_seconds(),
            duration_seconds: write.old.record.duration_seconds,
        }
    }
}

impl<'a> AuditRecord<'a> {
    /// The lines that one verdict calls for: one per violation, one if somebody broke glass or tried to, and one
    /// if it lets the holder change. A dry run changes nothing, so it has no line of the last kind.
    pub fn of(
        attempt: &'a Attempt<'_>,
        write: &'a Write<'_>,
        verdict: &'a Verdict,
    ) -> impl Iterator<Item = Self> {
        let change =
            (write.change.changes_the_holder() && verdict.outcome() != Outcome::Deny && !attempt.dry_run)
                .then(|| Self::line(attempt, write, verdict, RecordKind::HolderChange, None));
        let break_glass = verdict
            .break_glass
            .as_ref()
            .map(|_| Self::line(attempt, write, verdict, RecordKind::BreakGlass, None));
        verdict
            .violations
            .iter()
            .map(|violation| Self::line(attempt, write, verdict, RecordKind::Violation, Some(violation)))
            .chain(break_glass)
            .chain(change)
    }

    fn line(
        attempt: &'a Attempt<'_>,
        write: &'a Write<'_>,
        verdict: &'a Verdict,
        record: RecordKind,
        violation: Option<&'a Violation>,
    ) -> Self {
        let break_glass = verdict.break_glass.as_ref();
        Self {
            record,
            time: write.reviewed,
            uid: &attempt.uid,
            kind: write.lease.kind.as_str(),
            namespace: &write.lease.namespace,
            name: &write.lease.name,
            change: write.change.as_str(),
            purpose: verdict.purpose.as_str(),
            verdict: verdict.outcome().as_str(),
            mode: verdict.mode.as_str(),
            rule: violation.map(|violation| violation.rule.as_str()),
            action: violation.map(|violation| violation.action.as_str()),
            decision: violation.map(|violation| violation.decision().as_str()),
            message: violation.map(|violation| violation.message.as_str()),
            user: &write.writer.user,
            pod: write.writer.pod.as_deref(),
            field_manager: write.writer.field_manager.as_deref(),
            profile: verdict.profile.map(Profile::as_str),
            old_holder: write.old.record.holder.as_deref(),
            new_holder: write.new.record.holder.as_deref(),
            old_transitions: write.old.record.transitions,
            new_transitions: write.new.record.transitions,
            evidence: verdict
                .evidence
                .as_ref()
                .map(|evidence| EvidenceRecord::of(evidence, write)),
            skew_seconds: verdict.skew.as_ref().map(SignedDuration::as_secs_f64),
            break_glass: break_glass.map(|it| it.outcome.as_str()),
            break_glass_group: break_glass.and_then(|it| it.group.as_deref()),
            break_glass_reason: break_glass.and_then(|it| it.reason.as_deref()),
            dry_run: attempt.dry_run,
        }
    }
}
