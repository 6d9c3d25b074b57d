//! The server on real sockets: real TLS, real HTTP/1.1 and HTTP/2.
//!
//! What is waited for is an event that the server causes: an answer, a closed connection, a line in its log.
//! Limits that end something are set tiny where the end is what is waited for, and to an hour where it must
//! not come.

// Helpers say what they expect by unwrapping it, as the tests do (clippy.toml covers only functions marked as
// tests).
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod admin;
mod drain;
mod harness;
mod limits;
mod process;
mod requests;
mod rotation;
mod tls;
