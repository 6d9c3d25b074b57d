//! What a lease is for, as far as its record tells.

use std::fmt;

use super::Record;

/// What a lease is for, by the record before a write and the record after it.
///
/// Elections are not the only use of Leases: locks, status boards and claims carry a holder, too, and elect nobody by
/// time. The fields that a record has tell them apart:
///
/// | leaseDurationSeconds | leaseTransitions | renewTime and acquireTime | purpose |
/// |---|---|---|---|
/// | yes | any | any | [`Timed`](Self::Timed) |
/// | no | yes | any | [`Counted`](Self::Counted) |
/// | no | no | both | [`Beating`](Self::Beating) |
/// | no | no | one or none | [`Untimed`](Self::Untimed) |
///
/// A field counts if the record before the write has it or the record after it: a write that removes leaseDurationSeconds
/// is still judged as a write to a timed lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// An election, a heartbeat or a lock with expiry: a takeover can be early.
    Timed,
    /// An election that forgot its duration: every elector reads its record as expired.
    Counted,
    /// Probably an election whose duration is a constant in its code: nobody else can know when it expires.
    Beating,
    /// A lock until released, a status board or a claim: it elects nobody by time.
    Untimed,
}

impl Purpose {
    /// Every purpose, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Timed, Self::Counted, Self::Beating, Self::Untimed];

    /// What a lease is for, by its records before and after a write. On a create the record before is empty, on a
    /// delete the one after.
    pub fn of(old: &Record<'_>, new: &Record<'_>) -> Self {
        let either = |has: fn(&Record<'_>) -> bool| has(old) || has(new);
        if either(|record| record.duration_seconds.is_some()) {
            Self::Timed
        } else if either(|record| record.transitions.is_some()) {
            Self::Counted
        } else if either(|record| record.renew_time.is_some() && record.acquire_time.is_some()) {
            Self::Beating
        } else {
            Self::Untimed
        }
    }

    /// The purpose's name in logs, metrics and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timed => "timed",
            Self::Counted => "counted",
            Self::Beating => "beating",
            Self::Untimed => "untimed",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::testing::{Draft, held, untouched};

    /// A record with these of its four fields: duration, count, renewTime, acquireTime.
    fn with(fields: [bool; 4]) -> Draft {
        let [duration, count, renew, acquire] = fields;
        let mut draft = held("a")
            .duration(duration.then_some(15))
            .transitions(count.then_some(3));
        if renew {
            draft = draft.renewed_at(0);
        }
        if acquire {
            draft = draft.acquired_at(0);
        }
        draft
    }

    #[test]
    fn the_fields_of_a_record_tell_what_it_is_for() {
        use Purpose::{Beating, Counted, Timed, Untimed};
        for number in 0..16_u8 {
            let fields = [8, 4, 2, 1].map(|bit| number & bit != 0);
            let expected = match fields {
                [true, ..] => Timed,
                [false, true, ..] => Counted,
                [false, false, true, true] => Beating,
                [false, false, ..] => Untimed,
            };
            let (record, empty) = (with(fields).0, untouched().0);
            for (old, new) in [(&record, &record), (&empty, &record), (&record, &empty)] {
                assert_eq!(Purpose::of(old, new), expected, "{fields:?}");
            }
        }
    }

    #[test]
    fn a_field_that_a_write_removes_still_counts() {
        let bare = with([false; 4]);
        for (old, expected) in [
            (with([true, true, true, true]), Purpose::Timed),
            (with([false, true, true, true]), Purpose::Counted),
            (with([false, false, true, true]), Purpose::Beating),
            (with([false, false, true, false]), Purpose::Untimed),
        ] {
            assert_eq!(Purpose::of(&old.0, &bare.0), expected, "{old:?}");
            assert_eq!(Purpose::of(&bare.0, &old.0), expected, "{old:?}");
        }
    }

    #[test]
    fn two_times_count_only_in_one_record() {
        let (renewed, acquired) = (
            with([false, false, true, false]),
            with([false, false, false, true]),
        );
        assert_eq!(Purpose::of(&renewed.0, &acquired.0), Purpose::Untimed);
    }
}
