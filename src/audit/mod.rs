//! The audit log: one JSON line per violation and per allowed holder change.

pub mod log;

pub use log::AuditLog;
