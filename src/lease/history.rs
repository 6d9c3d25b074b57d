//! What was seen of a lease before: plain data, for the rules that need memory.

use jiff::Timestamp;

/// The most changes of holder that are remembered of one lease.
pub const MOST_HOLDER_CHANGES: usize = 32;

/// For how many seconds after its last review a lease is remembered.
pub const REMEMBERED_SECONDS: i64 = 3600;

/// What a review confirms about the past of its lease, as far as this process saw it.
///
/// Everything here is confirmed: a remembered attempt counts only once a later review showed its result as the
/// object that it replaces. Each fact is told once, by the review that confirms it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When the lease got each of its latest holders, oldest first. Empty unless this review confirms the last
    /// of them.
    pub holder_changes: Vec<Timestamp>,
    /// The lease was deleted while somebody held it, and created anew by another.
    pub recreation: Option<Recreation>,
    /// Two pods write under one identity.
    pub shared_identity: Option<SharedIdentity>,
}

/// A lease that was deleted while somebody held it, and created anew by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recreation {
    /// Who held the deleted lease; cut where it is long.
    pub deleted_holder: String,
    /// When it was last renewed, by the API server's stamp (or created, where it had no stamp).
    pub renewed: Timestamp,
    /// For how many seconds it was valid from then on.
    pub valid_seconds: i64,
    /// Whether the deletion was provably not the holder's own.
    pub deleted_by_stranger: bool,
    /// Who created the lease anew; cut where it is long.
    pub new_holder: String,
    /// When, by the API server's clock.
    pub created: Timestamp,
}

/// Two pods that write under one identity in turn: one, then the other, then the one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedIdentity {
    /// The pod that came back.
    pub pod: String,
    /// The pod that wrote between.
    pub other: String,
}

impl History {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.holder_changes.is_empty() && self.recreation.is_none() && self.shared_identity.is_none()
    }
}
