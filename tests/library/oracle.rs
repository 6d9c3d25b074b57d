//! Our own decoder against kube's types, which read the same bytes in another way.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::core::admission::{AdmissionReview, Operation};
use leasehold::{
    admission::{Subject, decode},
    lease::{Change, Owner, Record, Stamp, Stamps, State},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures;

/// What kube's types say of one object.
fn expected(lease: Option<&Lease>) -> State<'static> {
    let Some(lease) = lease else {
        return State::default();
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let record = Record {
        holder: spec
            .holder_identity
            .filter(|holder| !holder.is_empty())
            .map(Into::into),
        duration_seconds: spec.lease_duration_seconds,
        acquire_time: spec.acquire_time.map(|time| time.0),
        renew_time: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions,
        strategy: spec.strategy.map(Into::into),
        preferred_holder: spec.preferred_holder.map(Into::into),
        zoneless: false,
    };
    let stamp = |field: &str| {
        let entries = lease.metadata.managed_fields.iter().flatten();
        let owners = entries.filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0["f:spec"].get(field).is_some())
        });
        let stamps = owners.map(|entry| {
            entry
                .time
                .as_ref()
                .map_or(Stamp::Undated, |time| Stamp::At(time.0))
        });
        stamps.max().unwrap_or(Stamp::Absent)
    };
    let stamps = Stamps {
        holder: stamp("f:holderIdentity"),
        renew_time: stamp("f:renewTime"),
        acquire_time: stamp("f:acquireTime"),
        created: lease.metadata.creation_timestamp.as_ref().map(|time| time.0),
    };
    let text = |map: &Option<std::collections::BTreeMap<String, String>>| -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        map.iter().flatten().map(|(key, value)| (key.clone().into(), value.clone().into())).collect()
    };
    let annotation = |key: &str| {
        lease
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(key))
            .cloned()
    };
    let owners = lease.metadata.managed_fields.iter().flatten().filter(|entry| {
        entry
            .fields_v1
            .as_ref()
            .is_some_and(|fields| fields.0["f:spec"].get("f:holderIdentity").is_some())
    });
    let managers: Vec<_> = owners.map(|entry| entry.manager.clone()).collect();
    let is_one = managers.iter().all(|manager| *manager == managers[0]);
    let holder_manager = managers
        .into_iter()
        .next()
        .flatten()
        .filter(|_| is_one)
        .map(Into::into);
    State {
        record,
        stamps,
        tracked: lease
            .metadata
            .managed_fields
            .iter()
            .flatten()
            .any(|entry| entry.fields_v1.is_some()),
        uid: lease.metadata.uid.clone().map(Into::into),
        resource_version: lease
            .metadata
            .resource_version
            .as_ref()
            .and_then(|version| version.parse().ok()),
        holder_manager,
        labels: text(&lease.metadata.labels),
        break_glass: annotation("leasehold.dev/break-glass").map(Into::into),
        istio_key: annotation("leader.istio.io/holder-key").map(Into::into),
        owners: lease
            .metadata
            .owner_references
            .iter()
            .flatten()
            .map(|owner| Owner {
                api_version: owner.api_version.clone().into(),
                kind: owner.kind.clone().into(),
            })
            .collect(),
        terminating: lease.metadata.deletion_timestamp.is_some(),
    }
}

#[track_caller]
fn agree(body: &str) {
    let theirs: AdmissionReview<Lease> = serde_json::from_str(body).unwrap();
    let theirs = theirs.request.unwrap();
    let ours = decode(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(ours.uid, theirs.uid);
    assert_eq!(ours.dry_run, theirs.dry_run);
    let Subject::Lease(write) = ours.subject else {
        panic!("it is a lease")
    };
    assert_eq!(
        Some(write.writer.user.clone().into_owned()),
        theirs.user_info.username
    );
    assert_eq!(write.writer.groups, theirs.user_info.groups.unwrap_or_default());
    let pod = theirs
        .user_info
        .extra
        .unwrap_or_default()
        .remove("authentication.kubernetes.io/pod-name");
    assert_eq!(
        write.writer.pod.as_deref(),
        pod.as_ref().map(|names| names[0].as_str())
    );
    assert_eq!(write.old, expected(theirs.old_object.as_ref()), "{body}");
    assert_eq!(write.new, expected(theirs.object.as_ref()), "{body}");
    assert_eq!(
        write.change == Change::Create,
        theirs.operation == Operation::Create
    );
    assert_eq!(
        write.change == Change::Delete,
        theirs.operation == Operation::Delete
    );
    assert_eq!(Some(write.lease.namespace.into_owned()), theirs.namespace);
    if !theirs.name.is_empty() {
        assert_eq!(write.lease.name, theirs.name);
    }
}

#[test]
fn captured_reviews_decode_as_kube_decodes_them() {
    for (_, body) in fixtures::all() {
        agree(&body);
        let compact: Value = serde_json::from_str(&body).unwrap();
        agree(&compact.to_string());
    }
}

#[test]
fn a_lease_of_a_collection_is_named_by_its_object() {
    let review = fixtures::review("deletecollection").to_string();
    let attempt = decode(review.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
    let Subject::Lease(write) = attempt.subject else {
        panic!("it is a lease")
    };
    assert!(!write.lease.name.is_empty());
}

prop_compose! {
    fn instant()(seconds in 0..4_000_000_000_i64, micros in 0..1_000_000_i64) -> Timestamp {
        Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap()
    }
}

prop_compose! {
    fn lease_spec()(
        holder in proptest::option::of(any::<String>()),
        duration in proptest::option::of(any::<i32>()),
        acquired in proptest::option::of(instant()),
        renewed in proptest::option::of(instant()),
        transitions in proptest::option::of(any::<i32>()),
        strategy in proptest::option::of("[A-Z][a-z]{1,9}"),
    ) -> Option<LeaseSpec> {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
        Some(LeaseSpec {
            holder_identity: holder,
            lease_duration_seconds: duration,
            acquire_time: acquired.map(MicroTime),
            renew_time: renewed.map(MicroTime),
            lease_transitions: transitions,
            strategy,
            preferred_holder: None,
        })
    }
}

fn managed_fields() -> impl Strategy<Value = Value> {
    let fields = proptest::sample::subsequence(
        vec![
            "f:holderIdentity",
            "f:renewTime",
            "f:acquireTime",
            "f:leaseTransitions",
        ],
        0..=4,
    );
    let entry = (proptest::option::of(instant()), fields).prop_map(|(time, fields)| {
        let owned: serde_json::Map<_, _> = fields.into_iter().map(|field| (field.to_owned(), json!({}))).collect();
        json!({
            "manager": "m", "operation": "Update", "apiVersion": "coordination.k8s.io/v1", "fieldsType": "FieldsV1",
            "time": time.map(|time| format!("{time:.0}")),
            "fieldsV1": {"f:spec": owned, "f:metadata": {"f:labels": {".": {}}}},
        })
    });
    proptest::collection::vec(entry, 0..4).prop_map(Value::from)
}

proptest! {
    #[test]
    fn any_lease_decodes_as_kube_decodes_it(
        old in lease_spec(), new in lease_spec(), before in managed_fields(), after in managed_fields(),
        operation in proptest::sample::select(vec!["CREATE", "UPDATE", "DELETE"]),
    ) {
        let mut review = fixtures::review("renew");
        let request = &mut review["request"];
        request["operation"] = operation.into();
        request["oldObject"]["spec"] = serde_json::to_value(old).unwrap();
        request["oldObject"]["metadata"]["managedFields"] = before;
        request["object"]["spec"] = serde_json::to_value(new).unwrap();
        request["object"]["metadata"]["managedFields"] = after;
        match operation {
            "CREATE" => request["oldObject"] = Value::Null,
            "DELETE" => request["object"] = Value::Null,
            _ => {}
        }
        agree(&review.to_string());
    }
}
