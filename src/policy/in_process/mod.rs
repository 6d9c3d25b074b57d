//! The half of a policy that the API server can hold by itself: ValidatingAdmissionPolicies, for a cluster in which no
//! Leasehold runs, or for the moments in which none answers.
//!
//! Each rule says which part of itself CEL can hold, beside its Rust ([`InProcess`]); this module puts these parts
//! together, with the policy's settings inlined, since a policy with parameters stays off in silence after it was
//! deleted and created again (observed on 1.36). An action is a property of a binding, not of a validation, so there are
//! two policies: one that refuses, and one that warns and annotates, for those who ask for it.
//!
//! What CEL can say here is what the Rust says of the same write: the tests on a real API server hold the two together.

mod assembly;
mod caps;
mod export;
mod inline;
mod manifest;
mod matching;
mod rule;
mod setting;
mod static_files;
mod vocabulary;

pub use export::{Export, ExportError, ExportOptions, Obstacle, RuleExport};
pub use manifest::Source;
pub use rule::{Check, InProcess};
pub use setting::{Constant, Setting, Settings, Variable};
pub use static_files::{CONFIGURATION_FILE, KUBEADM_FILE, POLICIES_FILE, POLICIES_FOLDER, StaticFiles};

pub(crate) use rule::words;
