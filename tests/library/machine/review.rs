//! A write of the model as the API server asks about it: an `AdmissionReview`.

use serde_json::{Map, Value, json};

use super::api_server::{Entry, Field, GROUPS, Instant, Proposal, Spec, Stored, USER, timestamp};

/// The review of a write.
pub(super) fn review(proposal: &Proposal, uid: &str, dry_run: bool) -> Value {
    let operation = match (&proposal.old, &proposal.new) {
        (None, _) => "CREATE",
        (Some(_), None) => "DELETE",
        (Some(_), Some(_)) => "UPDATE",
    };
    let options = match operation {
        "DELETE" => json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}),
        _ => json!({
            "kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": proposal.client.manager,
        }),
    };
    let mut extra = Map::new();
    if let Some(pod) = &proposal.client.pod {
        extra.insert("authentication.kubernetes.io/pod-name".to_owned(), json!([pod]));
        extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), json!(["6f1d"]));
    }
    let kind = json!({"group": "coordination.k8s.io", "version": "v1", "kind": "Lease"});
    let resource = json!({"group": "coordination.k8s.io", "version": "v1", "resource": "leases"});
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": "payments",
            "namespace": "shop",
            "operation": operation,
            "userInfo": {"username": USER, "uid": "5f45", "groups": GROUPS, "extra": extra},
            "object": proposal.new.as_ref().map(object),
            "oldObject": proposal.old.as_ref().map(object),
            "dryRun": dry_run,
            "options": options,
        },
    })
}

fn object(stored: &Stored) -> Value {
    let mut metadata = json!({
        "name": "payments", "namespace": "shop", "uid": stored.uid, "creationTimestamp": stored.created.to_string(),
    });
    if stored.version > 0 {
        metadata["resourceVersion"] = stored.version.to_string().into();
    }
    if let Some(label) = &stored.label {
        metadata["labels"] = json!({"app": label});
    }
    if !stored.entries.is_empty() {
        metadata["managedFields"] = stored.entries.iter().map(managed_fields_entry).collect();
    }
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec(&stored.spec),
    })
}

/// A field that is absent is left out.
fn spec(spec: &Spec) -> Value {
    let micro_time = |time: Instant| format!("{:.6}", timestamp(time));
    let mut fields = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("holderIdentity", spec.holder.clone().map(Value::from));
    add("leaseDurationSeconds", spec.duration_seconds.map(Value::from));
    add("acquireTime", spec.acquire_time.map(micro_time).map(Value::from));
    add("renewTime", spec.renew_time.map(micro_time).map(Value::from));
    add("leaseTransitions", spec.transitions.map(Value::from));
    add("strategy", spec.strategy.clone().map(Value::from));
    Value::Object(fields)
}

fn managed_fields_entry(entry: &Entry) -> Value {
    let mut fields = json!({});
    for field in &entry.fields {
        let name = match field {
            Field::Holder => "f:holderIdentity",
            Field::Duration => "f:leaseDurationSeconds",
            Field::AcquireTime => "f:acquireTime",
            Field::RenewTime => "f:renewTime",
            Field::Transitions => "f:leaseTransitions",
            Field::Strategy => "f:strategy",
            Field::Label => {
                fields["f:metadata"] = json!({"f:labels": {".": {}, "f:app": {}}});
                continue;
            }
        };
        fields["f:spec"][name] = json!({});
    }
    json!({
        "manager": entry.manager,
        "operation": "Update",
        "apiVersion": "coordination.k8s.io/v1",
        "time": entry.time.to_string(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    })
}
