//! What became of the lines that were read.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

/// Why a line was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// Another program's line, or Leasehold's own log.
    Foreign,
    /// A record of a kind that this version does not know.
    UnknownRecord,
    /// A record whose decision this version does not know.
    UnknownDecision,
    /// A denial by a rule that this version does not know.
    UnknownRule,
    /// A record that is not whole.
    CutOff,
    /// A record that is whole and cannot be read.
    Damaged,
    /// Bytes that are no text.
    NotUtf8,
    /// A line over [`crate::log_lines::LONGEST_LINE`].
    TooLong,
    /// A denial of a lease whose name no lease can have.
    NoLease,
}

impl Skip {
    /// In words, for people and for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "not of the audit log",
            Self::UnknownRecord => "a kind of record that this version does not know",
            Self::UnknownDecision => "a decision that this version does not know",
            Self::UnknownRule => "denied by a rule that this version does not know",
            Self::CutOff => "cut off",
            Self::Damaged => "a record that cannot be read",
            Self::NotUtf8 => "not UTF-8",
            Self::TooLong => "too long",
            Self::NoLease => "a denial that names no lease",
        }
    }

    /// Whether a denial may have been lost with the line.
    pub fn may_hide_a_denial(self) -> bool {
        !matches!(self, Self::Foreign | Self::UnknownRecord)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Skip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Lines that were skipped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Place,
}

/// What became of the lines that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Lines that were read, blank ones left out.
    pub lines: u64,
    /// Records of denials.
    pub denials: u64,
    /// Of these, the ones that the policy lets pass already.
    pub allowed_already: u64,
    /// Of these, the ones that were there before, by uid and rule: logs of several replicas, or the same log twice.
    pub duplicates: u64,
    /// Records that ask for nothing: warnings, notes, changes of holder.
    pub nothing_denied: u64,
    /// What was skipped, by reason.
    #[serde(serialize_with = "by_reason")]
    pub skipped: BTreeMap<Skip, Skipped>,
    /// Whether some duplicates may have been counted as denials, for there were too many denials to remember each.
    pub duplicates_counted: bool,
}

fn by_reason<S: Serializer>(skipped: &BTreeMap<Skip, Skipped>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reason<'a> {
        reason: Skip,
        #[serde(flatten)]
        skipped: &'a Skipped,
    }
    serializer.collect_seq(skipped.iter().map(|(reason, skipped)| Reason {
        reason: *reason,
        skipped,
    }))
}

impl Summary {
    pub(super) fn skip(&mut self, reason: Skip, place: impl FnOnce() -> Place) {
        let skipped = self.skipped.entry(reason).or_insert_with(|| Skipped {
            count: 0,
            first: place(),
        });
        skipped.count += 1;
    }

    /// How many records were found, whatever they say.
    pub fn records(&self) -> u64 {
        let of_later_versions = [
            Skip::UnknownRecord,
            Skip::UnknownDecision,
            Skip::UnknownRule,
            Skip::NoLease,
        ];
        let skipped = of_later_versions
            .iter()
            .filter_map(|reason| self.skipped.get(reason));
        self.denials + self.nothing_denied + skipped.map(|skipped| skipped.count).sum::<u64>()
    }

    /// Whether a denial may have been lost with a line that could not be judged.
    pub fn may_hide_a_denial(&self) -> bool {
        self.skipped.keys().any(|reason| reason.may_hide_a_denial())
    }
}
