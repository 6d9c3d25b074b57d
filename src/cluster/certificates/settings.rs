//! What self-managed certificates are told by flags.

use std::time::Duration;

use super::rotation::Lives;
use crate::cluster::NamespacedName;

/// Where certificates are kept, whom they are for, and how long they live.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Secret. The Lease that elects its writer has the same namespace and name.
    pub secret: NamespacedName,
    /// The ValidatingWebhookConfiguration whose `caBundle`s are kept.
    pub configuration: String,
    /// The Service that the API server dials.
    pub service: NamespacedName,
    /// This replica's name: no other replica that runs may have it.
    pub replica: String,
    /// How long certificates live.
    pub lives: Lives,
    /// How often to look.
    pub poll_interval: Duration,
    /// How long the Lease is valid.
    pub lease_duration: Duration,
}

impl Settings {
    /// The names in a leaf. The API server dials the first (`k8s.io/apiserver/pkg/util/webhook/client.go`); the others
    /// are for people.
    pub fn dns_names(&self) -> Vec<String> {
        let service = format!("{}.{}", self.service.name(), self.service.namespace());
        vec![
            format!("{service}.svc"),
            format!("{service}.svc.cluster.local"),
            service,
        ]
    }
}
