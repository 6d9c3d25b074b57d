//! What is counted of single leases and holders: the few families whose labels come from outside.
//!
//! Anybody who may write a Lease chooses such names, so their number and their length are bounded: of leases and of
//! holders [`MOST_TRACKED`] have series of their own, and what comes beyond that is counted together, as `other`.
//! One that nothing was heard of for [`FORGOTTEN_AFTER`] makes room.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::{
    lease::{ObjectKind, Purpose, Write},
    verdict::{Decision, Outcome, Verdict},
};

/// So many leases, and so many holders, have series of their own. A lease has six, a holder one: together they stay
/// under a thousand, which a scrape carries with ease.
pub const MOST_TRACKED: usize = 100;

/// So long after the last word of it, a lease or a holder no longer has series of its own: long after any leader
/// election that is under way.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Longest name in a label, in bytes: as long as Kubernetes lets a name be. Only a holder's can be longer.
const LONGEST_NAME: usize = 253;

/// The name of what has no series of its own. Its namespace is empty, which no real one is.
const OTHER: &str = "other";

/// One lease, as labels name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LeaseKey {
    namespace: Box<str>,
    name: Box<str>,
    kind: &'static str,
}

/// One holder, as labels name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HolderKey {
    namespace: Box<str>,
    holder: Box<str>,
}

#[derive(Clone, Debug, Default)]
struct LeaseCounts {
    holder_changes: u64,
    violations: [u64; Decision::ALL.len()],
}

/// What is known of each of a bounded number of things, and of all others together.
#[derive(Clone, Debug)]
struct Tracked<K, V> {
    each: BTreeMap<K, (Timestamp, V)>,
    other: V,
}

impl<K: Ord + Clone, V: Default> Tracked<K, V> {
    fn new() -> Self {
        Self {
            each: BTreeMap::new(),
            other: V::default(),
        }
    }

    fn get(&mut self, key: K, now: Timestamp) -> &mut V {
        if !self.each.contains_key(&key) && self.each.len() >= MOST_TRACKED {
            self.forget(now);
            if self.each.len() >= MOST_TRACKED {
                return &mut self.other;
            }
        }
        let (seen, value) = self.each.entry(key).or_insert_with(|| (now, V::default()));
        *seen = now;
        value
    }

    fn forget(&mut self, now: Timestamp) {
        self.each
            .retain(|_, (seen, _)| now.duration_since(*seen) < FORGOTTEN_AFTER);
    }
}

#[derive(Debug)]
struct Series {
    leases: Tracked<LeaseKey, LeaseCounts>,
    /// Seconds that the holder's clock was last seen ahead.
    holders: Tracked<HolderKey, f64>,
}

/// The families `leasehold_lease_*` and `leasehold_holder_*`. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct LeaseMetrics {
    series: Arc<Mutex<Series>>,
}

impl LeaseMetrics {
    /// No lease was seen yet.
    pub fn new() -> Self {
        let series = Series {
            leases: Tracked::new(),
            holders: Tracked::new(),
        };
        Self {
            series: Arc::new(Mutex::new(series)),
        }
    }

    /// What Prometheus reads.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.clone())
    }

    /// Counts one verdict on a lease. A dry run changes no lease, and is not counted.
    pub fn record(&self, write: &Write<'_>, verdict: &Verdict, dry_run: bool) {
        // The holder of a status board or a lock changes with each use of it, and says nothing of a leader.
        let changed = write.change.changes_the_holder()
            && verdict.purpose != Purpose::Untimed
            && verdict.outcome() != Outcome::Deny;
        let skew = verdict.skew.zip(write.new.record.holder.as_deref());
        if dry_run || (!changed && verdict.violations.is_empty() && skew.is_none()) {
            return;
        }
        // Whatever allocates is done before, so that other reviews wait for two look-ups at the most.
        let lease = (changed || !verdict.violations.is_empty()).then(|| LeaseKey {
            namespace: cut(&write.lease.namespace),
            name: cut(&write.lease.name),
            kind: write.lease.kind.as_str(),
        });
        let holder = skew.map(|(skew, holder)| {
            let key = HolderKey {
                namespace: cut(&write.lease.namespace),
                holder: cut(holder),
            };
            (key, skew.as_secs_f64())
        });
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = lease {
            let counts = series.leases.get(lease, write.reviewed);
            counts.holder_changes += u64::from(changed);
            for violation in &verdict.violations {
                if let Some(count) = counts.violations.get_mut(violation.decision() as usize) {
                    *count += 1;
                }
            }
        }
        if let Some((holder, skew)) = holder {
            *series.holders.get(holder, write.reviewed) = skew;
        }
    }

    fn encode_at(&self, now: Timestamp, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (leases, holders) = {
            let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.leases.forget(now);
            series.holders.forget(now);
            // Copied, so that no review waits for the text to be written.
            (series.leases.clone(), series.holders.clone())
        };
        let other = LeaseKey {
            namespace: "".into(),
            name: OTHER.into(),
            kind: ObjectKind::Lease.as_str(),
        };
        let leases: Vec<_> = leases
            .each
            .into_iter()
            .map(|(key, (_, counts))| (key, counts))
            .chain([(other, leases.other)])
            .collect();
        let mut family = encoder.encode_descriptor(
            "lease_holder_changes",
            "Reviewed and allowed changes of who holds one lease, for as many leases as are told apart; the others together have no namespace",
            None,
            MetricType::Counter,
        )?;
        for (lease, counts) in &leases {
            let labels = LeaseLabels {
                lease,
                decision: None,
            };
            ConstCounter::new(counts.holder_changes).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "lease_violations",
            "Rules that fired on one lease, by what that led to, for as many leases as are told apart; the others together have no namespace",
            None,
            MetricType::Counter,
        )?;
        for (lease, counts) in &leases {
            for (decision, count) in Decision::ALL.into_iter().zip(counts.violations) {
                let decision = Some(decision.label());
                let labels = LeaseLabels { lease, decision };
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let other = HolderKey {
            namespace: "".into(),
            holder: OTHER.into(),
        };
        let holders = holders
            .each
            .into_iter()
            .map(|(key, (_, skew))| (key, skew))
            .chain([(other, holders.other)]);
        let mut family = encoder.encode_descriptor(
            "holder_clock_skew",
            "How far the clock of one holder was ahead of the API server's when it last wrote (negative: behind), for as many holders as are told apart; the others together have no namespace",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (holder, skew) in holders {
            ConstGauge::new(skew).encode(family.encode_family(&holder)?)?;
        }
        Ok(())
    }
}

impl Default for LeaseMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector for LeaseMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_at(Timestamp::now(), encoder)
    }
}

/// The labels of one series of one lease.
#[derive(Debug)]
struct LeaseLabels<'a> {
    lease: &'a LeaseKey,
    decision: Option<&'static str>,
}

// Not plainly `namespace`: that is the scraped pod's own, wherever Prometheus finds its targets in Kubernetes.
impl EncodeLabelSet for LeaseLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self { lease, decision } = self;
        [
            ("lease_namespace", &*lease.namespace),
            ("lease", &*lease.name),
            ("kind", lease.kind),
        ]
        .encode(encoder)?;
        decision.map_or(Ok(()), |decision| [("decision", decision)].encode(encoder))
    }
}

impl EncodeLabelSet for HolderKey {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [("lease_namespace", &*self.namespace), ("holder", &*self.holder)].encode(encoder)
    }
}

/// The beginning of a name, as much as a label takes.
fn cut(name: &str) -> Box<str> {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        lease::testing::{at, held, takeover},
        policy::Policy,
    };

    #[derive(Debug)]
    struct At(LeaseMetrics, Timestamp);

    impl Collector for At {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            self.0.encode_at(self.1, encoder)
        }
    }

    fn text(metrics: &LeaseMetrics, seconds: i64) -> String {
        let mut registry = Registry::with_prefix("leasehold");
        registry.register_collector(Box::new(At(metrics.clone(), at(seconds))));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[track_caller]
    fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
    }

    /// A takeover `age` seconds after the last renewal of a lease valid for 15 s, by a holder whose clock is 2 s
    /// ahead.
    fn record(metrics: &LeaseMetrics, name: &str, holder: &'static str, now: i64, age: i64, dry_run: bool) {
        let old = held("a").renewed_at(now - age);
        let mut write =
            takeover(old, held(holder).renewed_at(now + 2).transitions(4)).stamped(now - age, now);
        write.lease.name = name.to_owned().into();
        let verdict = Policy::default().decide(&write);
        metrics.record(&write, &verdict, dry_run);
    }

    #[test]
    fn what_is_beyond_the_bound_has_series_from_the_start() {
        let text = text(&LeaseMetrics::new(), 0);
        for line in [
            "leasehold_lease_holder_changes_total{lease_namespace=\"\",lease=\"other\",kind=\"Lease\"} 0",
            "leasehold_lease_violations_total{lease_namespace=\"\",lease=\"other\",kind=\"Lease\",decision=\"denied\"} 0",
            "leasehold_holder_clock_skew_seconds{lease_namespace=\"\",holder=\"other\"} 0.0",
        ] {
            assert_line(&text, line);
        }
    }

    #[test]
    fn changes_denials_and_skew_are_told_by_lease_and_holder_and_dry_runs_are_not() {
        let metrics = LeaseMetrics::new();
        record(&metrics, "payments", "b", 100, 20, false);
        record(&metrics, "payments", "c", 103, 3, false);
        record(&metrics, "payments", "d", 106, 20, true);
        let text = text(&metrics, 106);
        for line in [
            "leasehold_lease_holder_changes_total{lease_namespace=\"shop\",lease=\"payments\",kind=\"Lease\"} 1",
            "leasehold_lease_violations_total{lease_namespace=\"shop\",lease=\"payments\",kind=\"Lease\",decision=\"denied\"} 1",
            "leasehold_holder_clock_skew_seconds{lease_namespace=\"shop\",holder=\"b\"} 2.0",
            "leasehold_holder_clock_skew_seconds{lease_namespace=\"shop\",holder=\"c\"} 2.0",
        ] {
            assert_line(&text, line);
        }
        assert!(!text.contains("holder=\"d\""), "{text}");
    }

    #[test]
    fn beyond_the_bound_leases_share_the_other_series_until_one_is_forgotten() {
        let metrics = LeaseMetrics::new();
        let hour = FORGOTTEN_AFTER.as_secs();
        for number in 0..MOST_TRACKED + 20 {
            record(&metrics, &format!("lease-{number}"), "b", 100, 20, false);
        }
        let full = text(&metrics, 100);
        let families = full
            .lines()
            .filter(|line| line.starts_with("leasehold_lease_holder_changes_total"));
        assert_eq!(families.count(), MOST_TRACKED + 1);
        let other = |count| {
            format!(
                "leasehold_lease_holder_changes_total{{lease_namespace=\"\",lease=\"other\",kind=\"Lease\"}} {count}"
            )
        };
        assert_line(&full, &other(20));
        record(&metrics, "lease-0", "b", 100 + hour - 1, 20, false);
        record(&metrics, "late", "b", 100 + hour, 20, false);
        let later = text(&metrics, 100 + hour);
        for (lease, expected) in [("late", true), ("lease-0", true), ("lease-1", false)] {
            assert_eq!(
                later.contains(&format!("lease=\"{lease}\"")),
                expected,
                "{lease}: {later}"
            );
        }
        assert_line(&later, &other(20));
        let last = text(&metrics, 100 + 2 * hour);
        assert_eq!(
            last.matches("leasehold_lease_holder_changes_total{").count(),
            1,
            "{last}"
        );
    }

    #[test]
    fn a_name_is_cut_at_a_letter_and_its_quotes_cannot_end_the_label() {
        let long: String = std::iter::repeat_n("\u{e9}", 200).collect();
        assert_eq!(cut(&long).len(), 252, "two bytes a letter");
        let metrics = LeaseMetrics::new();
        record(&metrics, "payments", "x\"} 1\n", 100, 20, false);
        let line = "leasehold_holder_clock_skew_seconds{lease_namespace=\"shop\",holder=\"x\\\"} 1\\n\"} 2.0";
        assert_line(&text(&metrics, 100), line);
    }
}
