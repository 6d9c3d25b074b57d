//! A client that costs little, so that what is measured is the server: one thread, connections made beforehand,
//! requests that share one body.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A connection for each caller, as a real API server speaks to a Service.
    Http1,
    /// One connection with a stream for each caller, as it speaks to a URL on its own machine.
    Http2,
}

/// A load: how the client speaks, and how many callers there are, each with one review under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) callers: usize,
}

impl Load {
    /// As many connections as an API server keeps open to one host (`idleConnsPerHost` in `client-go/transport/cache.go`).
    pub(crate) const SERVICE: Self = Self {
        protocol: Protocol::Http1,
        callers: 25,
    };
    /// Enough streams to keep the server from waiting.
    pub(crate) const STREAMS: Self = Self {
        protocol: Protocol::Http2,
        callers: 32,
    };
    /// One review at a time.
    pub(crate) const ONE: Self = Self {
        protocol: Protocol::Http2,
        callers: 1,
    };
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.callers) {
            (Protocol::Http1, callers) => write!(formatter, "HTTP/1.1, {callers} connections"),
            (Protocol::Http2, 1) => formatter.write_str("HTTP/2, one at a time"),
            (Protocol::Http2, callers) => write!(formatter, "HTTP/2, {callers} streams of one connection"),
        }
    }
}

/// Callers of one server's `/validate`.
pub(crate) struct Callers {
    senders: Vec<Sender>,
    uri: String,
    host: String,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Callers {
    /// Connects to a server whose certificate comes from `authority` (PEM).
    pub(crate) async fn connect(address: SocketAddr, authority: &str, load: Load) -> anyhow::Result<Self> {
        let (path, host) = ("/validate?timeout=1s", address.to_string());
        let mut senders = Vec::new();
        let uri = match load.protocol {
            Protocol::Http1 => {
                for _ in 0..load.callers {
                    let io = TokioIo::new(tls(address, authority, b"http/1.1").await?);
                    let (sender, connection) = http1::handshake(io).await?;
                    tokio::spawn(connection);
                    senders.push(Sender::Http1(sender));
                }
                path.to_owned()
            }
            Protocol::Http2 => {
                let io = TokioIo::new(tls(address, authority, b"h2").await?);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                senders.extend((0..load.callers).map(|_| Sender::Http2(sender.clone())));
                format!("https://{host}{path}")
            }
        };
        Ok(Self { senders, uri, host })
    }

    /// Posts the bodies of these numbers, each caller the next one when it has its answer. Fails at the first answer
    /// that is no 200.
    pub(crate) async fn post(
        &mut self,
        numbers: std::ops::Range<u64>,
        body: impl Fn(u64) -> Bytes,
    ) -> anyhow::Result<()> {
        let next = AtomicU64::new(numbers.start);
        let (next, body, uri, host) = (&next, &body, &self.uri, &self.host);
        let calls = self.senders.iter_mut().map(|sender| async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return anyhow::Ok(());
                }
                let request = Request::post(uri.as_str())
                    .header(header::HOST, host.as_str())
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Full::new(body(number)))?;
                let response = match sender {
                    Sender::Http1(sender) => {
                        sender.ready().await?;
                        sender.send_request(request).await?
                    }
                    Sender::Http2(sender) => {
                        sender.ready().await?;
                        sender.send_request(request).await?
                    }
                };
                let status = response.status();
                let answer = response.into_body().collect().await?.to_bytes();
                ensure!(
                    status == StatusCode::OK,
                    "answered {status}: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
        });
        try_join_all(calls).await?;
        Ok(())
    }
}

async fn tls(
    address: SocketAddr,
    authority: &str,
    protocol: &[u8],
) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("the authority is not PEM")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}
