//! What a replay says of one lease.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{event::Level, intervals::Intervals};
use crate::policy::RuleName;

/// What was learned of one lease.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReport {
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// How much the log holds of its writes: the least of all.
    pub level: Level,
    /// When it was first and last written.
    pub first: Timestamp,
    /// The last write.
    pub last: Timestamp,
    /// Writes that were stored.
    pub writes: u64,
    /// Who led when, in order; the first [`super::MOST_TERMS`].
    pub terms: Vec<Term>,
    /// Changes of the holder: takeovers, handovers and acquisitions. Inferred ones count below.
    pub changes: u64,
    /// Changes of the writer where the log has no bodies, which are changes of the holder or look like them.
    pub inferred_changes: u64,
    /// Those among the inferred that came before the lease's duration was over: released, handed over or taken early.
    pub sooner_than_expiry: u64,
    /// Releases of a lease that was held.
    pub releases: u64,
    /// Deletions.
    pub deletions: u64,
    /// Seconds in which nobody held the lease, or its holder had let it expire, up to the last write.
    pub seconds_without_leader: f64,
    /// From the last renewal of a holder to the first write of the next, the longest, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_failover_seconds: Option<f64>,
    /// The renewals.
    pub renewals: Renewals,
    /// Writes that the API server refused, by what refused them.
    pub refused: BTreeMap<String, u64>,
    /// Writes whose outcome nobody knows: the API server's time was up (504).
    pub unknown: u64,
    /// Dry runs, which change nothing.
    pub dry_runs: u64,
    /// Writes that passed a webhook that did not answer.
    pub failed_open: u64,
    /// Writes that could not be judged, because the log does not hold what they replaced.
    pub not_judged: u64,
    /// How many writes the policy would refuse in mode enforce.
    pub would_be_refused: u64,
    /// What the policy finds in the writes; the first [`super::MOST_FINDINGS`].
    pub findings: Vec<Finding>,
}

/// From one holder's first write to its last.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    /// The identity; where the log has no bodies, the writer's pod, or its user.
    pub holder: String,
    /// Whether the holder is inferred from the writer.
    pub inferred: bool,
    /// The user who wrote first.
    pub user: String,
    /// That user's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// When it began, by the API server's clock.
    pub from: Timestamp,
    /// Whether it began before the log did.
    pub began_before: bool,
    /// The last renewal, or the release.
    pub to: Timestamp,
    /// How many renewals it had.
    pub renewals: u64,
    /// How it ended.
    pub end: End,
}

/// How a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// It had not, when the log ended.
    Open,
    /// The lease was released.
    Released,
    /// Another holder took it over.
    TakenOver,
    /// The holder gave it to another.
    HandedOver,
    /// The lease was deleted.
    Deleted,
    /// Another writer followed, and the log does not say how.
    Unknown,
}

impl End {
    /// The end's name, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "leads",
            Self::Released => "released",
            Self::TakenOver => "taken over",
            Self::HandedOver => "handed over",
            Self::Deleted => "deleted",
            Self::Unknown => "released or lost",
        }
    }
}

/// By what a write was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The stamps in the objects' managedFields.
    ManagedFields,
    /// The times of the audit events, where the log leaves managedFields out.
    AuditTimes,
}

/// What a rule says of a write.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// When the write was stored.
    pub time: Timestamp,
    /// The audit event.
    pub audit_id: String,
    /// The rule.
    pub rule: RuleName,
    /// What the policy does about it: `denied`, `would be denied`, `warned`, `would be warned` or `audited`.
    pub decision: &'static str,
    /// What is wrong, by which numbers.
    pub message: String,
    /// By what it was judged.
    pub basis: Basis,
    /// Who wrote.
    pub user: String,
    /// The pod that the user's token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// How regularly a lease was renewed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Renewals {
    #[serde(skip)]
    pub(super) intervals: Intervals,
    /// How many.
    pub count: u64,
    /// Seconds from one to the next: half of all are no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_seconds: Option<f64>,
    /// 99 of 100 are no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// The longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_seconds: Option<f64>,
    /// When the longest ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_at: Option<Timestamp>,
    /// The lease's duration at the last renewal, or the one that was given for it, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<i64>,
    /// What the duration leaves over the longest interval, in seconds: negative where the lease had expired meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headroom_seconds: Option<f64>,
    /// Intervals of more than four fifths of the duration.
    pub near_losses: u64,
}

impl Renewals {
    pub(super) fn add(&mut self, seconds: f64, at: Timestamp, duration: Option<i64>) {
        if self.intervals.longest().is_none_or(|longest| seconds > longest) {
            self.longest_at = Some(at);
        }
        self.intervals.add(seconds);
        self.duration_seconds = duration.or(self.duration_seconds);
        if let Some(duration) = duration
            && seconds > as_seconds(duration) * 0.8
        {
            self.near_losses += 1;
        }
    }

    /// Fills in what is computed at the end.
    pub(super) fn finish(&mut self) {
        self.count = self.intervals.count();
        self.p50_seconds = self.intervals.quantile(0.5);
        self.p99_seconds = self.intervals.quantile(0.99);
        self.longest_seconds = self.intervals.longest();
        self.headroom_seconds = self
            .longest_seconds
            .zip(self.duration_seconds)
            .map(|(longest, duration)| as_seconds(duration) - longest);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a Lease's duration has 31 bits")]
pub(super) fn as_seconds(duration: i64) -> f64 {
    duration as f64
}
