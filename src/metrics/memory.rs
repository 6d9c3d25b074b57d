//! What Leasehold tells about its memory.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The families `leasehold_memory_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct MemoryMetrics {
    leases: Gauge,
    evictions: Counter,
    skipped: Counter,
}

impl MemoryMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("memory");
        let metrics = Self::default();
        registry.register(
            "leases",
            "Leases that are remembered for the rules that advise by the past",
            metrics.leases.clone(),
        );
        registry.register(
            "evictions",
            "Leases that were forgotten before their time, because there were too many",
            metrics.evictions.clone(),
        );
        registry.register(
            "skipped",
            "Times that a review went without memory rather than wait for another review",
            metrics.skipped.clone(),
        );
        metrics
    }

    pub(crate) fn met(&self) {
        self.leases.inc();
    }

    pub(crate) fn forgot(&self, leases: usize) {
        self.leases.dec_by(i64::try_from(leases).unwrap_or(i64::MAX));
    }

    pub(crate) fn evicted(&self, leases: usize) {
        self.evictions.inc_by(u64::try_from(leases).unwrap_or(u64::MAX));
    }

    pub(crate) fn skipped(&self) {
        self.skipped.inc();
    }
}

#[cfg(test)]
impl MemoryMetrics {
    pub(crate) fn leases(&self) -> usize {
        usize::try_from(self.leases.get()).unwrap()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    pub(crate) fn skipped_reviews(&self) -> u64 {
        self.skipped.get()
    }
}
