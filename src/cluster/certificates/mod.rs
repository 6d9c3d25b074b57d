//! Certificates that Leasehold makes and renews by itself: CA and leaf in a Secret, the CA in `caBundle`.
//!
//! [`rotation`] decides what comes next and [`election`] who does it; both are pure. [`SelfManaged`] is the loop that
//! looks, at the [`Settings`]' interval, at what the API server has, serves what stands in the Secret, reports that it
//! does, and, where it is elected, takes the next step.
//!
//! The loop polls rather than watches: so it needs no right but to `get` the three objects by their names, the clock is
//! looked at each time (a machine that slept rotates at once), and there is no watch to be lost.
//!
//! A replica's report is an annotation of the Secret. Annotations of its pod would take the right to patch every pod of
//! the namespace, and a Lease for each replica the right to update every Lease there, since their names are not known
//! beforehand; and neither would share a resourceVersion with what is reported on. A replica that was killed leaves its
//! report behind: unless a successor of its name replaces it, it counts until the leaf that it names has expired.

mod api;
pub mod election;
mod issue;
pub mod rotation;
mod secret;
mod self_managed;
pub mod settings;
mod warning;

pub use self_managed::{SelfManaged, Served};
pub use settings::Settings;
