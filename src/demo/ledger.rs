//! Who worked as the leader, and when: by what the electors themselves believed.

use std::time::Duration;

use tokio::time::Instant;

use super::event::{Event, EventKind};

/// A stretch of time in an act; open while `end` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Since the act began.
    pub start: Duration,
    /// Since the act began.
    pub end: Option<Duration>,
}

impl Span {
    /// Whether `instant` lies in it.
    pub fn covers(self, instant: Duration) -> bool {
        self.start <= instant && self.end.is_none_or(|end| instant < end)
    }

    fn overlap(self, other: Self, now: Duration) -> Duration {
        let end = self.end.unwrap_or(now).min(other.end.unwrap_or(now));
        end.saturating_sub(self.start.max(other.start))
    }
}

/// What is known about one elector.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// When it ran.
    pub present: Vec<Span>,
    /// When it worked as the leader.
    pub leading: Vec<Span>,
    /// When a write of its was denied.
    pub denied: Vec<Duration>,
    /// When it was killed.
    pub killed: Option<Duration>,
}

/// The history of one act.
#[derive(Clone, Debug)]
pub struct Ledger {
    began: Instant,
    /// By the electors' numbers.
    pub rows: Vec<Row>,
    /// The lease of each elector, as a number.
    leases: Vec<usize>,
}

impl Ledger {
    /// An empty history, from now on. `leases` says for each elector which lease it plays for.
    pub fn new(leases: Vec<usize>) -> Self {
        Self {
            began: Instant::now(),
            rows: vec![Row::default(); leases.len()],
            leases,
        }
    }

    /// How far into the act `instant` is.
    pub fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.began)
    }

    /// Writes down one event.
    pub fn record(&mut self, event: &Event) {
        let at = self.since_start(event.at);
        let Some(row) = self.rows.get_mut(event.elector) else {
            return;
        };
        let open = |spans: &mut Vec<Span>| spans.push(Span { start: at, end: None });
        match event.kind {
            EventKind::Joined => open(&mut row.present),
            EventKind::Leads(_) => open(&mut row.leading),
            EventKind::Denied(_) => row.denied.push(at),
            EventKind::Stops(reason) => {
                close(&mut row.leading, at);
                if reason == super::event::StopReason::Released {
                    close(&mut row.present, at);
                }
            }
            EventKind::Killed => {
                close(&mut row.leading, at);
                close(&mut row.present, at);
                row.killed = Some(at);
            }
            EventKind::Left => close(&mut row.present, at),
        }
    }

    /// Ends everything that is still open, at `instant`.
    pub fn close(&mut self, instant: Instant) {
        let at = self.since_start(instant);
        for row in &mut self.rows {
            close(&mut row.leading, at);
            close(&mut row.present, at);
        }
    }

    /// How many electors work as the leader of `elector`'s lease at `instant` into the act.
    pub fn leaders(&self, elector: usize, instant: Duration) -> usize {
        self.of_same_lease(elector)
            .filter(|row| row.leading.iter().any(|span| span.covers(instant)))
            .count()
    }

    /// For how long two of the lease's electors were leaders at once, up to `now`.
    pub fn double_leadership(&self, elector: usize, now: Duration) -> Duration {
        let rows: Vec<&Row> = self.of_same_lease(elector).collect();
        let mut sum = Duration::ZERO;
        for (index, row) in rows.iter().enumerate() {
            for other in rows.iter().skip(index + 1) {
                for span in &row.leading {
                    sum += other
                        .leading
                        .iter()
                        .map(|theirs| span.overlap(*theirs, now))
                        .sum::<Duration>();
                }
            }
        }
        sum
    }

    /// The same for all leases together.
    pub fn total_double_leadership(&self, now: Duration) -> Duration {
        let mut seen = Vec::new();
        let mut sum = Duration::ZERO;
        for (elector, lease) in self.leases.iter().enumerate() {
            if !seen.contains(lease) {
                seen.push(*lease);
                sum += self.double_leadership(elector, now);
            }
        }
        sum
    }

    fn of_same_lease(&self, elector: usize) -> impl Iterator<Item = &Row> {
        let lease = self.leases.get(elector);
        self.rows
            .iter()
            .zip(&self.leases)
            .filter(move |(_, other)| Some(*other) == lease)
            .map(|(row, _)| row)
    }
}

fn close(spans: &mut [Span], at: Duration) {
    if let Some(span) = spans.last_mut().filter(|span| span.end.is_none()) {
        span.end = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::event::{Acquisition, StopReason};

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn two_leaders_of_one_lease_are_counted_and_two_of_two_leases_are_not() {
        let mut ledger = Ledger::new(vec![0, 0, 1]);
        let start = ledger.began;
        let mut at = |second: u64, elector: usize, kind: EventKind| {
            ledger.record(&Event {
                at: start + seconds(second),
                elector,
                kind,
            });
        };
        at(0, 0, EventKind::Leads(Acquisition::Created));
        at(0, 2, EventKind::Leads(Acquisition::Created));
        at(2, 1, EventKind::Leads(Acquisition::Free));
        at(5, 0, EventKind::Stops(StopReason::Lost));
        assert_eq!(ledger.double_leadership(0, seconds(9)), seconds(3));
        assert_eq!(ledger.double_leadership(2, seconds(9)), Duration::ZERO);
        assert_eq!(ledger.total_double_leadership(seconds(9)), seconds(3));
        assert_eq!(
            [1, 2, 5].map(|second| ledger.leaders(0, seconds(second))),
            [1, 2, 1]
        );
    }

    #[test]
    fn double_leadership_counts_while_it_lasts() {
        let mut ledger = Ledger::new(vec![0, 0]);
        let start = ledger.began;
        for elector in [0, 1] {
            ledger.record(&Event {
                at: start,
                elector,
                kind: EventKind::Leads(Acquisition::Created),
            });
        }
        assert_eq!(ledger.double_leadership(1, seconds(4)), seconds(4));
        ledger.record(&Event {
            at: start + seconds(4),
            elector: 0,
            kind: EventKind::Killed,
        });
        assert_eq!(ledger.double_leadership(1, seconds(9)), seconds(4));
        assert_eq!(ledger.rows[0].killed, Some(seconds(4)));
    }
}
