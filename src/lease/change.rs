//! What kind of write it is.

use std::fmt;

use super::Record;

/// What a write does to a lease, by its old and new holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new object. A PUT or an apply to a missing object arrives as this too.
    Create,
    /// The holder stays and only `renewTime` differs, to another time.
    Renew,
    /// The holder stays and something else differs (duration, transitions, acquireTime, strategy), or renewTime is
    /// removed.
    Amend,
    /// From one holder to another.
    Takeover,
    /// From one holder to another, written by the one who provably holds the lease: it gives the lease to its successor.
    Handover,
    /// From free to a holder.
    Acquire,
    /// From a holder to free.
    Release,
    /// The record is the same: labels, annotations, managedFields.
    Untouched,
    /// The object goes.
    Delete,
}

impl Change {
    /// Every change, in the order of their documentation.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Renew,
        Self::Amend,
        Self::Takeover,
        Self::Handover,
        Self::Acquire,
        Self::Release,
        Self::Untouched,
        Self::Delete,
    ];

    /// The change from one version of a record to the next. The records do not say who writes, so a handover reads as a
    /// takeover here: [`super::Write::new`] tells them apart.
    pub fn between(old: &Record<'_>, new: &Record<'_>) -> Self {
        match (&old.holder, &new.holder) {
            (Some(before), Some(after)) if before != after => Self::Takeover,
            (None, Some(_)) => Self::Acquire,
            (Some(_), None) => Self::Release,
            _ if old == new => Self::Untouched,
            (Some(_), _) if new.renew_time.is_some() && differs_only_in_renew_time(old, new) => Self::Renew,
            _ => Self::Amend,
        }
    }

    /// Whether somebody else holds the lease afterwards.
    pub fn gives_a_new_holder(self) -> bool {
        matches!(self, Self::Takeover | Self::Handover | Self::Acquire)
    }

    /// Whether who holds the lease differs afterwards, in any way.
    pub fn changes_the_holder(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Takeover | Self::Handover | Self::Acquire | Self::Release | Self::Delete
        )
    }

    /// The change's name in logs, metrics and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Renew => "renew",
            Self::Amend => "amend",
            Self::Takeover => "takeover",
            Self::Handover => "handover",
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Untouched => "untouched",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

fn differs_only_in_renew_time(old: &Record<'_>, new: &Record<'_>) -> bool {
    // Every field by name, so that a new one cannot be forgotten here.
    let Record {
        holder,
        duration_seconds,
        acquire_time,
        renew_time: _,
        zoneless: _,
        transitions,
        strategy,
        preferred_holder,
    } = old;
    *holder == new.holder
        && *duration_seconds == new.duration_seconds
        && *acquire_time == new.acquire_time
        && *transitions == new.transitions
        && *strategy == new.strategy
        && *preferred_holder == new.preferred_holder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::testing::{free, held};

    #[test]
    fn a_change_is_named_by_its_holders() {
        let cases = [
            (held("a"), held("a"), Change::Untouched),
            (held("a").renewed_at(5), held("a").renewed_at(7), Change::Renew),
            (
                held("a").renewed_at(5),
                held("a").renewed_at(7).duration(30),
                Change::Amend,
            ),
            (held("a").renewed_at(5), held("a"), Change::Amend),
            (held("a"), held("a").transitions(9), Change::Amend),
            (held("a"), held("a").acquired_at(9), Change::Amend),
            (held("a"), held("b"), Change::Takeover),
            (free(), held("b"), Change::Acquire),
            (held("a"), free(), Change::Release),
            (free(), free(), Change::Untouched),
            (free(), free().duration(3), Change::Amend),
        ];
        for (old, new, expected) in cases {
            assert_eq!(Change::between(&old.0, &new.0), expected, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn an_empty_holder_is_no_holder() {
        assert_eq!(Record::holder_from(Some("".into())), None);
        assert_eq!(Record::holder_from(None), None);
        assert_eq!(Record::holder_from(Some("a".into())).as_deref(), Some("a"));
    }
}
