//! The guard: Leasehold's own server, as `leasehold serve` runs it, on loopback with the default policy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rustls::{
    crypto::ring,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{DemoError, certificates::Authority};
use crate::{
    admission::Handler,
    audit::AuditLog,
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    server::{Limits, Server, Shutdown, tls},
};

/// A running guard; it stops when this is dropped.
pub struct Guard {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who signed its certificate.
    pub authority: Authority,
    task: JoinHandle<usize>,
}

impl Guard {
    /// Starts the guard on a free port.
    ///
    /// # Errors
    /// [`DemoError::Guard`] with what failed.
    pub async fn start() -> Result<Self, DemoError> {
        let authority = Authority::new().map_err(failed("make a certificate authority"))?;
        let issued = authority
            .issue("leasehold")
            .map_err(failed("issue a certificate"))?;
        let key = CertifiedKey::from_der(vec![issued.certificate], issued.key, &ring::default_provider())
            .map_err(failed("load its certificate"))?;
        let config =
            tls::server_config(Arc::new(SingleCertAndKey::from(key)), None).map_err(failed("set up TLS"))?;

        let policy = ActivePolicy::new(Policy::parse("").map_err(failed("read the default policy"))?);
        let metrics = Arc::new(Metrics::new());
        let handler = Handler::new(policy, Arc::clone(&metrics), AuditLog::disabled());
        let server = Server::new(
            move |body, now| handler.handle(body, now),
            config,
            Limits::webhook(),
            metrics,
        );

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed("listen on 127.0.0.1"))?;
        let address = listener.local_addr().map_err(failed("tell its port"))?;
        let task = tokio::spawn(server.run(listener, Shutdown::new()));
        Ok(Self {
            address,
            authority,
            task,
        })
    }

    /// Where reviews go.
    pub fn url(&self) -> String {
        format!("https://{}/validate", self.address)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> DemoError {
    move |error| DemoError::Guard {
        doing,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::json;

    use super::*;
    use crate::demo::{
        clock::Clock,
        memory_store::MemoryStore,
        script::GUARDED,
        store::{AdmissionCounts, LeaseKey, LeaseStore, Writer},
        webhook::{TlsWebhook, Webhook, WebhookError},
    };

    fn lease(holder: &str, transitions: i32) -> Lease {
        let time = "2026-01-01T00:00:00.000000Z";
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": 5, "leaseTransitions": transitions,
            "acquireTime": time, "renewTime": time,
        });
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    #[tokio::test]
    async fn the_store_asks_the_real_server_over_tls_and_gets_its_denial() {
        let guard = Guard::start().await.unwrap();
        let webhook = TlsWebhook::new(guard.address, guard.authority.certificate()).unwrap();
        let store = MemoryStore::new(Clock::starting_at(Timestamp::now()), GUARDED, webhook);
        let (key, writer) = (LeaseKey::new(GUARDED, "payments"), |pod: &str| Writer {
            pod: pod.to_owned(),
            field_manager: "elector".to_owned(),
        });

        let created = store.create(&writer("a"), &key, &lease("a", 0)).await.unwrap();
        let thief = Lease {
            metadata: created.metadata,
            spec: lease("b", 1).spec,
        };
        let error = store.update(&writer("b"), &key, &thief).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (403, "Forbidden"));
        let words = "admission webhook \"leases.leasehold.dev\" denied the request: takeover-before-expiry: ";
        assert!(error.message.starts_with(words), "{}", error.message);
        let counts = store.admission_counts().await.unwrap();
        assert_eq!(
            counts,
            AdmissionCounts {
                reviews: 2,
                denials: 1,
                failures: 0
            }
        );
    }

    #[tokio::test]
    async fn a_guard_whose_certificate_another_signed_is_not_asked() {
        let guard = Guard::start().await.unwrap();
        let other = Authority::new().unwrap();
        let webhook = TlsWebhook::new(guard.address, other.certificate()).unwrap();
        let error = webhook.call(b"{}".to_vec()).await.unwrap_err();
        assert!(matches!(error, WebhookError::Handshake(_)), "{error}");
    }
}
