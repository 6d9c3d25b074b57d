//! Makes few writes of many occurrences: the same again is one Event with a count, written now and then.
//!
//! Pure: instants are arguments, and what is to be written is a value. kube's `Recorder` is not used: it writes at
//! every occurrence, and once an Event has expired (the API server keeps one for an hour) it goes on patching what is
//! gone.

use std::{
    cmp,
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Occurrence, Regarding};

/// Least time between two writes of one series. A count that is this old tells as much, at a fraction of the writes.
pub(super) const SERIES_PAUSE: Duration = Duration::from_secs(10);

/// A series ends when nothing was added for so long: the next is a new Event. As client-go's
/// `k8s.io/client-go/tools/events/event_broadcaster.go` (finishTime) has it.
pub(super) const FINISHED_AFTER: Duration = Duration::from_secs(6 * 60);

/// Writes a second, in the long run, of all series together: a hundredth of what client-go lets a controller do, and
/// enough to tell of five hundred leases within [`SERIES_PAUSE`] times ten.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_millis(200);

/// Writes that may come at once after a quiet time.
pub(super) const BURST: u32 = 20;

/// Pause after a write that failed for a reason that may pass.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Series at once. Each is under 2 KiB: who writes leases chooses how many there are, so there is a bound.
pub(super) const MOST_SERIES: usize = 1000;

/// What makes two occurrences the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    regarding: Regarding,
    reason: String,
    action: &'static str,
    note: Option<String>,
}

impl Key {
    fn of(occurrence: &Occurrence) -> Self {
        Self {
            regarding: occurrence.regarding.clone(),
            reason: occurrence.reason.clone().into_owned(),
            action: occurrence.action,
            note: occurrence.told_apart_by_note.then(|| occurrence.note.clone()),
        }
    }
}

/// How often something occurred, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How often.
    pub count: u32,
    /// When last.
    pub last: Timestamp,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new Event.
    Create {
        /// The first of the series.
        first: Box<Occurrence>,
        /// The series so far.
        told: Told,
    },
    /// The count of one that was created.
    Update {
        /// Where it is.
        namespace: String,
        /// What it is called.
        name: String,
        /// The series so far.
        told: Told,
    },
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there, under this name.
    Written(String),
    /// The Event to be updated is not there any more.
    Gone,
    /// The API server will never take it: the namespace is gone, or forbidden.
    Refused,
    /// It may succeed later.
    Failed,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write this, and say what came of it by [`SeriesBook::written`].
    Write(Box<Key>, Write),
    /// Look again then.
    WaitUntil(Instant),
    /// All is told.
    Nothing,
}

#[derive(Debug)]
struct Series {
    first: Occurrence,
    count: u32,
    last: Timestamp,
    last_seen: Instant,
    /// Its Event, once there is one.
    name: Option<String>,
    /// The count that was written.
    told: u32,
    /// Not before then.
    due: Instant,
}

/// Every series that is under way.
#[derive(Debug)]
pub struct SeriesBook {
    series: HashMap<Key, Series>,
    /// When the next write is allowed, by the pace of all together (a leaky bucket; in the past: room for a burst).
    paced: Instant,
    /// The end is near: what is not told now never will be.
    closing: bool,
}

impl SeriesBook {
    /// Nothing occurred yet.
    pub fn new(now: Instant) -> Self {
        Self {
            series: HashMap::new(),
            paced: burst_before(now),
            closing: false,
        }
    }

    /// Adds an occurrence to its series. False where there are too many series, and it is not told.
    #[must_use]
    pub fn take_in(&mut self, occurrence: Occurrence, now: Instant) -> bool {
        let key = Key::of(&occurrence);
        if let Some(series) = self.series.get_mut(&key) {
            let finished = series.told == series.count && now >= series.last_seen + FINISHED_AFTER;
            if !finished {
                series.count = series.count.saturating_add(1);
                series.last = cmp::max(series.last, occurrence.at);
                series.last_seen = now;
                return true;
            }
        } else if self.series.len() >= MOST_SERIES {
            self.series
                .retain(|_, series| series.told != series.count || now < series.last_seen + FINISHED_AFTER);
            if self.series.len() >= MOST_SERIES {
                return false;
            }
        }
        let series = Series {
            last: occurrence.at,
            first: occurrence,
            count: 1,
            last_seen: now,
            name: None,
            told: 0,
            due: now,
        };
        self.series.insert(key, series);
        true
    }

    /// From now on writes wait for nothing, and one that fails is given up.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// What to do now. A write that was handed out is to be answered before the next is asked for.
    pub fn next(&mut self, now: Instant) -> Next {
        let untold = self
            .series
            .iter()
            .filter(|(_, series)| series.told != series.count);
        let Some((key, series)) = untold.min_by_key(|(_, series)| series.due) else {
            return Next::Nothing;
        };
        let at = cmp::max(series.due, self.paced);
        if at > now && !self.closing {
            return Next::WaitUntil(at);
        }
        // After a quiet time, a burst: the bucket holds no more than that.
        self.paced = cmp::max(self.paced, burst_before(now)) + WRITE_INTERVAL;
        let told = Told {
            count: series.count,
            last: series.last,
        };
        let write = match &series.name {
            None => Write::Create {
                first: Box::new(series.first.clone()),
                told,
            },
            Some(name) => Write::Update {
                namespace: series.first.regarding.namespace.clone(),
                name: name.clone(),
                told,
            },
        };
        Next::Write(Box::new(key.clone()), write)
    }

    /// Takes in what came of a write of `told` occurrences. Gives how many occurrences will never be told.
    #[must_use]
    pub fn written(&mut self, key: &Key, told: Told, outcome: Outcome, now: Instant) -> u32 {
        let Some(series) = self.series.get_mut(key) else {
            return 0;
        };
        match outcome {
            Outcome::Written(name) => {
                series.name = Some(name);
                series.told = told.count;
                series.due = now + SERIES_PAUSE;
                0
            }
            // The Event expired, or somebody deleted it: what was told is told.
            Outcome::Gone => {
                series.name = None;
                series.count = series.count.saturating_sub(series.told);
                series.told = 0;
                series.due = now;
                0
            }
            Outcome::Failed if !self.closing => {
                let later = now + RETRY_PAUSE;
                series.due = later;
                // Whoever else is asked would fail as well.
                self.paced = cmp::max(self.paced, later);
                0
            }
            Outcome::Refused | Outcome::Failed => {
                let untold = series.count.saturating_sub(series.told);
                self.series.remove(key);
                untold
            }
        }
    }

    /// How many series are under way.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// Since when nothing may have been written, so that a burst may be now.
fn burst_before(now: Instant) -> Instant {
    now.checked_sub(WRITE_INTERVAL * (BURST - 1)).unwrap_or(now)
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
