//! The Common Expression Language, in which the API server holds what is exported to it: text that goes into its
//! expressions.
//!
//! Pure: no I/O, no clock, no Kubernetes client.

mod literal;

pub use literal::literal;
