//! A webhook that allows everything and remembers the reviews it was sent: what admission really sees.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{audit::text, certificates::Leaf, tls::serve};

/// Namespaces with this label have every write to their Leases recorded.
pub(crate) const RECORDED_LABEL: &str = "tests.leasehold.dev/recorded";

/// The webhook, and what it was sent so far.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    address: SocketAddr,
    reviews: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    /// Listens on loopback.
    pub(crate) async fn start(leaf: &Leaf) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot listen on loopback")?;
        let recorder = Self {
            address: listener.local_addr()?,
            reviews: Arc::default(),
        };
        let router = Router::new()
            .route("/record", post(record))
            .with_state(recorder.clone());
        serve(listener, leaf, router)?;
        Ok(recorder)
    }

    /// The registration that sends it every write to a Lease in the recorded namespaces.
    pub(crate) fn registration(&self, ca_bundle: &str) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "recorder"},
            "webhooks": [{
                "name": "recorder.tests.leasehold.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 5,
                "clientConfig": {"url": format!("https://{}/record", self.address), "caBundle": ca_bundle},
                "namespaceSelector": {"matchLabels": {RECORDED_LABEL: "all"}},
                "rules": [{
                    "apiGroups": ["coordination.k8s.io"],
                    "apiVersions": ["v1"],
                    "resources": ["leases"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                }],
            }],
        })
    }

    /// The reviews of one Lease so far, oldest first. The API server waits for a review's answer before it answers
    /// the client, so whoever has seen a write's answer finds its review here.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Vec<Value> {
        let reviews = self.reviews.lock().unwrap_or_else(PoisonError::into_inner);
        reviews
            .iter()
            .filter(|review| is_of(review, namespace, name))
            .cloned()
            .collect()
    }

    #[allow(dead_code, reason = "for tests/apiserver")]
    /// How many reviews of one Lease there are so far.
    pub(crate) fn count(&self, namespace: &str, name: &str) -> usize {
        let reviews = self.reviews.lock().unwrap_or_else(PoisonError::into_inner);
        reviews
            .iter()
            .filter(|review| is_of(review, namespace, name))
            .count()
    }

    /// The newest review of one Lease.
    pub(crate) fn last(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        self.of(namespace, name)
            .pop()
            .with_context(|| format!("no review of {namespace}/{name} was recorded"))
    }
}

fn is_of(review: &Value, namespace: &str, name: &str) -> bool {
    // The name of a Lease that a deletecollection deletes stands in the object only.
    let names = ["/request/name", "/request/oldObject/metadata/name"];
    text(review, "/request/namespace") == namespace && names.iter().any(|at| text(review, at) == name)
}

async fn record(State(recorder): State<Recorder>, body: Bytes) -> impl axum::response::IntoResponse {
    let Ok(review) = serde_json::from_slice::<Value>(&body) else {
        return (
            StatusCode::BAD_REQUEST,
            [(header::CONTENT_TYPE, "text/plain")],
            "not JSON".to_owned(),
        );
    };
    let uid = review.pointer("/request/uid").cloned().unwrap_or_default();
    recorder
        .reviews
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(review);
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": true},
    });
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        answer.to_string(),
    )
}
