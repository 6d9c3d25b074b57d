//! Who led when, from the API server's audit logs.
//!
//! ```text
//! files -> Values (JSON values, bounded) -> unwrap (events out of a cloud's envelopes) -> Event::of (writes to Leases)
//!       -> Merge (by time, over all files) -> Replay (lease by lease: terms, renewals, verdicts) -> LeaseReport
//! ```
//!
//! Pure, but for the readers that a caller opened. Memory grows with leases and with the window of order, not with the log.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod event;
mod follow;
mod intervals;
mod judge;
mod merge;
mod object;
mod picture;
mod report;
mod source;
mod unwrap;
mod values;

pub use event::{Event, Level, Verb};
pub use follow::{MOST_FINDINGS, MOST_TERMS, Replay, Selection};
pub use intervals::Intervals;
pub use merge::Merge;
pub use picture::svg;
pub use report::{Basis, End, Finding, LeaseReport, Renewals, Term};
pub use source::{Counts, Form, Source, SourceError};
