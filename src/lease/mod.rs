//! The domain: what a leader-election lease says, what a write does to it, and what is known about its age.
//!
//! Pure: no I/O, no clock, no async, no Kubernetes client. Nothing here is tied to the `Lease` kind; a
//! [`Record`] can come from any object that carries a leader-election record.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

pub mod annotation_lock;
mod change;
mod evidence;
mod history;
mod purpose;
mod record;
mod stamps;
mod write;
mod writer;

pub use change::Change;
pub use evidence::{Clock, Evidence, EvidenceKind, Tolerance};
pub use history::{History, MOST_HOLDER_CHANGES, REMEMBERED_SECONDS, Recreation, SharedIdentity};
pub use purpose::Purpose;
pub use record::{Heartbeat, Record};
pub use stamps::{Stamp, Stamps};
pub use write::{LeaseName, ObjectKind, Owner, State, Write};
pub use writer::{Ownership, Writer};

/// Test data shared by the tables of the domain and of the rules.
#[cfg(test)]
pub(crate) mod testing;
