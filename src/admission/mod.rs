//! The admission protocol: reviews in, verdicts out.

#![deny(
    clippy::disallowed_methods,
    reason = "pure: the clock, files and the surroundings are the caller's"
)]

mod decode;
mod handler;
mod policy_handler;
mod response;
mod review;
mod unreadable;

pub use decode::{Attempt, DecodeError, Subject, decode};
pub use handler::{Answer, Handler};
pub use policy_handler::PolicyHandler;
pub use unreadable::Unreadable;
