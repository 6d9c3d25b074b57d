//! `/livez`, `/readyz`, `/metrics`, and [`/loglevel`](super::log_level); `/` lists them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};

use super::{Readiness, log_level, webhook};
use crate::{
    logging::LogLevel,
    metrics::{
        Metrics,
        exposition::{OPENMETRICS, PROMETHEUS_TEXT, accepts_openmetrics, prometheus_text},
    },
};

#[derive(Clone, Debug)]
struct Admin {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

pub(super) fn router(readiness: Readiness, metrics: Arc<Metrics>, level: Option<LogLevel>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(exposition))
        .with_state(Admin { readiness, metrics })
        .merge(level.map(log_level::router).unwrap_or_default())
        .method_not_allowed_fallback(webhook::wrong_method)
        .fallback(async || {
            webhook::error(
                StatusCode::NOT_FOUND,
                "no such path: ask for /livez, /readyz, /metrics or /loglevel",
            )
        })
}

/// What there is, for somebody who has only the port.
async fn index() -> &'static str {
    "\
leasehold: what this port serves

/livez              whether the process answers
/readyz             whether it is ready to judge; ?verbose lists the checks
/metrics            Prometheus metrics
/loglevel           the level of the log; PUT from the loopback address changes it
"
}

/// That the process answers is all there is to it: nothing that it depends on may get it killed.
async fn livez(RawQuery(query): RawQuery) -> Response {
    let text = if is_verbose(query.as_deref()) {
        "[+]ping ok\nlivez check passed\n"
    } else {
        "ok"
    };
    text.into_response()
}

/// As kube-apiserver, the checks are listed when one failed, or on `?verbose`.
async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    match admin.readiness.report() {
        (true, report) if is_verbose(query.as_deref()) => report.into_response(),
        (true, _) => "ok".into_response(),
        (false, report) => (StatusCode::SERVICE_UNAVAILABLE, report).into_response(),
    }
}

/// OpenMetrics for whoever asks for it, as Prometheus does, else Prometheus's own text format.
async fn exposition(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let (ready, _) = admin.readiness.report();
    admin.metrics.server.ready.set(i64::from(ready));
    let openmetrics = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(accepts_openmetrics);
    match admin.metrics.encode() {
        Ok(text) if openmetrics => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], prometheus_text(&text)).into_response(),
        Err(error) => webhook::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("metrics cannot be written: {error}"),
        ),
    }
}

fn is_verbose(query: Option<&str>) -> bool {
    let names = query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split('=').next());
    names.into_iter().any(|name| name == Some("verbose"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_asked_for_with_or_without_a_value() {
        for (query, expected) in [
            (None, false),
            (Some(""), false),
            (Some("verbose"), true),
            (Some("verbose=true"), true),
            (Some("timeout=1s&verbose"), true),
            (Some("verbosely"), false),
            (Some("a=verbose"), false),
        ] {
            assert_eq!(is_verbose(query), expected, "{query:?}");
        }
    }
}
