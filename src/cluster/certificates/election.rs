//! Who writes: elected by a Lease, by client-go's algorithm and the strictest reading of Leasehold's own rules. Pure.
//!
//! - A missing Lease is created, with `leaseTransitions` 0.
//! - The holder renews by a PUT with the resourceVersion that it read; nothing but `renewTime` moves.
//! - Anybody else waits until it has seen the record unchanged for the record's own duration, on its own steady clock;
//!   what `renewTime` says plays no part. Then it counts `leaseTransitions` one up and sets `acquireTime`.
//! - At the end the holder leaves the record free, and everything else in it alone.
//!
//! Being elected keeps writers out of each other's way; that nothing breaks does not hang on it (see
//! [`super::rotation`]).

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

/// One candidate.
#[derive(Debug)]
pub struct Election {
    identity: String,
    duration: Duration,
    /// The record as last seen, and when it was first seen so.
    observed: Option<(Option<LeaseSpec>, Instant)>,
    /// When the last write by which this candidate holds the lease was sent.
    held_since: Option<Instant>,
}

/// What a candidate should write.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// POST.
    Create(Lease),
    /// PUT.
    Update(Lease),
    /// Nothing: another holds it.
    None,
    /// Nothing, and nobody else will for a long time or for ever: somebody should look.
    Stuck(Stuck),
}

/// Longest duration of a record of another that is nothing to speak of: what the policy's own `duration-out-of-bounds`
/// takes by default.
const LONGEST_USUAL: Duration = Duration::from_secs(3600);

/// Why nobody is elected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// `leaseTransitions` is the largest that there is.
    #[error(
        "its leaseTransitions {} cannot be counted up, so that no other replica is ever elected to write; delete the Lease",
        i32::MAX
    )]
    Count,
    /// Another holds it for so many seconds.
    #[error(
        "its leaseDurationSeconds {0} keep every other replica from being elected to write for so long; delete the Lease if its holder is gone"
    )]
    Duration(u64),
}

impl Election {
    /// A candidate under this identity, which no other process may have. `duration` is the lease's, of whole seconds.
    pub fn new(identity: String, duration: Duration) -> Self {
        Self {
            identity,
            duration,
            observed: None,
            held_since: None,
        }
    }

    /// How often to look: a third of the duration, as client-go's defaults (2 s of 15 s) leave room for a retry.
    pub fn interval(&self) -> Duration {
        self.duration / 3
    }

    /// What to write, given the Lease as it was read between the instants `before` and `after`. `now` is what to write
    /// down as the time.
    pub fn attempt(
        &mut self,
        lease: Option<&Lease>,
        before: Instant,
        after: Instant,
        now: Timestamp,
    ) -> Attempt {
        let spec = lease.map(|lease| lease.spec.clone().unwrap_or_default());
        let seen_since = match &self.observed {
            Some((seen, since)) if *seen == spec => *since,
            _ => {
                self.observed = Some((spec.clone(), after));
                after
            }
        };
        let (Some(lease), Some(mut spec)) = (lease, spec) else {
            self.held_since = None;
            return Attempt::Create(self.first(now));
        };
        let holder = spec
            .holder_identity
            .as_deref()
            .filter(|holder| !holder.is_empty());
        if holder == Some(self.identity.as_str()) {
            spec.renew_time = Some(MicroTime(now));
        } else {
            self.held_since = None;
            let valid_for = spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                // A record without one says nothing of when it is over: as if it were one's own.
                .map_or(self.duration, Duration::from_secs);
            let Some(transitions) = spec.lease_transitions.unwrap_or(0).checked_add(1) else {
                return Attempt::Stuck(Stuck::Count);
            };
            if holder.is_some() && before.saturating_duration_since(seen_since) < valid_for {
                return if valid_for > self.duration.max(LONGEST_USUAL) {
                    Attempt::Stuck(Stuck::Duration(valid_for.as_secs()))
                } else {
                    Attempt::None
                };
            }
            spec.holder_identity = Some(self.identity.clone());
            spec.lease_duration_seconds = Some(self.seconds());
            spec.lease_transitions = Some(transitions);
            spec.acquire_time = Some(MicroTime(now));
            spec.renew_time = Some(MicroTime(now));
        }
        Attempt::Update(Lease {
            metadata: lease.metadata.clone(),
            spec: Some(spec),
        })
    }

    /// The write of an attempt that was decided on at `before` was stored as `lease`.
    pub fn stored(&mut self, lease: &Lease, before: Instant, after: Instant) {
        self.observed = Some((Some(lease.spec.clone().unwrap_or_default()), after));
        self.held_since = Some(before);
    }

    /// Whether this candidate may write: it holds the lease, and has renewed it so lately that nobody else can have
    /// taken it. The margin is a third of the duration, for the write under way.
    pub fn is_elected(&self, at: Instant) -> bool {
        self.held_since
            .is_some_and(|since| at.saturating_duration_since(since) < self.duration * 2 / 3)
    }

    /// The Lease to write in order to leave, if this candidate holds it by what was read.
    pub fn release(&mut self, lease: &Lease) -> Option<Lease> {
        self.held_since = None;
        let mut spec = lease.spec.clone()?;
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return None;
        }
        spec.holder_identity = Some(String::new());
        Some(Lease {
            metadata: lease.metadata.clone(),
            spec: Some(spec),
        })
    }

    fn first(&self, now: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta::default(),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(self.seconds()),
                lease_transitions: Some(0),
                acquire_time: Some(MicroTime(now)),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        }
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn wall(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    /// A candidate, an API server with one Lease, and a clock that only goes on when told.
    struct Fixture {
        lease: Option<Lease>,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                lease: None,
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// One look at this second.
        fn attempt(&self, election: &mut Election, seconds: u64) -> Attempt {
            let at = self.at(seconds);
            election.attempt(self.lease.as_ref(), at, at, wall(seconds.cast_signed()))
        }

        /// The same, with its write; true if the candidate wrote.
        fn campaign(&mut self, election: &mut Election, seconds: u64) -> bool {
            let at = self.at(seconds);
            match self.attempt(election, seconds) {
                Attempt::None | Attempt::Stuck(_) => false,
                Attempt::Create(lease) | Attempt::Update(lease) => {
                    election.stored(&lease, at, at);
                    self.lease = Some(lease);
                    true
                }
            }
        }

        fn spec(&self) -> &LeaseSpec {
            self.lease.as_ref().unwrap().spec.as_ref().unwrap()
        }
    }

    fn mk(identity: &str) -> Election {
        Election::new(identity.to_owned(), DURATION)
    }

    #[test]
    fn the_first_creates_and_a_renewal_moves_renew_time_alone() {
        let mut fixture = Fixture::new();
        let mut a = mk("a");
        assert!(fixture.campaign(&mut a, 0));
        let created = fixture.spec().clone();
        assert_eq!(created.lease_transitions, Some(0));
        assert_eq!(created.lease_duration_seconds, Some(15));
        assert!(fixture.campaign(&mut a, 5));
        let renewed = LeaseSpec {
            renew_time: Some(MicroTime(wall(5))),
            ..created
        };
        assert_eq!(*fixture.spec(), renewed);
    }

    #[test]
    fn another_waits_for_what_it_saw_itself_and_counts() {
        let mut fixture = Fixture::new();
        let (mut a, mut b) = (mk("a"), mk("b"));
        fixture.campaign(&mut a, 0);
        // Seen for the first time at 100: however old it claims to be, the wait begins now.
        assert!(!fixture.campaign(&mut b, 100));
        fixture.campaign(&mut a, 110);
        assert!(!fixture.campaign(&mut b, 114), "it was renewed meanwhile");
        assert!(!fixture.campaign(&mut b, 128));
        assert!(fixture.campaign(&mut b, 129), "15 s after it was seen renewed");
        let spec = fixture.spec();
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.acquire_time, Some(MicroTime(wall(129))));
        assert!(!fixture.campaign(&mut a, 130), "a is not the holder any more");
        assert!(!a.is_elected(fixture.at(130)));
    }

    #[test]
    fn the_records_own_duration_counts_not_the_candidates() {
        let mut fixture = Fixture::new();
        let mut a = Election::new("a".to_owned(), Duration::from_secs(60));
        let mut b = mk("b");
        fixture.campaign(&mut a, 0);
        fixture.campaign(&mut b, 1);
        assert!(!fixture.campaign(&mut b, 60));
        assert!(fixture.campaign(&mut b, 61));
        assert_eq!(fixture.spec().lease_duration_seconds, Some(15));
    }

    #[test]
    fn whoever_cannot_renew_stops_before_another_can_begin() {
        let mut fixture = Fixture::new();
        let mut a = mk("a");
        fixture.campaign(&mut a, 0);
        assert!(a.is_elected(fixture.at(9)));
        assert!(!a.is_elected(fixture.at(10)));
    }

    #[test]
    fn a_release_frees_and_the_next_counts_at_once() {
        let mut fixture = Fixture::new();
        let (mut a, mut b) = (mk("a"), mk("b"));
        fixture.campaign(&mut a, 0);
        let held = fixture.spec().clone();
        assert_eq!(b.release(fixture.lease.as_ref().unwrap()), None, "not its own");
        fixture.lease = a.release(fixture.lease.as_ref().unwrap());
        assert!(!a.is_elected(fixture.at(0)));
        let free = LeaseSpec {
            holder_identity: Some(String::new()),
            ..held
        };
        assert_eq!(*fixture.spec(), free);
        assert!(fixture.campaign(&mut b, 1));
        assert_eq!(fixture.spec().lease_transitions, Some(1));
    }

    #[test]
    fn a_count_that_cannot_go_on_is_left_alone() {
        let mut fixture = Fixture::new();
        let (mut a, mut b) = (mk("a"), mk("b"));
        fixture.campaign(&mut a, 0);
        fixture
            .lease
            .as_mut()
            .unwrap()
            .spec
            .as_mut()
            .unwrap()
            .lease_transitions = Some(i32::MAX);
        fixture.campaign(&mut b, 0);
        assert!(!fixture.campaign(&mut b, 100));
        assert_eq!(fixture.attempt(&mut b, 100), Attempt::Stuck(Stuck::Count));
    }

    #[test]
    fn a_duration_that_keeps_everybody_out_is_told_and_a_usual_one_is_not() {
        let mut fixture = Fixture::new();
        let (mut a, mut b) = (mk("a"), mk("b"));
        fixture.campaign(&mut a, 0);
        for (seconds, stuck) in [
            (15, Attempt::None),
            (3600, Attempt::None),
            (3601, Attempt::Stuck(Stuck::Duration(3601))),
            (i32::MAX, Attempt::Stuck(Stuck::Duration(2_147_483_647))),
        ] {
            let spec = fixture.lease.as_mut().unwrap().spec.as_mut().unwrap();
            spec.lease_duration_seconds = Some(seconds);
            assert_eq!(fixture.attempt(&mut b, 1), stuck, "{seconds}");
        }
        // Whoever holds it renews it as ever.
        assert!(fixture.campaign(&mut a, 2));
    }
}
