//! Electors: programs that want to lead. Correct ones follow client-go's contract; the others have one flaw each.
//!
//! The contract (`client-go/tools/leaderelection/leaderelection.go`): a candidate judges only by what it saw
//! itself, on its own monotonic clock: a lease is valid for the record's duration since the candidate last saw
//! the record change. It takes over with the resourceVersion that it read, and counts the transition.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::SignedDuration;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    event::{Acquisition, Event, EventKind, StopReason},
    store::{ApiError, LeaseKey, LeaseStore, Writer},
};

/// What is wrong with an elector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Reads expiry from the record's renewTime by its own wall clock, which is wrong by this much
    /// (kubernetes/kubernetes#125761).
    WallClock(SignedDuration),
    /// Waits for a time of its own in place of the record's duration (kubernetes/kubernetes#47671,
    /// fabric8io/kubernetes-client#7160).
    OwnPatience(Duration),
    /// Never looks whether the lease is held, and patches without a resourceVersion, so that nothing conflicts.
    BlindPatch,
    /// Leaves leaseTransitions as it is when it takes over.
    MiscountsTransitions,
}

/// The timing of an elector, in client-go's terms.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others wait after the last renewal that they saw; whole seconds in the record.
    pub lease_duration: Duration,
    /// How long a leader works on while its renewals fail.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry_period: Duration,
}

/// What all electors of an act share.
#[derive(Debug)]
pub struct Surroundings<S> {
    /// Where the leases live.
    pub store: Arc<S>,
    /// The true time.
    pub clock: Clock,
    /// Where they tell what happens to them.
    pub events: mpsc::UnboundedSender<Event>,
    /// Writes that they sent.
    pub writes: Arc<AtomicU64>,
}

impl<S> Clone for Surroundings<S> {
    fn clone(&self) -> Self {
        let Self {
            store,
            clock,
            events,
            writes,
        } = self;
        Self {
            store: Arc::clone(store),
            clock: *clock,
            events: events.clone(),
            writes: Arc::clone(writes),
        }
    }
}

/// One elector.
#[derive(Debug)]
pub struct Elector<S> {
    /// Its number in the act's cast; events carry it.
    pub index: usize,
    /// Its holder identity, and its pod's name.
    pub identity: String,
    /// The lease it wants.
    pub key: LeaseKey,
    /// Its timing.
    pub timing: Timing,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// The world.
    pub surroundings: Surroundings<S>,
}

/// The record as it was last seen, and when it was first seen so.
struct Observed {
    lease: Lease,
    since: Instant,
}

enum Attempt {
    Failed,
    Renewed,
    Acquired(Acquisition),
}

enum Tenure {
    Lost,
    Released,
}

impl<S: LeaseStore> Elector<S> {
    /// Runs until `leave` is cancelled; a leader then releases its lease first.
    pub async fn run(self, leave: CancellationToken) {
        let mut observed = None;
        loop {
            let acquisition = loop {
                if let Attempt::Acquired(how) = self.try_acquire_or_renew(&mut observed).await {
                    break how;
                }
                if self.rest(&leave).await {
                    self.tell(EventKind::Left);
                    return;
                }
            };
            self.tell(EventKind::Leads(acquisition));
            match self.hold(&mut observed, &leave).await {
                Tenure::Lost => self.tell(EventKind::Stops(StopReason::Lost)),
                Tenure::Released => {
                    // The work ends before the lease is given away.
                    self.tell(EventKind::Stops(StopReason::Released));
                    self.release(observed).await;
                    return;
                }
            }
        }
    }

    /// Waits one retry period; true when it is time to leave.
    async fn rest(&self, leave: &CancellationToken) -> bool {
        timeout(self.timing.retry_period, leave.cancelled()).await.is_ok()
    }

    /// Renews until that fails for the renew deadline. Until then the leader works on, whoever holds the lease.
    async fn hold(&self, observed: &mut Option<Observed>, leave: &CancellationToken) -> Tenure {
        loop {
            if self.rest(leave).await {
                return Tenure::Released;
            }
            let renewal = async {
                while matches!(self.try_acquire_or_renew(observed).await, Attempt::Failed) {
                    sleep(self.timing.retry_period).await;
                }
            };
            if timeout(self.timing.renew_deadline, renewal).await.is_err() {
                return Tenure::Lost;
            }
        }
    }

    async fn try_acquire_or_renew(&self, observed: &mut Option<Observed>) -> Attempt {
        match self.attempt(observed).await {
            Ok(attempt) => attempt,
            Err(error) if error.is_denial() => {
                self.tell(EventKind::Denied(error));
                Attempt::Failed
            }
            Err(error) => {
                tracing::debug!(elector = self.identity, %error, "attempt failed");
                Attempt::Failed
            }
        }
    }

    async fn attempt(&self, observed: &mut Option<Observed>) -> Result<Attempt, ApiError> {
        let Surroundings { store, .. } = &self.surroundings;
        let current = match store.get(&self.key).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = Lease {
                    spec: Some(self.record(None)),
                    ..Lease::default()
                };
                self.count_write();
                let created = store.create(&self.writer(), &self.key, &lease).await?;
                observe(observed, created);
                return Ok(Attempt::Acquired(Acquisition::Created));
            }
            Err(error) => return Err(error),
        };
        let since = observe(observed, current.clone());
        let old = current.spec.clone().unwrap_or_default();
        let holder = old.holder_identity.clone().unwrap_or_default();
        let mine = holder == self.identity;
        if !mine && !holder.is_empty() && self.is_valid(&old, since) {
            return Ok(Attempt::Failed);
        }

        let record = self.record(Some(&old));
        let acquisition = Acquisition::from_records(&old, &record, self.surroundings.clock.now());
        let written = self.write(current, record).await?;
        observe(observed, written);
        Ok(if mine {
            Attempt::Renewed
        } else {
            Attempt::Acquired(acquisition)
        })
    }

    /// Whether another's record still stands, as this elector sees it.
    fn is_valid(&self, record: &LeaseSpec, seen_since: Instant) -> bool {
        let seconds = record.lease_duration_seconds.unwrap_or_default().max(0);
        let duration = Duration::from_secs(seconds.unsigned_abs().into());
        match self.flaw {
            Flaw::BlindPatch => false,
            Flaw::OwnPatience(patience) => seen_since.elapsed() < patience,
            Flaw::WallClock(_) => record.renew_time.as_ref().is_some_and(|MicroTime(renewed)| {
                self.wall_clock().now() < renewed.saturating_add(duration).unwrap_or(*renewed)
            }),
            Flaw::None | Flaw::MiscountsTransitions => seen_since.elapsed() < duration,
        }
    }

    /// The record that this elector writes over `old`.
    fn record(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.wall_clock().now_micros());
        let seconds = i32::try_from(self.timing.lease_duration.as_secs()).unwrap_or(i32::MAX);
        let mine = old.is_some_and(|old| old.holder_identity.as_deref() == Some(self.identity.as_str()));
        let counted = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        let transitions = if old.is_none() || mine || self.flaw == Flaw::MiscountsTransitions {
            counted
        } else {
            counted.saturating_add(1)
        };
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: if mine {
                old.and_then(|old| old.acquire_time.clone())
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn write(&self, mut lease: Lease, record: LeaseSpec) -> Result<Lease, ApiError> {
        self.count_write();
        let Surroundings { store, .. } = &self.surroundings;
        if self.flaw == Flaw::BlindPatch {
            return store
                .patch(&self.writer(), &self.key, &json!({ "spec": record }))
                .await;
        }
        lease.spec = Some(record);
        store.update(&self.writer(), &self.key, &lease).await
    }

    /// client-go's release: no holder, duration 1, transitions kept.
    async fn release(&self, observed: Option<Observed>) {
        let Some(Observed { mut lease, .. }) = observed else {
            return;
        };
        let now = MicroTime(self.wall_clock().now_micros());
        if let Some(record) = &mut lease.spec {
            record.holder_identity = Some(String::new());
            record.lease_duration_seconds = Some(1);
            record.acquire_time = Some(now.clone());
            record.renew_time = Some(now);
        }
        self.count_write();
        let released = self
            .surroundings
            .store
            .update(&self.writer(), &self.key, &lease)
            .await;
        if let Err(error) = released {
            tracing::debug!(elector = self.identity, %error, "release failed; the lease has to expire");
        }
    }

    fn wall_clock(&self) -> Clock {
        match self.flaw {
            Flaw::WallClock(ahead) => self.surroundings.clock.wrong_by(ahead),
            _ => self.surroundings.clock,
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            pod: self.identity.clone(),
            field_manager: "elector".to_owned(),
        }
    }

    fn count_write(&self) {
        self.surroundings.writes.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, kind: EventKind) {
        // Nobody listens any more once an act is over.
        let _ = self.surroundings.events.send(Event {
            at: Instant::now(),
            elector: self.index,
            kind,
        });
    }
}

/// Keeps `lease` if it differs from what was seen last; the answer is since when it has been seen like that.
fn observe(observed: &mut Option<Observed>, lease: Lease) -> Instant {
    match observed {
        Some(Observed { lease: seen, since }) if seen.spec == lease.spec => {
            let since = *since;
            *seen = lease;
            since
        }
        _ => {
            observed
                .insert(Observed {
                    lease,
                    since: Instant::now(),
                })
                .since
        }
    }
}

#[cfg(test)]
#[path = "elector_tests.rs"]
mod tests;
