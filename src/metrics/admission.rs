//! What is counted of reviews and verdicts.
//!
//! Every series is looked up once, here: counting a review takes no lock and no hash.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    lease::{Change, EvidenceKind, Purpose, Write},
    policy::{BreakGlassOutcome, CATALOGUE, RuleName},
    verdict::{Decision, Outcome, Verdict},
};

/// Clock skew of writers, in seconds. Stamps are whole seconds, so one is noise; `maxSkew` is 5 by default, minutes
/// are a broken clock and hours a wrong time zone.
const SKEW_BUCKETS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0];

/// Which way a clock is wrong. Two histograms and not one with negative bounds, whose sum would be no counter: the
/// OpenMetrics specification forbids that.
const DIRECTIONS: [&str; 2] = ["ahead", "behind"];

/// The series of reviews and verdicts.
#[derive(Debug)]
pub struct AdmissionMetrics {
    reviews: Vec<(Change, [[Counter; Outcome::ALL.len()]; Purpose::ALL.len()])>,
    violations: Vec<(RuleName, [Counter; Decision::ALL.len()])>,
    holder_changes: Vec<(Change, Counter)>,
    evidence: Vec<(Option<EvidenceKind>, Counter)>,
    break_glass: [Counter; BreakGlassOutcome::ALL.len()],
    dry_runs: Counter,
    unreadable: Counter,
    unguarded: Counter,
    malformed: Counter,
    blind: Counter,
    skew_ahead: Histogram,
    skew_behind: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    change: &'static str,
    purpose: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViolationLabels {
    rule: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvidenceLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakGlassLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SkewLabels {
    direction: &'static str,
}

impl AdmissionMetrics {
    /// Registers every series, at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let reviews = Family::<ReviewLabels, Counter>::default();
        registry.register(
            "reviews",
            "Lease reviews by what the write does, what the lease is for, and what it got",
            reviews.clone(),
        );
        let violations = Family::<ViolationLabels, Counter>::default();
        registry.register(
            "violations",
            "Rules that fired, by what that led to",
            violations.clone(),
        );
        let holder_changes = Family::<ChangeLabels, Counter>::default();
        registry.register(
            "holder_changes",
            "Reviewed and allowed changes of who holds a lease, without dry runs and without leases that elect nobody by time (an allowed review may still fail)",
            holder_changes.clone(),
        );
        let evidence = Family::<EvidenceLabels, Counter>::default();
        registry.register(
            "takeover_evidence",
            "Takeovers by what was known of the lease's age",
            evidence.clone(),
        );
        let break_glass = Family::<BreakGlassLabels, Counter>::default();
        registry.register(
            "break_glass",
            "Reviews in which somebody broke glass, did not need to, or might not",
            break_glass.clone(),
        );
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let skew = Family::<SkewLabels, Histogram>::new_with_constructor(|| Histogram::new(SKEW_BUCKETS));
        registry.register_with_unit(
            "writer_clock_skew",
            "How far the clocks of lease writers are ahead of the API server's, or behind",
            Unit::Seconds,
            skew.clone(),
        );
        let [skew_ahead, skew_behind] =
            DIRECTIONS.map(|direction| skew.get_or_create_owned(&SkewLabels { direction }));
        Self {
            reviews: Change::ALL
                .map(|change| {
                    let by_purpose = Purpose::ALL.map(|purpose| {
                        Outcome::ALL.map(|outcome| {
                            let labels = ReviewLabels {
                                change: change.as_str(),
                                purpose: purpose.as_str(),
                                verdict: outcome.as_str(),
                            };
                            reviews.get_or_create(&labels).clone()
                        })
                    });
                    (change, by_purpose)
                })
                .into(),
            violations: CATALOGUE
                .iter()
                .map(|rule| {
                    let by_decision = Decision::ALL.map(|decision| {
                        let labels = ViolationLabels {
                            rule: rule.name.as_str(),
                            decision: decision.label(),
                        };
                        violations.get_or_create(&labels).clone()
                    });
                    (rule.name, by_decision)
                })
                .collect(),
            holder_changes: Change::ALL
                .into_iter()
                .filter(|change| change.changes_the_holder())
                .map(|change| {
                    (
                        change,
                        holder_changes
                            .get_or_create(&ChangeLabels {
                                change: change.as_str(),
                            })
                            .clone(),
                    )
                })
                .collect(),
            evidence: [None]
                .into_iter()
                .chain(EvidenceKind::ALL.map(Some))
                .map(|kind| {
                    let labels = EvidenceLabels {
                        kind: kind.map_or("none", EvidenceKind::as_str),
                    };
                    (kind, evidence.get_or_create(&labels).clone())
                })
                .collect(),
            break_glass: BreakGlassOutcome::ALL.map(|outcome| {
                let labels = BreakGlassLabels {
                    outcome: outcome.as_str(),
                };
                break_glass.get_or_create(&labels).clone()
            }),
            dry_runs: counter(
                registry,
                "dry_run_reviews",
                "Lease reviews of writes that store nothing",
            ),
            unreadable: counter(
                registry,
                "unreadable_reviews",
                "Bodies that were no review, answered with HTTP 400",
            ),
            unguarded: counter(
                registry,
                "unguarded_reviews",
                "Reviews of what Leasehold does not judge, allowed: the webhook is registered for too much",
            ),
            malformed: counter(
                registry,
                "malformed_records",
                "Reviews of annotation locks whose record cannot be read before or after the write, allowed",
            ),
            blind: counter(
                registry,
                "blind_lease_reviews",
                "Reviews of held leases that carry no stamp of their last renewal",
            ),
            skew_ahead,
            skew_behind,
        }
    }

    /// Counts one verdict on a lease.
    pub fn record(&self, write: &Write<'_>, verdict: &Verdict, dry_run: bool) {
        let outcome = verdict.outcome();
        if let Some((_, by_purpose)) = self.reviews.iter().find(|(change, _)| *change == write.change)
            && let Some(by_outcome) = by_purpose.get(verdict.purpose as usize)
        {
            increment(by_outcome, outcome as usize);
        }
        for violation in &verdict.violations {
            if let Some((_, by_decision)) = self.violations.iter().find(|(rule, _)| *rule == violation.rule) {
                increment(by_decision, violation.decision() as usize);
            }
        }
        if let Some(break_glass) = &verdict.break_glass {
            increment(&self.break_glass, break_glass.outcome as usize);
        }
        if write.change == Change::Takeover {
            let kind = verdict.evidence.map(|evidence| evidence.kind);
            if let Some((_, counter)) = self.evidence.iter().find(|(known, _)| *known == kind) {
                counter.inc();
            }
        }
        if write.old.record.holder.is_some() && write.old.renewed().is_none() {
            self.blind.inc();
        }
        if dry_run {
            self.dry_runs.inc();
            return;
        }
        if let Some(skew) = verdict.skew {
            let histogram = if skew.is_negative() {
                &self.skew_behind
            } else {
                &self.skew_ahead
            };
            histogram.observe(skew.abs().as_secs_f64());
        }
        if outcome != Outcome::Deny
            && verdict.purpose != Purpose::Untimed
            && let Some((_, counter)) = self
                .holder_changes
                .iter()
                .find(|(change, _)| *change == write.change)
        {
            counter.inc();
        }
    }

    /// Counts a body that was no review.
    pub fn record_unreadable(&self) {
        self.unreadable.inc();
    }

    /// Counts a review of a record that cannot be read.
    pub fn record_malformed(&self) {
        self.malformed.inc();
    }

    /// Counts a review of something that is not judged.
    pub fn record_unguarded(&self) {
        self.unguarded.inc();
    }
}

fn increment(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.inc();
    }
}
