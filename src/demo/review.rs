//! The admission protocol from the API server's side: the review that it sends, and how it reads the answer.
//!
//! Sources: `apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`, and `errors/statuserror.go`
//! beside it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::store::{ApiError, LeaseKey, Writer};

/// The name of the webhook, as its configuration has it and denials quote it.
pub const WEBHOOK_NAME: &str = "leases.leasehold.dev";

/// One write, before it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Who sends it.
    pub writer: &'a Writer,
    /// Which lease it is for.
    pub key: &'a LeaseKey,
    /// `PATCH` reaches admission as an update; its options say what it was.
    pub verb: Verb,
    /// What is stored; none for a create.
    pub old: Option<&'a Value>,
    /// What would be stored, stamped.
    pub new: &'a Value,
}

/// How a write was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
}

/// The `AdmissionReview` for one write, in the API server's own shape.
pub fn review(uid: &str, write: Write<'_>) -> Value {
    let Write {
        writer,
        key,
        verb,
        old,
        new,
    } = write;
    let kind = json!({"group": "coordination.k8s.io", "version": "v1", "kind": "Lease"});
    let resource = json!({"group": "coordination.k8s.io", "version": "v1", "resource": "leases"});
    let options = match verb {
        _ if old.is_none() => "CreateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Create | Verb::Update => "UpdateOptions",
    };
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": key.name,
            "namespace": key.namespace,
            "operation": if old.is_none() { "CREATE" } else { "UPDATE" },
            "userInfo": {
                "username": format!("system:serviceaccount:{}:default", key.namespace),
                "uid": "00000000-0000-4000-8000-00000000ace0",
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{}", key.namespace),
                    "system:authenticated",
                ],
                "extra": {
                    "authentication.kubernetes.io/pod-name": [writer.pod],
                    "authentication.kubernetes.io/pod-uid": [pod_uid(&writer.pod)],
                },
            },
            "object": new,
            "oldObject": old,
            "dryRun": false,
            "options": {"kind": options, "apiVersion": "meta.k8s.io/v1", "fieldManager": writer.field_manager},
        },
    })
}

/// A uid in the form of Kubernetes', the same for the same pod.
fn pod_uid(pod: &str) -> String {
    let number = pod
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("00000000-0000-4000-8000-{:012x}", number & 0xffff_ffff_ffff)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    kind: String,
    api_version: String,
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
}

/// What came of one review.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write goes ahead.
    Allowed,
    /// The write fails with this error.
    Denied(ApiError),
    /// No verdict: the failurePolicy decides.
    Failed(String),
}

/// Reads an answer as the API server does; anything odd about it is no verdict.
pub fn outcome(uid: &str, answer: &[u8]) -> Outcome {
    let answered: Answered = match serde_json::from_slice(answer) {
        Ok(answered) => answered,
        Err(error) => return Outcome::Failed(format!("the answer is not an AdmissionReview: {error}")),
    };
    if answered.kind != "AdmissionReview" || answered.api_version != "admission.k8s.io/v1" {
        return Outcome::Failed(format!(
            "the answer is a {} {}",
            answered.api_version, answered.kind
        ));
    }
    if answered.response.uid != uid {
        return Outcome::Failed(format!(
            "the answer is for uid {:?}, not {uid:?}",
            answered.response.uid
        ));
    }
    if answered.response.allowed {
        return Outcome::Allowed;
    }
    let Status {
        code,
        reason,
        message,
    } = answered.response.status.unwrap_or_default();
    // A denial without a code of its own reaches the client as 400.
    let (code, fallback) = if code < 400 {
        (400, "BadRequest")
    } else {
        (code, "")
    };
    let message = match message.as_str() {
        "" => format!("admission webhook \"{WEBHOOK_NAME}\" denied the request without explanation"),
        words => format!("admission webhook \"{WEBHOOK_NAME}\" denied the request: {words}"),
    };
    Outcome::Denied(ApiError::new(
        code,
        if reason.is_empty() { fallback } else { &reason },
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Vec<u8> {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_denial_is_worded_as_the_api_server_words_it() {
        let status = json!({"code": 403, "reason": "Forbidden", "message": "too early"});
        let Outcome::Denied(error) = outcome(
            "u",
            &answer(json!({"uid": "u", "allowed": false, "status": status})),
        ) else {
            panic!("not denied")
        };
        assert_eq!((error.code, error.reason.as_str()), (403, "Forbidden"));
        assert_eq!(
            error.message,
            "admission webhook \"leases.leasehold.dev\" denied the request: too early"
        );
        assert!(error.is_denial());
    }

    #[test]
    fn a_denial_without_a_code_reaches_the_client_as_a_bad_request() {
        let Outcome::Denied(error) = outcome("u", &answer(json!({"uid": "u", "allowed": false}))) else {
            panic!("not denied")
        };
        assert_eq!((error.code, error.reason.as_str()), (400, "BadRequest"));
        assert!(error.message.ends_with("denied the request without explanation"));
    }

    #[test]
    fn an_answer_to_something_else_is_no_verdict() {
        for body in [
            answer(json!({"uid": "other", "allowed": true})),
            br#"{"kind": "Status", "apiVersion": "v1", "response": {"uid": "u", "allowed": true}}"#.to_vec(),
            b"{}".to_vec(),
        ] {
            assert!(
                matches!(outcome("u", &body), Outcome::Failed(_)),
                "{}",
                String::from_utf8_lossy(&body)
            );
        }
        assert_eq!(
            outcome("u", &answer(json!({"uid": "u", "allowed": true}))),
            Outcome::Allowed
        );
    }
}
