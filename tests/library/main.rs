//! What the library promises, without a socket and without an API server.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests say what they expect by unwrapping it"
)]

mod annotation_locks;
mod bad_input;
mod break_glass;
mod chart;
mod documents;
mod fixtures;
mod in_process;
mod machine;
mod memory;
mod oracle;
mod properties;
mod replay;
mod reviews;
mod security;
mod suggest;
mod trace_format;
mod trace_play;
mod trace_reviews;
mod trace_table;
mod traces;
mod uses;
