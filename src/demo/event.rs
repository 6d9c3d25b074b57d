//! What happens to electors.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use tokio::time::Instant;

use super::store::ApiError;

/// Something that happened to one elector.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// To whom: its number in the act's cast.
    pub elector: usize,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The elector started.
    Joined,
    /// It got the lease, and works as the leader from now on.
    Leads(Acquisition),
    /// A webhook denied its write.
    Denied(ApiError),
    /// It stopped working as the leader.
    Stops(StopReason),
    /// Its process was killed.
    Killed,
    /// It left while it was a candidate.
    Left,
}

/// How an elector got its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// There was none; it created it.
    Created,
    /// It was free.
    Free,
    /// Another held it.
    Takeover {
        /// The one who held it.
        from: String,
        /// How long ago that one renewed, going by the renewTime that it wrote.
        since_renewal: SignedDuration,
        /// How long a renewal is good for.
        duration: SignedDuration,
        /// Whether the transition was counted.
        counted: bool,
    },
}

impl Acquisition {
    /// How the writer of `new` gets the lease that said `old`, at `now`.
    pub fn from_records(old: &LeaseSpec, new: &LeaseSpec, now: Timestamp) -> Self {
        let Some(from) = old.holder_identity.clone().filter(|holder| !holder.is_empty()) else {
            return Self::Free;
        };
        Self::Takeover {
            from,
            since_renewal: old
                .renew_time
                .as_ref()
                .map_or(SignedDuration::MAX, |renewed| now.duration_since(renewed.0)),
            duration: SignedDuration::from_secs(old.lease_duration_seconds.unwrap_or_default().into()),
            counted: new.lease_transitions > old.lease_transitions,
        }
    }
}

/// Why a leader stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It could not renew for its renew deadline.
    Lost,
    /// It gave the lease back.
    Released,
}
