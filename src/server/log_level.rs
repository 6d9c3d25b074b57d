//! `/loglevel` of the admin port: `GET` tells what is logged, `PUT` changes it until the process ends.
//!
//! The admin port has no authentication, and whoever reaches the pod reaches it: the kubelet, a scraper, and without a
//! NetworkPolicy everybody. So a change is taken from the loopback address alone. That is where `kubectl port-forward`
//! comes from, which only those may use whom RBAC lets (`create` on `pods/portforward`); and whoever is in the pod or
//! on the machine anyway. A signal would have done as well, but nothing in the image could send one.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, State, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, request::Parts};

use super::{connection::Peer, webhook};
use crate::logging::LogLevel;

/// Longest list of directives.
const LONGEST_BODY: usize = 1024;

pub(super) fn router(level: LogLevel) -> Router {
    Router::new()
        .route("/loglevel", get(tell).put(change))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(level)
}

async fn tell(State(level): State<LogLevel>) -> Response {
    format!("{}\n", level.directives()).into_response()
}

async fn change(
    State(level): State<LogLevel>,
    _local: Local,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match &body {
        Ok(body) => body,
        Err(rejection) => {
            return webhook::error(
                rejection.status(),
                &format!("the body cannot be read: {rejection}; give a level such as debug"),
            );
        }
    };
    match level.change(String::from_utf8_lossy(body).trim()) {
        Ok(()) => tell(State(level)).await,
        Err(error) => webhook::error(StatusCode::BAD_REQUEST, &format!("the body: {error}")),
    }
}

/// That the request came over the loopback, by exactly the addresses that `kubectl port-forward` uses: other addresses
/// of 127.0.0.0/8 are a service mesh's way to pass on what came from outside.
struct Local;

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let ip = parts
            .extensions
            .get::<Peer>()
            .map(|Peer(peer)| peer.ip().to_canonical());
        if ip.is_some_and(|ip| ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST) {
            return Ok(Self);
        }
        Err(webhook::error(
            StatusCode::FORBIDDEN,
            "the log level is changed from the same pod or machine only: use kubectl port-forward POD 8080",
        ))
    }
}
