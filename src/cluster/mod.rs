//! What talks to Kubernetes: the client, the watch of the policy ConfigMap, self-managed certificates, the watch of the
//! [`registration`], the writer of Events, and the look before a fence is printed.
//!
//! [`policy_source`] is the pure part: it decides what each observation of the ConfigMap means. [`policy_watch`] is
//! the edge that observes, and puts the decisions into force.

pub mod certificates;
pub mod client;
pub mod event_publisher;
pub mod fence_check;
pub mod namespaced_name;
pub mod policy_source;
pub mod policy_watch;
pub mod registration;

pub use client::{ConnectError, connect};
pub use event_publisher::publish_events;
pub use fence_check::{FenceCheckError, Surprise, check_fence};
pub use namespaced_name::{NamespacedName, NamespacedNameError};
pub use policy_source::{POLICY_KEY, PolicyStatus};
pub use policy_watch::{policy_status, watch_policy};

use policy_watch::in_one_line;
