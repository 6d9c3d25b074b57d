//! What must not notice a rotation: handshakes with each replica, trusting what `caBundle` says at that moment, and
//! writes through the API server.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::{Context, bail, ensure};
use k8s_openapi::ByteString;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

use super::keepers::{Keepers, LABEL};
use crate::harness::{leases::Leases, network::Network, until, world::World};

/// Writers at once: enough that the API server keeps several connections and must make new ones.
const WRITERS: usize = 4;

/// The load, until told to stop.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    /// A replica was killed: connections may break meanwhile, handshakes may still not fail.
    broken_connections: AtomicU64,
    handshakes: AtomicU64,
    writes: AtomicU64,
}

/// What the load saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) handshakes: u64,
    pub(super) writes: u64,
    /// Writes and handshakes that came to nothing because there was nobody at the other end.
    pub(super) broken_connections: u64,
}

impl Load {
    /// Begins. Writes are reviewed only where a Service can be called.
    pub(super) async fn start(world: &World, keepers: &Keepers) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for address in keepers.addresses.clone() {
            let prober = Prober {
                address,
                server: ServerName::try_from(keepers.dns_name())?,
                api: keepers.admin.clone(),
                registration: keepers.registration_path(),
            };
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { prober.go_on(&shared).await });
        }
        if world.network == Network::Namespace {
            for number in 0..WRITERS {
                let leases = world
                    .leases_with_labels(
                        &format!("{}-load-{number}", keepers.name),
                        json!({LABEL: keepers.name}),
                    )
                    .await?;
                wait_until_reviewed(&leases).await?;
                let shared = Arc::clone(&shared);
                tasks.spawn(async move { write_on(&leases, &shared).await });
            }
        }
        Ok(Self { shared, tasks })
    }

    /// Fails with the first failure, if there was one.
    pub(super) fn ensure_unharmed(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                ended??;
                bail!("the load ended by itself")
            }
        }
    }

    /// Ends, and gives what was seen.
    pub(super) async fn stop(mut self) -> anyhow::Result<Seen> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Seen {
            handshakes: count(&self.shared.handshakes),
            writes: count(&self.shared.writes),
            broken_connections: count(&self.shared.broken_connections),
        })
    }
}

/// The API server learns of a namespace's labels, and of the first `caBundle`, in its own time.
async fn wait_until_reviewed(leases: &Leases) -> anyhow::Result<()> {
    until("the API server to ask the pair", || async {
        let spec = json!({"holderIdentity": "probe", "leaseDurationSeconds": 1});
        let reply = leases.create("probe", "probe", spec).await?;
        if reply.code < 300 {
            leases.delete("probe").await?;
        }
        // Which no policy of these tests lets pass.
        Ok((reply.code == 403).then_some(()))
    })
    .await
}

/// Creates and deletes a lease, again and again: each is reviewed.
async fn write_on(leases: &Leases, shared: &Shared) -> anyhow::Result<()> {
    while !shared.stopped.load(Ordering::Relaxed) {
        for reply in [
            leases.create("lock", "load", json!({})).await?,
            leases.delete("lock").await?,
        ] {
            if reply.code < 300 || reply.code == 404 || reply.code == 409 {
                // Not there, or there already: what the write before it should have done broke off.
                shared.writes.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let said = reply.message();
            let by_trust = ["x509", "tls:", "certificate", "handshake"];
            ensure!(
                said.contains("failed calling webhook") && !by_trust.iter().any(|word| said.contains(word)),
                "a write was answered {}: {said}",
                reply.code
            );
            shared.broken_connections.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Full handshakes with one replica.
struct Prober {
    address: std::net::SocketAddr,
    server: ServerName<'static>,
    api: crate::harness::api::Api,
    registration: String,
}

impl Prober {
    async fn go_on(&self, shared: &Shared) -> anyhow::Result<()> {
        while !shared.stopped.load(Ordering::Relaxed) {
            let registration = self.api.get(&self.registration).await?.accepted()?;
            for webhook in registration
                .get("webhooks")
                .and_then(Value::as_array)
                .context("no webhooks")?
            {
                let bundle = webhook.pointer("/clientConfig/caBundle").cloned();
                let ByteString(bundle) =
                    serde_json::from_value(bundle.context("a webhook without caBundle")?)?;
                self.shake_hands(&bundle, shared).await?;
            }
            // So that the writers and the replicas have the processors, too.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn shake_hands(&self, bundle: &[u8], shared: &Shared) -> anyhow::Result<()> {
        let mut roots = rustls::RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(bundle) {
            roots.add(der.context("caBundle is not PEM")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let shaken = async {
            let stream = TcpStream::connect(self.address).await?;
            connector.connect(self.server.clone(), stream).await
        };
        match shaken.await {
            Ok(_) => shared.handshakes.fetch_add(1, Ordering::Relaxed),
            // rustls tells what it thinks of a certificate as invalid data.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                bail!("a handshake with {} failed: {error}", self.address)
            }
            Err(_) => shared.broken_connections.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }
}
