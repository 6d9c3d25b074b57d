//! A Lease as JSON: what a replay reads of it, and does to it.

use serde_json::Value;

/// What a client sends of them are the stamps of the write before, or what it likes.
pub(super) fn without_managed_fields(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// A text that is not empty.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

/// `spec.leaseDurationSeconds`.
pub(super) fn duration_of(object: &Value) -> Option<i64> {
    object.pointer("/spec/leaseDurationSeconds")?.as_i64()
}

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Whether two states of a Lease differ in `spec.renewTime` and in nothing else of the spec: what the webhook's
/// registration leaves in the API server, too.
pub(super) fn is_pure_renewal(old: &Value, new: &Value) -> bool {
    let spec = |object: &'_ Value| {
        object
            .get("spec")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (mut old, mut new) = (spec(old), spec(new));
    old.remove("renewTime") != new.remove("renewTime") && old == new
}
