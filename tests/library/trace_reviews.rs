//! The reviews that an API server sends of a trace's writes.

use leasehold::demo::stamps::{stamp, whole_seconds};
use serde_json::{Map, Value, json};

use crate::trace_format::{Step, Trace, Verb, Writer, instant};

/// The object as it would be stored, stamped as the API server stamps it.
pub(crate) fn written(trace: &Trace, number: usize, stored: Option<&Value>) -> Value {
    let step = &trace.steps[number];
    let writer = &trace.writers[&step.by];
    let now = instant(step.at);
    let mut object = stored.cloned().unwrap_or_else(|| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {},
            "metadata": {
                "name": trace.lease.name, "namespace": trace.lease.namespace,
                "uid": format!("b23025f1-dc46-457e-8e6a-{number:012x}"), "creationTimestamp": whole_seconds(now),
            },
        })
    });
    let spec = object["spec"].as_object_mut().unwrap();
    for field in step.set.keys() {
        match step.value(field, writer) {
            Value::Null => spec.remove(field),
            value => spec.insert(field.clone(), value),
        };
    }
    for (map, pairs) in [("labels", &step.labels), ("annotations", &step.annotations)] {
        for (key, value) in pairs {
            object["metadata"][map][key] = value.as_str().into();
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
    with_appliers(&object, together)
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
    trace: &Trace,
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
        (Verb::Update, Some(_)) => ("UPDATE", "UpdateOptions"),
        (Verb::Patch | Verb::Apply, Some(_)) => ("UPDATE", "PatchOptions"),
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": options});
    if let Some(manager) = &writer.field_manager {
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
