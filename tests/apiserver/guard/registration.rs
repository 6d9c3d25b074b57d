//! How the API server finds Leasehold and comes to trust it.

use serde_json::{Value, json};

use super::{NAMESPACE, REGISTRATIONS};
use crate::harness::{
    api::Api,
    audit::text,
    network::Network,
    world::{World, base64},
};

/// Leads the API server to the replicas.
pub(super) async fn register(
    world: &World,
    admin: &Api,
    registration: Value,
    secure_port: u16,
) -> anyhow::Result<()> {
    match world.network {
        // What a kubelet and the endpoint controller do in a cluster.
        Network::Namespace => {
            let addresses: Vec<String> = world.network.replicas().iter().map(ToString::to_string).collect();
            let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "leasehold", "labels": {"kubernetes.io/service-name": "leasehold"}},
                "addressType": "IPv4",
                "endpoints": slice_endpoints(&addresses),
                "ports": [{"name": "https", "port": secure_port, "protocol": "TCP"}],
            });
            admin.post(&slices, &slice).await?.accepted()?;
            // Where older API servers look (1.30 does).
            let endpoints = json!({
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "leasehold"},
                "subsets": [{
                    "addresses": endpoints_addresses(&addresses),
                    "ports": [{"name": "https", "port": secure_port, "protocol": "TCP"}],
                }],
            });
            admin
                .post(&format!("/api/v1/namespaces/{NAMESPACE}/endpoints"), &endpoints)
                .await?
                .accepted()?;
        }
        // The registration of the manifests, but by URL, and under another name.
        Network::Loopback => {
            admin
                .delete(&format!("{REGISTRATIONS}/leasehold"))
                .await?
                .accepted()?;
            let mut by_url = registration;
            by_url["metadata"] = json!({"name": "leasehold-by-url"});
            let bundle = base64(world.plane().await?.authority().pem());
            for webhook in by_url["webhooks"].as_array_mut().into_iter().flatten() {
                let path = text(webhook, "/clientConfig/service/path").to_owned();
                webhook["clientConfig"] = json!({
                    "url": format!("https://127.0.0.1:{secure_port}{path}"),
                    "caBundle": bundle,
                });
            }
            admin.post(REGISTRATIONS, &by_url).await?.accepted()?;
        }
    }
    Ok(())
}

pub(crate) fn slice_endpoints(addresses: &[String]) -> Value {
    addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect()
}

pub(crate) fn endpoints_addresses(addresses: &[String]) -> Value {
    addresses.iter().map(|address| json!({"ip": address})).collect()
}

/// Changes where the Service leads.
pub(crate) async fn set_endpoints(admin: &Api, addresses: &[String]) -> anyhow::Result<()> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/leasehold");
    admin
        .merge_patch(&path, &json!({"endpoints": slice_endpoints(addresses)}))
        .await?
        .accepted()?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/endpoints/leasehold");
    let patch = json!([
        {"op": "replace", "path": "/subsets/0/addresses", "value": endpoints_addresses(addresses)},
    ]);
    let body = patch.to_string().into_bytes();
    admin
        .request(http::Method::PATCH, &path, "application/json-patch+json", body)
        .await?
        .accepted()?;
    Ok(())
}
