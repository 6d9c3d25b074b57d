//! The policy in force, swapped in whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Policy;

/// The policy in force; cheap to clone, never locked for readers.
#[derive(Clone, Debug)]
pub struct ActivePolicy {
    current: Arc<ArcSwap<Policy>>,
}

impl ActivePolicy {
    /// Starts with `policy` in force.
    pub fn new(policy: Policy) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(policy)),
        }
    }

    /// The policy in force now.
    pub fn load(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// Puts another policy in force, for every review from now on.
    pub fn replace(&self, policy: Policy) {
        self.current.store(Arc::new(policy));
    }
}
