//! What Leasehold counts and measures, for Prometheus.

pub mod admission;
pub mod audit_log;
pub mod certificates;
pub mod events;
pub mod exposition;
pub mod leases;
pub mod memory;
pub mod policy;
pub mod process;
pub mod registration;
pub mod server;

use prometheus_client::registry::Registry;

use self::{
    admission::AdmissionMetrics, audit_log::AuditLogMetrics, certificates::CertificateMetrics,
    events::EventMetrics, leases::LeaseMetrics, memory::MemoryMetrics, policy::PolicyMetrics,
    registration::RegistrationMetrics, server::ServerMetrics,
};

/// Every series that Leasehold exports, with its registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reviews and verdicts.
    pub admission: AdmissionMetrics,
    /// The audit log.
    pub audit_log: AuditLogMetrics,
    /// Events on Kubernetes objects.
    pub events: EventMetrics,
    /// Single leases and holders.
    pub leases: LeaseMetrics,
    /// Certificates that Leasehold manages itself.
    pub certificates: CertificateMetrics,
    /// What is remembered of leases.
    pub memory: MemoryMetrics,
    /// The policy in force.
    pub policy: PolicyMetrics,
    /// The registration.
    pub registration: RegistrationMetrics,
    /// Connections, requests, certificates.
    pub server: ServerMetrics,
}

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry);
        let own = registry.sub_registry_with_prefix("leasehold");
        let leases = LeaseMetrics::new();
        own.register_collector(leases.collector());
        Self {
            admission: AdmissionMetrics::register(own),
            audit_log: AuditLogMetrics::register(own),
            events: EventMetrics::register(own),
            leases,
            certificates: CertificateMetrics::register(own),
            memory: MemoryMetrics::register(own),
            policy: PolicyMetrics::register(own),
            registration: RegistrationMetrics::register(own),
            server: ServerMetrics::register(own),
            registry,
        }
    }

    /// The exposition text (OpenMetrics) of all series.
    ///
    /// # Errors
    /// Only if formatting into a string fails, which it does not.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
