//! The audit log: one JSON line per violation and per allowed holder change.

pub mod log;
mod record;

pub use log::AuditLog;
pub use record::{AuditRecord, EvidenceRecord, RecordKind};
