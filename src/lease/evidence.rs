//! What is known about how long ago a lease was last renewed.

use jiff::{SignedDuration, Timestamp};

use super::Write;

/// Where the knowledge comes from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvidenceKind {
    /// The API server's own stamps, on both ends.
    Stamped,
    /// No stamp tells of the last renewal, and the object is younger than its own duration: whoever takes it
    /// now is early.
    Created,
    /// The old holder's renewTime. A client's word: its clock may be anything.
    Claimed,
    /// The stamps contradict each other: the last renewal lies after this write. It proves nothing.
    Implausible,
}

impl EvidenceKind {
    /// Every kind, best first.
    pub const ALL: [Self; 4] = [Self::Stamped, Self::Created, Self::Claimed, Self::Implausible];

    /// The kind's name in logs and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stamped => "stamped",
            Self::Created => "created",
            Self::Claimed => "claimed",
            Self::Implausible => "implausible",
        }
    }
}

/// Whose clock tells when the write happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The API server's, from the write's own stamp.
    ApiServer,
    /// This process's, where the write carries no stamp.
    Leasehold,
}

impl Clock {
    /// The clock's name in logs and JSON output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "apiServer",
            Self::Leasehold => "leasehold",
        }
    }
}

/// How far clocks may differ before they count as contradicting each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Between the stamps of several API servers.
    pub clock_slack: SignedDuration,
    /// Between the API server's stamps and any other clock: this process's, a client's.
    pub max_skew: SignedDuration,
}

impl Tolerance {
    /// By how much the last renewal may lie after a write before that contradicts itself.
    ///
    /// Well over what honest clocks differ by, since evidence that contradicts itself cannot deny: a forged stamp
    /// passes `stamp-tampered` up to `max_skew` ahead of this process's clock, which may itself be as far ahead of
    /// the API server's. A correct takeover measures no negative age unless the clocks of two API servers differ
    /// by more than the lease's whole duration.
    fn contradiction(self, clock: Clock) -> SignedDuration {
        match clock {
            Clock::ApiServer => self
                .clock_slack
                .saturating_add(self.max_skew)
                .saturating_add(self.max_skew),
            Clock::Leasehold => self.max_skew,
        }
    }

    /// How far `clock` may be from the clock that stamped the last renewal.
    pub fn of_clock(self, clock: Clock) -> SignedDuration {
        match clock {
            Clock::ApiServer => self.clock_slack,
            Clock::Leasehold => self.max_skew,
        }
    }
}

/// When the old record was last renewed, and when this write happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where `renewed` comes from.
    pub kind: EvidenceKind,
    /// The last renewal. May be later than the renewal itself (the whole entry of a manager is stamped anew
    /// when it labels its lease), never earlier.
    pub renewed: Timestamp,
    /// The instant of this write.
    pub now: Timestamp,
    /// Whose clock `now` is.
    pub clock: Clock,
}

impl Evidence {
    /// The best evidence that a write carries about the record it replaces; `None` when it carries none, as on
    /// [`super::Change::Create`].
    pub fn of(write: &Write<'_>, tolerance: Tolerance) -> Option<Self> {
        let (now, clock) = match write.stamped_now() {
            Some(now) => (now, Clock::ApiServer),
            None => (write.reviewed, Clock::Leasehold),
        };
        let slack = tolerance.of_clock(clock);
        if let Some(renewed) = write.old.renewed() {
            let kind = if renewed.duration_since(now) > tolerance.contradiction(clock) {
                EvidenceKind::Implausible
            } else {
                EvidenceKind::Stamped
            };
            return Some(Self {
                kind,
                renewed,
                now,
                clock,
            });
        }
        let valid = write.old.record.valid_seconds();
        if let (Some(created), Some(valid)) = (write.old.stamps.created, valid) {
            let age = now.duration_since(created);
            if age < SignedDuration::from_secs(valid) && age >= -slack {
                return Some(Self {
                    kind: EvidenceKind::Created,
                    renewed: created,
                    now,
                    clock,
                });
            }
        }
        write.old.record.renew_instant().map(|renewed| Self {
            kind: EvidenceKind::Claimed,
            renewed,
            now,
            clock,
        })
    }

    /// How long ago the record was last renewed; negative where the clocks disagree.
    pub fn elapsed(&self) -> SignedDuration {
        self.now.duration_since(self.renewed)
    }

    /// [`Self::elapsed`] in whole seconds, rounded down.
    pub fn elapsed_seconds(&self) -> i64 {
        let elapsed = self.elapsed();
        if elapsed.subsec_nanos() < 0 {
            elapsed.as_secs() - 1
        } else {
            elapsed.as_secs()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{
        Change, Stamp,
        testing::{at, held, takeover},
    };

    const SLACK: Tolerance = Tolerance {
        clock_slack: SignedDuration::from_secs(1),
        max_skew: SignedDuration::from_secs(5),
    };

    #[test]
    fn stamps_come_first_whatever_the_clients_claim() {
        let write = takeover(
            held("a").duration(15).renewed_at(-3600),
            held("b").renewed_at(7200),
        )
        .stamped(10, 14);
        let evidence = Evidence::of(&write, SLACK).unwrap();
        assert_eq!(evidence.kind, EvidenceKind::Stamped);
        assert_eq!(evidence.clock, Clock::ApiServer);
        assert_eq!(evidence.elapsed_seconds(), 4);
    }

    #[test]
    fn a_renewal_long_after_the_write_proves_nothing() {
        // Slack 1 s and twice maxSkew of 5 s.
        for (renewed, kind) in [
            (15, EvidenceKind::Stamped),
            (25, EvidenceKind::Stamped),
            (26, EvidenceKind::Implausible),
        ] {
            let write = takeover(held("a"), held("b")).stamped(renewed, 14);
            assert_eq!(Evidence::of(&write, SLACK).unwrap().kind, kind, "{renewed}");
        }
    }

    #[test]
    fn a_blind_lease_younger_than_its_duration_is_judged_by_its_creation() {
        let mut write = takeover(held("a").duration(15), held("b"));
        write.reviewed = at(10);
        write.old.stamps.created = Some(at(0));
        let evidence = Evidence::of(&write, SLACK).unwrap();
        assert_eq!(
            (evidence.kind, evidence.clock),
            (EvidenceKind::Created, Clock::Leasehold)
        );
        write.reviewed = at(15);
        assert_eq!(
            Evidence::of(&write, SLACK).map(|evidence| evidence.kind),
            None,
            "older, and no renewTime"
        );
    }

    #[test]
    fn the_last_resort_is_the_old_holders_word() {
        let write = takeover(held("a").renewed_at(3), held("b"));
        assert_eq!(Evidence::of(&write, SLACK).unwrap().kind, EvidenceKind::Claimed);
    }

    #[test]
    fn a_deletion_is_judged_by_our_clock() {
        let mut write = takeover(held("a").renewed_at(0), held("b")).stamped(0, 0);
        write.change = Change::Delete;
        write.new = crate::lease::State::default();
        write.reviewed = at(9);
        let evidence = Evidence::of(&write, SLACK).unwrap();
        assert_eq!(
            (evidence.clock, evidence.elapsed_seconds()),
            (Clock::Leasehold, 9)
        );
    }

    #[test]
    fn our_own_clock_proves_nothing_when_it_is_behind_the_stamps() {
        let mut write = takeover(held("a"), held("b")).stamped(20, 22);
        write.new.stamps.holder = Stamp::Absent;
        write.reviewed = at(16);
        assert_eq!(Evidence::of(&write, SLACK).unwrap().kind, EvidenceKind::Stamped);
        write.reviewed = at(14);
        assert_eq!(
            Evidence::of(&write, SLACK).unwrap().kind,
            EvidenceKind::Implausible
        );
    }

    #[test]
    fn a_heartbeat_by_acquire_time_counts_where_there_is_no_renew_time() {
        let mut write = takeover(held("a").acquired_at(0), held("b"));
        write.old.stamps.acquire_time = Stamp::At(at(3));
        write.new.stamps.holder = Stamp::At(at(5));
        let evidence = Evidence::of(&write, SLACK).unwrap();
        assert_eq!(
            (evidence.kind, evidence.elapsed_seconds()),
            (EvidenceKind::Stamped, 2)
        );
    }
}
