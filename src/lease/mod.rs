//! The domain: records, changes, evidence.
