//! Handshakes: versions, client certificates, and clients that stall.

use leasehold::server::Limits;
use rustls::version::{TLS12, TLS13};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{
    Client, PROTOCOLS, Pki, Protocol, Running, TINY, client_builder, event, measure, offering, patient, post,
    rest, tls_connect,
};

#[tokio::test]
async fn both_versions_of_tls_and_both_protocols_are_spoken() {
    let server = Running::start(patient()).await;
    for version in [&TLS12, &TLS13] {
        for protocol in PROTOCOLS {
            let config = client_builder(&[version]).with_root_certificates(server.pki.roots());
            let config = offering(config.with_no_client_auth(), protocol);
            let mut client = Client::connect(server.address, config, protocol).await.unwrap();
            client.assert_served().await;
        }
    }
    server.assert_metric("leasehold_connections_total{listener=\"webhook\"} 4");
    server.assert_metric("leasehold_phase_duration_seconds_count{phase=\"handshake\"} 4");
    server.assert_metric("leasehold_requests_total{code=\"200\"} 4");
}

#[tokio::test]
async fn stalled_handshakes_hold_up_nobody() {
    let server = Running::start(patient()).await;
    let mut stalled = Vec::new();
    for first_bytes in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(first_bytes).await.unwrap();
        stalled.push(stream);
    }
    for protocol in PROTOCOLS {
        server.connect(protocol).await.assert_served().await;
    }
}

#[tokio::test]
async fn a_stalled_handshake_is_ended_at_its_deadline() {
    let limits = Limits {
        handshake: TINY,
        ..patient()
    };
    let server = Running::start(limits).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    assert!(rest(&mut stalled).await.is_empty());
    server.assert_metric("leasehold_handshake_failures_total{reason=\"deadline\"} 1");
    server.assert_metric("leasehold_deadlines_exceeded_total{phase=\"handshake\"} 1");
}

#[tokio::test]
async fn nothing_is_served_in_the_clear() {
    let server = Running::start(patient()).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(!rest(&mut plain).await.starts_with(b"HTTP"));
    server.connect(Protocol::Http1).await.assert_served().await;
    server.assert_metric("leasehold_handshake_failures_total{reason=\"protocol\"} 1");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_counted_apart() {
    let server = Running::start(patient()).await;
    tls_connect(server.address, Pki::new().client(Protocol::Http2))
        .await
        .unwrap_err();
    // Answered after the alert was read: this runtime has one thread, and looks at sockets in the order they
    // woke.
    server.connect(Protocol::Http2).await.assert_served().await;
    server.assert_metric("leasehold_handshake_failures_total{reason=\"certificate_refused\"} 1");
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_are_served() {
    let client_ca = Pki::new();
    let server = Running::start_with(patient(), measure, Some(&client_ca)).await;
    let (own, strange) = (client_ca.issue(), Pki::new().issue());

    for protocol in PROTOCOLS {
        let config = server.pki.client_with(protocol, &own);
        let mut client = Client::connect(server.address, config, protocol).await.unwrap();
        client.assert_served().await;
    }
    for refused in [
        server.pki.client(Protocol::Http1),
        server.pki.client_with(Protocol::Http1, &strange),
    ] {
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        if let Ok(mut client) = Client::connect(server.address, refused, Protocol::Http1).await {
            event("the refusal", client.try_send(post("four")))
                .await
                .unwrap_err();
        }
    }
    server.assert_metric("leasehold_handshake_failures_total{reason=\"client_certificate\"} 2");
    server.assert_metric("leasehold_requests_total{code=\"200\"} 2");
}

#[tokio::test]
async fn a_connection_without_a_request_is_ended_at_its_deadline() {
    for (protocol, first_bytes) in [
        (Protocol::Http1, &b"POST /val"[..]),
        (Protocol::Http1, b""),
        (Protocol::Http2, b""),
        (Protocol::Http2, b"PRI * HTT"),
    ] {
        let limits = Limits {
            headers: TINY,
            ..patient()
        };
        let server = Running::start(limits).await;
        let mut raw = server.raw(protocol).await;
        // It may be closed before a byte is sent.
        let _ = raw.stream.write_all(first_bytes).await;
        assert_eq!(raw.rest().await, "", "{protocol:?} {first_bytes:?}");
        server.assert_metric("leasehold_deadlines_exceeded_total{phase=\"headers\"} 1");
    }
}
