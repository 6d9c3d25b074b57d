//! What the library promises, without a socket and without an API server.

mod bad_input;
mod documents;
mod fixtures;
mod oracle;
mod properties;
mod reviews;
