//! How a review reaches the guard: over TLS and HTTP/2, or, in tests on a paused clock, by a plain call.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::TlsConnector;

/// `timeoutSeconds` of the webhook, as the manifests have it.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// Where reviews are sent.
pub trait Webhook: Send + Sync + 'static {
    /// Sends one review; the answer's body, if there was one with status 200.
    fn call(&self, body: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, WebhookError>> + Send;
}

/// Why a review got no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The guard's certificate authority, or its name, cannot be used.
    #[error("cannot set up TLS towards the guard: {0}")]
    Setup(String),
    /// Nothing listens there.
    #[error("cannot connect to the guard at {address}: {reason}")]
    Connect {
        /// Where it should have been.
        address: SocketAddr,
        /// What the socket said.
        reason: std::io::Error,
    },
    /// TLS failed: a wrong certificate, or not the protocol that was asked for.
    #[error("TLS handshake with the guard failed: {0}")]
    Handshake(std::io::Error),
    /// HTTP failed.
    #[error("HTTP/2 exchange with the guard failed: {0}")]
    Exchange(hyper::Error),
    /// An answer that is no verdict.
    #[error("the guard answered {0}")]
    Status(http::StatusCode),
    /// No answer in time.
    #[error("the guard did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// The guard at a loopback address, with its certificate checked.
///
/// Keeps one HTTP/2 connection for as long as it lives, as the API server's client does.
pub struct TlsWebhook {
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl TlsWebhook {
    /// A client for the guard at `address`, whose certificate must be valid for that address and be signed by
    /// `authority`.
    ///
    /// # Errors
    /// [`WebhookError::Setup`] for an authority that cannot be trusted.
    pub fn new(address: SocketAddr, authority: &CertificateDer<'_>) -> Result<Self, WebhookError> {
        let setup = |error: rustls::Error| WebhookError::Setup(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone().into_owned()).map_err(setup)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address,
            name: ServerName::IpAddress(address.ip().into()),
            connector: TlsConnector::from(Arc::new(config)),
            connection: Mutex::new(None),
        })
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, WebhookError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let address = self.address;
        let socket = TcpStream::connect(address)
            .await
            .map_err(|reason| WebhookError::Connect { address, reason })?;
        let stream = self
            .connector
            .connect(self.name.clone(), socket)
            .await
            .map_err(WebhookError::Handshake)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(WebhookError::Exchange)?;
        // It ends when the last sender is dropped or the guard closes it; its error is the request's error too.
        tokio::spawn(connection);
        Ok(kept.insert(sender).clone())
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Vec<u8>, WebhookError> {
        let mut connection = self.connection().await?;
        let uri = format!("https://{}/validate?timeout={}s", self.address, TIMEOUT.as_secs());
        let request = http::Request::post(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json, */*")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| WebhookError::Setup(error.to_string()))?;
        let response = connection
            .send_request(request)
            .await
            .map_err(WebhookError::Exchange)?;
        if response.status() != http::StatusCode::OK {
            return Err(WebhookError::Status(response.status()));
        }
        Ok(response
            .into_body()
            .collect()
            .await
            .map_err(WebhookError::Exchange)?
            .to_bytes()
            .to_vec())
    }
}

impl Webhook for TlsWebhook {
    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, WebhookError> {
        tokio::time::timeout(TIMEOUT, self.exchange(body))
            .await
            .unwrap_or(Err(WebhookError::Timeout))
    }
}
