//! Too much at once, and too slow.

use std::time::Duration;

use http::{StatusCode, header};
use leasehold::server::Limits;

use tokio::{io::AsyncRead, net::TcpStream};

use crate::harness::{PROTOCOLS, Protocol, Running, TINY, error_of, event, patient, post, rest};

#[tokio::test]
async fn one_review_too_many_is_told_to_come_back_and_then_served() {
    let limits = Limits {
        max_reviews: 1,
        ..patient()
    };
    let server = Running::start(limits).await;
    let mut first = server.raw(Protocol::Http1).await;
    first.begin_review(4).await;
    server.assert_metric("leasehold_reviews_in_flight 1");

    let mut clients = Vec::new();
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        let response = client.send(post("four")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(error_of(&response).contains("try again"));
        clients.push(client);
    }
    server.assert_metric("leasehold_reviews_shed_total{reason=\"reviews\"} 2");

    first.write("four").await;
    assert!(first.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    for mut client in clients {
        client.assert_served().await;
    }
    server.assert_metric("leasehold_reviews_in_flight 0");
}

#[tokio::test]
async fn reviews_that_hold_too_many_bytes_together_are_told_to_come_back() {
    let limits = Limits {
        max_held_bytes: 100,
        ..patient()
    };
    let server = Running::start(limits).await;
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        let response = client.send(post("x".repeat(101))).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        // What the refused one held was given back.
        let response = client.send(post("x".repeat(100))).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    server.assert_metric("leasehold_reviews_shed_total{reason=\"bytes\"} 2");
}

#[tokio::test]
async fn a_body_that_does_not_come_in_the_callers_time_is_answered_and_ends_the_connection() {
    let server = Running::start(patient()).await;
    let mut raw = server.raw(Protocol::Http1).await;
    raw.write(
        "POST /validate?timeout=10ms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 9\r\n\r\n{",
    )
    .await;
    let head = raw.read_head().await;
    assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
    assert!(raw.rest().await.starts_with("{\"error\":"));
    server.assert_metric("leasehold_deadlines_exceeded_total{phase=\"body\"} 1");
    server.assert_metric("leasehold_reviews_in_flight 0");
}

#[tokio::test]
async fn headers_without_end_are_answered_and_end_the_connection() {
    let server = Running::start(patient()).await;
    let mut raw = server.raw(Protocol::Http1).await;
    let long = "x".repeat(17 << 10);
    raw.write(format!("POST /validate HTTP/1.1\r\nHost: localhost\r\nX: {long}"))
        .await;
    let head = raw.read_head().await;
    assert!(
        head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        "{head}"
    );
    assert_eq!(raw.rest().await, "");
    server.connect(Protocol::Http1).await.assert_served().await;
}

#[tokio::test]
async fn a_verdict_that_takes_too_long_is_counted_and_still_sent() {
    let limits = Limits {
        verdict: Duration::ZERO,
        ..patient()
    };
    let server = Running::start(limits).await;
    server.connect(Protocol::Http2).await.assert_served().await;
    server.assert_metric("leasehold_deadlines_exceeded_total{phase=\"verdict\"} 1");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_one_that_ends_makes_room() {
    let limits = Limits {
        max_connections: 1,
        ..patient()
    };
    let server = Running::start(limits).await;
    let mut first = server.connect(Protocol::Http2).await;
    first.assert_served().await;
    assert!(server.try_connect(Protocol::Http2).await.is_err());
    server.assert_metric("leasehold_connections_refused_total{listener=\"webhook\"} 1");
    first.assert_served().await;

    drop(first);
    let room = async {
        loop {
            // Until the server has seen the end of the first.
            if let Ok(client) = server.try_connect(Protocol::Http2).await {
                return client;
            }
        }
    };
    event("room", room).await.assert_served().await;
    server.assert_metric("leasehold_connections_open{listener=\"webhook\"} 1");
}

#[tokio::test]
async fn who_says_nothing_makes_room_for_the_next_and_who_has_asked_before_does_not() {
    let limits = Limits {
        max_connections: 3,
        ..patient()
    };
    let server = Running::start(limits).await;
    let mut known = server.connect(Protocol::Http1).await;
    known.assert_served().await;
    // The oldest without a word, and one that has come as far as the handshake.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = server.raw(Protocol::Http1).await;
    let mut clients = Vec::new();
    for (refused, stranger) in [
        (1, &mut silent as &mut (dyn AsyncRead + Unpin)),
        (2, &mut half.stream),
    ] {
        let mut client = server.connect(Protocol::Http2).await;
        client.assert_served().await;
        assert_eq!(rest(stranger).await, b"", "closed");
        server.assert_metric(&format!(
            "leasehold_connections_refused_total{{listener=\"webhook\"}} {refused}"
        ));
        clients.push(client);
    }
    // Nobody is left who says nothing.
    assert!(server.try_connect(Protocol::Http2).await.is_err());
    server.assert_metric("leasehold_connections_refused_total{listener=\"webhook\"} 3");
    known.assert_served().await;
    for client in &mut clients {
        client.assert_served().await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let limits = Limits {
        idle: TINY,
        ..patient()
    };
    let server = Running::start(limits).await;
    let begun = async {
        loop {
            // Until one is quicker than the tiny idle time, which runs from the first byte as well.
            let mut raw = server.raw(Protocol::Http1).await;
            if let Ok(raw) = tokio::spawn(async move {
                raw.begin_review(4).await;
                raw
            })
            .await
            {
                return raw;
            }
        }
    };
    let mut busy = event("a review", begun).await;
    // One that does nothing after its first request is closed meanwhile.
    let served_once = async {
        loop {
            let mut client = server.connect(Protocol::Http1).await;
            if client.try_send(post("four")).await.is_ok() {
                return client;
            }
        }
    };
    event("a review served", served_once).await.closed().await;
    busy.write("four").await;
    assert!(busy.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(busy.rest().await, "4", "and then, idle, it is closed as well");
}
