//! What is refused, how that is said, and that the connection lives on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use leasehold::{
    admission::{Answer, Handler},
    audit::AuditLog,
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    server::{Limits, Server},
};

use crate::harness::{PROTOCOLS, Pki, Protocol, Running, error_of, event, in_pieces, measure, patient, post};

const JSON: &str = "application/json";

fn request(method: Method, path: &str, content_type: &'static str, body: impl Into<Body>) -> Request<Body> {
    let mut request = post(body);
    *request.method_mut() = method;
    *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

#[tokio::test]
async fn each_kind_of_bad_request_is_refused_with_a_reason_and_the_next_one_is_served() {
    let limits = Limits {
        max_body_bytes: 1000,
        ..patient()
    };
    let server = Running::start(limits).await;
    // Over what fits in buffers on the way: it has to be read to its end to get at the next request.
    let very_long = "x".repeat(5 << 20);
    for protocol in PROTOCOLS {
        let review = |content_type, body: Body| request(Method::POST, "/validate", content_type, body);
        let mut client = server.connect(protocol).await;
        for (request, status) in [
            (request(Method::POST, "/", JSON, "{}"), 404),
            (request(Method::POST, "/validate/", JSON, very_long.clone()), 404),
            (request(Method::GET, "/metrics", JSON, ""), 404),
            (request(Method::GET, "/validate", JSON, ""), 405),
            (request(Method::PUT, "/validate", JSON, very_long.clone()), 405),
            (request(Method::DELETE, "/validate", JSON, "{}"), 405),
            (review("text/plain", "{}".into()), 415),
            (review("application/yaml", very_long.clone().into()), 415),
            (review(JSON, "x".repeat(1001).into()), 413),
            (review(JSON, very_long.clone().into()), 413),
            (review(JSON, in_pieces(vec!["x"; 1001])), 413),
            (review(JSON, "panic".into()), 500),
        ] {
            let what = format!("{protocol:?} {request:?}");
            let response = client.send(request).await;
            assert_eq!(response.status(), status, "{what}");
            assert!(!error_of(&response).is_empty(), "{what}");
            assert_eq!(response.headers().get(header::CONNECTION), None, "{what}");
            if status == 405 {
                assert_eq!(response.headers()[header::ALLOW], "POST");
            }
            client.assert_served().await;
        }
    }
    // One connection each, throughout.
    server.assert_metric("leasehold_connections_total{listener=\"webhook\"} 2");
    server.assert_metric("leasehold_panics_total 2");
    server.assert_metric("leasehold_reviews_in_flight 0");
    for (code, count) in [(404, 6), (405, 6), (415, 4), (413, 6), (500, 2), (200, 24)] {
        server.assert_metric(&format!("leasehold_requests_total{{code=\"{code}\"}} {count}"));
    }
}

#[tokio::test]
async fn a_body_up_to_the_bound_arrives_whole_however_it_is_cut() {
    let limits = Limits {
        max_body_bytes: 3000,
        ..patient()
    };
    let server = Running::start(limits).await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        for (body, length) in [
            (Body::empty(), "0"),
            (Body::from("x".repeat(3000)), "3000"),
            (in_pieces(vec!["abc"; 1000]), "3000"),
            (in_pieces(vec!["", "abc", ""]), "3"),
        ] {
            let response = client.send(post(body)).await;
            assert_eq!(response.status(), StatusCode::OK, "{protocol:?} {length}");
            assert_eq!(response.body(), length, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_largest_review_that_an_api_server_can_send_is_taken() {
    // Two objects of 3 MiB, and the rest.
    let length = 2 * (3 << 20) + 100_000;
    let server = Running::start(patient()).await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        let response = client.send(post("x".repeat(length))).await;
        assert_eq!(response.status(), StatusCode::OK, "{protocol:?}");
        assert_eq!(response.body(), &length.to_string(), "{protocol:?}");
    }
}

#[tokio::test]
async fn malformed_reviews_are_refused_and_real_ones_judged_on_the_same_connection() {
    let policy = ActivePolicy::new(Policy::default());
    let handler = Handler::new(policy, Arc::new(Metrics::new()), AuditLog::disabled());
    let review = move |body: &[u8], now| handler.handle(body, now);
    let server = Running::start_with(patient(), review, None).await;
    let early = include_str!("../data/reviews/takeover-early.json");
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        for malformed in [
            "",
            "{",
            "[]",
            "{}",
            "null",
            &early[..early.len() / 2],
            &"[".repeat(100_000),
        ] {
            let response = client.send(post(malformed.to_owned())).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{malformed:.20}");
            assert!(!error_of(&response).is_empty(), "{malformed:.20}");

            let response = client.send(post(early)).await;
            assert_eq!(response.status(), StatusCode::OK);
            let answer: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(answer["response"]["allowed"], false, "{answer}");
            assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
        }
    }
    server.assert_metric("leasehold_connections_total{listener=\"webhook\"} 2");
}

#[tokio::test]
async fn the_clock_is_read_once_for_each_review() {
    let seconds = AtomicI64::new(1000);
    let clock = move || Timestamp::from_second(seconds.fetch_add(1, Ordering::Relaxed)).unwrap();
    let tell_time = |_body: &[u8], now: Timestamp| Answer {
        status: StatusCode::OK,
        body: now.as_second().to_string().into_bytes(),
    };
    let (pki, metrics) = (Pki::new(), Arc::new(Metrics::new()));
    let tls = pki.issue().server_config(None);
    let server = Server::with_clock(tell_time, clock, tls, patient(), Arc::clone(&metrics));
    let server = Running::run(server, pki, metrics).await;

    let mut client = server.connect(Protocol::Http2).await;
    for expected in ["1000", "1001", "1002"] {
        // Refused before it is a review: costs no look at the clock.
        client.send(request(Method::GET, "/validate", JSON, "")).await;
        assert_eq!(client.send(post("{}")).await.body(), expected);
    }
}

/// One runtime thread: whoever blocks it would hold up everybody.
#[tokio::test]
async fn a_path_whose_reviews_take_long_holds_up_no_other_and_takes_one_at_a_time() {
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (finish, may_finish) = mpsc::channel();
    let may_finish = Mutex::new(may_finish);
    let slow = move |body: &[u8], now: Timestamp| {
        begun.send(()).unwrap();
        // Only ends by itself where the server is wrong and the test could not go on.
        let finished = may_finish.lock().unwrap().recv_timeout(Duration::from_secs(20));
        assert!(finished.is_ok() && body != b"panic");
        measure(body, now)
    };
    let (pki, metrics) = (Pki::new(), Arc::new(Metrics::new()));
    let tls = pki.issue().server_config(None);
    let server = Server::new(measure, tls, patient(), Arc::clone(&metrics)).reviewing_at("/slow", slow);
    let server = Running::run(server, pki, metrics).await;
    let to_slow = |body: &'static str| request(Method::POST, "/slow", JSON, body);

    let mut other = server.connect(Protocol::Http2).await;
    for (body, status) in [
        ("{}", StatusCode::OK),
        ("panic", StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let mut client = server.connect(Protocol::Http1).await;
        let slow = tokio::spawn(async move { client.send(to_slow(body)).await });
        event("the slow review to begin", has_begun.recv()).await;
        other.assert_served().await;
        let second = other.send(to_slow("{}")).await;
        assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(second.headers()[header::RETRY_AFTER], "1");
        finish.send(()).unwrap();
        assert_eq!(slow.await.unwrap().status(), status);
    }
    server.assert_metric("leasehold_panics_total 1");
    server.assert_metric("leasehold_reviews_in_flight 0");
    let nowhere = other.send(request(Method::POST, "/", JSON, "{}")).await;
    assert!(error_of(&nowhere).contains("/validate or /slow"));
}
