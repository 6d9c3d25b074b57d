//! Where the electors' lease lives: the four calls that they make, whatever answers them.

use std::fmt;

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl LeaseKey {
    /// The key of lease `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The pod whose bound service-account token comes with the request.
    pub pod: String,
    /// The field manager. Replicas of one program share it, as with client-go, where it is the first part of
    /// the user agent.
    pub field_manager: String,
}

/// A failed request, as a client reads it from the API server's `Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status code; 0 when no answer came at all.
    pub code: u16,
    /// The machine-readable reason: `Conflict`, `Forbidden`, …
    pub reason: String,
    /// The words.
    pub message: String,
}

impl ApiError {
    /// An error of the API server's own making.
    pub fn new(code: u16, reason: &str, message: String) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message,
        }
    }

    /// No such lease.
    pub fn not_found(key: &LeaseKey) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("leases.coordination.k8s.io \"{}\" not found", key.name),
        )
    }

    /// Another write came first (`apimachinery/pkg/api/errors`, `NewConflict`).
    pub fn conflict(key: &LeaseKey) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on leases.coordination.k8s.io \"{}\": the object has been modified; \
             please apply your changes to the latest version and try again",
            key.name
        );
        Self::new(409, "Conflict", message)
    }

    /// Another create came first.
    pub fn already_exists(key: &LeaseKey) -> Self {
        let message = format!("leases.coordination.k8s.io \"{}\" already exists", key.name);
        Self::new(409, "AlreadyExists", message)
    }

    /// A value that the API server itself refuses.
    pub fn invalid(key: &LeaseKey, detail: &str) -> Self {
        let message = format!("Lease.coordination.k8s.io \"{}\" is invalid: {detail}", key.name);
        Self::new(422, "Invalid", message)
    }

    /// Whether there is no such lease.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether an admission webhook said no.
    pub fn is_denial(&self) -> bool {
        self.message.starts_with("admission webhook ")
    }
}

/// What the API server's side counted about the guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionCounts {
    /// Writes sent to the guard.
    pub reviews: u64,
    /// Reviews that the guard denied.
    pub denials: u64,
    /// Reviews that got no usable answer; with failurePolicy `Ignore` the write goes ahead.
    pub failures: u64,
}

/// The part of the Kubernetes API that electors use.
pub trait LeaseStore: Send + Sync + 'static {
    /// GET.
    fn get(&self, key: &LeaseKey) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// POST.
    fn create(
        &self,
        writer: &Writer,
        key: &LeaseKey,
        lease: &Lease,
    ) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// PUT. A resourceVersion that is not the stored one is a conflict.
    fn update(
        &self,
        writer: &Writer,
        key: &LeaseKey,
        lease: &Lease,
    ) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// PATCH, as a JSON merge patch (RFC 7396). Without a resourceVersion it is applied to whatever is stored.
    fn patch(
        &self,
        writer: &Writer,
        key: &LeaseKey,
        patch: &Value,
    ) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// What this side counted about the guard since the store was made.
    fn admission_counts(&self) -> impl Future<Output = Result<AdmissionCounts, ApiError>> + Send;
}
