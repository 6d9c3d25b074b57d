//! The admin port.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use leasehold::{
    metrics::Metrics,
    server::{AdminServer, Readiness, Shutdown},
};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::event;

struct Admin {
    sender: hyper::client::conn::http1::SendRequest<Body>,
}

impl Admin {
    async fn start(readiness: Readiness) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AdminServer::new(readiness, Arc::new(Metrics::new()));
        tokio::spawn(server.run(listener, Shutdown::new()));
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    async fn ask(&mut self, method: &str, path: &str) -> (StatusCode, http::HeaderMap, String) {
        self.ask_for(method, path, "*/*").await
    }

    async fn ask_for(
        &mut self,
        method: &str,
        path: &str,
        accept: &str,
    ) -> (StatusCode, http::HeaderMap, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .header(header::HOST, "localhost");
        self.sender.ready().await.unwrap();
        let sent = self.sender.send_request(request.body(Body::empty()).unwrap());
        let (parts, body) = event("an answer", sent).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            parts.headers,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        let (status, _, text) = self.ask("GET", path).await;
        (status.as_u16(), text)
    }
}

#[tokio::test]
async fn readiness_follows_its_checks_and_liveness_does_not() {
    let readiness = Readiness::waiting_for(["listener", "policy"]);
    let mut admin = Admin::start(readiness.clone()).await;
    let waiting =
        "[-]listener failed: not done yet\n[-]policy failed: not done yet\nreadyz check failed\n".to_owned();
    assert_eq!(admin.get("/readyz").await, (503, waiting.clone()));
    assert_eq!(admin.get("/readyz?verbose").await, (503, waiting));
    let (code, index) = admin.get("/").await;
    assert_eq!(code, 200);
    for path in ["/livez", "/readyz", "/metrics", "/loglevel"] {
        assert!(index.contains(&format!("\n{path} ")), "{path}: {index}");
    }
    assert_eq!(admin.get("/livez").await, (200, "ok".to_owned()));
    assert_eq!(
        admin.get("/livez?verbose").await,
        (200, "[+]ping ok\nlivez check passed\n".to_owned())
    );

    readiness.set("listener", Ok(()));
    readiness.pass_with_detail("policy", "version 8 was refused".to_owned());
    assert_eq!(admin.get("/readyz").await, (200, "ok".to_owned()));
    let verbose = "[+]listener ok\n[+]policy ok: version 8 was refused\nreadyz check passed\n".to_owned();
    assert_eq!(admin.get("/readyz?verbose").await, (200, verbose));

    readiness.set("listener", Err("closed".to_owned()));
    assert_eq!(admin.get("/readyz").await.0, 503);
    assert_eq!(admin.get("/livez").await.0, 200);
}

#[tokio::test]
async fn metrics_are_in_the_format_that_is_asked_for() {
    let mut admin = Admin::start(Readiness::waiting_for([])).await;
    for (accept, content_type, counter) in [
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "# TYPE leasehold_connections counter\n",
        ),
        (
            "*/*",
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE leasehold_connections_total counter\n",
        ),
    ] {
        let (status, headers, text) = admin.ask_for("GET", "/metrics", accept).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].as_bytes()),
            (StatusCode::OK, content_type.as_bytes())
        );
        assert!(
            text.contains("leasehold_connections_open{listener=\"admin\"} 1\n"),
            "{text}"
        );
        assert!(text.contains(counter), "{text}");
        assert_eq!(
            text.ends_with("# EOF\n"),
            content_type.contains("openmetrics"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn metrics_tell_whether_this_replica_is_ready_now() {
    let readiness = Readiness::waiting_for(["listener"]);
    let mut admin = Admin::start(readiness.clone()).await;
    for (result, expected) in [
        (Ok(()), "leasehold_ready 1\n"),
        (Err("closed".to_owned()), "leasehold_ready 0\n"),
    ] {
        readiness.set("listener", result);
        let (_, text) = admin.get("/metrics").await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn everything_else_is_refused_in_json() {
    let mut admin = Admin::start(Readiness::waiting_for([])).await;
    for (method, path, expected) in [
        ("GET", "/validate", 404),
        ("POST", "/metrics", 405),
        ("POST", "/readyz", 405),
    ] {
        let (status, headers, text) = admin.ask(method, path).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert!(text.starts_with("{\"error\":"), "{text}");
    }
}
