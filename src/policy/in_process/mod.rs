//! The half of a policy that the API server can hold by itself: ValidatingAdmissionPolicies, for a cluster in which no
//! Leasehold runs, or for the moments in which none answers.
//!
//! Each rule says which part of itself CEL can hold, beside its Rust ([`InProcess`]); this module puts these parts
//! together, with the policy's settings inlined, since a policy with parameters stays off in silence after it was
//! deleted and created again (observed on 1.36). An action is a property of a binding, not of a validation, so there is
//! one policy for each: deny, warn, audit.
//!
//! What CEL can say here is what the Rust says of the same write: the tests on a real API server hold the two together.

mod assembly;
mod export;
mod manifest;
mod matching;
mod rule;
mod setting;
mod vocabulary;

pub use export::{Export, ExportError, Obstacle, RuleExport};
pub use rule::{Check, InProcess};
pub use setting::{Constant, Setting, Settings, Variable};

pub(crate) use rule::words;
