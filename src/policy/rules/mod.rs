//! The rules: one file each, and one line each in the list below.
//!
//! A rule is a pure function of a [`Write`] and its settings. Its doc comment is what `leasehold explain`
//! prints, its settings are its part of the policy, and its table of cases stands at the bottom of its file.

use std::fmt;

use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    Action, Override, Profile,
    in_process::{InProcess, Settings},
};
use crate::lease::{Evidence, EvidenceKind, History, Tolerance, Write};

mod purposes;
#[macro_use]
mod settings;

pub use purposes::Purposes;
pub use settings::RuleSettings;

/// A rule: its name, its documentation and its judgement. Implemented by its settings.
pub trait Rule: RuleSettings {
    /// The rule's name: API, as it stands in policies, messages and metric labels.
    const NAME: &'static str;

    /// What `leasehold explain` prints: the doc comment of the rule's settings.
    const DOCUMENTATION: &'static str;

    /// For which purposes of a lease it fires, and the most that it leads to there. There is no default: each rule says it.
    const PURPOSES: Purposes;

    /// What a violation leads to, before the policy's mode caps it.
    fn action(&self) -> Action;

    /// Judges one write.
    fn check(&self, case: &Case<'_>) -> Option<Finding>;

    /// Which part of [`Self::check`] the API server can hold by itself, and the CEL of that part: it fires for the same
    /// writes, with the same words.
    fn in_process(settings: &Self::Cel, tolerance: Tolerance) -> InProcess;
}

/// What a rule judges by.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The write.
    pub write: &'a Write<'a>,
    /// What is known about the age of the record that it replaces.
    pub evidence: Option<&'a Evidence>,
    /// How far clocks may differ.
    pub tolerance: Tolerance,
    /// The kind of writer, where it is a known one with a contract of its own.
    pub profile: Option<Profile>,
    /// What was seen of the lease before. A rule that asks it only advises: its action is an
    /// [`super::AdvisoryAction`].
    pub history: Option<&'a History>,
}

impl Case<'_> {
    /// For how many more seconds the old record is valid, where the API server's stamps prove that it still is;
    /// the slack of the clocks is taken off first.
    fn provably_valid_for(&self) -> Option<i64> {
        let evidence = self.evidence?;
        if !matches!(evidence.kind, EvidenceKind::Stamped | EvidenceKind::Created) {
            return None;
        }
        let left = self.write.old.record.valid_seconds()? - evidence.elapsed_seconds();
        (left > self.tolerance.of_clock(evidence.clock).as_secs()).then_some(left)
    }

    /// The skew of the writer's clock, where it is more than the policy's `maxSkew`.
    fn excessive_skew(&self) -> Option<SignedDuration> {
        self.write
            .skew()
            .filter(|skew| skew.abs() > self.tolerance.max_skew)
    }
}

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was wrong and by which numbers, in one line, without the rule's name.
    pub message: String,
    /// What it leads to, where that is not the rule's own action.
    pub action: Option<Action>,
}

impl Finding {
    fn new(message: String) -> Self {
        Self {
            message,
            action: None,
        }
    }
}

/// The name of a rule that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(&'static str);

impl RuleName {
    /// The name as it stands in policies, messages and metric labels.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// The rule of that name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        CATALOGUE
            .iter()
            .map(|entry| entry.name)
            .find(|known| known.0 == name)
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// What is known about a rule without a write to judge.
#[derive(Clone, Copy, Debug)]
pub struct CatalogueEntry {
    /// Its name.
    pub name: RuleName,
    /// Its documentation, in the manner of a doc comment.
    pub documentation: &'static str,
    /// For which purposes of a lease it fires.
    pub purposes: Purposes,
    /// What a violation leads to by default.
    pub default_action: fn() -> Action,
}

impl CatalogueEntry {
    /// The first sentence of the documentation, on one line.
    pub fn summary(&self) -> String {
        let first = self.documentation.split("\n\n").next().unwrap_or_default();
        first.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

macro_rules! rules {
    ($($module:ident::$settings:ident),* $(,)?) => {
        $(mod $module; pub use $module::$settings;)*

        settings_of_all_rules! { $($module::$settings),* }

        /// Every rule, in the order in which they are asked.
        pub const CATALOGUE: &[CatalogueEntry] = &[$(CatalogueEntry {
            name: RuleName($settings::NAME),
            documentation: $settings::DOCUMENTATION,
            purposes: $settings::PURPOSES,
            default_action: || $settings::default().action(),
        }),*];

        impl Rules {
            /// What each rule leads to, in the order of [`CATALOGUE`], before a mode, a purpose or a profile caps it.
            pub fn actions(&self) -> impl Iterator<Item = (&'static CatalogueEntry, Action)> {
                CATALOGUE.iter().zip([$(self.$module.action()),*])
            }

            /// Asks every rule that is not off, in the order of [`CATALOGUE`].
            pub fn check(&self, case: &Case<'_>, mut report: impl FnMut(RuleName, Action, Finding)) {
                let purpose = case.write.purpose();
                $(let cap = $settings::PURPOSES.cap(purpose);
                if cap != Action::Off
                    && self.$module.action() != Action::Off
                    && let Some(finding) = self.$module.check(case)
                {
                    let action = finding.action.unwrap_or(self.$module.action()).min(cap);
                    let action = case.profile.map_or(action, |profile| profile.cap($settings::NAME, action));
                    if action != Action::Off {
                        report(RuleName($settings::NAME), action, finding);
                    }
                })*
            }
        }
    };
}

rules! {
    takeover_before_expiry::TakeoverBeforeExpiry,
    transition_not_counted::TransitionNotCounted,
    transition_overflow::TransitionOverflow,
    transition_miscounted::TransitionMiscounted,
    duration_out_of_bounds::DurationOutOfBounds,
    stamp_tampered::StampTampered,
    foreign_release::ForeignRelease,
    foreign_write::ForeignWrite,
    deleted_while_held::DeletedWhileHeld,
    recreated_early::RecreatedEarly,
    acquire_time_stale::AcquireTimeStale,
    renew_time_regressed::RenewTimeRegressed,
    clock_skewed::ClockSkewed,
    shared_identity::SharedIdentity,
    flapping::Flapping,
}

/// What a message begins with that rests on memory: at the end, a long one would be cut before it.
const SEEN_HERE: &str = "as far as this replica saw";

/// An identity as messages show it: quoted, escaped, and cut where it is long.
fn quoted(identity: Option<&str>) -> String {
    // A pod's name is at most 253 characters and a UUID 36; what is longer was not meant to be read.
    const SHOWN: usize = 300;
    match identity {
        None => "nobody".to_owned(),
        Some(identity) => match identity.char_indices().nth(SHOWN) {
            None => format!("{identity:?}"),
            Some((end, _)) => format!("{:?}…", identity.get(..end).unwrap_or_default()),
        },
    }
}

#[cfg(test)]
pub(crate) mod testing;
