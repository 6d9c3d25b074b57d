//! What the store does that the API server does.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::demo::webhook::WebhookError;

/// A guard that answers what the test says, and keeps what it was asked.
#[derive(Default)]
struct Scripted {
    deny: bool,
    broken: bool,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook for Scripted {
    async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, WebhookError> {
        let review: Value = serde_json::from_slice(&body).unwrap();
        let status = json!({"code": 403, "reason": "Forbidden", "message": "no"});
        let response = json!({"uid": review["request"]["uid"], "allowed": !self.deny, "status": status});
        self.asked.lock().unwrap().push(review);
        if self.broken {
            return Err(WebhookError::Timeout);
        }
        let answer =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        Ok(answer.to_string().into_bytes())
    }
}

fn store(webhook: Scripted) -> MemoryStore<Scripted> {
    let clock = Clock::starting_at("2026-01-01T00:00:00.25Z".parse().unwrap());
    MemoryStore::new(clock, "guarded", webhook)
}

fn writer(pod: &str) -> Writer {
    Writer {
        pod: pod.to_owned(),
        field_manager: "elector".to_owned(),
    }
}

fn key(namespace: &str) -> LeaseKey {
    LeaseKey::new(namespace, "payments")
}

fn lease(spec: Value) -> Lease {
    serde_json::from_value(json!({ "spec": spec })).unwrap()
}

fn held(holder: &str) -> Lease {
    let time = "2026-01-01T00:00:00.000000Z";
    lease(json!({
        "holderIdentity": holder, "leaseDurationSeconds": 5, "leaseTransitions": 0, "acquireTime": time, "renewTime": time,
    }))
}

fn renewed(lease: &Lease, second: u8) -> Lease {
    let mut value = to_value(lease).unwrap();
    value["spec"]["renewTime"] = format!("2026-01-01T00:00:{second:02}.000000Z").into();
    to_lease(value).unwrap()
}

fn stamp_of(lease: &Lease) -> String {
    to_value(lease).unwrap()["metadata"]["managedFields"][0]["time"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(start_paused = true)]
async fn of_two_updates_of_the_same_version_the_second_is_a_conflict() {
    let store = store(Scripted::default());
    let created = store
        .create(&writer("a"), &key("free"), &held("a"))
        .await
        .unwrap();
    store
        .update(&writer("a"), &key("free"), &renewed(&created, 1))
        .await
        .unwrap();
    let error = store
        .update(&writer("b"), &key("free"), &renewed(&created, 2))
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (409, "Conflict"));
    assert!(
        error
            .message
            .ends_with("please apply your changes to the latest version and try again")
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_without_a_version_is_invalid() {
    let store = store(Scripted::default());
    store
        .create(&writer("a"), &key("free"), &held("a"))
        .await
        .unwrap();
    let error = store
        .update(&writer("b"), &key("free"), &held("b"))
        .await
        .unwrap_err();
    assert_eq!(error.code, 422);
}

#[tokio::test(start_paused = true)]
async fn the_second_create_fails_and_was_reviewed_all_the_same() {
    let store = store(Scripted::default());
    store
        .create(&writer("a"), &key("guarded"), &held("a"))
        .await
        .unwrap();
    let error = store
        .create(&writer("b"), &key("guarded"), &held("b"))
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(store.admission_counts().await.unwrap().reviews, 2);
}

#[tokio::test(start_paused = true)]
async fn a_patch_without_a_version_lands_on_whatever_is_stored() {
    let store = store(Scripted::default());
    let created = store
        .create(&writer("a"), &key("free"), &held("a"))
        .await
        .unwrap();
    store
        .update(&writer("a"), &key("free"), &renewed(&created, 1))
        .await
        .unwrap();
    let patch = json!({"spec": {"holderIdentity": "b", "acquireTime": null}});
    let spec = store
        .patch(&writer("b"), &key("free"), &patch)
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("b"));
    assert_eq!((spec.acquire_time, spec.lease_duration_seconds), (None, Some(5)));

    let stale = json!({"metadata": {"resourceVersion": created.metadata.resource_version}, "spec": {}});
    assert_eq!(
        store
            .patch(&writer("b"), &key("free"), &stale)
            .await
            .unwrap_err()
            .code,
        409
    );
}

#[tokio::test(start_paused = true)]
async fn stamps_come_from_the_stores_clock_floored_to_the_second() {
    let store = store(Scripted::default());
    let created = store
        .create(&writer("a"), &key("free"), &held("a"))
        .await
        .unwrap();
    assert_eq!(stamp_of(&created), "2026-01-01T00:00:00Z");
    tokio::time::advance(Duration::from_millis(3700)).await;
    let renewed = store
        .update(&writer("a"), &key("free"), &renewed(&created, 59))
        .await
        .unwrap();
    assert_eq!(stamp_of(&renewed), "2026-01-01T00:00:03Z");
}

#[tokio::test(start_paused = true)]
async fn renewals_and_unguarded_namespaces_are_not_sent_and_all_else_is() {
    let webhook = Scripted::default();
    let asked = Arc::clone(&webhook.asked);
    let store = store(webhook);
    store
        .create(&writer("a"), &key("free"), &held("a"))
        .await
        .unwrap();
    let created = store
        .create(&writer("a"), &key("guarded"), &held("a"))
        .await
        .unwrap();
    let renewed = store
        .update(&writer("a"), &key("guarded"), &renewed(&created, 1))
        .await
        .unwrap();
    let mut released = to_value(&renewed).unwrap();
    released["spec"]["holderIdentity"] = "".into();
    store
        .update(&writer("a"), &key("guarded"), &to_lease(released).unwrap())
        .await
        .unwrap();

    let asked = asked.lock().unwrap();
    let requests: Vec<&Value> = asked.iter().map(|review| &review["request"]).collect();
    assert_eq!(requests.len(), 2, "the create and the release");
    assert_eq!(requests[0]["operation"], "CREATE");
    assert_eq!(requests[0]["oldObject"], Value::Null);
    assert_eq!(requests[1]["operation"], "UPDATE");
    assert_eq!(requests[1]["oldObject"]["spec"]["holderIdentity"], "a");
    assert_eq!(requests[1]["object"]["spec"]["holderIdentity"], "");
    assert_eq!(requests[1]["options"]["fieldManager"], "elector");
    assert_eq!(
        requests[1]["userInfo"]["extra"]["authentication.kubernetes.io/pod-name"][0],
        "a"
    );
    assert_ne!(requests[0]["uid"], requests[1]["uid"]);
}

#[tokio::test(start_paused = true)]
async fn a_denied_write_changes_nothing() {
    let store = store(Scripted {
        deny: true,
        ..Scripted::default()
    });
    let error = store
        .create(&writer("a"), &key("guarded"), &held("a"))
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (403, "Forbidden"));
    assert!(store.get(&key("guarded")).await.unwrap_err().is_not_found());
    let counts = store.admission_counts().await.unwrap();
    assert_eq!(
        counts,
        AdmissionCounts {
            reviews: 1,
            denials: 1,
            failures: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_does_not_answer_lets_the_write_through() {
    let store = store(Scripted {
        deny: true,
        broken: true,
        ..Scripted::default()
    });
    store
        .create(&writer("a"), &key("guarded"), &held("a"))
        .await
        .unwrap();
    let counts = store.admission_counts().await.unwrap();
    assert_eq!(
        counts,
        AdmissionCounts {
            reviews: 1,
            denials: 0,
            failures: 1
        }
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_itself_refuses_never_reaches_the_guard() {
    let store = store(Scripted::default());
    let zero = lease(json!({"leaseDurationSeconds": 0}));
    let error = store
        .create(&writer("a"), &key("guarded"), &zero)
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (422, "Invalid"));
    assert_eq!(store.admission_counts().await.unwrap().reviews, 0);
}
