//! The Helm chart's values, held against the program. What it renders is held against kustomize by the API-server
//! tests, which have a real helm.

use std::path::PathBuf;

use leasehold::policy::{self, LeasePolicy};
use serde_json::{Value, json};

fn chart(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/helm/leasehold")
        .join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(chart(file)).unwrap()
}

/// The schema of the value `policy`, as it stands under `$defs`: the policy's own, but for the fields that the chart
/// writes or that are values of their own.
fn definitions() -> Value {
    let mut document = policy::json_schema();
    let mut definitions = document["$defs"].take();
    let root = document.as_object_mut().unwrap();
    for field in ["$defs", "$schema", "$id", "title"] {
        root.remove(field);
    }
    for field in ["apiVersion", "kind", "mode"] {
        root["properties"].as_object_mut().unwrap().remove(field);
    }
    for name in ["ApiVersion", "Kind"] {
        definitions.as_object_mut().unwrap().remove(name);
    }
    definitions["LeasePolicy"] = document;
    // The chart's own.
    definitions["Name"] = json!({
        "description": "The name of a namespace.",
        "type": "string",
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "maxLength": 63,
    });
    definitions["Names"] = json!({
        "description": "Names of namespaces.",
        "type": "array",
        "uniqueItems": true,
        "items": {"$ref": "#/$defs/Name"},
    });
    definitions
}

/// `LEASEHOLD_BLESS=1` writes the policy's part of the schema anew.
#[test]
fn the_charts_schema_holds_that_of_the_policy() {
    let mut schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let expected = definitions();
    if std::env::var_os("LEASEHOLD_BLESS").is_some() {
        schema["$defs"] = expected;
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        std::fs::write(chart("values.schema.json"), text).unwrap();
        return;
    }
    assert!(
        schema["$defs"] == expected,
        "the policy's schema has changed: LEASEHOLD_BLESS=1 cargo test --test library chart"
    );
    for (value, definition) in [("policy", "LeasePolicy"), ("mode", "Mode")] {
        assert_eq!(
            schema["properties"][value]["$ref"],
            json!(format!("#/$defs/{definition}"))
        );
    }
}

/// Every value has a default that is written down, and the schema knows no other: a name may be nested.
#[test]
fn the_charts_schema_knows_every_value_and_no_other() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    fn names(prefix: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, value) in schema["properties"].as_object().unwrap() {
            let path = format!("{prefix}/{name}");
            // What Helm itself puts there, and what Kubernetes defines.
            if path == "/global" || prefix == "/resources" {
                continue;
            }
            if value.get("properties").is_some() {
                names(&path, value, found);
            }
            found.push(path);
        }
    }
    let mut known = Vec::new();
    names("", &schema, &mut known);
    let missing: Vec<_> = known
        .iter()
        .filter(|path| values.pointer(path).is_none())
        .collect();
    assert!(missing.is_empty(), "values.yaml does not state {missing:?}");
    let unknown: Vec<_> = values
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| !known.contains(&format!("/{name}")))
        .collect();
    assert!(unknown.is_empty(), "the schema does not know {unknown:?}");
}

#[test]
fn the_charts_policy_is_one_that_the_program_reads() {
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let mut document = values["policy"].clone();
    document["mode"] = values["mode"].clone();
    let read = LeasePolicy::parse(&document.to_string()).unwrap();
    let defaults = LeasePolicy::default();
    assert_eq!(read.rules, defaults.rules);
    assert_eq!(read.clock_slack, defaults.clock_slack);
    assert_eq!(read.max_skew, defaults.max_skew);
}

#[test]
fn the_chart_has_the_programs_version() {
    let chart: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    assert_eq!(chart["version"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(chart["appVersion"], json!(env!("CARGO_PKG_VERSION")));
}
