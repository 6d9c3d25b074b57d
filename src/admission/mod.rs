//! The admission protocol: reviews in, verdicts out.

pub mod handler;

pub use handler::{Answer, Handler};
