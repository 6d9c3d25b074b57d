//! What Leasehold tells about its audit log.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why a line was dropped; the values of the label `reason`.
const QUEUE_FULL: [(&str, &str); 1] = [("reason", "queue_full")];
const CLOSED: [(&str, &str); 1] = [("reason", "closed")];

/// The families `leasehold_audit_log_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct AuditLogMetrics {
    lines: Counter,
    dropped: Family<[(&'static str, &'static str); 1], Counter>,
    write_errors: Counter,
    queued_bytes: Gauge,
}

impl AuditLogMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("audit_log");
        let metrics = Self {
            lines: Counter::default(),
            dropped: Family::default(),
            write_errors: Counter::default(),
            queued_bytes: Gauge::default(),
        };
        for reason in [&QUEUE_FULL, &CLOSED] {
            drop(metrics.dropped.get_or_create(reason));
        }
        registry.register("lines", "Audit records written", metrics.lines.clone());
        registry.register(
            "dropped_lines",
            "Audit records lost: queue_full (the file or pipe was too slow or stuck), closed (could not be written before the end of the process)",
            metrics.dropped.clone(),
        );
        registry.register(
            "write_errors",
            "Failed attempts to write the audit log; each is tried again",
            metrics.write_errors.clone(),
        );
        registry.register(
            "queued_bytes",
            "Bytes of audit records that wait to be written",
            metrics.queued_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn written(&self, lines: u64) {
        self.lines.inc_by(lines);
    }

    pub(crate) fn dropped_queue_full(&self) {
        self.dropped.get_or_create(&QUEUE_FULL).inc();
    }

    pub(crate) fn dropped_closed(&self, lines: u64) {
        self.dropped.get_or_create(&CLOSED).inc_by(lines);
    }

    pub(crate) fn write_failed(&self) {
        self.write_errors.inc();
    }

    pub(crate) fn queued(&self, bytes: usize) {
        self.queued_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
