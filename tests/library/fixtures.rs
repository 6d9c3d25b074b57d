//! Reviews that a real API server sent, and a handler to judge them.

use std::{fs, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use leasehold::{
    admission::{Answer, Handler},
    audit::AuditLog,
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews")
}

/// Every captured review, by file name.
pub(crate) fn all() -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    all.sort();
    assert!(
        all.len() > 10,
        "the captured reviews are in {}",
        folder().display()
    );
    all
}

/// One captured review.
pub(crate) fn review(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// When the captured write happened, by the API server: this machine's clock, in these tests.
pub(crate) fn instant(review: &Value) -> Timestamp {
    let stamps = review["request"]["object"]["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let times = stamps
        .iter()
        .filter_map(|entry| entry["time"].as_str()?.parse().ok());
    times.max().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Judges by this policy document, and returns the answer with the metrics' text.
pub(crate) fn judge(policy: &str, body: &[u8], now: Timestamp) -> (Answer, String) {
    let metrics = Arc::new(Metrics::new());
    let policy = ActivePolicy::new(Policy::parse(policy).unwrap());
    let handler = Handler::new(policy, Arc::clone(&metrics), AuditLog::disabled());
    let answer = handler.handle(body, now);
    (answer, metrics.encode().unwrap())
}

/// The `response` of an answer with status 200 that echoes the review's uid.
pub(crate) fn response(answer: &Answer, review: &Value) -> Value {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].clone()
}
