//! The events of all files by their time, each once.

use std::collections::{HashSet, VecDeque};

use super::{
    event::Event,
    source::{Source, SourceError},
};

/// How many events are remembered to recognise a copy: two copies of a log lie closer than that, and an id has 36 bytes.
const MOST_REMEMBERED: usize = 100_000;

/// All files of a replay.
pub struct Merge<'a> {
    sources: Vec<Source<'a>>,
    seen: HashSet<String>,
    order: VecDeque<String>,
    copies: u64,
    errors: Vec<SourceError>,
}

impl<'a> Merge<'a> {
    /// Of these files.
    pub fn new(sources: Vec<Source<'a>>) -> Self {
        Self {
            sources,
            seen: HashSet::new(),
            order: VecDeque::new(),
            copies: 0,
            errors: Vec::new(),
        }
    }

    /// The files, with what was found in each.
    pub fn sources(&self) -> &[Source<'a>] {
        &self.sources
    }

    /// How many events came twice.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// The files that could not be read to their end, and why.
    pub fn errors(&self) -> &[SourceError] {
        &self.errors
    }

    /// Whether an event has come before.
    fn is_copy(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return false;
        }
        if !self.seen.insert(id.to_owned()) {
            self.copies += 1;
            return true;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MOST_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }
}

impl Iterator for Merge<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let mut first = None;
            for (index, source) in self.sources.iter_mut().enumerate() {
                let time = match source.peek() {
                    Ok(time) => time,
                    // What it held before stays in order.
                    Err(error) => {
                        self.errors.push(error);
                        source.peek().ok().flatten()
                    }
                };
                if let Some(time) = time
                    && first.is_none_or(|(earliest, _)| time < earliest)
                {
                    first = Some((time, index));
                }
            }
            let (_, index) = first?;
            let event = self.sources.get_mut(index)?.next()?;
            if !self.is_copy(&event.audit_id) {
                return Some(event);
            }
        }
    }
}
