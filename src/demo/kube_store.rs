//! The leases of a real API server.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::Value;

use super::{
    review::WEBHOOK_NAME,
    store::{AdmissionCounts, ApiError, LeaseKey, LeaseStore, Writer},
};

/// A client's view of a real API server.
pub struct KubeStore {
    client: Client,
}

impl KubeStore {
    /// The leases that `client` sees.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn leases(&self, key: &LeaseKey) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

impl LeaseStore for KubeStore {
    async fn get(&self, key: &LeaseKey) -> Result<Lease, ApiError> {
        self.leases(key).get(&key.name).await.map_err(api_error)
    }

    async fn create(&self, writer: &Writer, key: &LeaseKey, lease: &Lease) -> Result<Lease, ApiError> {
        let mut lease = lease.clone();
        lease.metadata.name = Some(key.name.clone());
        self.leases(key)
            .create(&post(writer), &lease)
            .await
            .map_err(api_error)
    }

    async fn update(&self, writer: &Writer, key: &LeaseKey, lease: &Lease) -> Result<Lease, ApiError> {
        self.leases(key)
            .replace(&key.name, &post(writer), lease)
            .await
            .map_err(api_error)
    }

    async fn patch(&self, writer: &Writer, key: &LeaseKey, patch: &Value) -> Result<Lease, ApiError> {
        let params = PatchParams {
            field_manager: Some(writer.field_manager.clone()),
            ..PatchParams::default()
        };
        self.leases(key)
            .patch(&key.name, &params, &Patch::Merge(patch))
            .await
            .map_err(api_error)
    }

    async fn admission_counts(&self) -> Result<AdmissionCounts, ApiError> {
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .map_err(|error| ApiError::new(0, "", error.to_string()))?;
        Ok(counts(
            &self.client.request_text(request).await.map_err(api_error)?,
        ))
    }
}

fn post(writer: &Writer) -> PostParams {
    PostParams {
        field_manager: Some(writer.field_manager.clone()),
        ..PostParams::default()
    }
}

/// The client's error, as the API server's `Status` words it.
pub fn api_error(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => ApiError::new(status.code, &status.reason, status.message.clone()),
        other => ApiError::new(0, "", other.to_string()),
    }
}

/// Reads the API server's own counts of its calls to the guard
/// (`apiserver/pkg/admission/metrics/metrics.go`).
fn counts(metrics: &str) -> AdmissionCounts {
    let name = format!("name=\"{WEBHOOK_NAME}\"");
    let sum = |series: &str, label: &str| {
        metrics
            .lines()
            .filter(|line| line.starts_with(series) && line.contains(&name) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            // Counts of one short demo: far below where f64 loses units.
            .sum::<f64>() as u64
    };
    AdmissionCounts {
        reviews: sum("apiserver_admission_webhook_request_total{", ""),
        denials: sum("apiserver_admission_webhook_request_total{", "rejected=\"true\""),
        failures: sum("apiserver_admission_webhook_fail_open_count{", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_api_servers_metrics() {
        let text = r#"# TYPE apiserver_admission_webhook_request_total counter
apiserver_admission_webhook_request_total{code="200",name="leases.leasehold.dev",operation="CREATE",rejected="false",type="validating"} 4
apiserver_admission_webhook_request_total{code="403",name="leases.leasehold.dev",operation="UPDATE",rejected="true",type="validating"} 9
apiserver_admission_webhook_request_total{code="200",name="other.example",operation="UPDATE",rejected="true",type="validating"} 7
apiserver_admission_webhook_fail_open_count{name="leases.leasehold.dev",type="validating"} 1
"#;
        assert_eq!(
            counts(text),
            AdmissionCounts {
                reviews: 13,
                denials: 9,
                failures: 1
            }
        );
        assert_eq!(counts(""), AdmissionCounts::default());
    }
}
