//! A server to talk to, certificates for it, and clients that speak HTTP/1.1, HTTP/2 and raw bytes.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use leasehold::{
    admission::Answer,
    metrics::Metrics,
    server::{
        Certificate, CertificateResolver, Limits, Server, Shutdown,
        tls::{self, ClientCa},
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const TINY: Duration = Duration::from_millis(10);

/// Waits for an event that must come. Not a measure of speed: a minute stands for never.
pub(crate) async fn event<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), event)
        .await
        .unwrap_or_else(|_| panic!("{what} never came"))
}

/// A CA made for one test.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Issued {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    pub(crate) fn server_config(&self, client_ca: Option<Arc<ClientCa>>) -> rustls::ServerConfig {
        let certificate = Certificate::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap();
        tls::server_config(Arc::new(CertificateResolver::new(certificate)), client_ca).unwrap()
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn issue(&self) -> Issued {
        self.issue_for(&KeyPair::generate().unwrap())
    }

    pub(crate) fn issue_for(&self, key: &KeyPair) -> Issued {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        Issued {
            certificate: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this CA and offers that protocol.
    pub(crate) fn client(&self, protocol: Protocol) -> ClientConfig {
        let builder = client_builder(rustls::ALL_VERSIONS).with_root_certificates(self.roots());
        offering(builder.with_no_client_auth(), protocol)
    }

    /// The same with a certificate of its own.
    pub(crate) fn client_with(&self, protocol: Protocol, own: &Issued) -> ClientConfig {
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let builder = client_builder(rustls::ALL_VERSIONS).with_root_certificates(self.roots());
        offering(
            builder.with_client_auth_cert(vec![own.der()], key).unwrap(),
            protocol,
        )
    }
}

pub(crate) fn client_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
}

pub(crate) fn offering(mut config: ClientConfig, protocol: Protocol) -> ClientConfig {
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config
}

/// Limits under which nothing ends by itself.
pub(crate) fn patient() -> Limits {
    Limits {
        handshake: HOUR,
        headers: HOUR,
        body: HOUR,
        verdict: HOUR,
        idle: HOUR,
        grace_period: HOUR,
        ..Limits::webhook()
    }
}

/// Answers with the length of the body, and panics over the body `panic`.
pub(crate) fn measure(body: &[u8], _now: Timestamp) -> Answer {
    assert_ne!(body, b"panic", "asked to");
    Answer {
        status: StatusCode::OK,
        body: body.len().to_string().into_bytes(),
    }
}

/// A server that runs in the test's own runtime.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pki: Pki,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: JoinHandle<usize>,
}

impl Running {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_with(limits, measure, None).await
    }

    pub(crate) async fn start_with(
        limits: Limits,
        review: impl Fn(&[u8], Timestamp) -> Answer + Send + Sync + 'static,
        client_ca: Option<&Pki>,
    ) -> Self {
        let client_ca = client_ca.map(|ca| Arc::new(ClientCa::from_pem(ca.pem().as_bytes()).unwrap()));
        let pki = Pki::new();
        let tls = pki.issue().server_config(client_ca);
        let metrics = Arc::new(Metrics::new());
        let server = Server::new(review, tls, limits, Arc::clone(&metrics));
        Self::run(server, pki, metrics).await
    }

    pub(crate) async fn run(server: Server, pki: Pki, metrics: Arc<Metrics>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let ended = tokio::spawn(server.run(listener, shutdown.clone()));
        Self {
            address,
            metrics,
            pki,
            shutdown,
            ended,
        }
    }

    pub(crate) async fn connect(&self, protocol: Protocol) -> Client {
        self.try_connect(protocol).await.unwrap()
    }

    pub(crate) async fn try_connect(&self, protocol: Protocol) -> io::Result<Client> {
        Client::connect(self.address, self.pki.client(protocol), protocol).await
    }

    /// A TLS connection for bytes of the test's own.
    pub(crate) async fn raw(&self, protocol: Protocol) -> Raw {
        Raw::connect(self.address, self.pki.client(protocol)).await
    }

    /// Asserts that the metrics have this line.
    #[track_caller]
    pub(crate) fn assert_metric(&self, line: &str) {
        let text = self.metrics.encode().unwrap();
        let name = line.split(['{', ' ']).next().unwrap();
        let family: Vec<_> = text.lines().filter(|have| have.starts_with(name)).collect();
        assert!(family.contains(&line), "{line} is not among {family:#?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

impl Protocol {
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// One connection.
pub(crate) struct Client {
    sender: Sender,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        config: ClientConfig,
        protocol: Protocol,
    ) -> io::Result<Self> {
        let stream = tls_connect(address, config).await?;
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(protocol.alpn()));
        let io = TokioIo::new(stream);
        Ok(match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
                Self {
                    sender: Sender::Http1(sender),
                    connection: tokio::spawn(connection),
                }
            }
            Protocol::Http2 => {
                let handshake = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.map_err(io::Error::other)?;
                Self {
                    sender: Sender::Http2(sender),
                    connection: tokio::spawn(connection),
                }
            }
        })
    }

    pub(crate) async fn try_send(&mut self, request: Request<Body>) -> hyper::Result<Response<Bytes>> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Bytes> {
        event("an answer", self.try_send(request)).await.unwrap()
    }

    /// Sends a review and asserts that it was served.
    pub(crate) async fn assert_served(&mut self) -> Response<Bytes> {
        let response = self.send(post("four")).await;
        assert_eq!(
            (response.status(), &response.body()[..]),
            (StatusCode::OK, &b"4"[..])
        );
        response
    }

    /// Waits until the server has closed the connection, without giving it a reason to.
    pub(crate) async fn closed(self) {
        let Self { sender, connection } = self;
        // How it ends is the protocol's business.
        let _ = event("the end of the connection", connection).await.unwrap();
        drop(sender);
    }
}

/// A review as the API server would send it, with that body.
pub(crate) fn post(body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri("https://localhost/validate?timeout=30s")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// A body whose length is not told beforehand.
pub(crate) fn in_pieces(pieces: Vec<&'static str>) -> Body {
    Body::from_stream(futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
}

/// The text under `error` of a JSON answer.
#[track_caller]
pub(crate) fn error_of(response: &Response<Bytes>) -> String {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let document: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    document["error"].as_str().unwrap().to_owned()
}

pub(crate) async fn tls_connect(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    event("the end of a handshake", handshake).await
}

/// A TLS connection for bytes of the test's own.
pub(crate) struct Raw {
    pub(crate) stream: TlsStream<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr, config: ClientConfig) -> Self {
        Self {
            stream: tls_connect(address, config).await.unwrap(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends the headers of a review, and waits until the server asks for the body: the review is then in
    /// flight.
    pub(crate) async fn begin_review(&mut self, length: usize) {
        self.write(format!(
            "POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
        assert_eq!(self.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Reads up to the end of the headers.
    pub(crate) async fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(event("a byte", self.stream.read_u8()).await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads until the server closes the connection.
    pub(crate) async fn rest(mut self) -> String {
        String::from_utf8(rest(&mut self.stream).await).unwrap()
    }
}

/// Reads until the other end closes, politely or not.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = event("the end of the connection", stream.read_to_end(&mut rest)).await;
    rest
}
