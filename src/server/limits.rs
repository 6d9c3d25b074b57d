//! How much and how long: each bound with where it comes from.

use std::time::Duration;

/// Largest review that an API server can send about an object that etcd can store, in bytes: 19 MiB.
///
/// etcd stores objects of at most 1.5 MiB (its `--max-request-bytes`). The API server's JSON encoder writes `<`, `>`,
/// `&` and each byte that is no UTF-8 as six bytes (`encoding/json`: `\u003c`), so that an object takes up to 9 MiB of a
/// review. An UPDATE review carries the new object and the old one; 1 MiB is for everything else in it: user, groups,
/// options. A longer review would pass unread, so nobody may be able to make one by a long name.
pub const MAX_BODY_BYTES: usize = (2 * 9 + 1) << 20;

/// Longest that an API server waits for a webhook: `timeoutSeconds` is at most 30
/// (`k8s.io/kubernetes/pkg/apis/admissionregistration/validation`). Nobody waits for what takes longer.
const LONGEST_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The bounds of a server. There is no `Default`: [`Limits::webhook`] and [`Limits::admin`] say for what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once; for one more, the oldest on which no request has come yet is closed, or itself if
    /// there is none.
    pub max_connections: usize,
    /// Reviews between their headers and their answer at once; one more is answered 429.
    pub max_reviews: usize,
    /// Bytes of bodies held at once, over all reviews; a review that would exceed it is answered 429.
    pub max_held_bytes: usize,
    /// Bytes of one body; a longer one is answered 413.
    pub max_body_bytes: usize,
    /// Bytes of one HTTP/1.1 request's headers; longer ones are answered 431. (HTTP/2: 16 KiB, hyper's
    /// default.)
    pub max_header_bytes: usize,
    /// HTTP/2 requests at once on one connection.
    pub max_streams: u32,
    /// From accept to the end of the TLS handshake; then the connection is closed.
    pub handshake: Duration,
    /// From the end of the handshake to the end of the first request's headers; then the connection is
    /// closed.
    pub headers: Duration,
    /// From the headers to the last byte of the body; then the answer is 408. The request's own `?timeout=`
    /// makes it shorter.
    pub body: Duration,
    /// How long a verdict may take. It takes microseconds and cannot be interrupted: one that took longer is
    /// counted and logged, and the answer is sent.
    pub verdict: Duration,
    /// How long an HTTP/1.1 connection may wait for the headers of its next request; then it is closed.
    pub idle: Duration,
    /// How often an HTTP/2 client is pinged.
    pub ping_interval: Duration,
    /// How long it may take to answer a ping; then the connection is closed.
    pub ping_timeout: Duration,
    /// From the begin of the drain until connections are cut off.
    pub grace_period: Duration,
}

impl Limits {
    /// Bounds for the webhook's port.
    pub fn webhook() -> Self {
        Self {
            // An API server keeps 25 idle connections to one host (`idleConnsPerHost` in
            // `client-go/transport/cache.go`) and opens more for a burst. Room for 10 of them twice over, at
            // some 40 KiB each.
            max_connections: 512,
            max_reviews: 512,
            // A Lease review is 4 KiB. Room for 512 of 114 KiB, or three of the largest that can be, within the 128 MiB
            // of the Deployment's memory limit. No elector sends such.
            max_held_bytes: 3 * MAX_BODY_BYTES,
            max_body_bytes: MAX_BODY_BYTES,
            // An API server's are some 300 bytes. hyper's default of 400 KiB would let connections that were
            // never asked who they are hold 200 MiB.
            max_header_bytes: 16 << 10,
            // What Go's own HTTP/2 server allows, which the API server's client is used to.
            max_streams: 250,
            // The API server's client gives up by then (`TLSHandshakeTimeout` in
            // `client-go/transport/cache.go`).
            handshake: Duration::from_secs(10),
            // It sends its request with the end of the handshake; more than this is a port scanner.
            headers: Duration::from_secs(10),
            body: LONGEST_WEBHOOK_TIMEOUT,
            // Ten thousand times what a verdict takes, and a tenth of the API server's shortest timeout of 1
            // s.
            verdict: Duration::from_millis(100),
            // The API server's client closes an idle connection after 90 s (`IdleConnTimeout` in Go's
            // `http.DefaultTransport`), and does not repeat a POST that met a closing connection: the client
            // must always be the first to close.
            idle: Duration::from_secs(120),
            // A dead peer is noticed within 30 s, as by the API server's own pings in the other direction.
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            grace_period: Duration::from_secs(20),
        }
    }

    /// Bounds for the admin port: kubelets and a few scrapers.
    pub fn admin() -> Self {
        Self {
            max_connections: 64,
            max_streams: 16,
            grace_period: Duration::from_secs(1),
            ..Self::webhook()
        }
    }
}
