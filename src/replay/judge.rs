//! A write of the log before the same rules as a write of a review: it is put as one.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    event::Event,
    report::{Basis, Finding},
};
use crate::{
    admission::{Subject, decode},
    lease::Change,
    policy::Policy,
};

/// When the API server stored what, by the times of its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) holder: Timestamp,
    pub(super) renewal: Timestamp,
}

/// A lease as it was stored, and when.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) object: Value,
    pub(super) times: Times,
    pub(super) manager: String,
}

/// What a write is, and what the policy says of it.
pub(super) struct Judged {
    pub(super) change: Change,
    pub(super) findings: Vec<Finding>,
    pub(super) would_be_denied: bool,
}

impl Stored {
    /// The object with stamps: its own, or such as the API server would have written at the times of the events.
    fn stamped(&self) -> (Value, Basis) {
        let mut object = self.object.clone();
        let own = object
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array);
        if own.is_some_and(|entries| !entries.is_empty()) {
            return (object, Basis::ManagedFields);
        }
        let entry = |time: Timestamp, fields: Value| {
            // Stamps have whole seconds.
            let time = Timestamp::from_second(time.as_second()).unwrap_or(time);
            json!({
                "manager": self.manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
                "time": time.to_string(), "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields},
            })
        };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let entries = json!([
                entry(
                    self.times.holder,
                    json!({"f:holderIdentity": {}, "f:acquireTime": {}})
                ),
                entry(self.times.renewal, json!({"f:renewTime": {}})),
            ]);
            metadata.insert("managedFields".to_owned(), entries);
        }
        (object, Basis::AuditTimes)
    }
}

/// Judges a write from one state to the next; no old state is a create, no new state is a delete. `None` where it cannot be
/// read as a write to a Lease.
pub(super) fn judge(
    policy: &Policy,
    event: &Event,
    old: Option<&Stored>,
    new: Option<&Stored>,
) -> Option<Judged> {
    let operation = match (old, new) {
        (None, Some(_)) => "CREATE",
        (Some(_), Some(_)) => "UPDATE",
        (Some(_), None) => "DELETE",
        (None, None) => return None,
    };
    let stamped = |stored: Option<&Stored>| stored.map(Stored::stamped).unzip();
    let ((old_object, old_basis), (object, basis)) = (stamped(old), stamped(new));
    let mut user = json!({"username": event.user, "groups": event.groups});
    if let Some(pod) = &event.pod {
        user["extra"] = json!({"authentication.kubernetes.io/pod-name": [pod]});
    }
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": if event.audit_id.is_empty() { "unknown" } else { event.audit_id.as_str() },
            "resource": {"group": "coordination.k8s.io", "version": "v1", "resource": "leases"},
            "namespace": event.namespace, "name": event.name, "operation": operation, "userInfo": user,
            "options": {"fieldManager": event.field_manager},
            "object": object, "oldObject": old_object,
        },
    })
    .to_string();
    let attempt = decode(review.as_bytes(), event.time).ok()?;
    let Subject::Lease(write) = attempt.subject else {
        return None;
    };
    let verdict = policy.decide(&write);
    // The weaker of the two is what it rests on.
    let basis = [old_basis, basis]
        .into_iter()
        .flatten()
        .find(|basis| *basis == Basis::AuditTimes)
        .unwrap_or(Basis::ManagedFields);
    let findings = verdict.violations.iter().map(|violation| Finding {
        time: event.time,
        audit_id: event.audit_id.clone(),
        rule: violation.rule,
        decision: violation.decision().as_str(),
        message: violation.message.clone(),
        basis,
        user: event.user.clone(),
        pod: event.pod.clone(),
    });
    Some(Judged {
        change: write.change,
        findings: findings.collect(),
        would_be_denied: verdict.would_be_denied(),
    })
}
