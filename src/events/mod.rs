//! What is told on Kubernetes objects: Events (`events.k8s.io/v1`), where `kubectl describe` shows them.
//!
//! [`EventQueue`] takes what occurred, and never waits: it is called while a review is being judged. [`SeriesBook`]
//! is the pure part behind it: it makes few writes of many occurrences. Who writes is
//! [`crate::cluster::publish_events`].

mod series;

use std::borrow::Cow;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    lease::{Change, ObjectKind, Write},
    metrics::events::EventMetrics,
    policy::Action,
    verdict::{Outcome, Verdict},
};

pub use series::{Key, Next, Outcome as WriteOutcome, SeriesBook, Told, Write as EventWrite};

/// Occurrences that wait to be taken in. Each is under 2 KiB, and taking one in costs microseconds: a queue that is
/// full means a flood, of which the first thousand tell as much as all.
const QUEUED: usize = 1024;

/// Longest `note`, in bytes (`k8s.io/kubernetes/pkg/apis/core/validation/events.go`).
const LONGEST_NOTE: usize = 1024;

/// Ends a note that was cut.
const CUT: &str = "…";

/// The object that an Event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// `apiVersion`.
    pub api_version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// `metadata.namespace`; the Event is created there. Empty for what belongs to no namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, by which `kubectl describe` finds the Event; None for an object that is not there (yet).
    pub uid: Option<String>,
}

/// Something worth an Event occurred, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// On what.
    pub regarding: Regarding,
    /// Why, in one word (`TakeoverBeforeExpiry`).
    pub reason: Cow<'static, str>,
    /// What was done about it, in one word (`Denied`).
    pub action: &'static str,
    /// For people. Of a series, the first one's is shown: the API lets no other field but the count change.
    pub note: String,
    /// Whether another note is another series, and not the same again.
    pub told_apart_by_note: bool,
    /// When.
    pub at: Timestamp,
}

/// Takes what occurred; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct EventQueue {
    queue: Option<(mpsc::Sender<Occurrence>, EventMetrics)>,
}

impl EventQueue {
    /// A queue, and its other end for whoever writes Events.
    pub fn new(metrics: EventMetrics) -> (Self, mpsc::Receiver<Occurrence>) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        let queue = Some((sender, metrics));
        (Self { queue }, receiver)
    }

    /// A queue that drops all, uncounted: outside a cluster.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Queues an occurrence. Never waits: a full queue drops it, unmade, and counts it.
    pub fn report(&self, occurrence: impl FnOnce() -> Occurrence) {
        let Some((sender, metrics)) = &self.queue else {
            return;
        };
        match sender.try_reserve() {
            Ok(place) => place.send(occurrence()),
            Err(_) => metrics.dropped_queue_full(),
        }
    }

    /// Queues an occurrence for each rule by which a write was denied, or its client warned. A dry run leaves no
    /// trace.
    pub fn report_verdict(&self, write: &Write<'_>, verdict: &Verdict, dry_run: bool) {
        if self.queue.is_none() || dry_run || write.lease.name.is_empty() {
            return;
        }
        for violation in &verdict.violations {
            let action = match violation.taken {
                Action::Enforce => "Denied",
                Action::Warn => "Warned",
                Action::Audit | Action::Off => continue,
            };
            self.report(|| Occurrence {
                regarding: regarding(write, verdict),
                reason: pascal_case(violation.rule.as_str()).into(),
                action,
                note: cut(format!("{}: {violation}", violation.decision().as_str())),
                told_apart_by_note: false,
                at: write.reviewed,
            });
        }
    }
}

fn regarding(write: &Write<'_>, verdict: &Verdict) -> Regarding {
    // An attempt to create that is denied has a uid that never shows again.
    let uid = match write.change {
        Change::Create if verdict.outcome() == Outcome::Deny => None,
        Change::Create => write.new.uid.as_deref(),
        _ => write.old.uid.as_deref(),
    };
    Regarding {
        api_version: match write.lease.kind {
            ObjectKind::Lease => "coordination.k8s.io/v1",
            ObjectKind::ConfigMap | ObjectKind::Endpoints => "v1",
        },
        kind: write.lease.kind.as_str(),
        namespace: write.lease.namespace.clone().into_owned(),
        name: write.lease.name.clone().into_owned(),
        uid: uid.map(str::to_owned),
    }
}

/// A rule's name as a reason: `takeover-before-expiry` is `TakeoverBeforeExpiry`.
fn pascal_case(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            first.into_iter().chain(letters)
        })
        .collect()
}

/// As much of a note as an Event holds.
pub fn cut(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let mut end = LONGEST_NOTE - CUT.len();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push_str(CUT);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::testing::{create, held, takeover},
        metrics::Metrics,
        policy::Policy,
    };

    fn early() -> Write<'static> {
        let mut write =
            takeover(held("a").renewed_at(-3), held("b").renewed_at(0).transitions(4)).stamped(-3, 0);
        write.old.uid = Some("uid-1".into());
        write
    }

    fn reported(write: &Write<'_>, policy: &str, dry_run: bool) -> Vec<Occurrence> {
        let (queue, mut receiver) = EventQueue::new(Metrics::new().events.clone());
        let verdict = Policy::parse(policy).unwrap().decide(write);
        queue.report_verdict(write, &verdict, dry_run);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn a_denial_is_told_on_the_lease_with_its_rule_as_the_reason() {
        let occurrences = reported(&early(), "", false);
        let [occurrence] = &occurrences[..] else {
            panic!("{occurrences:?}");
        };
        let expected = Regarding {
            api_version: "coordination.k8s.io/v1",
            kind: "Lease",
            namespace: "shop".to_owned(),
            name: "payments".to_owned(),
            uid: Some("uid-1".to_owned()),
        };
        assert_eq!(occurrence.regarding, expected);
        assert_eq!(
            (&*occurrence.reason, occurrence.action),
            ("TakeoverBeforeExpiry", "Denied")
        );
        let note = &occurrence.note;
        assert!(
            note.starts_with("denied: takeover-before-expiry: \"b\" may not take lease shop/payments"),
            "{note}"
        );
        assert!(
            note.ends_with("See: leasehold explain takeover-before-expiry"),
            "{note}"
        );
    }

    #[test]
    fn warnings_are_told_and_what_no_client_hears_of_is_not() {
        let warn = "rules: {takeover-before-expiry: {action: warn}}";
        let actions = |policy| -> Vec<_> {
            let occurrences = reported(&early(), policy, false);
            occurrences.iter().map(|occurrence| occurrence.action).collect()
        };
        assert_eq!(actions(warn), ["Warned"]);
        assert_eq!(actions("mode: audit"), [""; 0]);
        assert_eq!(
            actions("rules: {takeover-before-expiry: {action: audit}}"),
            [""; 0]
        );
        assert_eq!(reported(&early(), "", true), [], "a dry run");
    }

    #[test]
    fn an_attempt_to_create_that_is_denied_has_no_uid_to_be_found_by() {
        let mut write = create(held("a").renewed_at(0).duration(1));
        write.new.uid = Some("never".into());
        let uids = |policy| -> Vec<_> {
            let occurrences = reported(&write, policy, false);
            occurrences
                .into_iter()
                .map(|occurrence| occurrence.regarding.uid)
                .collect()
        };
        assert_eq!(uids(""), [None]);
        assert_eq!(
            uids("rules: {duration-out-of-bounds: {action: warn}}"),
            [Some("never".to_owned())]
        );
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_a_disabled_one_does_neither() {
        let metrics = Metrics::new();
        let (queue, mut receiver) = EventQueue::new(metrics.events.clone());
        let verdict = Policy::default().decide(&early());
        for _ in 0..QUEUED + 3 {
            queue.report_verdict(&early(), &verdict, false);
        }
        let text = metrics.encode().unwrap();
        let dropped = "leasehold_events_dropped_total{reason=\"queue_full\"} 3";
        assert!(text.contains(dropped), "{text}");
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), QUEUED);
        EventQueue::disabled().report(|| panic!("nobody asked"));
    }

    #[test]
    fn a_note_is_cut_where_a_letter_begins() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = cut("é".repeat(600));
        assert!(
            long.len() <= LONGEST_NOTE && long.ends_with("é…"),
            "{}",
            long.len()
        );
    }
}
