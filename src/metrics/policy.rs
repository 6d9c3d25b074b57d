//! What Leasehold tells about its policy.

use jiff::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::policy::Mode;

/// The values of the label `mode`.
const MODES: [Mode; 3] = [Mode::Off, Mode::Audit, Mode::Enforce];

/// How an attempt to load a policy ended; the values of the label `result`.
const LOADED: &str = "loaded";
const REFUSED: &str = "refused";
const MISSING: &str = "missing";

/// What came of a write to the policy's ConfigMap; the values of the label `result` of the reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyReview {
    /// A good policy, or nothing that changes it.
    Allowed,
    /// A bad one, refused.
    Denied,
    /// A bad one, let through by break-glass.
    Excused,
    /// An object that is not the policy's.
    Foreign,
}

impl PolicyReview {
    const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Excused, Self::Foreign];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Excused => "excused",
            Self::Foreign => "foreign",
        }
    }
}

/// The families `leasehold_policy_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct PolicyMetrics {
    loads: Family<[(&'static str, &'static str); 1], Counter>,
    reviews: Family<[(&'static str, &'static str); 1], Counter>,
    last_load_successful: Gauge,
    last_success: Gauge,
    watch_errors: Counter,
    watch_up: Gauge,
    active: Family<[(&'static str, String); 1], Gauge>,
    modes: [(Mode, Gauge); MODES.len()],
}

impl PolicyMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("policy");
        let modes = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        let metrics = Self {
            loads: Family::default(),
            reviews: Family::default(),
            last_load_successful: Gauge::default(),
            last_success: Gauge::default(),
            watch_errors: Counter::default(),
            watch_up: Gauge::default(),
            active: Family::default(),
            modes: MODES.map(|mode| (mode, modes.get_or_create_owned(&[("mode", mode.as_str())]))),
        };
        for result in [LOADED, REFUSED, MISSING] {
            drop(metrics.loads.get_or_create(&[("result", result)]));
        }
        for review in PolicyReview::ALL {
            drop(metrics.reviews.get_or_create(&[("result", review.as_str())]));
        }
        registry.register(
            "reviews",
            "Writes to the policy ConfigMap by what came of them: allowed, denied (not a valid policy), excused (not valid, and let through by break-glass), foreign (not the policy ConfigMap)",
            metrics.reviews.clone(),
        );
        registry.register(
            "loads",
            "Policy documents by what came of them: loaded, refused (not a valid policy), missing (no ConfigMap, or no such key)",
            metrics.loads.clone(),
        );
        registry.register(
            "last_load_successful",
            "1 if the last policy document that was seen is the one in force, 0 if it was refused or is missing and an older one stays",
            metrics.last_load_successful.clone(),
        );
        registry.register_with_unit(
            "last_successful_load_timestamp",
            "When a policy was last put into force, in seconds since 1970; 0 if never",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        registry.register(
            "watch_errors",
            "Failed attempts to list or watch the policy ConfigMap",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "watch_up",
            "1 while the policy ConfigMap is being watched, 0 while the API server cannot be asked for it",
            metrics.watch_up.clone(),
        );
        registry.register(
            "active",
            "1 for the policy in force, by the resourceVersion of its ConfigMap (empty for a file)",
            metrics.active.clone(),
        );
        registry.register(
            "mode",
            "1 for the mode of the policy in force, which overrides may change for some leases; all 0 before there is a policy",
            modes,
        );
        metrics
    }

    /// A policy with this mode was put into force at `now`; `resource_version` is its ConfigMap's, and empty for a
    /// file.
    pub fn loaded(&self, resource_version: &str, mode: Mode, now: Timestamp) {
        self.loads.get_or_create(&[("result", LOADED)]).inc();
        self.last_load_successful.set(1);
        self.last_success.set(now.as_second());
        for (each, gauge) in &self.modes {
            gauge.set(i64::from(*each == mode));
        }
        self.stands_at(resource_version);
    }

    /// The policy in force now stands at another `resource_version`, unchanged.
    pub fn stands_at(&self, resource_version: &str) {
        // One series at a time: resourceVersions are without bound.
        self.active.clear();
        self.active
            .get_or_create(&[("resource_version", resource_version.to_owned())])
            .set(1);
    }

    /// A write to the policy's ConfigMap was reviewed.
    pub fn reviewed(&self, review: PolicyReview) {
        self.reviews.get_or_create(&[("result", review.as_str())]).inc();
    }

    /// A document was refused; what was in force stays.
    pub fn refused(&self) {
        self.loads.get_or_create(&[("result", REFUSED)]).inc();
        self.last_load_successful.set(0);
    }

    /// The ConfigMap or its key is not there; what was in force stays.
    pub fn missing(&self) {
        self.loads.get_or_create(&[("result", MISSING)]).inc();
        self.last_load_successful.set(0);
    }

    /// The ConfigMap was seen.
    pub fn watching(&self) {
        self.watch_up.set(1);
    }

    /// An attempt to see the ConfigMap failed.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
        self.watch_up.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn every_series_is_there_at_zero() {
        let mut registry = Registry::with_prefix("leasehold");
        PolicyMetrics::register(&mut registry);
        let text = text(&registry);
        for series in [
            "leasehold_policy_loads_total{result=\"loaded\"} 0",
            "leasehold_policy_loads_total{result=\"refused\"} 0",
            "leasehold_policy_loads_total{result=\"missing\"} 0",
            "leasehold_policy_last_load_successful 0",
            "leasehold_policy_last_successful_load_timestamp_seconds 0",
            "leasehold_policy_watch_errors_total 0",
            "leasehold_policy_watch_up 0",
            "leasehold_policy_mode{mode=\"enforce\"} 0",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn a_refused_policy_leaves_the_older_one_named_as_active() {
        let mut registry = Registry::with_prefix("leasehold");
        let metrics = PolicyMetrics::register(&mut registry);
        metrics.loaded("6", Mode::Enforce, Timestamp::from_second(1000).unwrap());
        metrics.loaded("7", Mode::Audit, Timestamp::from_second(2000).unwrap());
        metrics.refused();
        let text = text(&registry);
        assert!(
            text.contains("leasehold_policy_active{resource_version=\"7\"} 1"),
            "{text}"
        );
        assert!(
            !text.contains("resource_version=\"6\""),
            "one series at a time: {text}"
        );
        assert!(text.contains("leasehold_policy_last_load_successful 0"), "{text}");
        for line in [
            "leasehold_policy_mode{mode=\"audit\"} 1",
            "leasehold_policy_mode{mode=\"enforce\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(
            text.contains("leasehold_policy_last_successful_load_timestamp_seconds 2000"),
            "{text}"
        );
    }
}
