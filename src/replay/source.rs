//! One file of a log: its events in the order of their time.

use std::{
    collections::{BTreeMap, BinaryHeap},
    io::{self, Read},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    event::{Event, Reading},
    unwrap::events,
    values::{Piece, Prefix, Values},
};
use crate::log_lines::Input;

/// By how much events of one file may be out of order: requests that end later than such as began after them, exports that
/// promise no order within some seconds.
const WINDOW: SignedDuration = SignedDuration::from_secs(30);

/// The most events that wait for their order, some 5 KB each: those of [`WINDOW`] at 600 writes a second. Where there are
/// more, the window is as much shorter.
const MOST_WAITING: usize = 20_000;

/// In what form a file holds events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// One event a line, as the API server writes them.
    Events,
    /// A line's event behind a time, a host's name or a container's stream.
    Prefixed,
    /// Lists of events, as the API server posts them.
    EventList,
    /// CloudWatch: `events[].message` or `logEvents[].message`, as from EKS.
    CloudWatch,
    /// Azure: `records[].properties.log`, as from AKS.
    Azure,
    /// A log collector's fields around an event.
    Collector,
}

impl Form {
    /// What it is, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "audit events, one a line",
            Self::Prefixed => "audit events behind a prefix",
            Self::EventList => "lists of audit events",
            Self::CloudWatch => "CloudWatch's envelope (EKS)",
            Self::Azure => "Azure's envelope (AKS)",
            Self::Collector => "a log collector's envelope",
        }
    }
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Events, by the form in which they stood there.
    pub forms: BTreeMap<Form, u64>,
    /// Writes to Leases among them.
    pub writes: u64,
    /// Events of a Lease that lack something that they must say.
    pub unreadable: u64,
    /// Lines that are no JSON, or broken.
    pub broken_lines: u64,
    /// The first of these, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_broken_line: Option<u64>,
    /// Lines, or values over many lines, of more than 16 MiB.
    pub long_lines: u64,
    /// JSON that is no audit event, nor holds one.
    pub foreign: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be read")]
pub struct SourceError {
    name: String,
    #[source]
    source: io::Error,
}

/// One file.
pub struct Source<'a> {
    name: String,
    values: Values<'a>,
    counts: Counts,
    waiting: BinaryHeap<Waiting>,
    newest: Timestamp,
    read: u64,
    is_at_end: bool,
}

impl<'a> Source<'a> {
    /// Reads from here. `name` is for errors.
    ///
    /// # Errors
    /// The reader's.
    pub fn new(name: &str, reader: impl Read + 'a) -> Result<Self, SourceError> {
        let input = Input::new(reader).map_err(|source| SourceError {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            values: Values::new(input),
            counts: Counts::default(),
            waiting: BinaryHeap::new(),
            newest: Timestamp::MIN,
            read: 0,
            is_at_end: false,
        })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was found so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The time of the next write; `None` at the end.
    ///
    /// # Errors
    /// The reader's. What was read before stays.
    pub(super) fn peek(&mut self) -> Result<Option<Timestamp>, SourceError> {
        while !self.is_at_end && !self.is_ripe() {
            self.read_more()?;
        }
        Ok(self.waiting.peek().map(|waiting| waiting.event.time))
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.waiting.pop().map(|waiting| *waiting.event)
    }

    /// Whether nothing that is still to come can stand before what waits first.
    fn is_ripe(&self) -> bool {
        self.waiting.peek().is_some_and(|first| {
            self.waiting.len() > MOST_WAITING || self.newest.duration_since(first.event.time) > WINDOW
        })
    }

    fn read_more(&mut self) -> Result<(), SourceError> {
        let piece = self.values.next().map_err(|source| {
            self.is_at_end = true;
            SourceError {
                name: self.name.clone(),
                source,
            }
        })?;
        match piece {
            None => self.is_at_end = true,
            Some(Piece::Broken { is_long: true, .. }) => self.counts.long_lines += 1,
            Some(Piece::Broken { line, .. }) => {
                self.counts.broken_lines += 1;
                self.counts.first_broken_line.get_or_insert(line);
            }
            Some(Piece::Found { values, prefix }) => {
                let (counts, waiting) = (&mut self.counts, &mut self.waiting);
                let (newest, read) = (&mut self.newest, &mut self.read);
                let mut sink = |event, form| {
                    let form = match (form, prefix) {
                        (Form::Events, Prefix::Words) => Form::Prefixed,
                        (form, _) => form,
                    };
                    *counts.forms.entry(form).or_default() += 1;
                    match Event::of(event) {
                        Reading::Write(event) => {
                            counts.writes += 1;
                            *newest = (*newest).max(event.time);
                            *read += 1;
                            waiting.push(Waiting { event, number: *read });
                        }
                        Reading::Other => {}
                        Reading::Unreadable => counts.unreadable += 1,
                    }
                };
                let found: usize = values.into_iter().map(|value| events(value, &mut sink)).sum();
                self.counts.foreign += u64::from(found == 0);
            }
        }
        Ok(())
    }
}

/// An event that waits for its order: by time, then as they stood in the file.
struct Waiting {
    event: Box<Event>,
    number: u64,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |waiting: &Self| (waiting.event.time, waiting.number);
        // The greatest of a heap comes first.
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}
