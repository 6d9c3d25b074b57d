//! The end: leaving, draining, and being cut off.

use std::{future::pending, time::Duration};

use http::{StatusCode, header};
use leasehold::server::{Limits, Readiness, shutdown};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use crate::harness::{HOUR, PROTOCOLS, Protocol, Raw, Running, TINY, event, patient, post};

#[tokio::test]
async fn while_leaving_new_connections_are_served_and_each_is_told_to_go_after_one_answer() {
    let server = Running::start(patient()).await;
    let mut old = Vec::new();
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        let response = client.assert_served().await;
        assert_eq!(response.headers().get(header::CONNECTION), None);
        old.push(client);
    }
    server.shutdown.leave();
    for protocol in PROTOCOLS {
        old.push(server.connect(protocol).await);
    }
    for mut client in old {
        client.assert_served().await;
        client.closed().await;
    }

    let mut raw = server.raw(Protocol::Http1).await;
    raw.begin_review(4).await;
    raw.write("four").await;
    let head = raw.read_head().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(raw.rest().await, "4");
    assert!(!server.ended.is_finished(), "leaving is not the end");
}

#[tokio::test]
async fn idle_connections_end_with_the_drain_and_nothing_new_is_accepted() {
    let server = Running::start(patient()).await;
    let mut idle = Vec::new();
    for protocol in PROTOCOLS {
        let mut client = server.connect(protocol).await;
        client.assert_served().await;
        idle.push(client);
    }
    server.shutdown.drain();
    for client in idle {
        client.closed().await;
    }
    assert_eq!(event("the end", server.ended).await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_is_in_flight_is_answered_during_the_drain() {
    let server = Running::start(patient()).await;
    let mut over_http1 = server.raw(Protocol::Http1).await;
    over_http1.begin_review(4).await;

    let mut over_http2 = server.connect(Protocol::Http2).await;
    over_http2.assert_served().await;
    let (finish, finished) = oneshot::channel();
    let rest = async move {
        finished.await.unwrap();
        Ok::<_, std::convert::Infallible>("ur")
    };
    let first = futures::stream::iter([Ok("fo")]);
    let body = axum::body::Body::from_stream(futures::StreamExt::chain(first, futures::stream::once(rest)));
    let in_flight = tokio::spawn(async move {
        let response = over_http2.try_send(post(body)).await;
        (response, over_http2)
    });
    let both_begun = async {
        while !server
            .metrics
            .encode()
            .unwrap()
            .contains("leasehold_reviews_in_flight 2")
        {
            tokio::task::yield_now().await;
        }
    };
    event("both reviews in flight", both_begun).await;

    let (address, metrics) = (server.address, std::sync::Arc::clone(&server.metrics));
    server.shutdown.drain();
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    event("the end of accepting", refused).await;
    assert!(!server.ended.is_finished());

    over_http1.write("four").await;
    let head = over_http1.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(over_http1.rest().await, "4");

    finish.send(()).unwrap();
    let (response, mut over_http2) = event("the answer", in_flight).await.unwrap();
    let response = response.unwrap();
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::OK, &b"4"[..])
    );
    over_http2.try_send(post("four")).await.unwrap_err();

    assert_eq!(event("the end", server.ended).await.unwrap(), 0);
    let text = metrics.encode().unwrap();
    assert!(
        text.contains("leasehold_connections_open{listener=\"webhook\"} 0"),
        "{text}"
    );
}

/// Types of HTTP/2 frames (RFC 9113, section 6).
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// Reads frames until one of that type, and returns its payload.
async fn frame(raw: &mut Raw, wanted: u8) -> Vec<u8> {
    loop {
        let mut header = [0; 9];
        event("a frame", raw.stream.read_exact(&mut header))
            .await
            .unwrap();
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        raw.stream.read_exact(&mut payload).await.unwrap();
        if header[3] == wanted {
            return payload;
        }
    }
}

#[tokio::test]
async fn http2_clients_are_sent_goaway_in_two_steps_so_that_no_request_is_lost() {
    let server = Running::start(patient()).await;
    let mut raw = server.raw(Protocol::Http2).await;
    // The preface, and empty SETTINGS.
    raw.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    frame(&mut raw, 4).await;
    server.shutdown.drain();

    // First "no new streams, but whatever is on its way is served": the last stream is the highest there can
    // be.
    let announced = frame(&mut raw, GOAWAY).await;
    assert_eq!(announced[..8], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let ping = frame(&mut raw, PING).await;
    let mut pong = b"\0\0\x08\x06\x01\0\0\0\0".to_vec();
    pong.extend(ping);
    raw.write(pong).await;
    // Then, once the client must have seen that, "that was all".
    let last = frame(&mut raw, GOAWAY).await;
    assert_eq!(last[..8], [0; 8]);
    assert_eq!(event("the end", server.ended).await.unwrap(), 0);
}

#[tokio::test]
async fn what_outlives_the_grace_period_is_cut_off_and_counted() {
    let limits = Limits {
        grace_period: TINY,
        ..patient()
    };
    let server = Running::start(limits).await;
    let mut raw = server.raw(Protocol::Http1).await;
    raw.begin_review(4).await;
    server.shutdown.drain();
    assert_eq!(event("the end", server.ended).await.unwrap(), 1);
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn dropping_the_server_closes_everything_at_once() {
    let server = Running::start(patient()).await;
    let mut raw = server.raw(Protocol::Http1).await;
    raw.begin_review(4).await;
    let mut idle = server.connect(Protocol::Http2).await;
    idle.assert_served().await;
    server.ended.abort();
    assert_eq!(raw.rest().await, "");
    idle.closed().await;
}

#[tokio::test]
async fn the_first_signal_leaves_then_drains_and_the_second_aborts() {
    for signals_before_drain in [false, true] {
        let delay = if signals_before_drain {
            HOUR
        } else {
            Duration::ZERO
        };
        let (signal, signals) = mpsc::channel(2);
        let (asked, readiness) = (
            shutdown::Shutdown::new(),
            Readiness::waiting_for([shutdown::CHECK]),
        );
        readiness.set(shutdown::CHECK, Ok(()));
        let conducted = {
            let (asked, readiness) = (asked.clone(), readiness.clone());
            tokio::spawn(async move {
                shutdown::conduct(signals, delay, &asked, &readiness, pending::<()>()).await
            })
        };
        assert!(readiness.report().0 && !asked.is_leaving());
        signal.send(()).await.unwrap();
        if !signals_before_drain {
            event("the drain", asked.draining()).await;
            assert!(asked.is_leaving());
            assert!(readiness.report().1.contains("[-]shutdown failed: shutting down"));
        }
        signal.send(()).await.unwrap();
        let aborted = event("the abort", conducted).await.unwrap();
        assert!(aborted.is_err());
    }
}

#[tokio::test]
async fn a_server_that_ends_within_its_delay_needs_no_second_signal() {
    let (signal, signals) = mpsc::channel(2);
    signal.send(()).await.unwrap();
    let (asked, readiness) = (shutdown::Shutdown::new(), Readiness::waiting_for([]));
    let finished = async {
        asked.draining().await;
        "drained"
    };
    let ended = shutdown::conduct(signals, Duration::ZERO, &asked, &readiness, finished);
    assert_eq!(event("the end", ended).await.unwrap(), "drained");
}
