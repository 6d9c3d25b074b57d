//! What the logs say, by cause: bounded, whatever they say.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    io,
};

use super::{Denial, Easing, Judge, Line, Occurrences, Place, Skip, Summary, cost::never_excused, line};
use crate::{
    log_lines::{Input, InputLine},
    policy::RuleName,
};

/// The most leases, each counted once per rule, that are kept apart; and the most namespaces. A policy has room for a
/// fiftieth part: where there are more, whole namespaces stand for them.
pub const MOST_LEASES: usize = 50_000;

/// The most denials that are remembered to tell duplicates by: 16 MiB of memory or so.
pub const MOST_REMEMBERED: usize = 1 << 20;

/// What the logs say.
pub struct Log {
    judge: Judge,
    /// Rules that are excused although they are among [`super::NEVER_EXCUSED`].
    included: BTreeSet<RuleName>,
    pub(super) needed: Leases,
    pub(super) refused: Leases,
    summary: Summary,
    seen: HashSet<u64>,
    strict: bool,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file, or what it is compressed by.
    #[error("{file} cannot be read{}: {error}", after(*.line))]
    Unreadable {
        /// The file's name, as it was given.
        file: String,
        /// The last line that was read; 0: none.
        line: u64,
        /// What is wrong.
        error: io::Error,
    },
    /// Denials in more namespaces than are kept apart.
    #[error(
        "{place}: from here on denials are in over {MOST_LEASES} namespaces, more than are kept apart; give a part of the log, \
         or change the action of the rule for all leases by hand"
    )]
    TooManyNamespaces {
        /// The line.
        place: Place,
    },
    /// A line that cannot be judged, where each must be.
    #[error("{place}: {skip}; leave --strict out to skip such lines and count them")]
    Strict {
        /// The line.
        place: Place,
        /// What is wrong.
        skip: Skip,
    },
}

fn after(line: u64) -> String {
    match line {
        0 => String::new(),
        line => format!(" after line {line}"),
    }
}

/// Leases by rule and namespace.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pub(super) by_rule: BTreeMap<RuleName, BTreeMap<String, InNamespace>>,
    /// How many names are kept.
    kept: usize,
    /// In how many namespaces something was seen, each counted once per rule.
    namespaces: usize,
}

/// The leases of one namespace for which one rule fired.
#[derive(Debug)]
pub(super) enum InNamespace {
    /// By name.
    Names(BTreeMap<String, Seen>),
    /// There are too many to keep.
    Whole(Seen),
}

/// What was seen of one lease.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) easing: Easing,
    pub(super) occurrences: Occurrences,
}

impl Leases {
    /// Whether there was room.
    fn note(&mut self, denial: Denial, easing: Easing, counts: bool) -> bool {
        let mut occurrences = Occurrences::default();
        if counts {
            occurrences.note(denial.time, denial.writer);
        }
        let seen = Seen { easing, occurrences };
        let namespaces = self.by_rule.entry(denial.rule).or_default();
        let namespace = namespaces.entry(denial.namespace).or_insert_with(|| {
            self.namespaces += 1;
            InNamespace::Names(BTreeMap::new())
        });
        match namespace {
            InNamespace::Whole(whole) => whole.add(seen),
            InNamespace::Names(names) => match names.get_mut(&denial.name) {
                Some(before) => before.add(seen),
                None => {
                    names.insert(denial.name, seen);
                    self.kept += 1;
                }
            },
        }
        if self.kept > MOST_LEASES {
            self.make_room();
        }
        self.namespaces <= MOST_LEASES
    }

    /// Lets the namespaces with the most names stand for all of them, until half of the room is free.
    fn make_room(&mut self) {
        let mut largest: Vec<_> = self.by_rule.values_mut().flat_map(BTreeMap::values_mut).collect();
        largest.sort_by_key(|namespace| std::cmp::Reverse(namespace.names()));
        for namespace in largest {
            if self.kept <= MOST_LEASES / 2 {
                return;
            }
            let InNamespace::Names(names) = namespace else {
                return;
            };
            self.kept -= names.len();
            let whole = std::mem::take(names).into_values().reduce(|mut whole, seen| {
                whole.add(seen);
                whole
            });
            if let Some(whole) = whole {
                *namespace = InNamespace::Whole(whole);
            }
        }
    }
}

impl InNamespace {
    /// How many names are kept.
    fn names(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Whole(_) => 0,
        }
    }
}

impl Seen {
    pub(super) fn add(&mut self, other: Self) {
        self.easing = self.easing.and(other.easing);
        self.occurrences.merge(other.occurrences);
    }
}

impl Log {
    /// Reads what this policy would refuse. `included`: rules of [`super::NEVER_EXCUSED`] that are excused all the same.
    /// `strict`: the first line that cannot be judged is an error.
    pub fn new(judge: Judge, included: impl IntoIterator<Item = RuleName>, strict: bool) -> Self {
        Self {
            judge,
            included: included.into_iter().collect(),
            needed: Leases::default(),
            refused: Leases::default(),
            summary: Summary::default(),
            seen: HashSet::new(),
            strict,
        }
    }

    /// Reads one more file, whose name is for messages. Returns how many records it has.
    ///
    /// # Errors
    /// [`LogError`]; what was read before counts.
    pub fn read(&mut self, file: &str, reader: impl io::Read) -> Result<u64, LogError> {
        let before = self.summary.records();
        let mut last = 0;
        let unreadable = |line, error| LogError::Unreadable {
            file: file.to_owned(),
            line,
            error,
        };
        let mut input = Input::new(reader).map_err(|error| unreadable(last, error))?;
        while let Some((number, line)) = input.next_line().map_err(|error| unreadable(last, error))? {
            last = number;
            let place = || Place {
                file: file.to_owned(),
                line: number,
            };
            match line {
                InputLine::Text([]) => continue,
                InputLine::Text(text) => {
                    for line in line::read(text) {
                        self.note(line, place)?;
                    }
                }
                InputLine::TooLong => self.note(Line::Skipped(Skip::TooLong), place)?,
            }
            self.summary.lines += 1;
        }
        Ok(self.summary.records() - before)
    }

    fn note(&mut self, line: Line, place: impl Fn() -> Place) -> Result<(), LogError> {
        match line {
            Line::Denial(denial) => {
                if !self.note_denial(*denial) {
                    return Err(LogError::TooManyNamespaces { place: place() });
                }
            }
            Line::NothingDenied => self.summary.nothing_denied += 1,
            Line::Skipped(skip) if self.strict => return Err(LogError::Strict { place: place(), skip }),
            Line::Skipped(skip) => self.summary.skip(skip, place),
        }
        Ok(())
    }

    /// Whether there was room.
    fn note_denial(&mut self, denial: Denial) -> bool {
        self.summary.denials += 1;
        let is_new = self.is_new(&denial);
        if !is_new {
            self.summary.duplicates += 1;
        }
        if !self.judge.denies(&denial) {
            self.summary.allowed_already += u64::from(is_new);
            return true;
        }
        let refused = never_excused(denial.rule, denial.cause) && !self.included.contains(&denial.rule);
        let easing = self.judge.easing(&denial);
        let leases = if refused {
            &mut self.refused
        } else {
            &mut self.needed
        };
        // A duplicate is not counted. What it asks for counts, in case two records only look alike.
        leases.note(denial, easing, is_new)
    }

    fn is_new(&mut self, denial: &Denial) -> bool {
        if denial.uid.is_empty() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (&denial.uid, denial.rule, &denial.namespace, &denial.name).hash(&mut hasher);
        let key = hasher.finish();
        if self.seen.len() >= MOST_REMEMBERED {
            self.summary.duplicates_counted = true;
            return !self.seen.contains(&key);
        }
        self.seen.insert(key)
    }

    /// What became of the lines.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The policy that judged.
    pub(super) fn judge(&self) -> &Judge {
        &self.judge
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
