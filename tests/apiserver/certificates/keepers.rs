//! A pair of replicas that keep their own certificates, beside the guard of the other tests: with a registration, a
//! Service and a namespace of their own, and in a hurry.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    guard::{REGISTRATIONS, Replica, endpoints_addresses, slice_endpoints},
    harness::{
        api::{Api, Reply},
        assets::repository,
        audit::text,
        control_plane::free_port,
        network::Network,
        until,
        world::World,
    },
};

/// The label of namespaces that the pair's registration selects; its value is the pair's name.
pub(super) const LABEL: &str = "leasehold.dev/test-certificates";

/// How long the pair waits for API servers: many times what one on this machine takes to learn of a change.
const PUBLISH_WAIT: &str = "2s";

/// The pair.
pub(super) struct Keepers {
    /// Of the registration, and of the namespace of everything else.
    pub(super) name: &'static str,
    pub(super) replicas: Vec<Replica>,
    /// Where the replicas listen.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) admin: Api,
}

/// What the Secret and the registration hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// `tls.crt`, in base64.
    pub(super) leaf: String,
    /// `ca.crt`, in base64.
    pub(super) authority: String,
    /// `retiring-ca.crt`, in base64; empty where there is none.
    pub(super) retiring: String,
    /// `caBundle` of each webhook, in base64.
    pub(super) bundles: Vec<String>,
    /// The serial that each replica reports, by its name.
    pub(super) reports: Vec<(String, String)>,
    /// A rotation that was asked for.
    pub(super) request: String,
}

impl State {
    /// Whether no rotation is under way, and every replica serves what the Secret holds.
    pub(super) fn is_settled(&self) -> bool {
        let served = self
            .reports
            .first()
            .is_some_and(|(_, first)| self.reports.iter().all(|(_, serial)| serial == first));
        !self.leaf.is_empty()
            && self.retiring.is_empty()
            && self.request.is_empty()
            && served
            && self.bundles.iter().all(|bundle| *bundle == self.authority)
    }
}

impl Keepers {
    /// Registers the pair and starts both at once, with nothing there yet. Ready when both are.
    pub(super) async fn start(world: &World, name: &'static str) -> anyhow::Result<Self> {
        Self::start_with(world, name, &[]).await
    }

    /// The same, with more flags.
    pub(super) async fn start_with(
        world: &World,
        name: &'static str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let plane = world.plane().await?;
        let admin = plane.admin()?;
        admin.create_namespace(name, json!({})).await?;
        let ports = match world.network {
            // Not those of the guard, which has the same addresses.
            Network::Namespace => (free_port()?, None),
            Network::Loopback => (0, Some(())),
        };
        let count = 2;
        let mut places = Vec::new();
        for number in 0..count {
            let place = match ports {
                (port, None) => {
                    let address = *world
                        .network
                        .replicas()
                        .get(number)
                        .context("no address for a replica")?;
                    (SocketAddr::new(address, port), free_port()?)
                }
                (_, Some(())) => {
                    let address = IpAddr::from([127, 0, 0, 1]);
                    (SocketAddr::new(address, free_port()?), free_port()?)
                }
            };
            places.push(place);
        }
        let addresses: Vec<SocketAddr> = places.iter().map(|(address, _)| *address).collect();
        register(world, &admin, name, &addresses).await?;
        let kubeconfig = plane.writer_kubeconfig();
        let replicas = places
            .iter()
            .enumerate()
            .map(|(number, (address, admin_port))| {
                let mut arguments = arguments(name, number, *address, *admin_port, &kubeconfig);
                arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
                let admin = SocketAddr::new(address.ip(), *admin_port);
                Replica::new(world, &format!("{name}-{number}"), arguments, admin)
            })
            .collect::<Vec<_>>();
        let keepers = Self {
            name,
            replicas,
            addresses,
            admin,
        };
        futures::future::try_join_all(keepers.replicas.iter().map(Replica::start)).await?;
        Ok(keepers)
    }

    pub(super) fn secret_path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/certificates", self.name)
    }

    pub(super) fn registration_path(&self) -> String {
        format!("{REGISTRATIONS}/{}", self.name)
    }

    /// The name that the API server dials.
    pub(super) fn dns_name(&self) -> String {
        format!("guard.{}.svc", self.name)
    }

    /// What is there now; None where something is missing.
    pub(super) async fn state(&self) -> anyhow::Result<Option<State>> {
        let secret = self.admin.get(&self.secret_path()).await?;
        let bundles = self.bundles().await?;
        if secret.code == 404 {
            return Ok(None);
        }
        let secret = secret.accepted()?;
        let data = |key: &str| {
            let value = secret.get("data").and_then(|data| data.get(key));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let reports: Value =
            serde_json::from_str(text(&secret, "/metadata/annotations/leasehold.dev~1replicas"))
                .unwrap_or_default();
        Ok(Some(State {
            leaf: data("tls.crt"),
            authority: data("ca.crt"),
            retiring: data("retiring-ca.crt"),
            bundles,
            reports: reports
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, report)| (name.clone(), text(report, "/serial").to_owned()))
                .collect(),
            request: text(&secret, "/metadata/annotations/leasehold.dev~1rotate").to_owned(),
        }))
    }

    /// `caBundle` of each webhook, in base64.
    pub(super) async fn bundles(&self) -> anyhow::Result<Vec<String>> {
        let registration = self.admin.get(&self.registration_path()).await?.accepted()?;
        let webhooks = registration.get("webhooks").and_then(Value::as_array);
        Ok(webhooks
            .into_iter()
            .flatten()
            .map(|webhook| text(webhook, "/clientConfig/caBundle").to_owned())
            .collect())
    }

    /// Waits until all that a rotation changes is as `wanted`, and gives it.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        wanted: impl Fn(&State) -> bool,
    ) -> anyhow::Result<State> {
        let looked = until(what, || async {
            for replica in &self.replicas {
                replica.ensure_running().await?;
            }
            Ok(self.state().await?.filter(&wanted))
        })
        .await;
        match looked {
            Ok(state) => Ok(state),
            Err(error) => Err(error.context(format!("at last there was {:?}", self.state().await?))),
        }
    }

    /// Asks for a rotation, as an operator would.
    pub(super) async fn ask(&self, kind: &str) -> anyhow::Result<()> {
        self.edit(json!({"metadata": {"annotations": {"leasehold.dev/rotate": kind}}}))
            .await?
            .accepted()?;
        Ok(())
    }

    /// Changes the Secret.
    pub(super) async fn edit(&self, patch: Value) -> anyhow::Result<Reply> {
        self.admin.merge_patch(&self.secret_path(), &patch).await
    }

    /// Which replica is elected, by the Lease.
    pub(super) async fn writer(&self) -> anyhow::Result<&Replica> {
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases/certificates",
            self.name
        );
        let lease = self.admin.get(&path).await?.accepted()?;
        let holder = text(&lease, "/spec/holderIdentity");
        let name = holder.split('_').next().unwrap_or_default();
        let replica = self.replicas.iter().find(|replica| replica.name() == name);
        replica.with_context(|| format!("no replica is {holder:?}"))
    }

    /// Ends the pair and takes its registration away, so that no other test meets it.
    pub(super) async fn end(&self) -> anyhow::Result<()> {
        self.admin.delete(&self.registration_path()).await?.accepted()?;
        for replica in &self.replicas {
            let status = replica.terminate().await?;
            ensure!(status.success(), "{} ended with {status}", replica.name());
        }
        Ok(())
    }
}

fn arguments(
    name: &str,
    number: usize,
    address: SocketAddr,
    admin_port: u16,
    kubeconfig: &std::path::Path,
) -> Vec<String> {
    let policy: PathBuf = repository("manifests/base/policy.yaml");
    vec![
        "serve".to_owned(),
        format!("--tls-secret={name}/certificates"),
        format!("--webhook-configuration={name}"),
        format!("--service={name}/guard"),
        format!("--replica-name={name}-{number}"),
        format!("--tls-publish-wait={PUBLISH_WAIT}"),
        "--tls-poll-interval=50ms".to_owned(),
        "--tls-lease-duration=5s".to_owned(),
        format!("--policy-file={}", policy.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--admin-bind-address={}", address.ip()),
        format!("--admin-port={admin_port}"),
        "--shutdown-delay=0s".to_owned(),
    ]
}

/// A registration with two webhooks, so that one is not all; without a `caBundle`, as manifests are applied.
async fn register(world: &World, admin: &Api, name: &str, addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let port = addresses.first().context("no replica")?.port();
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    if world.network == Network::Namespace {
        let metadata = json!({"name": "guard", "labels": {"kubernetes.io/service-name": "guard"}});
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "guard"},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": slice_endpoints(&ips), "ports": ports,
        });
        // Where older API servers look.
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "guard"},
            "subsets": [{"addresses": endpoints_addresses(&ips), "ports": ports}],
        });
        let core = format!("/api/v1/namespaces/{name}");
        let discovery = format!("/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices");
        admin
            .post(&format!("{core}/services"), &service)
            .await?
            .accepted()?;
        admin.post(&discovery, &slice).await?.accepted()?;
        admin
            .post(&format!("{core}/endpoints"), &endpoints)
            .await?
            .accepted()?;
    }
    let webhook = |webhook: &str, resource: &str| {
        json!({
            "name": format!("{webhook}.leasehold.dev"),
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": name, "name": "guard", "path": "/validate", "port": 443}},
            "rules": [{
                "apiGroups": ["coordination.k8s.io", ""], "apiVersions": ["v1"], "resources": [resource],
                "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Namespaced",
            }],
            // What comes to nothing is to be seen.
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
            "sideEffects": "None",
            "namespaceSelector": {"matchLabels": {LABEL: name}},
        })
    };
    let registration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook("leases", "leases"), webhook("locks", "configmaps")],
    });
    admin.post(REGISTRATIONS, &registration).await?.accepted()?;
    Ok(())
}
