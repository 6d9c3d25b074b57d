//! The accept loop, and one connection from accept to close.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use http::{HeaderValue, Request, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::{Limits, Shutdown};
use crate::metrics::{
    Metrics,
    server::{HandshakeFailure, Listener, Phase},
};

/// First and longest pause after a failure to accept that will not pass by itself, such as a lack of file
/// descriptors; doubled from one to the other. The same as in Go's `net/http`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who asks, for requests to the admin port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// How connections of a port begin.
#[derive(Clone)]
pub(super) struct Acceptor(Option<TlsAcceptor>);

impl Acceptor {
    pub(super) fn tls(config: rustls::ServerConfig) -> Self {
        Self(Some(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn plain() -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Tls" } else { "Plain" })
    }
}

/// What one port serves, and how.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) acceptor: Acceptor,
    pub(super) listener: Listener,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) router: Router,
}

/// Serves `endpoint` until asked to drain, then drains. Returns how many connections were cut off.
///
/// Dropping the future closes everything at once: the connections' tasks are owned by it.
pub(super) async fn run(listener: TcpListener, endpoint: Endpoint, shutdown: Shutdown) -> usize {
    let endpoint = Arc::new(endpoint);
    let slots = Arc::new(Semaphore::new(endpoint.limits.max_connections));
    let mut strangers = Strangers::default();
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE;
    loop {
        // Each branch may be dropped and taken up again without loss: accept and join_next are cancel safe.
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            Some(ended) = connections.join_next() => {
                endpoint.connection_ended(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                endpoint.metrics.server.accept_failed(endpoint.listener);
                tracing::error!(listener = endpoint.listener.name(), %error, "cannot accept connections, trying again");
                tokio::select! {
                    () = shutdown.draining() => break,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_ACCEPT_PAUSE);
                continue;
            }
        };
        pause = ACCEPT_PAUSE;
        let slot = Arc::clone(&slots).try_acquire_owned().ok().or_else(|| {
            // One of the two is closed at once: a client fails over then, instead of waiting.
            endpoint.metrics.server.connection_refused(endpoint.listener);
            strangers.displace_oldest()
        });
        let Some(slot) = slot else { continue };
        let seat = Arc::new(Seat {
            requested: AtomicBool::new(false),
            slot: Mutex::new(Some(slot)),
        });
        let for_strangers = Arc::downgrade(&seat);
        let (endpoint, shutdown) = (Arc::clone(&endpoint), shutdown.clone());
        let most = endpoint.limits.max_connections;
        let task = connections.spawn(async move {
            let _open = endpoint.metrics.server.connection_opened(endpoint.listener);
            endpoint.begin(stream, peer, &seat, &shutdown).await;
        });
        strangers.add(task, for_strangers, most);
    }
    drop(listener);
    endpoint.drain(connections).await
}

/// What a connection holds while it is open.
struct Seat {
    /// Whether a request has come.
    requested: AtomicBool,
    /// Given back with the connection's end, or taken for the next one.
    slot: Mutex<Option<OwnedSemaphorePermit>>,
}

/// Connections that may not have sent a request yet, oldest first.
///
/// When as many are open as may be, the oldest of them makes room for the next: otherwise anybody who opens
/// connections and says nothing keeps out the API server's new ones for as long as the deadlines last, over and over.
/// An API server sends its first request with the end of the handshake, within milliseconds. A connection on which a
/// request has come is never closed for another.
#[derive(Default)]
struct Strangers(VecDeque<(AbortHandle, Weak<Seat>)>);

impl Strangers {
    /// Remembers a connection; forgets those that are none any more before there are more than twice `most`.
    fn add(&mut self, task: AbortHandle, seat: Weak<Seat>, most: usize) {
        if self.0.len() >= 2 * most {
            self.0.retain(|(_, seat)| {
                seat.upgrade()
                    .is_some_and(|seat| !seat.requested.load(Ordering::Relaxed))
            });
        }
        self.0.push_back((task, seat));
    }

    /// Closes the oldest, and gives its slot; none if there is none.
    ///
    /// The runtime drops it in a moment. Waiting for that would have the next ones wait, too: accepting would be as
    /// slow as everything else is under a flood.
    fn displace_oldest(&mut self) -> Option<OwnedSemaphorePermit> {
        while let Some((task, seat)) = self.0.pop_front() {
            if let Some(seat) = seat.upgrade()
                && !seat.requested.load(Ordering::Relaxed)
                && let Some(slot) = seat.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                task.abort();
                return Some(slot);
            }
        }
        None
    }
}

/// Errors of a connection that broke before it was accepted; the next one has nothing to do with it.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

impl Endpoint {
    async fn drain(&self, mut connections: JoinSet<()>) -> usize {
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                self.connection_ended(ended);
            }
        };
        match timeout(self.limits.grace_period, all_ended).await {
            Ok(()) => 0,
            Err(_elapsed) => connections.len(),
        }
    }

    fn connection_ended(&self, ended: Result<(), JoinError>) {
        // Panics in answering are caught nearer; this is for what stands around it.
        if ended.is_err_and(|error| error.is_panic()) {
            self.metrics.server.panics.inc();
        }
    }

    async fn begin(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        seat: &Arc<Seat>,
        shutdown: &Shutdown,
    ) {
        // Answers are small and awaited: no waiting for more to send.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection broke before it began");
            return;
        }
        let Acceptor(Some(tls)) = &self.acceptor else {
            return self.serve(stream, peer, seat, shutdown).await;
        };
        let started = Instant::now();
        let failure = match timeout(self.limits.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                self.metrics.server.took(Phase::Handshake, started.elapsed());
                return self.serve(stream, peer, seat, shutdown).await;
            }
            Ok(Err(error)) => {
                let failure = classify(&error);
                tell_handshake_failure(peer, failure, &error);
                failure
            }
            Err(_elapsed) => {
                tracing::debug!(%peer, "the TLS handshake took too long");
                self.metrics.server.deadline_exceeded(Phase::Handshake);
                HandshakeFailure::Deadline
            }
        };
        self.metrics.server.handshake_failed(failure);
    }

    async fn serve<I>(self: &Arc<Self>, io: I, peer: SocketAddr, seat: &Arc<Seat>, shutdown: &Shutdown)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let go_away = Arc::new(Notify::new());
        let service = service_fn({
            let (seat, go_away) = (Arc::clone(seat), Arc::clone(&go_away));
            let (endpoint, shutdown) = (Arc::clone(self), shutdown.clone());
            move |mut request: Request<Incoming>| {
                seat.requested.store(true, Ordering::Relaxed);
                if endpoint.listener == Listener::Admin {
                    request.extensions_mut().insert(Peer(peer));
                }
                Arc::clone(&endpoint).answer(request, shutdown.clone(), Arc::clone(&go_away))
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut first_request = pin!(sleep(self.limits.headers));
        let (mut awaiting, mut ending) = (true, false);
        let result = loop {
            tokio::select! {
                // The connection first: a request that has arrived is seen before the end of its time, or of
                // ours.
                biased;
                result = connection.as_mut() => break result,
                () = shutdown.draining(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = go_away.notified(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut first_request, if awaiting => {
                    awaiting = false;
                    if !seat.requested.load(Ordering::Relaxed) {
                        self.metrics.server.deadline_exceeded(Phase::Headers);
                        break Ok(());
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, error, "the connection broke");
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        shutdown: Shutdown,
        go_away: Arc<Notify>,
    ) -> Result<Response, Infallible> {
        let version = request.version();
        let mut response = self.router.clone().oneshot(request.map(Body::new)).await?;
        if self.listener == Listener::Webhook {
            self.metrics.server.answered(response.status());
        }
        if shutdown.is_leaving() {
            if version == Version::HTTP_2 {
                go_away.notify_one();
            } else {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Ok(response)
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // hyper begins to count when it could read the next request, so this bounds the idle time as
            // well; the first request has a deadline of its own.
            .header_read_timeout(limits.idle)
            .max_buf_size(limits.max_header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_streams)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        builder
    }
}

fn classify(error: &io::Error) -> HandshakeFailure {
    use rustls::Error;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            HandshakeFailure::ClientCertificate
        }
        Some(Error::AlertReceived(_)) => HandshakeFailure::Refused,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Closed,
    }
}

/// What an operator can mend is a warning; the rest is a port scanner's business.
fn tell_handshake_failure(peer: SocketAddr, failure: HandshakeFailure, error: &io::Error) {
    match failure {
        HandshakeFailure::ClientCertificate => {
            tracing::warn!(%peer, %error, "a client without a certificate of the client CA was refused");
        }
        HandshakeFailure::Refused => {
            tracing::warn!(%peer, %error, "a client refused the serving certificate: does the webhook's caBundle fit it?");
        }
        HandshakeFailure::Closed | HandshakeFailure::Deadline | HandshakeFailure::Protocol => {
            tracing::debug!(%peer, %error, "the TLS handshake failed");
        }
    }
}
