//! A policy in a file, which is followed as certificates are.

use super::polled_files::{NamedFile, Poll, ReadError, Seen, read_together};
use crate::policy::{ActivePolicy, Mode, Policy, PolicyError};

/// A policy that follows its file.
#[derive(Debug)]
pub struct PolledPolicy {
    file: NamedFile,
    active: ActivePolicy,
    seen: Seen<1>,
}

impl PolledPolicy {
    /// Reads the file; the policy is then in force in [`Self::active`].
    ///
    /// # Errors
    /// When the file cannot be read, or is not a policy.
    pub fn load(file: NamedFile) -> Result<Self, PolicyFileError> {
        let contents = read_together(&[&file])?;
        let active = ActivePolicy::new(parse(&file, &contents)?);
        Ok(Self {
            file,
            active,
            seen: Seen::new(contents),
        })
    }

    /// The policy in force, which follows the file as it is [polled](Self::poll).
    pub fn active(&self) -> ActivePolicy {
        self.active.clone()
    }

    /// The mode of the policy in force.
    pub fn mode(&self) -> Mode {
        self.active.load().document().mode
    }

    /// Looks at the file once. A bad policy is refused and the last good one kept.
    pub fn poll(&mut self) -> Poll<PolicyFileError> {
        let Self { file, active, seen } = self;
        let read = read_together(&[&*file]).map_err(PolicyFileError::from);
        seen.take_in(read, |contents| {
            active.replace(parse(file, contents)?);
            Ok(())
        })
    }
}

fn parse(file: &NamedFile, [document]: &[Vec<u8>; 1]) -> Result<Policy, PolicyFileError> {
    let document = str::from_utf8(document).map_err(|_| PolicyFileError::NotText(file.clone()))?;
    Policy::parse(document).map_err(|error| PolicyFileError::Policy {
        file: file.clone(),
        error,
    })
}

/// Why a policy file was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not UTF-8.
    #[error("{0}: is not UTF-8 text; give a policy in YAML")]
    NotText(NamedFile),
    /// It is not a policy.
    #[error("{file}: {error}")]
    Policy {
        /// Which file.
        file: NamedFile,
        /// What is wrong with it.
        error: PolicyError,
    },
}
