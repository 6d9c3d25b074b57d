//! What a policy must let pass so that nothing that was seen would be refused: from Leasehold's own audit log.
//!
//! ```text
//! files -> Input (lines, bounded; gzip) -> line::read (records) -> Log (by cause, judged by the policy) -> Plan -> text
//! ```
//!
//! Pure, but for [`crate::log_lines::Input`], which reads from what its caller opened: no clock, no files, no policy of its own.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod cost;
mod easing;
mod judge;
mod line;
mod log;
mod merge;
mod place;
mod plan;
mod render;
mod shapes;
mod suggestion;
mod summary;

pub use cost::{NEVER_EXCUSED, cost, never_excused};
pub use easing::Easing;
pub use judge::Judge;
pub use line::{Line, read};
pub use log::{Log, LogError, MOST_LEASES, MOST_REMEMBERED};
pub use merge::MergeError;
pub use plan::{Entry, Widening};
pub use suggestion::{DEFAULT_DOCUMENT, NotExcused, Suggestion, SuggestionError};
pub use summary::{Place, Skip, Skipped, Summary};

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::policy::RuleName;

/// A violation of the log that denied, or would have in mode enforce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule that fired.
    pub rule: RuleName,
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// What it rests on.
    pub cause: Cause,
    /// When the review was read; `None` where the record does not tell.
    pub time: Option<Timestamp>,
    /// The review's uid. Records of one review share it.
    pub uid: String,
    /// Who wrote.
    pub writer: Writer,
}

/// What a denial rests on, as far as a milder setting than the rule's action can answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing but the rule's action.
    Other,
    /// `takeover-before-expiry`: only the old holder's renewTime speaks against it.
    Claimed,
    /// `transition-not-counted`: nobody ever counted.
    Untracked,
    /// `duration-out-of-bounds`: so many seconds. Which bound they passed is up to the policy that judged then.
    Duration(u32),
}

/// The longest name of a writer that is kept, in characters.
const LONGEST_NAME: usize = 120;

/// Who wrote. Each name is cut where it is long.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// The user, by the API server's word.
    pub user: String,
    /// The pod that the user's token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The field manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_manager: Option<String>,
}

impl Writer {
    fn new(user: Option<&str>, pod: Option<&str>, field_manager: Option<&str>) -> Self {
        let cut = |name: &str| match name.char_indices().nth(LONGEST_NAME) {
            None => name.to_owned(),
            Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        };
        Self {
            user: user.map(cut).unwrap_or_default(),
            pod: pod.map(cut),
            field_manager: field_manager.map(cut),
        }
    }
}

/// How many writers of one kind of denial are kept.
const MOST_WRITERS: usize = 4;

/// How often, by whom and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occurrences {
    /// How many records say so.
    pub count: u64,
    /// When first; absent where no record tells.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    pub first_seen: Option<Timestamp>,
    /// When last.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "timestamp")]
    pub last_seen: Option<Timestamp>,
    /// Who wrote: the first four of them.
    pub writers: BTreeSet<Writer>,
    /// Whether there were more writers.
    pub more_writers: bool,
}

fn timestamp<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.unwrap_or_default())
}

impl Occurrences {
    fn note(&mut self, time: Option<Timestamp>, writer: Writer) {
        self.merge(Self {
            count: 1,
            first_seen: time,
            last_seen: time,
            writers: BTreeSet::from([writer]),
            more_writers: false,
        });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first_seen = [self.first_seen, other.first_seen].into_iter().flatten().min();
        self.last_seen = self.last_seen.max(other.last_seen);
        self.more_writers |= other.more_writers;
        for writer in other.writers {
            if self.writers.len() < MOST_WRITERS || self.writers.contains(&writer) {
                self.writers.insert(writer);
            } else {
                self.more_writers = true;
            }
        }
    }
}

#[cfg(test)]
mod testing;
