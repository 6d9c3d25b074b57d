//! What talks to Kubernetes: the client, and the watch of the policy ConfigMap.
//!
//! [`policy_source`] is the pure part: it decides what each observation of the ConfigMap means. [`policy_watch`] is
//! the edge that observes, and puts the decisions into force.

pub mod client;
pub mod config_map_name;
pub mod policy_source;
pub mod policy_watch;

pub use client::{ConnectError, connect};
pub use config_map_name::{ConfigMapName, ConfigMapNameError};
pub use policy_source::{POLICY_KEY, PolicyStatus};
pub use policy_watch::{policy_status, watch_policy};
