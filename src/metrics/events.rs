//! What Leasehold tells about the Events that it writes.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

type OneLabel = [(&'static str, &'static str); 1];

/// The values of the label `write`.
const CREATE: OneLabel = [("write", "create")];
const UPDATE: OneLabel = [("write", "update")];

/// Why an occurrence was dropped; the values of the label `reason`.
const QUEUE_FULL: OneLabel = [("reason", "queue_full")];
const TOO_MANY: OneLabel = [("reason", "too_many")];
const REFUSED: OneLabel = [("reason", "refused")];

/// The families `leasehold_events_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct EventMetrics {
    writes: Family<OneLabel, Counter>,
    write_errors: Counter,
    dropped: Family<OneLabel, Counter>,
    series: Gauge,
}

impl EventMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("events");
        let metrics = Self {
            writes: Family::default(),
            write_errors: Counter::default(),
            dropped: Family::default(),
            series: Gauge::default(),
        };
        for write in [&CREATE, &UPDATE] {
            drop(metrics.writes.get_or_create(write));
        }
        for reason in [&QUEUE_FULL, &TOO_MANY, &REFUSED] {
            drop(metrics.dropped.get_or_create(reason));
        }
        registry.register(
            "writes",
            "Events written: create (a new one), update (the count of one that was there)",
            metrics.writes.clone(),
        );
        registry.register(
            "write_errors",
            "Failed attempts to write an Event; those that may succeed later are tried again",
            metrics.write_errors.clone(),
        );
        registry.register(
            "dropped",
            "Occurrences that no Event tells of: queue_full (too many at once), too_many (on too many objects), refused (by the API server, or not written before the end of the process)",
            metrics.dropped.clone(),
        );
        registry.register(
            "series",
            "Events whose counts are being kept",
            metrics.series.clone(),
        );
        metrics
    }

    pub(crate) fn created(&self) {
        self.writes.get_or_create(&CREATE).inc();
    }

    pub(crate) fn updated(&self) {
        self.writes.get_or_create(&UPDATE).inc();
    }

    pub(crate) fn write_failed(&self) {
        self.write_errors.inc();
    }

    pub(crate) fn dropped_queue_full(&self) {
        self.dropped.get_or_create(&QUEUE_FULL).inc();
    }

    pub(crate) fn dropped_too_many(&self) {
        self.dropped.get_or_create(&TOO_MANY).inc();
    }

    pub(crate) fn dropped_refused(&self, occurrences: u32) {
        self.dropped.get_or_create(&REFUSED).inc_by(occurrences.into());
    }

    pub(crate) fn keeps(&self, series: usize) {
        self.series.set(i64::try_from(series).unwrap_or(i64::MAX));
    }
}
