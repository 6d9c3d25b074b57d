//! What Leasehold tells about its registration.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::cluster::registration::{Problem, ProblemKind};

/// The values of the label `result`.
const REPAIRED: &str = "repaired";
const FAILED: &str = "failed";

/// The families `leasehold_registration_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct RegistrationMetrics {
    problems: Family<[(&'static str, &'static str); 1], Gauge>,
    repairs: Family<[(&'static str, &'static str); 1], Counter>,
    watch_errors: Counter,
    watch_up: Gauge,
}

impl RegistrationMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("registration");
        let metrics = Self::default();
        metrics.stands(std::iter::empty());
        for result in [REPAIRED, FAILED] {
            drop(metrics.repairs.get_or_create(&[("result", result)]));
        }
        registry.register(
            "problems",
            "What differs between the ValidatingWebhookConfiguration and the manifests, by field; configuration-missing and webhook-missing: what is gone; ca-bundle: it does not verify the certificate that is served",
            metrics.problems.clone(),
        );
        registry.register(
            "repairs",
            "Attempts to restore the registration (--repair-registration) by what came of them",
            metrics.repairs.clone(),
        );
        registry.register(
            "watch_errors",
            "Failed attempts to list or watch the ValidatingWebhookConfiguration",
            metrics.watch_errors.clone(),
        );
        registry.register(
            "watch_up",
            "1 while the ValidatingWebhookConfiguration is being watched, 0 while the API server cannot be asked for it, or nobody said which it is",
            metrics.watch_up.clone(),
        );
        metrics
    }

    /// These problems, and no others, are known.
    pub fn stands<'a>(&self, problems: impl Iterator<Item = &'a Problem> + Clone) {
        for kind in ProblemKind::ALL {
            let count = problems.clone().filter(|problem| problem.kind == kind).count();
            self.problems
                .get_or_create(&[("problem", kind.as_str())])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Whether the configuration is being watched.
    pub fn watching(&self, up: bool) {
        self.watch_up.set(i64::from(up));
    }

    /// It could not be listed or watched, or not any longer.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// A repair was tried.
    pub fn repaired(&self, succeeded: bool) {
        let result = if succeeded { REPAIRED } else { FAILED };
        self.repairs.get_or_create(&[("result", result)]).inc();
    }
}
