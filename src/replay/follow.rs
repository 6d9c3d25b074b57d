//! Lease by lease, what its writes amount to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    event::{Event, Level, Verb},
    judge::{Judged, Stored, Times, judge},
    object::{duration_of, is_pure_renewal, merge, text, without_managed_fields},
    report::{End, LeaseReport, Renewals, Term, as_seconds},
};
use crate::{lease::Change, policy::Policy};

/// The most terms of one lease that are kept: who leads for a minute each leads a week.
pub const MOST_TERMS: usize = 10_000;

/// The most findings of one lease that are kept.
pub const MOST_FINDINGS: usize = 1_000;

/// Which writes are looked at.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of one namespace.
    pub namespace: Option<String>,
    /// Of one name.
    pub name: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// For leases whose records the log does not hold: how long they are valid, in seconds.
    pub duration: Option<i64>,
}

impl Selection {
    fn takes(&self, event: &Event) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == event.namespace)
            && self.name.as_ref().is_none_or(|name| *name == event.name)
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
    }
}

/// All leases of the logs.
pub struct Replay<'a> {
    policy: &'a Policy,
    selection: Selection,
    leases: BTreeMap<(String, String), Followed>,
}

/// One lease on its way.
struct Followed {
    report: LeaseReport,
    stored: Option<Stored>,
    renewed: Option<Timestamp>,
    /// Since when nobody holds it.
    free_since: Option<Timestamp>,
    /// Who writes, where that is all that the log says.
    writer: Option<String>,
}

impl<'a> Replay<'a> {
    /// Judges by this policy.
    pub fn new(policy: &'a Policy, selection: Selection) -> Self {
        Self {
            policy,
            selection,
            leases: BTreeMap::new(),
        }
    }

    /// Takes the next event: they come by their time.
    pub fn take(&mut self, event: &Event) {
        if !self.selection.takes(event) {
            return;
        }
        let key = (event.namespace.clone(), event.name.clone());
        let lease = self.leases.entry(key).or_insert_with(|| Followed::new(event));
        lease.take(event, self.policy, self.selection.duration);
    }

    /// What was learned, by namespace and name.
    pub fn finish(self) -> Vec<LeaseReport> {
        let reports = self.leases.into_values().map(|lease| {
            let mut report = lease.report;
            report.renewals.finish();
            report
        });
        reports.collect()
    }
}

impl Followed {
    fn new(event: &Event) -> Self {
        Self {
            report: LeaseReport {
                namespace: event.namespace.clone(),
                name: event.name.clone(),
                level: event.level,
                first: event.time,
                last: event.time,
                writes: 0,
                terms: Vec::new(),
                changes: 0,
                inferred_changes: 0,
                sooner_than_expiry: 0,
                releases: 0,
                deletions: 0,
                seconds_without_leader: 0.0,
                longest_failover_seconds: None,
                renewals: Renewals::default(),
                refused: BTreeMap::new(),
                unknown: 0,
                dry_runs: 0,
                failed_open: 0,
                not_judged: 0,
                would_be_refused: 0,
                findings: Vec::new(),
            },
            stored: None,
            renewed: None,
            free_since: None,
            writer: None,
        }
    }

    fn take(&mut self, event: &Event, policy: &Policy, given: Option<i64>) {
        if event.dry_run {
            self.report.dry_runs += 1;
            return;
        }
        if event.may_be_stored() {
            // What is stored now, only a later write tells.
            self.report.unknown += 1;
            self.stored = None;
            return;
        }
        if !event.is_stored() {
            *self.report.refused.entry(refuser(event)).or_default() += 1;
            return;
        }
        self.report.level = self.report.level.min(event.level);
        self.report.last = event.time;
        self.report.failed_open += u64::from(event.failed_open);
        if event.verb == Verb::Delete {
            self.report.writes += 1;
            self.delete(event, policy);
            return;
        }
        match self.object_after(event) {
            Some(object) => self.write(event, object, policy),
            None if event.level == Level::Metadata => self.write_unseen(event, given),
            // A JSON Patch to a record that is not known.
            None => {
                self.report.writes += 1;
                self.report.not_judged += 1;
                self.stored = None;
            }
        }
    }

    /// The lease as the write leaves it, as far as the log tells.
    fn object_after(&self, event: &Event) -> Option<Value> {
        if let Some(response) = &event.response {
            return Some(response.clone());
        }
        let request = event.request.as_ref()?;
        match event.verb {
            Verb::Create | Verb::Update => Some(without_managed_fields(request.clone())),
            // The fields of a Lease's spec are scalars: a strategic merge patch and an apply do what a merge patch does.
            Verb::Patch if request.is_object() => {
                let mut object = self.stored.as_ref()?.object.clone();
                merge(&mut object, request);
                Some(without_managed_fields(object))
            }
            Verb::Patch | Verb::Delete => None,
        }
    }

    fn write(&mut self, event: &Event, object: Value, policy: &Policy) {
        let is_create = event.verb == Verb::Create || event.code == 201;
        let old = self.stored.take().filter(|_| !is_create);
        let version = |object: &Value| text(object, "/metadata/resourceVersion").map(str::to_owned);
        if let Some(old) = &old
            && event.response.is_some()
            && version(&old.object).is_some()
            && version(&old.object) == version(&object)
        {
            // Nothing was written, though the answer is 200.
            self.stored = Some(old.clone());
            return;
        }
        self.report.writes += 1;
        let holder = text(&object, "/spec/holderIdentity")
            .unwrap_or_default()
            .to_owned();
        let old_holder = old
            .as_ref()
            .and_then(|old| text(&old.object, "/spec/holderIdentity"));
        let is_known = old.is_some() || is_create;
        let same_holder = old_holder.unwrap_or_default() == holder;
        let is_renewed = old
            .as_ref()
            .is_none_or(|old| text(&old.object, "/spec/renewTime") != text(&object, "/spec/renewTime"));
        let times = match &old {
            Some(old) => Times {
                holder: if same_holder { old.times.holder } else { event.time },
                renewal: if is_renewed { event.time } else { old.times.renewal },
            },
            None => Times {
                holder: event.time,
                renewal: event.time,
            },
        };
        let new = Stored {
            object,
            times,
            manager: event.field_manager.clone().unwrap_or_default(),
        };
        let duration = duration_of(&new.object);
        if is_known {
            let old_duration = old.as_ref().and_then(|old| duration_of(&old.object));
            // Most writes by far, and none that the webhook would be asked about.
            let is_pure = old
                .as_ref()
                .is_some_and(|old| is_pure_renewal(&old.object, &new.object));
            if !is_pure {
                let judged = judge(policy, event, old.as_ref(), Some(&new));
                let change = judged.as_ref().map(|judged| judged.change);
                self.follow(event, change, &holder, old_duration);
                self.note(judged);
            }
            if same_holder && !holder.is_empty() && is_renewed && !is_create {
                self.renew(event.time, old_duration.or(duration));
            }
        } else {
            self.report.not_judged += 1;
            if !holder.is_empty() && !self.leads(&holder) {
                self.begin(event, holder.clone(), false, true);
            }
        }
        if !holder.is_empty() {
            self.renewed = Some(event.time);
        }
        self.stored = Some(new);
    }

    /// What a write changes of who leads.
    fn follow(&mut self, event: &Event, change: Option<Change>, holder: &str, valid: Option<i64>) {
        let end = match change {
            Some(Change::Takeover) => End::TakenOver,
            Some(Change::Handover) => End::HandedOver,
            Some(Change::Release) => {
                self.report.releases += 1;
                self.end(End::Released, event.time);
                self.free_since = Some(event.time);
                return;
            }
            Some(Change::Acquire) => End::Released,
            Some(Change::Create) if !holder.is_empty() => {
                self.vacant_until(event.time);
                self.begin(event, holder.to_owned(), false, false);
                return;
            }
            _ => return,
        };
        self.report.changes += 1;
        if let Some(renewed) = self.renewed {
            let failover = seconds_between(renewed, event.time);
            if end == End::TakenOver {
                self.report.seconds_without_leader +=
                    valid.map_or(0.0, |valid| (failover - as_seconds(valid)).max(0.0));
            }
            let longest = self.report.longest_failover_seconds.get_or_insert(failover);
            *longest = longest.max(failover);
        }
        self.vacant_until(event.time);
        self.end(end, self.renewed.unwrap_or(event.time));
        self.begin(event, holder.to_owned(), false, false);
    }

    /// A write of which the log says who made it and when.
    fn write_unseen(&mut self, event: &Event, given: Option<i64>) {
        self.report.writes += 1;
        self.report.not_judged += 1;
        if self.writer.as_ref() == Some(&event.writer) {
            self.renew(event.time, given);
            self.renewed = Some(event.time);
            return;
        }
        let is_first = self.writer.is_none();
        if let Some(renewed) = self.renewed.filter(|_| !is_first) {
            let failover = seconds_between(renewed, event.time);
            self.report.inferred_changes += 1;
            if given.is_some_and(|valid| failover < as_seconds(valid)) {
                self.report.sooner_than_expiry += 1;
            }
            let longest = self.report.longest_failover_seconds.get_or_insert(failover);
            *longest = longest.max(failover);
            if let Some(valid) = given {
                self.report.seconds_without_leader += (failover - as_seconds(valid)).max(0.0);
            }
            self.end(End::Unknown, renewed);
        }
        self.writer = Some(event.writer.clone());
        let holder = event.pod.clone().unwrap_or_else(|| event.user.clone());
        self.begin(event, holder, true, is_first && event.verb != Verb::Create);
        self.renewed = Some(event.time);
    }

    fn delete(&mut self, event: &Event, policy: &Policy) {
        self.report.deletions += 1;
        match self.stored.take() {
            Some(old) => self.note(judge(policy, event, Some(&old), None)),
            None => self.report.not_judged += 1,
        }
        self.end(End::Deleted, event.time);
        self.free_since = Some(event.time);
        self.writer = None;
    }

    fn renew(&mut self, at: Timestamp, duration: Option<i64>) {
        if let Some(renewed) = self.renewed {
            let interval = seconds_between(renewed, at);
            self.report.renewals.add(interval, at, duration);
            // Expired meanwhile, and nobody took it.
            if let Some(duration) = duration {
                self.report.seconds_without_leader += (interval - as_seconds(duration)).max(0.0);
            }
        }
        if let Some(term) = self.report.terms.last_mut().filter(|term| term.end == End::Open) {
            term.renewals += 1;
            term.to = at;
        }
    }

    fn note(&mut self, judged: Option<Judged>) {
        let Some(judged) = judged else {
            self.report.not_judged += 1;
            return;
        };
        self.report.would_be_refused += u64::from(judged.would_be_denied);
        let room = MOST_FINDINGS.saturating_sub(self.report.findings.len());
        self.report
            .findings
            .extend(judged.findings.into_iter().take(room));
    }

    fn vacant_until(&mut self, time: Timestamp) {
        if let Some(since) = self.free_since.take() {
            self.report.seconds_without_leader += seconds_between(since, time).max(0.0);
        }
    }

    fn leads(&self, holder: &str) -> bool {
        self.report
            .terms
            .last()
            .is_some_and(|term| term.end == End::Open && term.holder == holder)
    }

    fn begin(&mut self, event: &Event, holder: String, inferred: bool, began_before: bool) {
        self.end(End::Unknown, event.time);
        if self.report.terms.len() < MOST_TERMS {
            self.report.terms.push(Term {
                holder,
                inferred,
                user: event.user.clone(),
                pod: event.pod.clone(),
                from: event.time,
                began_before,
                to: event.time,
                renewals: 0,
                end: End::Open,
            });
        }
    }

    fn end(&mut self, end: End, at: Timestamp) {
        if let Some(term) = self.report.terms.last_mut().filter(|term| term.end == End::Open) {
            term.end = end;
            term.to = term.to.max(at);
        }
    }
}

/// What refused a write, in a word.
fn refuser(event: &Event) -> String {
    let message = event.refusal.as_deref().unwrap_or_default();
    if event.code == 409 {
        return "conflict".to_owned();
    }
    if let Some((_, rest)) = message.split_once("admission webhook \"") {
        let name = rest.split('"').next().unwrap_or_default();
        return format!("webhook {name}");
    }
    if let Some((_, rest)) = message.split_once("ValidatingAdmissionPolicy '") {
        let name = rest.split('\'').next().unwrap_or_default();
        return format!("policy {name}");
    }
    format!("HTTP {}", event.code)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}
