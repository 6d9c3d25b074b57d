//! The audit log: one JSON line per violation and per allowed holder change.

pub mod destination;
mod line;
pub mod log;
mod record;

pub use destination::{AuditLogTarget, OpenError};
pub use line::to_line;
pub use log::AuditLog;
pub use record::{AuditRecord, EvidenceRecord, RecordKind};
