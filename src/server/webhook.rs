//! `POST` of a review to one of the paths: what is refused before it is looked at, and what is handed on.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Semaphore, time::Instant};
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    Limits,
    body::{self, BodyError, Budget},
};
use crate::{
    admission::Answer,
    metrics::{
        Metrics,
        server::{OpenGuard, Phase, Shed},
    },
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// When to try again after a shed review, in seconds: the least that the header can say apart from "at once".
///
/// The API server's client heeds it (`checkWait` in `client-go/rest/with_retry.go`): it waits, and asks again
/// if the webhook's timeout allows, perhaps another replica. "At once" would have it ask an overloaded server
/// up to ten times over.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What answers the reviews of one path.
pub(super) type Review = Arc<dyn Fn(&[u8], Timestamp) -> Answer + Send + Sync>;
pub(super) type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// A path that takes reviews.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) review: Review,
    /// Where a review may take long: the one place in which one at a time is looked at, on a thread of its own.
    pub(super) apart: Option<Arc<Semaphore>>,
}

struct Webhook {
    clock: Clock,
    /// The paths that take reviews, for people.
    paths: String,
    metrics: Arc<Metrics>,
    slots: Semaphore,
    budget: Arc<Budget>,
    max_body_bytes: usize,
    body_time: Duration,
    verdict_time: Duration,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Takes reviews on these paths. The limits are for all of them together.
pub(super) fn router(routes: Vec<Route>, clock: Clock, limits: &Limits, metrics: Arc<Metrics>) -> Router {
    let count_panics = Arc::clone(&metrics);
    let paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    let webhook = Webhook {
        clock,
        paths: paths.join(" or "),
        metrics,
        slots: Semaphore::new(limits.max_reviews),
        budget: Budget::new(limits.max_held_bytes),
        max_body_bytes: limits.max_body_bytes,
        body_time: limits.body,
        verdict_time: limits.verdict,
    };
    let mut router = Router::new();
    for route in routes {
        let path = route.path;
        let validate = move |State(webhook): State<Arc<Webhook>>, request: Request| {
            let route = route.clone();
            async move { webhook.validate(route, request).await }
        };
        router = router.route(path, post(validate));
    }
    router
        .method_not_allowed_fallback(refuse_method)
        .fallback(refuse_path)
        .layer(CatchPanicLayer::custom(
            move |_panic: Box<dyn std::any::Any + Send>| {
                count_panics.server.panics.inc();
                // The payload may quote the review: neither the caller nor the log gets it.
                error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the review could not be judged: a bug in leasehold, see its log",
                )
            },
        ))
        .with_state(Arc::new(webhook))
}

impl Webhook {
    async fn validate(&self, route: Route, request: Request) -> Response {
        let (parts, mut body) = request.into_parts();
        let deadline = Instant::now() + self.body_time(parts.uri.query());
        if let Err(reason) = check_is_json(&parts.headers) {
            body::discard(body, deadline).await;
            return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
        }
        let Ok(_slot) = self.slots.try_acquire() else {
            body::discard(body, deadline).await;
            return self.shed(Shed::Reviews);
        };
        let _in_flight = OpenGuard::new(self.metrics.server.reviews_in_flight.clone());
        let started = Instant::now();
        let held = match body::read(&mut body, self.max_body_bytes, &self.budget, deadline).await {
            Ok(held) => held,
            Err(failure) => return self.refuse_body(failure, body, deadline).await,
        };
        self.metrics.server.took(Phase::Body, started.elapsed());
        let Some(apart) = route.apart else {
            return self.judge(&held.bytes, route.review.as_ref());
        };
        // Shed rather than queued: who waits here would hold a slot that other paths need.
        let Ok(permit) = apart.try_acquire_owned() else {
            return self.shed(Shed::Reviews);
        };
        let (review, now) = (route.review, (self.clock)());
        let judged = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            review(&held.bytes, now)
        });
        match judged.await {
            Ok(answer) => respond(answer),
            // As any other panic.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => error_at_the_end(),
            },
        }
    }

    /// How long the body may take: no longer than the caller will wait. The API server tells that as
    /// `?timeout=1s`.
    fn body_time(&self, query: Option<&str>) -> Duration {
        let pairs = query.unwrap_or_default().split('&');
        let timeout = pairs
            .filter_map(|pair| pair.strip_prefix("timeout="))
            .filter_map(|text| text.parse::<SignedDuration>().ok())
            .filter_map(|timeout| Duration::try_from(timeout).ok())
            .find(|timeout| !timeout.is_zero());
        timeout.map_or(self.body_time, |timeout| timeout.min(self.body_time))
    }

    fn judge(&self, bytes: &[u8], review: &(dyn Fn(&[u8], Timestamp) -> Answer + Send + Sync)) -> Response {
        let started = Instant::now();
        let answer = review(bytes, (self.clock)());
        let took = started.elapsed();
        self.metrics.server.took(Phase::Verdict, took);
        if took > self.verdict_time {
            self.metrics.server.deadline_exceeded(Phase::Verdict);
            tracing::warn!(
                seconds = took.as_secs_f64(),
                bytes = bytes.len(),
                "a verdict took too long"
            );
        }
        respond(answer)
    }

    async fn refuse_body(&self, failure: BodyError, body: Body, deadline: Instant) -> Response {
        match failure {
            BodyError::Broken => error(StatusCode::BAD_REQUEST, "the body broke off before its end"),
            BodyError::Late => {
                self.metrics.server.deadline_exceeded(Phase::Body);
                error(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")
            }
            BodyError::NoRoom => {
                body::discard(body, deadline).await;
                self.shed(Shed::Bytes)
            }
            BodyError::TooLong => {
                body::discard(body, deadline).await;
                let bound = self.max_body_bytes;
                error(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("the body is longer than {bound} bytes"),
                )
            }
        }
    }

    fn shed(&self, reason: Shed) -> Response {
        self.metrics.server.shed(reason);
        let mut response = error(
            StatusCode::TOO_MANY_REQUESTS,
            "too many reviews at once: try again later",
        );
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        response
    }
}

fn respond(answer: Answer) -> Response {
    (answer.status, [(header::CONTENT_TYPE, JSON)], answer.body).into_response()
}

/// The runtime ends before the review was looked at.
fn error_at_the_end() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "leasehold is stopping")
}

/// Axum adds the `Allow` header by the methods of the route.
async fn refuse_method(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    let method = request.method().clone();
    body::discard(request.into_body(), Instant::now() + webhook.body_time).await;
    wrong_method(method).await
}

async fn refuse_path(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    body::discard(request.into_body(), Instant::now() + webhook.body_time).await;
    let paths = &webhook.paths;
    error(
        StatusCode::NOT_FOUND,
        &format!("no such path: POST reviews to {paths}"),
    )
}

/// The answer to a method that a path does not have.
pub(super) async fn wrong_method(method: Method) -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("method {method} is not allowed here; see the Allow header"),
    )
}

/// `{"error": "…"}` with that status.
pub(super) fn error(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "error": message }).to_string();
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

fn check_is_json(headers: &HeaderMap) -> Result<(), &'static str> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if !encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case(b"identity")) {
        return Err("the body must not be compressed: send it without Content-Encoding");
    }
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err("the body must be JSON: send it with Content-Type: application/json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_webhook() -> Webhook {
        Webhook {
            clock: Box::new(|| panic!("not asked for")),
            paths: String::new(),
            metrics: Arc::new(Metrics::new()),
            slots: Semaphore::new(1),
            budget: Budget::new(1),
            max_body_bytes: 1,
            body_time: Duration::from_secs(30),
            verdict_time: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_callers_timeout_shortens_the_bodys_deadline_and_never_lengthens_it() {
        let webhook = mk_webhook();
        for (query, seconds) in [
            (None, 30),
            (Some("timeout=1s"), 1),
            (Some("a=b&timeout=2s"), 2),
            (Some("timeout=1m0s"), 30),
            (Some("timeout=0s"), 30),
            (Some("timeout=-5s"), 30),
            (Some("timeout=soon"), 30),
            (Some("timeout="), 30),
        ] {
            assert_eq!(
                webhook.body_time(query),
                Duration::from_secs(seconds),
                "{query:?}"
            );
        }
    }

    #[test]
    fn only_uncompressed_json_is_taken() {
        for (content_type, encoding, taken) in [
            (Some("application/json"), None, true),
            (Some("Application/JSON; charset=utf-8"), None, true),
            (Some("application/json"), Some("identity"), true),
            (Some("application/json"), Some("gzip"), false),
            (Some("application/json-patch+json"), None, false),
            (Some("text/plain"), None, false),
            (Some(""), None, false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                (header::CONTENT_TYPE, content_type),
                (header::CONTENT_ENCODING, encoding),
            ] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(
                check_is_json(&headers).is_ok(),
                taken,
                "{content_type:?} {encoding:?}"
            );
        }
    }
}
