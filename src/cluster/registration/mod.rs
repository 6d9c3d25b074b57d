//! Whether the API server still asks Leasehold as the manifests say, and whether it can trust the answers.
//!
//! Whoever deletes the ValidatingWebhookConfiguration, or weakens a webhook in it, switches the guard off without a
//! sound: there is nobody left who could refuse it, since the API server asks no webhook about webhooks. So it is
//! watched, and what is wrong is told: in the log, by a metric, in the detail of `/readyz?verbose`, and where the
//! operator said so it is repaired.
//!
//! [`expected`] is what should be there, read from the manifests themselves, which are compiled in, and from what the
//! Deployment says of its components (`registered`). [`problem`] compares.
//! [`trust`] looks at `caBundle`. `vigil` decides what is told and when. All of these are pure; `watch` is the edge.
//!
//! No namespace is watched. By the selectors of the manifests no label that a user could set takes a namespace out of
//! the guard: `kubernetes.io/metadata.name` is the API server's own, and what the label of `fail-closed` takes out of one
//! webhook it puts into another. A selector that heeds any other label is a drifted selector, and told as that. So
//! there is no need for the right to read every namespace, nor for the memory to hold them.

pub mod expected;
pub mod problem;
mod registered;
mod repair;
pub mod trust;
mod vigil;
mod watch;

pub use expected::Expected;
pub use problem::{Problem, ProblemKind};
pub use registered::{RegisteredWebhook, RegisteredWebhookError};
pub use repair::repaired;
pub use watch::{REGISTRATION_CHECK, Registration, watch_registration};
