//! Whether what a fence names is there: asked of the API server before the fence is printed.

use std::time::Duration;

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicy, coordination::v1::Lease, core::v1::Pod,
};
use kube::{Api, Client};

use crate::fence::{ANCHOR, Fence, Resource};

/// How long the API server may take for all answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// HTTP's status for what is not there.
const NOT_FOUND: u16 = 404;

/// What a fence names and the API server does not know, so that the fence would guard nothing or stop everybody.
#[derive(Debug, thiserror::Error)]
pub enum FenceCheckError {
    /// A resource that no API serves.
    #[error(
        "--resource {resource}: the API server serves no such resource, so the fence would guard nothing; kubectl \
         api-resources prints what it serves{}",
        if served.is_empty() { String::new() } else { format!(", in this group and version: {}", served.join(", ")) }
    )]
    UnknownResource {
        /// The resource.
        resource: Resource,
        /// The resources of its group and version; none where that does not exist either.
        served: Vec<String>,
    },
    /// The Lease does not exist.
    #[error(
        "--lease {0}: there is no such Lease, and while there is none the fence would refuse every creation and update, \
         whoever writes; start the elector once, which creates it, or check the name with kubectl get leases -A"
    )]
    NoLease(String),
    /// The API server did not answer.
    #[error("--kubeconfig: the API server did not answer within {} s", PATIENCE.as_secs())]
    Silence,
    /// The API server's answer is an error.
    #[error("--kubeconfig: cannot ask the API server for {what}; its user needs the right to read that")]
    Client {
        /// What was asked for.
        what: String,
        /// The answer.
        source: Box<kube::Error>,
    },
}

/// What is there but may surprise: to be told, and no reason not to fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// The policy that keeps the API server's watch of Leases alive is missing.
    NoAnchor,
    /// The lease's holder is no pod by its name or uid.
    HolderIsNoPod {
        /// `spec.holderIdentity`.
        holder: String,
        /// Where pods were looked for.
        namespace: String,
    },
}

impl std::fmt::Display for Surprise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnchor => write!(
                f,
                "the cluster has no anchor for fences yet: leasehold fence --anchor | kubectl apply -f -"
            ),
            Self::HolderIsNoPod { holder, namespace } => write!(
                f,
                "the lease is held by {holder:?}, which is no pod of namespace {namespace} by its name, by its uid or by \
                 beginning with its name: in mode enforce this leader's own writes would be refused (--pod-namespace names another)"
            ),
        }
    }
}

/// Looks whether the Lease and the resources of a fence exist, and what else may surprise. Reads only.
///
/// # Errors
/// The first of them that does not exist, or an API server that does not answer or refuses to.
pub async fn check_fence(client: &Client, fence: &Fence) -> Result<Vec<Surprise>, FenceCheckError> {
    tokio::time::timeout(PATIENCE, check(client, fence))
        .await
        .unwrap_or(Err(FenceCheckError::Silence))
}

async fn check(client: &Client, fence: &Fence) -> Result<Vec<Surprise>, FenceCheckError> {
    for resource in &fence.resources {
        check_resource(client, resource).await?;
    }
    let lease = lease(client, fence).await?;
    let mut surprises = Vec::new();
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    if let Some(holder) = holder.filter(|holder| !holder.is_empty())
        && !is_a_pod(client, fence, &holder).await?
    {
        surprises.push(Surprise::HolderIsNoPod {
            holder,
            namespace: fence.pod_namespace.to_string(),
        });
    }
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let anchor = policies.get_opt(ANCHOR).await;
    if anchor.map_err(failed("the anchor"))?.is_none() {
        surprises.push(Surprise::NoAnchor);
    }
    Ok(surprises)
}

async fn check_resource(client: &Client, resource: &Resource) -> Result<(), FenceCheckError> {
    let version = resource.version();
    let list = match resource.group() {
        "" => client.list_core_api_resources(version).await,
        group => {
            client
                .list_api_group_resources(&format!("{group}/{version}"))
                .await
        }
    };
    let served = match list {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(error) if is_not_found(&error) => Vec::new(),
        Err(error) => return Err(failed(&format!("the resources of {resource}"))(error)),
    };
    if served.contains(&resource.path()) {
        return Ok(());
    }
    Err(FenceCheckError::UnknownResource {
        resource: resource.clone(),
        served,
    })
}

async fn lease(client: &Client, fence: &Fence) -> Result<Lease, FenceCheckError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), fence.lease.namespace.as_str());
    let lease = leases.get_opt(fence.lease.name.as_str()).await;
    lease
        .map_err(failed("the Lease"))?
        .ok_or_else(|| FenceCheckError::NoLease(fence.lease.to_string()))
}

/// Whether the holder is a pod, as the fence's expressions take it: by its name or by its uid.
async fn is_a_pod(client: &Client, fence: &Fence, holder: &str) -> Result<bool, FenceCheckError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), fence.pod_namespace.as_str());
    let list = pods.list_metadata(&kube::api::ListParams::default()).await;
    let list = list.map_err(failed(&format!("the pods of namespace {}", fence.pod_namespace)))?;
    Ok(list.items.iter().any(|pod| {
        pod.metadata.uid.as_deref() == Some(holder)
            || pod
                .metadata
                .name
                .as_deref()
                .is_some_and(|name| begins_with_pod(holder, name))
    }))
}

/// Whether an identity is a pod's name, alone or with an addition as the fence's expressions take it.
fn begins_with_pod(holder: &str, pod: &str) -> bool {
    const HYPHEN_AND_UUID: usize = 37;
    holder.strip_prefix(pod).is_some_and(|rest| {
        rest.is_empty()
            || rest.starts_with(['_', '/', ':'])
            || rest.starts_with('-') && rest.len() == HYPHEN_AND_UUID
    })
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == NOT_FOUND)
}

fn failed(what: &str) -> impl FnOnce(kube::Error) -> FenceCheckError + use<> {
    let what = what.to_owned();
    move |source| FenceCheckError::Client {
        what,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_begins_with_its_pods_name() {
        let uuid = "2f1c8f0e-5b0a-4c1c-9d3e-8a7b6c5d4e3f";
        for (holder, expected) in [
            ("orders-0".to_owned(), true),
            (format!("orders-0_{uuid}"), true),
            (format!("orders-0-{uuid}"), true),
            ("orders-0/main".to_owned(), true),
            ("orders-0:8080".to_owned(), true),
            ("orders-01".to_owned(), false),
            ("orders-0-1".to_owned(), false),
            ("orders".to_owned(), false),
        ] {
            assert_eq!(begins_with_pod(&holder, "orders-0"), expected, "{holder}");
        }
    }
}
