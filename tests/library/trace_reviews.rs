//! The reviews that an API server sends of a trace's writes.

use std::collections::BTreeSet;

use leasehold::demo::stamps::{stamp, whole_seconds};
use serde_json::{Map, Value, json};

use crate::trace_format::{Script, Step, Trace, Verb, Writer, instant};

/// The object as it would be stored, stamped as the API server stamps it.
pub(crate) fn written(trace: Script<'_>, number: usize, stored: Option<&Value>) -> Value {
    let step = &trace.steps[number];
    let writer = &trace.writers[&step.by];
    let now = instant(step.at);
    let mut object = stored.cloned().unwrap_or_else(|| {
        let mut object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {},
            "metadata": {
                "name": trace.lease.name, "namespace": trace.lease.namespace,
                "uid": format!("b23025f1-dc46-457e-8e6a-{number:012x}"), "creationTimestamp": whole_seconds(now),
            },
        });
        let owners = trace.lease.owners.iter().map(|owner| {
            json!({
                "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name,
                "uid": "5e0b7c1c-5e0d-4f4b-8f9a-550c9d5c1b2f",
            })
        });
        if owners.len() > 0 {
            object["metadata"]["ownerReferences"] = owners.collect();
        }
        object
    });
    let spec = object["spec"].as_object_mut().unwrap();
    for field in step.set.keys() {
        match step.value(field, writer) {
            Value::Null => spec.remove(field),
            value => spec.insert(field.clone(), value),
        };
    }
    for (key, value) in &step.labels {
        object["metadata"]["labels"][key] = value.as_str().into();
    }
    for (key, value) in &step.annotations {
        match value {
            Some(value) => object["metadata"]["annotations"][key] = value.as_str().into(),
            None => drop(
                object["metadata"]["annotations"]
                    .as_object_mut()
                    .unwrap()
                    .remove(key),
            ),
        }
    }
    // One name may own fields by applying and by updating, apart: two entries. The model knows updates alone, so the
    // applier goes by another name inside it.
    let manager = writer.field_manager.as_ref().unwrap_or(&writer.user_agent);
    let stored = stored.map(|stored| with_appliers(stored, apart));
    let mut object = with_appliers(&object, apart);
    let manager = match step.verb {
        Verb::Apply => format!("{manager}{APPLIES}"),
        _ => manager.clone(),
    };
    // An apply brings stamps to an object that has none, where plain writes never do.
    let unstamped = |object: &Value| object["metadata"]["managedFields"].is_null();
    let revived = step.verb == Verb::Apply && stored.as_ref().is_some_and(unstamped);
    if let Some(stored) = stored.as_ref().filter(|_| revived) {
        let bare = stored["spec"].as_object().is_some_and(Map::is_empty);
        assert!(
            bare,
            "what an apply makes of fields that nobody owns is not modelled"
        );
    }
    stamp(stored.as_ref().filter(|_| !revived), &mut object, &manager, now);
    if stored.is_none() && !trace.lease.owners.is_empty() {
        own_the_owners(&mut object, &manager, &whole_seconds(now));
    }
    with_appliers(&object, together)
}

/// Who creates a lease with ownerReferences owns them, so that even one with an empty spec has an entry, and plain writes
/// are stamped from then on.
fn own_the_owners(object: &mut Value, manager: &str, time: &str) {
    let entries = &mut object["metadata"]["managedFields"];
    if entries.is_null() {
        *entries = json!([{
            "manager": manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1", "time": time,
            "fieldsType": "FieldsV1", "fieldsV1": {},
        }]);
    }
    entries[0]["fieldsV1"]["f:metadata"]["f:ownerReferences"]["."] = json!({});
}

const APPLIES: &str = " (applies)";

fn apart(entry: &mut Map<String, Value>) {
    if entry["operation"] == "Apply" {
        entry["operation"] = "Update".into();
        entry["manager"] = format!("{}{APPLIES}", entry["manager"].as_str().unwrap()).into();
    }
}

fn together(entry: &mut Map<String, Value>) {
    if let Some(manager) = entry["manager"].as_str().unwrap().strip_suffix(APPLIES) {
        entry["manager"] = manager.to_owned().into();
        entry["operation"] = "Apply".into();
    }
}

fn with_appliers(object: &Value, change: fn(&mut Map<String, Value>)) -> Value {
    let mut object = object.clone();
    for entry in object["metadata"]
        .get_mut("managedFields")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        change(entry.as_object_mut().unwrap());
    }
    object
}

/// The review, as an API server of 1.36 sends it.
pub(crate) fn review(
    trace: Script<'_>,
    step: &Step,
    writer: &Writer,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Value {
    let (operation, options) = match (step.verb, old) {
        (Verb::Delete, Some(_)) => ("DELETE", "DeleteOptions"),
        (Verb::Delete, None) => panic!("{} deletes what is not there", step.by),
        (_, None) => ("CREATE", "CreateOptions"),
        (Verb::Create, Some(_)) => panic!("{} creates what is there", step.by),
        // A patch, too, reaches admission as an update, options and all.
        (Verb::Update | Verb::Patch | Verb::Apply, Some(_)) => ("UPDATE", "UpdateOptions"),
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": options});
    if let Some(manager) = writer
        .field_manager
        .as_ref()
        .filter(|_| step.verb != Verb::Delete)
    {
        options["fieldManager"] = manager.as_str().into();
    }
    let namespace = &trace.lease.namespace;
    let mut user = json!({
        "username": writer.user.clone().unwrap_or_else(|| format!("system:serviceaccount:{namespace}:default")),
        "groups": ["system:authenticated"],
    });
    if let Some(pod) = &writer.pod {
        user["extra"] = json!({
            "authentication.kubernetes.io/pod-name": [pod],
            "authentication.kubernetes.io/pod-uid": ["4107eedd-4142-4754-940a-6cf435b1067e"],
        });
    }
    let kind = json!({"group": "coordination.k8s.io", "version": "v1", "kind": "Lease"});
    let resource = json!({"group": "coordination.k8s.io", "version": "v1", "resource": "leases"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "527e280c-a00c-4072-b050-accd9da9ba26",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": trace.lease.name, "namespace": namespace, "operation": operation, "userInfo": user,
            "object": new, "oldObject": old, "dryRun": false, "options": options,
        },
    })
}

/// Every field's path, with the elements of lists taken together.
fn shape(value: &Value, path: &str, shape: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                self::shape(field, &format!("{path}/{name}"), shape);
            }
        }
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| self::shape(element, path, shape)),
        _ => {
            shape.insert(path.to_owned());
        }
    }
}

#[test]
fn traces_are_sent_in_the_shape_that_a_real_api_server_sends() {
    let trace: Trace = serde_saphyr::from_str(
        "{elector: x, version: x, source: x, writers: {a: {identity: a, pod: a, fieldManager: payments}}, steps: [
           {at: 0, by: a, verb: create, change: create, set: {holderIdentity: me, leaseDurationSeconds: 15,
             acquireTime: now, renewTime: now, leaseTransitions: 0}},
           {at: 20, by: a, verb: patch, change: renew, set: {renewTime: now}},
           {at: 30, by: a, verb: delete, change: delete}]}",
    )
    .unwrap();
    let script = trace.script();
    let created = written(script, 0, None);
    let renewed = written(script, 1, Some(&created));
    let writer = &trace.writers["a"];
    let played = [
        (
            "create",
            review(script, &trace.steps[0], writer, None, Some(&created)),
        ),
        (
            "renew",
            review(script, &trace.steps[1], writer, Some(&created), Some(&renewed)),
        ),
        (
            "delete",
            review(script, &trace.steps[2], writer, Some(&renewed), None),
        ),
    ];
    for (name, played) in played {
        let mut captured = crate::fixtures::review(name);
        // What no verdict reads, and what the captured lease happens to carry.
        captured["request"]["userInfo"]["extra"]
            .as_object_mut()
            .unwrap()
            .remove("authentication.kubernetes.io/credential-id");
        captured["request"]["userInfo"]
            .as_object_mut()
            .unwrap()
            .remove("uid");
        for object in ["object", "oldObject"] {
            let metadata = format!("/request/{object}/metadata");
            if let Some(metadata) = captured.pointer_mut(&metadata).and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
                metadata.remove("labels");
                for entry in metadata["managedFields"].as_array_mut().unwrap() {
                    entry["fieldsV1"].as_object_mut().unwrap().remove("f:metadata");
                }
            }
        }
        let [mut ours, mut theirs] = [BTreeSet::new(), BTreeSet::new()];
        shape(&played, "", &mut ours);
        shape(&captured, "", &mut theirs);
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(
            played["request"]["options"], captured["request"]["options"],
            "{name}"
        );
    }
}

#[test]
fn traces_are_stamped_as_a_real_api_server_stamps() {
    for name in [
        "acquire",
        "label",
        "release-by-nulls",
        "release-empty-holder",
        "renew",
        "takeover-after-expiry",
        "takeover-early",
        "takeover-holder-only",
        "takeover-lying-clock",
    ] {
        let review = crate::fixtures::review(name);
        let (old, new) = (&review["request"]["oldObject"], &review["request"]["object"]);
        let manager = review["request"]["options"]["fieldManager"].as_str().unwrap();
        let mut stamped = new.clone();
        stamped["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        stamp(
            Some(old),
            &mut stamped,
            manager,
            crate::fixtures::instant(&review),
        );
        let entries = |object: &Value| {
            let entries = object["metadata"]["managedFields"].as_array().unwrap();
            entries.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        assert_eq!(entries(&stamped), entries(new), "{name}");
    }
}
