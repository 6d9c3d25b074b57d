//! Reviews that are sent to a replica directly, as the API server would send them.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    guard::{NAMESPACE, REGISTRATIONS},
    harness::world::World,
};

/// A takeover that comes too early, as an API server sent it: the deployed policy denies it.
pub(crate) const EARLY: &str = include_str!("../data/reviews/takeover-early.json");

/// One that comes in time.
pub(crate) const IN_TIME: &str = include_str!("../data/reviews/takeover-after-expiry.json");

/// The port of reviews, as deployed.
const PORT: u16 = 8443;

/// Connects to one replica, and trusts it by the registered `caBundle`, as the API server does.
#[derive(Clone)]
pub(crate) struct Reviewer {
    pub(crate) address: SocketAddr,
    roots: Arc<rustls::RootCertStore>,
    host: String,
}

/// An answer to a review.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Whether the write may pass. An error when this is no verdict.
    pub(crate) fn is_allowed(&self) -> anyhow::Result<bool> {
        let told = || format!("{} {}", self.code, String::from_utf8_lossy(&self.body));
        ensure!(self.code == 200, "no verdict: {}", told());
        let review: Value = serde_json::from_slice(&self.body).with_context(told)?;
        review
            .pointer("/response/allowed")
            .and_then(Value::as_bool)
            .with_context(told)
    }
}

impl Reviewer {
    /// For each replica, in their order.
    pub(crate) async fn all(world: &World) -> anyhow::Result<Vec<Self>> {
        let admin = world.admin().await?;
        let registration = admin
            .get(&format!("{REGISTRATIONS}/leasehold"))
            .await?
            .accepted()?;
        let bundle = registration.pointer("/webhooks/0/clientConfig/caBundle").cloned();
        let bundle: ByteString = serde_json::from_value(bundle.context("no caBundle")?)?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
            roots.add(certificate?)?;
        }
        let roots = Arc::new(roots);
        let replicas = world.network.replicas().iter();
        Ok(replicas
            .map(|address| Self {
                address: SocketAddr::new(*address, PORT),
                roots: Arc::clone(&roots),
                host: format!("leasehold.{NAMESPACE}.svc"),
            })
            .collect())
    }

    /// A TLS connection for this protocol.
    pub(crate) async fn handshake(&self, protocol: &[u8]) -> anyhow::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.host.clone())?;
        Ok(TlsConnector::from(Arc::new(tls)).connect(name, stream).await?)
    }

    /// A connection for one review after the other, as the API server keeps them.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = self.handshake(b"http/1.1").await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            reviewer: self.clone(),
        })
    }

    /// A connection for many reviews at once.
    pub(crate) async fn connect_http2(&self) -> anyhow::Result<http2::SendRequest<Body>> {
        let stream = self.handshake(b"h2").await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A review as a request, with that body.
    pub(crate) fn request(&self, timeout: &str, body: impl Into<Body>) -> anyhow::Result<Request<Body>> {
        let host = &self.host;
        Ok(
            Request::post(format!("https://{host}/validate?timeout={timeout}"))
                .header(header::HOST, host)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.into())?,
        )
    }
}

/// One kept connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    reviewer: Reviewer,
}

impl Connection {
    /// Sends a review, and reads the answer.
    pub(crate) async fn review(&mut self, review: &'static str) -> anyhow::Result<Answer> {
        self.send(Bytes::from_static(review.as_bytes())).await
    }

    /// The same for any body.
    pub(crate) async fn send(&mut self, body: impl Into<Body>) -> anyhow::Result<Answer> {
        let request = self.reviewer.request("30s", body)?;
        self.sender.ready().await?;
        answer(self.sender.send_request(request).await?).await
    }
}

/// Reads an answer to its end.
pub(crate) async fn answer(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<Answer> {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { code, body })
}
