//! The policy: what is judged, how strictly, and for whom.

pub mod active;

pub use active::ActivePolicy;

/// A checked policy document.
#[derive(Clone, Debug, Default)]
pub struct Policy {}

impl Policy {
    /// Reads a policy document (YAML).
    ///
    /// # Errors
    /// A [`PolicyError`] that names line, column and field of the first mistake.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        let _ = document;
        Ok(Self {})
    }
}

/// Why a policy document was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);
