//! The Common Expression Language, in which the API server holds what is exported to it: text that goes into its
//! expressions.
//!
//! Pure: no I/O, no clock, no Kubernetes client.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod literal;

pub use literal::literal;
