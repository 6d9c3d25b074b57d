//! What the API server does to `metadata.managedFields` on a write: the stamps that Leasehold judges by.
//!
//! Covers what a Lease has: `spec`, labels and annotations, written by POST, PUT and PATCH. Server-side apply is
//! left out: no elector of the demo uses it. Source: `apimachinery/pkg/util/managedfields/internal`, and
//! observation of Kubernetes 1.30 and 1.36.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A field path in the notation of `fieldsV1`: `["f:spec", "f:renewTime"]`.
type Path = Vec<String>;

/// Writes the managedFields of `new`, which `manager` sends at `now` to replace `old` (`None`: a create).
///
/// The writer's entry gets every field that was set or changed, with the time of this write, whole seconds.
/// Other entries lose those fields. Fields that were removed leave all entries, and move no time.
pub fn stamp(old: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
    let sent = new
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .cloned();
    let mut entries = match old {
        None => Vec::new(),
        Some(old) => {
            let stored = entries_of(old);
            let clears = sent.as_ref().is_some_and(|list| list.iter().all(is_empty_object));
            if stored.is_empty() || clears {
                // Once cleared, plain writes bring nothing back.
                set_entries(new, Vec::new());
                return;
            }
            sent.unwrap_or(stored)
        }
    };

    let before = old.map(values).unwrap_or_default();
    let after = values(new);
    let changed: BTreeSet<&Path> = after
        .iter()
        .filter(|(path, value)| before.get(*path) != Some(value))
        .map(|(path, _)| path)
        .collect();
    let removed: BTreeSet<&Path> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    if changed.is_empty() && removed.is_empty() {
        // Nothing but managedFields differs: the API server puts the stored ones back.
        set_entries(new, old.map(entries_of).unwrap_or_default());
        return;
    }

    let is_writers = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Update";
    if !changed.is_empty() && !entries.iter().any(is_writers) {
        entries.push(json!({
            "manager": manager, "operation": "Update", "apiVersion": "coordination.k8s.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {},
        }));
    }
    for entry in &mut entries {
        let mut owned = paths(&entry["fieldsV1"]);
        owned.retain(|path| !removed.contains(path));
        if !changed.is_empty() && is_writers(entry) {
            owned.extend(changed.iter().map(|path| (*path).clone()));
            entry["time"] = Value::String(whole_seconds(now));
        } else {
            owned.retain(|path| !changed.contains(path));
        }
        entry["fieldsV1"] = tree(&owned);
    }
    entries.retain(|entry| {
        entry["fieldsV1"]
            .as_object()
            .is_some_and(|fields| !fields.is_empty())
    });
    set_entries(new, entries);
}

/// `metav1.Time` in JSON: RFC 3339, floored to the second.
pub fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(
        time.as_nanosecond()
            .div_euclid(1_000_000_000)
            .try_into()
            .unwrap_or_default(),
    )
    .unwrap_or(time)
    .to_string()
}

/// Whether some managedFields entry owns `spec.renewTime`.
pub fn renew_time_is_owned(object: &Value) -> bool {
    entries_of(object)
        .iter()
        .any(|entry| entry.pointer("/fieldsV1/f:spec/f:renewTime").is_some())
}

fn is_empty_object(entry: &Value) -> bool {
    entry.as_object().is_some_and(Map::is_empty)
}

fn entries_of(object: &Value) -> Vec<Value> {
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn set_entries(object: &mut Value, entries: Vec<Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

/// Every tracked field with its value. A map such as `labels` is a field too, named `.`.
fn values(object: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    for (name, value) in object
        .get("spec")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        found.insert(vec!["f:spec".to_owned(), format!("f:{name}")], value.clone());
    }
    for map in ["labels", "annotations"] {
        let Some(content) = object["metadata"].get(map).and_then(Value::as_object) else {
            continue;
        };
        let parent = ["f:metadata".to_owned(), format!("f:{map}")];
        found.insert([&parent[..], &[".".to_owned()]].concat(), Value::Null);
        for (key, value) in content {
            found.insert([&parent[..], &[format!("f:{key}")]].concat(), value.clone());
        }
    }
    found
}

/// The paths of the leaves of a `fieldsV1` tree.
fn paths(fields: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    collect(fields, &mut Vec::new(), &mut found);
    found
}

fn collect(fields: &Value, prefix: &mut Path, found: &mut BTreeSet<Path>) {
    for (name, below) in fields.as_object().into_iter().flatten() {
        prefix.push(name.clone());
        if is_empty_object(below) {
            found.insert(prefix.clone());
        } else {
            collect(below, prefix, found);
        }
        prefix.pop();
    }
}

/// The inverse of [`paths`].
fn tree(paths: &BTreeSet<Path>) -> Value {
    let mut root = Map::new();
    for path in paths {
        let mut fields = &mut root;
        for name in path {
            let below = fields
                .entry(name.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = below else { break };
            fields = next;
        }
    }
    Value::Object(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: &str = "2026-01-01T00:00:00Z";
    const T4: &str = "2026-01-01T00:00:04Z";

    fn at(second: &str) -> Timestamp {
        format!("2026-01-01T00:00:{second}Z").parse().unwrap()
    }

    fn held_by_a() -> Value {
        let mut lease = json!({
            "metadata": {"name": "payments"},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5, "renewTime": "r0"},
        });
        stamp(None, &mut lease, "elector", at("00.7"));
        lease
    }

    fn entry<'a>(lease: &'a Value, manager: &str) -> &'a Value {
        let entries = lease["metadata"]["managedFields"].as_array().unwrap();
        entries
            .iter()
            .find(|entry| entry["manager"] == manager)
            .unwrap_or(&Value::Null)
    }

    #[test]
    fn a_create_is_stamped_with_the_second_it_happened_in() {
        let lease = held_by_a();
        let entry = entry(&lease, "elector");
        assert_eq!(entry["time"], T0);
        let spec = json!({"f:holderIdentity": {}, "f:leaseDurationSeconds": {}, "f:renewTime": {}});
        assert_eq!(entry["fieldsV1"], json!({ "f:spec": spec }));
        assert_eq!(entry["operation"], "Update");
    }

    #[test]
    fn a_renewal_moves_the_stamp() {
        let old = held_by_a();
        let mut new = old.clone();
        new["spec"]["renewTime"] = "r1".into();
        stamp(Some(&old), &mut new, "elector", at("04.999"));
        assert_eq!(entry(&new, "elector")["time"], T4);
    }

    #[test]
    fn a_label_edit_by_the_owner_of_renew_time_moves_its_stamp_and_by_another_does_not() {
        for (manager, stamp_of_renew_time) in [("elector", T4), ("kubectl", T0)] {
            let old = held_by_a();
            let mut new = old.clone();
            new["metadata"]["labels"] = json!({"app": "shop"});
            stamp(Some(&old), &mut new, manager, at("04"));
            assert_eq!(entry(&new, "elector")["time"], stamp_of_renew_time, "{manager}");
            let labels = json!({".": {}, "f:app": {}});
            assert_eq!(entry(&new, manager)["fieldsV1"]["f:metadata"]["f:labels"], labels);
        }
    }

    #[test]
    fn a_takeover_that_leaves_renew_time_alone_keeps_its_old_stamp() {
        let old = held_by_a();
        let mut new = old.clone();
        new["spec"]["holderIdentity"] = "b".into();
        stamp(Some(&old), &mut new, "thief", at("04"));
        assert_eq!(entry(&new, "elector")["time"], T0);
        assert_eq!(
            entry(&new, "elector")["fieldsV1"]["f:spec"],
            json!({"f:leaseDurationSeconds": {}, "f:renewTime": {}})
        );
        assert_eq!(entry(&new, "thief")["time"], T4);
        assert_eq!(
            entry(&new, "thief")["fieldsV1"]["f:spec"],
            json!({"f:holderIdentity": {}})
        );
    }

    #[test]
    fn forged_times_do_not_survive_on_what_was_written() {
        let old = held_by_a();
        let mut new = old.clone();
        new["spec"]["holderIdentity"] = "b".into();
        new["spec"]["renewTime"] = "r9".into();
        new["metadata"]["managedFields"][0]["time"] = "2020-01-01T00:00:00Z".into();
        stamp(Some(&old), &mut new, "elector", at("04"));
        assert_eq!(entry(&new, "elector")["time"], T4);
    }

    #[test]
    fn forged_times_alone_are_put_back_and_beside_a_label_they_stay() {
        let old = held_by_a();
        let mut new = old.clone();
        new["metadata"]["managedFields"][0]["time"] = "2020-01-01T00:00:00Z".into();
        let mut labelled = new.clone();
        stamp(Some(&old), &mut new, "kubectl", at("04"));
        assert_eq!(new, old);

        labelled["metadata"]["labels"] = json!({"app": "shop"});
        stamp(Some(&old), &mut labelled, "kubectl", at("04"));
        assert_eq!(entry(&labelled, "elector")["time"], "2020-01-01T00:00:00Z");
    }

    #[test]
    fn cleared_stamps_stay_cleared() {
        let old = held_by_a();
        let mut cleared = old.clone();
        cleared["metadata"]["managedFields"] = json!([{}]);
        stamp(Some(&old), &mut cleared, "elector", at("04"));
        assert_eq!(cleared["metadata"].get("managedFields"), None);
        let mut later = cleared.clone();
        later["spec"]["renewTime"] = "r2".into();
        stamp(Some(&cleared), &mut later, "elector", at("05"));
        assert!(!renew_time_is_owned(&later));
    }

    #[test]
    fn a_release_by_removal_moves_no_stamp() {
        let mut old = held_by_a();
        let mut new = old.clone();
        new["spec"].as_object_mut().unwrap().remove("holderIdentity");
        stamp(Some(&old), &mut new, "elector", at("04"));
        assert_eq!(entry(&new, "elector")["time"], T0);

        let before = old.clone();
        old["spec"] = json!({});
        stamp(Some(&before), &mut old, "elector", at("04"));
        assert_eq!(old["metadata"].get("managedFields"), None);
    }
}
