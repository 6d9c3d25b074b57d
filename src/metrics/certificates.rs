//! What Leasehold tells about the certificates that it manages itself.

use jiff::Timestamp;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The families `leasehold_certificates_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct CertificateMetrics {
    step: Family<[(&'static str, &'static str); 1], Gauge>,
    steps: Family<[(&'static str, &'static str); 2], Counter>,
    repairs: Family<[(&'static str, &'static str); 1], Counter>,
    polls: Family<[(&'static str, &'static str); 1], Counter>,
    writer: Gauge,
    replicas_behind: Gauge,
    authority_not_after: Gauge,
}

/// A step, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepLabel {
    /// A CA is made.
    NewAuthority,
    /// The Secret is given back a CA that `caBundle` still has.
    KeepTrusted,
    /// `caBundle` is patched.
    Publish,
    /// The API servers are waited for.
    WaitForApiServers,
    /// A leaf is issued.
    IssueLeaf,
    /// The replicas are waited for.
    WaitForReplicas,
    /// An old CA is dropped.
    Retire,
    /// All is done.
    Idle,
}

impl StepLabel {
    const ALL: [Self; 8] = [
        Self::NewAuthority,
        Self::KeepTrusted,
        Self::Publish,
        Self::WaitForApiServers,
        Self::IssueLeaf,
        Self::WaitForReplicas,
        Self::Retire,
        Self::Idle,
    ];
    /// Those that write.
    const WRITING: [Self; 5] = [
        Self::NewAuthority,
        Self::KeepTrusted,
        Self::Publish,
        Self::IssueLeaf,
        Self::Retire,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NewAuthority => "new_authority",
            Self::KeepTrusted => "keep_trusted",
            Self::Publish => "publish",
            Self::WaitForApiServers => "wait_for_api_servers",
            Self::IssueLeaf => "issue_leaf",
            Self::WaitForReplicas => "wait_for_replicas",
            Self::Retire => "retire",
            Self::Idle => "idle",
        }
    }
}

/// How a step that writes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// It was done.
    Done,
    /// Somebody else was faster.
    Conflict,
    /// The API server refused or did not answer.
    Failed,
}

impl StepResult {
    const ALL: [Self; 3] = [Self::Done, Self::Conflict, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// What was found broken and made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The CA in the Secret.
    Authority,
    /// The leaf in the Secret.
    Leaf,
    /// A `caBundle`.
    Bundle,
}

impl Repair {
    const ALL: [Self; 3] = [Self::Authority, Self::Leaf, Self::Bundle];

    const fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Leaf => "leaf",
            Self::Bundle => "bundle",
        }
    }
}

impl CertificateMetrics {
    /// Registers the families, all at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("certificates");
        let metrics = Self {
            step: Family::default(),
            steps: Family::default(),
            repairs: Family::default(),
            polls: Family::default(),
            writer: Gauge::default(),
            replicas_behind: Gauge::default(),
            authority_not_after: Gauge::default(),
        };
        for step in StepLabel::ALL {
            drop(metrics.step.get_or_create(&[("step", step.name())]));
        }
        for step in StepLabel::WRITING {
            for result in StepResult::ALL {
                let labels = [("step", step.name()), ("result", result.name())];
                drop(metrics.steps.get_or_create(&labels));
            }
        }
        for repair in Repair::ALL {
            drop(metrics.repairs.get_or_create(&[("what", repair.name())]));
        }
        for result in ["ok", "failed"] {
            drop(metrics.polls.get_or_create(&[("result", result)]));
        }
        registry.register(
            "step",
            "1 for where the rotation of self-managed certificates stands, by the replica that is elected to write; all 0 on the others",
            metrics.step.clone(),
        );
        registry.register(
            "steps",
            "Writes for self-managed certificates by what came of them; conflict means that another replica was faster",
            metrics.steps.clone(),
        );
        registry.register(
            "repairs",
            "What was found broken, expired or missing and made anew: the CA or the leaf in the Secret, or a caBundle",
            metrics.repairs.clone(),
        );
        registry.register(
            "polls",
            "Looks at the Secret of self-managed certificates: ok, or failed where the API server did not answer or refused",
            metrics.polls.clone(),
        );
        registry.register(
            "writer",
            "1 while this replica is the one that is elected to write self-managed certificates",
            metrics.writer.clone(),
        );
        registry.register(
            "replicas_behind",
            "Replicas that, by their reports, do not serve the newest leaf yet; known to the writer during a rotation of the CA",
            metrics.replicas_behind.clone(),
        );
        registry.register_with_unit(
            "authority_not_after_timestamp",
            "When the self-managed CA expires, in seconds since 1970; 0 before it was seen",
            Unit::Seconds,
            metrics.authority_not_after.clone(),
        );
        metrics
    }

    /// Where the rotation stands; None on a replica that is not elected.
    pub fn stands_at(&self, step: Option<StepLabel>, replicas_behind: usize) {
        for label in StepLabel::ALL {
            let value = i64::from(step == Some(label));
            self.step.get_or_create(&[("step", label.name())]).set(value);
        }
        self.writer.set(i64::from(step.is_some()));
        self.replicas_behind
            .set(i64::try_from(replicas_behind).unwrap_or(i64::MAX));
    }

    /// A step that writes ended so.
    pub fn stepped(&self, step: StepLabel, result: StepResult) {
        let labels = [("step", step.name()), ("result", result.name())];
        self.steps.get_or_create(&labels).inc();
    }

    /// Something broken was made anew.
    pub fn repaired(&self, what: Repair) {
        self.repairs.get_or_create(&[("what", what.name())]).inc();
    }

    /// A look at the Secret succeeded or failed.
    pub fn polled(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.polls.get_or_create(&[("result", result)]).inc();
    }

    /// The CA expires then.
    pub fn authority_expires(&self, not_after: Timestamp) {
        self.authority_not_after.set(not_after.as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_at_zero_and_one_step_at_a_time_is_one() {
        let mut registry = Registry::with_prefix("leasehold");
        let metrics = CertificateMetrics::register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let at_first = text(&registry);
        for series in [
            "leasehold_certificates_step{step=\"idle\"} 0",
            "leasehold_certificates_steps_total{step=\"publish\",result=\"conflict\"} 0",
            "leasehold_certificates_repairs_total{what=\"bundle\"} 0",
            "leasehold_certificates_polls_total{result=\"failed\"} 0",
            "leasehold_certificates_writer 0",
            "leasehold_certificates_replicas_behind 0",
            "leasehold_certificates_authority_not_after_timestamp_seconds 0",
        ] {
            assert!(at_first.contains(series), "{series} is not in\n{at_first}");
        }
        metrics.stands_at(Some(StepLabel::Publish), 0);
        metrics.stands_at(Some(StepLabel::WaitForReplicas), 2);
        let later = text(&registry);
        for series in [
            "leasehold_certificates_step{step=\"publish\"} 0",
            "leasehold_certificates_step{step=\"wait_for_replicas\"} 1",
            "leasehold_certificates_writer 1",
            "leasehold_certificates_replicas_behind 2",
        ] {
            assert!(later.contains(series), "{series} is not in\n{later}");
        }
    }
}
