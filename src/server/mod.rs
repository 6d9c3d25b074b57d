//! The webhook's server: TLS, HTTP, certificates that are renewed while serving, readiness, and a shutdown
//! that loses no review.
//!
//! [`Server`] takes a bound listener and returns when it has drained. It knows nothing of Leases or policies:
//! it hands the bytes of each review, with the instant, to the function of its path. [`AdminServer`] is the same for the
//! plain HTTP port with `/livez`, `/readyz`, `/metrics` and `/loglevel`.
//!
//! How a real API server (1.36) calls a webhook shaped what stands here
//! (`k8s.io/apiserver/pkg/util/webhook/client.go`): HTTP/1.1 to a Service, so that its requests spread over
//! replicas, with up to 25 idle connections kept for 90 s; HTTP/2 only to a URL on its own machine. It does
//! not repeat a POST whose connection broke, so the server must never be the one to close a connection that
//! the client may be about to use: see [`Limits::idle`] and [`shutdown`].

mod admin;
mod body;
pub mod certificates;
mod connection;
pub mod limits;
mod log_level;
pub(crate) mod pem;
pub mod policy_file;
mod polled_files;
pub mod readiness;
pub mod reload;
pub mod shutdown;
pub mod tls;
mod webhook;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    admission::Answer,
    logging::LogLevel,
    metrics::{Metrics, server::Listener},
};

pub use certificates::{Certificate, CertificateFiles, CertificateResolver};
pub use limits::Limits;
pub use polled_files::NamedFile;
pub use readiness::Readiness;
pub use shutdown::Shutdown;

use connection::{Acceptor, Endpoint};
use webhook::{Clock, Route};

/// The webhook's server: `POST /validate`, and other paths that take reviews, over TLS.
pub struct Server {
    routes: Vec<Route>,
    clock: Clock,
    acceptor: Acceptor,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.routes.iter().map(|route| route.path).collect();
        f.debug_struct("Server")
            .field("paths", &paths)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that answers each review with what `review` makes of its bytes at that instant.
    ///
    /// `review` must not block: it is called on the runtime's own threads. Should it panic, the caller gets
    /// HTTP 500 and the server lives on.
    pub fn new(
        review: impl Fn(&[u8], Timestamp) -> Answer + Send + Sync + 'static,
        tls: rustls::ServerConfig,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with_clock(review, Timestamp::now, tls, limits, metrics)
    }

    /// The same, with a clock of the caller's.
    pub fn with_clock(
        review: impl Fn(&[u8], Timestamp) -> Answer + Send + Sync + 'static,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        tls: rustls::ServerConfig,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            routes: vec![Route {
                path: "/validate",
                review: Arc::new(review),
                apart: None,
            }],
            clock: Box::new(clock),
            acceptor: Acceptor::tls(tls),
            limits,
            metrics,
        }
    }

    /// The same, and reviews that are posted to `path` are answered by another function, which may take its time: it
    /// has a thread of its own, for one review at a time, and one more is shed. The limits are for all paths
    /// together.
    #[must_use]
    pub fn reviewing_at(
        mut self,
        path: &'static str,
        review: impl Fn(&[u8], Timestamp) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.routes.push(Route {
            path,
            review: Arc::new(review),
            apart: Some(Arc::new(Semaphore::new(1))),
        });
        self
    }

    /// Serves until `shutdown` asks it to drain, then drains, and returns how many connections the grace
    /// period cut off. Drop the future to stop at once.
    pub async fn run(self, listener: TcpListener, shutdown: Shutdown) -> usize {
        let Self {
            routes,
            clock,
            acceptor,
            limits,
            metrics,
        } = self;
        let endpoint = Endpoint {
            acceptor,
            listener: Listener::Webhook,
            router: webhook::router(routes, clock, &limits, Arc::clone(&metrics)),
            limits,
            metrics,
        };
        connection::run(listener, endpoint, shutdown).await
    }
}

/// The admin port: `/livez`, `/readyz`, `/metrics` and `/loglevel` over plain HTTP.
#[derive(Debug)]
pub struct AdminServer {
    endpoint: Endpoint,
}

impl AdminServer {
    /// A server that tells `readiness` and `metrics`.
    pub fn new(readiness: Readiness, metrics: Arc<Metrics>) -> Self {
        Self::build(readiness, metrics, None)
    }

    /// The same, and it lets whoever is in the same pod or on the same machine change the level of the log.
    pub fn with_log_level(readiness: Readiness, metrics: Arc<Metrics>, level: LogLevel) -> Self {
        Self::build(readiness, metrics, Some(level))
    }

    fn build(readiness: Readiness, metrics: Arc<Metrics>, level: Option<LogLevel>) -> Self {
        Self {
            endpoint: Endpoint {
                acceptor: Acceptor::plain(),
                listener: Listener::Admin,
                limits: Limits::admin(),
                router: admin::router(readiness, Arc::clone(&metrics), level),
                metrics,
            },
        }
    }

    /// As [`Server::run`].
    pub async fn run(self, listener: TcpListener, shutdown: Shutdown) -> usize {
        connection::run(listener, self.endpoint, shutdown).await
    }
}
