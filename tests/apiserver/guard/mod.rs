//! Leasehold as the manifests deploy it: applied by kubectl, run as processes with the arguments of the Deployment,
//! as the ServiceAccount of the manifests.

mod registration;
mod replica;
mod roll_out;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::harness::{
    api::Api, assets::repository, audit::text, certificates::Leaf, control_plane::free_port, leases::Leases,
    network::Network, samples::Samples, until, world::World,
};

pub(crate) use self::registration::set_endpoints;
#[allow(unused_imports, reason = "for tests/apiserver")]
pub(crate) use self::registration::{endpoints_addresses, slice_endpoints};
pub(crate) use self::{replica::Replica, roll_out::roll_out};

pub(crate) const NAMESPACE: &str = "leasehold-system";
pub(crate) const POLICY_CONFIG_MAP: &str = "leasehold-policy";
pub(crate) const REGISTRATIONS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// The overlay that is deployed.
pub(crate) const OVERLAY: &str = "manifests/overlays/enforce";

/// Leasehold, its manifests applied and its replicas running.
#[derive(Debug)]
pub(crate) struct Guard {
    replicas: Vec<Replica>,
    /// What the Deployment's ConfigMap held when it was applied.
    policy: String,
    /// The name of the webhook in the registration.
    pub(crate) webhook: String,
}

impl Guard {
    /// Applies the manifests, starts a replica on each address, and waits until the API server asks them.
    pub(crate) async fn deploy(world: &World) -> anyhow::Result<Self> {
        let plane = world.plane().await?;
        let admin = plane.admin()?;
        plane
            .kubectl(&["apply", "-k", &repository(OVERLAY).display().to_string()])
            .await?;

        let leaf = match world.network {
            // The replicas keep their own, as deployed.
            Network::Namespace => None,
            // Their own would be for the Service, which is not there.
            Network::Loopback => Some(plane.authority().issue(
                world.folder(),
                "leasehold",
                &["127.0.0.1"],
            )?),
        };
        let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "leasehold").await?;
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/leasehold");
        let deployment = admin.get(&path).await?.accepted()?;
        let arguments = deployment
            .pointer("/spec/template/spec/containers/0/args")
            .and_then(Value::as_array)
            .context("the Deployment's container has no args")?;

        let registration = admin
            .get(&format!("{REGISTRATIONS}/leasehold"))
            .await?
            .accepted()?;
        let webhook = text(&registration, "/webhooks/0/name").to_owned();
        let mut replicas = Vec::new();
        for (number, address) in world.network.replicas().iter().enumerate() {
            // In a namespace the addresses differ, so that the ports can be the ones of the manifests.
            let ports = match world.network {
                Network::Namespace => (8443, 8080),
                Network::Loopback => (free_port()?, free_port()?),
            };
            let name = format!("leasehold-{number}");
            let audit_log = world.folder().join(format!("{name}.audit.jsonl"));
            let place = Place {
                address: *address,
                secure_port: ports.0,
                admin_port: ports.1,
            };
            let mut own: Vec<String> = arguments
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|flag| place.own(flag, leaf.as_ref(), &audit_log))
                .collect();
            own.push(format!("--kubeconfig={}", kubeconfig.display()));
            // What the Deployment sets in the environment.
            own.push(format!("--replica-name={name}"));
            let replica = Replica {
                name,
                folder: world.folder().to_owned(),
                arguments: own,
                admin: SocketAddr::new(*address, ports.1),
                audit_log,
                process: Mutex::new(None),
            };
            replicas.push(replica);
            if number == 0 {
                registration::register(world, &admin, registration.clone(), ports.0).await?;
            }
        }
        // At once, as in a cluster: where nothing is there yet, both find nothing.
        futures::future::try_join_all(replicas.iter().map(Replica::start)).await?;
        let policy = admin.get(&policy_path()).await?.accepted()?;
        let guard = Self {
            replicas,
            policy: text(&policy, "/data/policy.yaml").to_owned(),
            webhook,
        };
        guard.wait_until_asked(world).await?;
        Ok(guard)
    }

    /// The replicas.
    pub(crate) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Waits until the API server has learnt of the registration and reaches a replica: until a write that no policy
    /// of these tests lets pass, and nobody who may break glass, is denied.
    pub(crate) async fn wait_until_asked(&self, world: &World) -> anyhow::Result<()> {
        let leases = Leases {
            // Not an administrator: break-glass would let those pass.
            api: world.plane().await?.writer()?,
            namespace: "default".to_owned(),
        };
        until("the API server to ask Leasehold", || async {
            for replica in &self.replicas {
                if let Some(process) = replica.process.lock().await.as_ref() {
                    process.ensure_running()?;
                }
            }
            let spec = json!({"holderIdentity": "probe", "leaseDurationSeconds": 1});
            let reply = leases.create("probe", "probe", spec).await?;
            if reply.code == 403 {
                return Ok(Some(()));
            }
            reply.accepted()?;
            leases.delete("probe").await?.accepted()?;
            Ok(None)
        })
        .await
    }

    /// The metrics of all replicas that run.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Samples> {
        let mut all = Samples::default();
        for replica in &self.replicas {
            if replica.process.lock().await.is_some() {
                all.extend(replica.metrics().await?);
            }
        }
        Ok(all)
    }

    /// How often the API server gave up on a review and let the write pass, by its own count.
    pub(crate) async fn fail_open_count(&self, world: &World) -> anyhow::Result<f64> {
        let metrics = world.plane().await?.metrics().await?;
        Ok(metrics.sum(
            "apiserver_admission_webhook_fail_open_count",
            &[("name", &self.webhook)],
        ))
    }

    /// What the replicas' audit logs hold on one namespace, once they hold at least one line that `wanted` accepts.
    pub(crate) async fn audit_records(
        &self,
        namespace: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Vec<Value>> {
        until(&format!("{what} in Leasehold's audit log"), || async {
            let records = self.audit_records_now(namespace)?;
            Ok(records.iter().any(&wanted).then_some(records))
        })
        .await
    }

    /// What the replicas' audit logs hold on one namespace at this moment.
    pub(crate) fn audit_records_now(&self, namespace: &str) -> anyhow::Result<Vec<Value>> {
        let mut records: Vec<Value> = Vec::new();
        for replica in &self.replicas {
            let log = std::fs::read_to_string(&replica.audit_log).unwrap_or_default();
            records.extend(log.lines().filter_map(|line| serde_json::from_str(line).ok()));
        }
        records.retain(|record| text(record, "/namespace") == namespace);
        Ok(records)
    }

    /// The policy that the manifests deploy.
    pub(crate) fn deployed_policy(&self) -> &str {
        &self.policy
    }

    /// Edits the policy's ConfigMap, and gives its new resourceVersion.
    pub(crate) async fn edit_policy(&self, api: &Api, document: &str) -> anyhow::Result<String> {
        let patch = json!({"data": {"policy.yaml": document}});
        let stored = api.merge_patch(&policy_path(), &patch).await?.accepted()?;
        Ok(text(&stored, "/metadata/resourceVersion").to_owned())
    }

    /// Edits the policy's ConfigMap whatever Leasehold says of the document, by breaking glass.
    pub(crate) async fn force_policy(&self, api: &Api, document: &str) -> anyhow::Result<()> {
        // A reason counts for the write that sets it, so each needs one of its own.
        let reason = format!("to be stored, {} bytes: {document:.20}", document.len());
        let patch = json!({
            "metadata": {"annotations": {"leasehold.dev/break-glass": reason}},
            "data": {"policy.yaml": document},
        });
        api.merge_patch(&policy_path(), &patch).await?.accepted()?;
        Ok(())
    }

    /// Deletes the policy's ConfigMap.
    pub(crate) async fn delete_policy(&self, api: &Api) -> anyhow::Result<()> {
        api.delete(&policy_path()).await?.accepted()?;
        Ok(())
    }

    /// Creates the policy's ConfigMap anew, as it was deployed but for its labels.
    pub(crate) async fn create_policy(&self, api: &Api) -> anyhow::Result<()> {
        let config_map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": POLICY_CONFIG_MAP},
            "data": {"policy.yaml": self.policy},
        });
        api.post(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), &config_map)
            .await?
            .accepted()?;
        Ok(())
    }

    /// Edits the policy's ConfigMap, and waits until every replica judges by it.
    pub(crate) async fn set_policy(&self, api: &Api, document: &str) -> anyhow::Result<()> {
        let version = self.edit_policy(api, document).await?;
        for replica in &self.replicas {
            until("a replica to put the policy in force", || async {
                let metrics = replica.metrics().await?;
                let labels = [("resource_version", version.as_str())];
                Ok((metrics.sum("leasehold_policy_active", &labels) > 0.0).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Where a replica listens, in place of all of a pod's addresses.
struct Place {
    address: IpAddr,
    secure_port: u16,
    admin_port: u16,
}

impl Place {
    /// A flag of the Deployment, as a process outside of a pod needs it.
    ///
    /// With a leaf, it comes from files in place of the replicas' own.
    fn own(&self, flag: &str, leaf: Option<&Leaf>, audit_log: &Path) -> Option<String> {
        let name = flag.split('=').next().unwrap_or(flag);
        let own = match (name, leaf) {
            ("--tls-secret", Some(leaf)) => format!("--tls-cert-file={}", leaf.certificate.display()),
            ("--webhook-configuration", Some(leaf)) => {
                format!("--tls-private-key-file={}", leaf.key.display())
            }
            ("--service", Some(_)) => return None,
            _ => self.placed(name, flag, audit_log),
        };
        Some(own)
    }

    fn placed(&self, name: &str, flag: &str, audit_log: &Path) -> String {
        match name {
            "--bind-address" | "--admin-bind-address" => format!("{name}={}", self.address),
            "--secure-port" => format!("{name}={}", self.secure_port),
            "--admin-port" => format!("{name}={}", self.admin_port),
            "--audit-log" => format!("{name}={}", audit_log.display()),
            _ => flag.to_owned(),
        }
    }
}

/// Where the policy's ConfigMap is.
pub(crate) fn policy_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{POLICY_CONFIG_MAP}")
}
