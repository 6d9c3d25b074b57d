//! A proxy in front of the API server that holds back chosen requests, so that a race is decided by the test and not
//! by luck; or that moves the times of Leases, so that its clients' clocks are wrong. It passes on everything else as it
//! is, credentials too.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{tls::serve, world::World};

/// What the test is told of a request that is held.
#[derive(Debug)]
pub(crate) struct Held {
    release: oneshot::Sender<()>,
}

impl Held {
    /// Lets the request go on to the API server.
    pub(crate) fn release(self) {
        // A client that gave up meanwhile has nothing to release.
        let _ = self.release.send(());
    }
}

/// Which requests are held: method, path and body.
type Holds = Box<dyn Fn(&Method, &str, &[u8]) -> bool + Send>;

/// What is held, and who is told of it.
type Holding = (Holds, mpsc::UnboundedSender<Held>);

/// The proxy; it ends with the test run.
#[derive(Clone)]
pub(crate) struct Proxy {
    address: SocketAddr,
    upstream: kube::Client,
    holding: Arc<Mutex<Option<Holding>>>,
    /// How many seconds the clients' clocks are ahead.
    ahead: i64,
}

impl Proxy {
    /// Listens on loopback, with a certificate of the API server's own authority.
    pub(crate) async fn start(world: &World, name: &str) -> anyhow::Result<Self> {
        Self::with_clocks(world, name, 0).await
    }

    /// The same for clients whose clocks are to be ahead by so many seconds, behind where negative: every time that they
    /// write to a Lease is moved so, and moved back where they read it. Go programs do not ask libc for the time, so that
    /// no preloaded library can do this. Watches of Leases are not for such clients.
    pub(crate) async fn with_clocks(world: &World, name: &str, ahead: i64) -> anyhow::Result<Self> {
        let plane = world.plane().await?;
        let leaf = plane
            .authority()
            .issue(world.folder(), &format!("proxy-{name}"), &["127.0.0.1"])?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot listen on loopback")?;
        let proxy = Self {
            address: listener.local_addr()?,
            upstream: plane.anonymous()?,
            holding: Arc::default(),
            ahead,
        };
        let router = Router::new().fallback(pass).with_state(proxy.clone());
        serve(listener, &leaf, router)?;
        Ok(proxy)
    }

    /// For kubeconfigs.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on, holds what `holds` accepts, and tells of it; in place of what was held so far.
    pub(crate) fn hold(
        &self,
        holds: impl Fn(&Method, &str, &[u8]) -> bool + Send + 'static,
    ) -> mpsc::UnboundedReceiver<Held> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = Some((Box::new(holds), sender));
        receiver
    }

    /// Holds nothing any more; what is held stays held.
    pub(crate) fn hold_nothing(&self) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for the release of a request that is to be held.
    async fn wait(&self, method: &Method, path: &str, body: &[u8]) {
        let released = {
            let holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((holds, held)) = holding.as_ref() else {
                return;
            };
            if !holds(method, path, body) {
                return;
            }
            let (release, released) = oneshot::channel();
            if held.send(Held { release }).is_err() {
                return;
            }
            released
        };
        // Dropped by the test is released as well.
        let _ = released.await;
    }

    async fn answer(&self, request: Request) -> anyhow::Result<Response> {
        let (mut head, body) = request.into_parts();
        let mut body: Bytes = to_bytes(body, usize::MAX).await?;
        let path = head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default();
        self.wait(&head.method, &path, &body).await;
        let is_moved = self.ahead != 0 && is_lease(&path);
        if is_moved {
            body = moved(&body, self.ahead).context("a request on a Lease")?;
        }
        // The client completes the address and sets these anew.
        head.uri = path.parse()?;
        for name in [
            header::HOST,
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
        ] {
            head.headers.remove(name);
        }
        head.version = http::Version::HTTP_11;
        let request = http::Request::from_parts(head, kube::client::Body::from(body));
        let (mut head, body) = self.upstream.send(request).await?.into_parts();
        head.headers.remove(header::TRANSFER_ENCODING);
        head.version = http::Version::HTTP_11;
        if is_moved {
            head.headers.remove(header::CONTENT_LENGTH);
            let body =
                moved(&body.collect().await?.to_bytes(), -self.ahead).context("an answer on a Lease")?;
            return Ok(Response::from_parts(head, Body::from(body)));
        }
        // Streamed, for watches.
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

fn is_lease(path: &str) -> bool {
    path.starts_with("/apis/coordination.k8s.io/v1/namespaces/") && path.contains("/leases")
}

/// A Lease with its times moved by so many seconds; what else there is stays as it is.
fn moved(body: &[u8], seconds: i64) -> anyhow::Result<Bytes> {
    if body.is_empty() {
        return Ok(Bytes::new());
    }
    let mut document: Value = serde_json::from_slice(body).context("its body is no JSON")?;
    for field in ["/spec/acquireTime", "/spec/renewTime"] {
        let Some(time) = document.pointer_mut(field).filter(|time| !time.is_null()) else {
            continue;
        };
        let written = time.as_str().with_context(|| format!("{field} is no text"))?;
        let written: Timestamp = written.parse().with_context(|| format!("{field} is no time"))?;
        *time = format!("{:.6}", written + SignedDuration::from_secs(seconds)).into();
    }
    ensure!(
        document.get("items").is_none(),
        "a list of Leases is not for clients with wrong clocks"
    );
    Ok(document.to_string().into())
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    proxy.answer(request).await.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("the tests' proxy: {error:#}")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}
