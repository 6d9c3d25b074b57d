//! A steady load of Lease writes that reach the webhook, each of which shows whether it was reviewed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::harness::{
    audit::text,
    leases::{Edit, Leases, Verb},
    until,
    world::World,
};

/// Writers at once, a Lease each: with one write under way each, enough for several connections to the replicas.
const WRITERS: usize = 16;

/// How long the Leases of the load last: no takeover comes in time.
const LEASE_DURATION: i64 = 600;

/// What the API server notes in its audit log on a write that a webhook with failurePolicy Ignore should have
/// reviewed and did not (`ValidatingAuditAnnotationFailedOpenKeyPrefix` in
/// `k8s.io/apiserver/pkg/admission/plugin/webhook/validating/dispatcher.go`).
const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// Writes counted by what came of them.
#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    refused_rightly: AtomicU64,
    let_through: AtomicU64,
    accepted: AtomicU64,
    refused_wrongly: AtomicU64,
}

/// The same, at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// All writes, each of which should have been reviewed.
    pub(crate) written: u64,
    /// Takeovers that came too early and were refused.
    pub(crate) refused_rightly: u64,
    /// Takeovers that came too early and passed.
    pub(crate) let_through: u64,
    /// Releases and acquisitions that passed, as they should.
    pub(crate) accepted: u64,
    /// Releases and acquisitions that did not pass, and whatever else was answered with an error.
    pub(crate) refused_wrongly: u64,
    /// From the first write to the last.
    pub(crate) took: Duration,
}

impl Counts {
    /// Writes a second, as they came to be.
    pub(crate) fn rate(&self) -> f64 {
        self.written as f64 / self.took.as_secs_f64()
    }
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    namespace: String,
    counters: Arc<Counters>,
    stopped: Arc<AtomicBool>,
    started: Instant,
    writers: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Starts the writers in a namespace of their own. `rate`, in writes a second, is what they are let write
    /// together; a machine that cannot keep up falls behind it.
    pub(crate) async fn start(world: &World, namespace: &str, rate: u32) -> anyhow::Result<Self> {
        let leases = world.leases(namespace).await?;
        let counters = Arc::new(Counters::default());
        let stopped = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(Semaphore::new(0));
        for number in 0..WRITERS {
            let now = Timestamp::now();
            let spec = held("a", now, 0);
            leases.create(&lease(number), "a", spec).await?.accepted()?;
        }
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer {
                leases: leases.clone(),
                lease: lease(number),
                counters: Arc::clone(&counters),
                turns: Arc::clone(&turns),
                stopped: Arc::clone(&stopped),
            };
            writers.spawn(writer.write());
        }
        let pacemaker = {
            let stopped = Arc::clone(&stopped);
            async move {
                let mut beat = interval(Duration::from_secs(1) / rate);
                // A write that could not be made in its time is made up for.
                beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
                while !stopped.load(Ordering::Relaxed) {
                    beat.tick().await;
                    turns.add_permits(1);
                }
                // Everybody once more, to see that it is over.
                turns.add_permits(WRITERS);
                Ok(())
            }
        };
        writers.spawn(pacemaker);
        Ok(Self {
            namespace: namespace.to_owned(),
            counters,
            stopped,
            started: Instant::now(),
            writers,
        })
    }

    /// Waits for some more writes.
    pub(crate) async fn see_more(&self, writes: u64) -> anyhow::Result<()> {
        let enough = self.counters.written.load(Ordering::Relaxed) + writes;
        until("more writes", || async {
            Ok((self.counters.written.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await
    }

    /// Takeovers that came too early and passed, so far.
    pub(crate) fn let_through(&self) -> u64 {
        self.counters.let_through.load(Ordering::Relaxed)
    }

    /// Stops the writers, and gives what they counted.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Counts> {
        self.stopped.store(true, Ordering::Relaxed);
        let took = self.started.elapsed();
        while let Some(writer) = self.writers.join_next().await {
            writer?.context("a writer of the load")?;
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Counts {
            written: count(&self.counters.written),
            refused_rightly: count(&self.counters.refused_rightly),
            let_through: count(&self.counters.let_through),
            accepted: count(&self.counters.accepted),
            refused_wrongly: count(&self.counters.refused_wrongly),
            took,
        })
    }

    /// The namespace of its Leases.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
}

fn lease(number: usize) -> String {
    format!("lock-{number}")
}

fn held(holder: &str, at: Timestamp, transitions: i64) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": LEASE_DURATION,
        "acquireTime": format!("{at:.6}"),
        "renewTime": format!("{at:.6}"),
        "leaseTransitions": transitions,
    })
}

struct Writer {
    leases: Leases,
    lease: String,
    counters: Arc<Counters>,
    turns: Arc<Semaphore>,
    stopped: Arc<AtomicBool>,
}

impl Writer {
    /// In turn: a takeover that comes too early, a release, an acquisition.
    async fn write(self) -> anyhow::Result<()> {
        let mut transitions = 0;
        loop {
            // A dry run is reviewed as any write is, and spoils nothing where it passes.
            let early = Edit::spec("b", held("b", Timestamp::now(), transitions + 1)).dry();
            let Some(code) = self.one(&early).await? else {
                return Ok(());
            };
            let counter = match code {
                403 => &self.counters.refused_rightly,
                200 => &self.counters.let_through,
                _ => &self.counters.refused_wrongly,
            };
            counter.fetch_add(1, Ordering::Relaxed);

            let released = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
            if !self.honest(&Edit::spec("a", released)).await? {
                return Ok(());
            }
            let acquired = held("a", Timestamp::now(), transitions + 1);
            if !self.honest(&Edit::spec("a", acquired)).await? {
                return Ok(());
            }
            transitions += 1;
        }
    }

    /// A write that is to pass. False when the load was stopped.
    async fn honest(&self, edit: &Edit) -> anyhow::Result<bool> {
        let Some(code) = self.one(edit).await? else {
            return Ok(false);
        };
        let counter = if code == 200 {
            &self.counters.accepted
        } else {
            &self.counters.refused_wrongly
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// One write, when it is its turn; None when the load was stopped.
    async fn one(&self, edit: &Edit) -> anyhow::Result<Option<u16>> {
        self.turns.acquire().await?.forget();
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let reply = self.leases.edit(Verb::MergePatch, &self.lease, edit).await?;
        self.counters.written.fetch_add(1, Ordering::Relaxed);
        Ok(Some(reply.code))
    }
}

/// A write that the API server let pass unreviewed, by its audit log: when it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreviewed {
    pub(crate) received: Timestamp,
    pub(crate) answered: Timestamp,
}

/// The writes to the Leases of a namespace, by the API server's audit log: how many, and those that went unreviewed.
pub(crate) async fn unreviewed(world: &World, namespace: &str) -> anyhow::Result<(usize, Vec<Unreviewed>)> {
    let audit = world.plane().await?.audit()?;
    let mut writes = 0;
    let mut unreviewed = Vec::new();
    for event in audit.lease_writes(namespace) {
        writes += 1;
        let annotations = event.get("annotations").and_then(Value::as_object);
        if annotations.is_some_and(|all| all.keys().any(|key| key.starts_with(FAILED_OPEN))) {
            unreviewed.push(Unreviewed {
                received: text(event, "/requestReceivedTimestamp").parse()?,
                answered: text(event, "/stageTimestamp").parse()?,
            });
        }
    }
    Ok((writes, unreviewed))
}
