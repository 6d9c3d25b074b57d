//! The documents as the API server reads them.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{
    assembly::{AdmissionPolicy, Part, Validation},
    export::{Obstacle, RuleExport},
    vocabulary::owns,
};

/// From where the API server has the policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From objects, which are applied like any other.
    #[default]
    Objects,
    /// From files on its own disk (KEP-5793, `ManifestBasedAdmissionControlConfig`).
    Files,
}

impl Source {
    /// Namespaces that are left out of the policies.
    fn left_out(self) -> &'static [&'static str] {
        match self {
            // As in the webhook's registration (`manifests/base/webhook.yaml`).
            Self::Objects => &["kube-system", "kube-node-lease", "leasehold-system"],
            // In files for the control plane's own elections, too. A node's heartbeats elect nobody.
            Self::Files => &["kube-node-lease", "leasehold-system"],
        }
    }

    /// How a policy's name ends. Only an object from a file may have a name of that kind
    /// (`k8s.io/apiserver/pkg/admission/plugin/manifest/validation.go`: `StaticConfigSuffix`).
    fn suffix(self) -> &'static str {
        match self {
            Self::Objects => "",
            Self::Files => ".static.k8s.io",
        }
    }
}

/// Which writes are looked at: all but pure renewals, as in the webhook's lean registration.
fn not_a_pure_renewal() -> String {
    let differs = |field: &str| format!("object.?spec.?{field} != oldObject.?spec.?{field}");
    let differing = [
        "leaseTransitions",
        "leaseDurationSeconds",
        "acquireTime",
        "strategy",
        "preferredHolder",
    ];
    let mut clauses = vec![
        "request.operation != 'UPDATE'".to_owned(),
        differs("holderIdentity"),
        "object.?spec.?renewTime == oldObject.?spec.?renewTime".to_owned(),
    ];
    clauses.extend(differing.map(differs));
    clauses.push(format!(
        "!object.metadata.?managedFields.orValue([]).exists(entry,\n{})",
        owns("renewTime")
    ));
    clauses.join("\n|| ")
}

pub(super) fn objects(policies: &[AdmissionPolicy], source: Source) -> Vec<Value> {
    policies
        .iter()
        .flat_map(|policy| [admission_policy(policy, source), binding(policy, source)])
        .collect()
}

fn metadata(policy: &AdmissionPolicy, source: Source) -> Value {
    json!({
        "name": format!("{}.leases.leasehold.dev{}", policy.part.as_str(), source.suffix()),
        "labels": {"app.kubernetes.io/name": "leasehold"},
    })
}

fn admission_policy(policy: &AdmissionPolicy, source: Source) -> Value {
    let variables = policy
        .variables
        .iter()
        .map(|variable| json!({"name": variable.name, "expression": variable.expression}));
    let validations = policy.validations.iter().map(|validation| {
        let Validation {
            expression,
            message,
            message_expression,
        } = validation;
        json!({
            "expression": expression,
            "message": message,
            "messageExpression": message_expression,
            "reason": "Forbidden",
        })
    });
    let annotations = policy
        .audit_annotations
        .iter()
        .map(|(rule, expression)| json!({"key": rule, "valueExpression": expression}));
    let mut object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata(policy, source),
        "spec": {
            "failurePolicy": "Ignore",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": source.left_out()},
                ]},
                "resourceRules": [{
                    "apiGroups": ["coordination.k8s.io"],
                    "apiVersions": ["v1"],
                    "resources": ["leases"],
                    "operations": ["CREATE", "UPDATE"],
                    "scope": "Namespaced",
                }],
            },
            "matchConditions": [{"name": "not-a-pure-renewal", "expression": not_a_pure_renewal()}],
            "variables": variables.collect::<Vec<_>>(),
        },
    });
    // The API server takes an empty list for none, and prints none.
    if !policy.validations.is_empty() {
        object["spec"]["validations"] = validations.collect();
    }
    if !policy.audit_annotations.is_empty() {
        object["spec"]["auditAnnotations"] = annotations.collect();
    }
    object
}

fn binding(policy: &AdmissionPolicy, source: Source) -> Value {
    let metadata = metadata(policy, source);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": metadata["name"], "validationActions": [policy.part.validation_action()]},
    })
}

/// The documents with what is in them in comments.
pub(super) fn yaml(
    policies: &[AdmissionPolicy],
    source: Source,
    rules: &[RuleExport],
    obstacles: &[Obstacle],
) -> String {
    let mut text = String::new();
    let mut comment = |line: &str| {
        for line in textwrap::wrap(line, 118) {
            let _ = writeln!(text, "# {line}");
        }
    };
    comment(
        "The half of a Leasehold policy that the API server holds by itself. Made by: leasehold export vap",
    );
    if !policies.iter().any(|policy| policy.part == Part::Advice) {
        comment("Refuses, and does not warn or annotate: --advice adds a policy that does.");
    }
    for obstacle in obstacles {
        comment(&format!("LEFT OUT: {obstacle}"));
    }
    let exported: Vec<_> = policies.iter().map(|policy| policy.part.as_str()).collect();
    for rule in rules {
        let part_of: Vec<_> = rule
            .policies
            .iter()
            .filter(|policy| exported.contains(policy))
            .copied()
            .collect();
        let held = match (part_of.as_slice(), rule.policies.as_slice()) {
            ([], []) if rule.in_process == "not" => "left to the webhook".to_owned(),
            ([], []) => "off".to_owned(),
            ([], _) => "refuses nothing, so only with --advice".to_owned(),
            (policies, _) => format!("{} ({})", rule.in_process, policies.join(", ")),
        };
        let left = rule.left.map(|left| format!("; {left}")).unwrap_or_default();
        comment(&format!("{}: {held}{left}", rule.rule));
    }
    for (index, object) in objects(policies, source).iter().enumerate() {
        // A document of comments alone is an error in a file that the API server reads by itself.
        if index > 0 || source == Source::Objects {
            text.push_str("---\n");
        }
        if let Value::Object(fields) = object {
            mapping(&mut text, fields, 0);
        }
    }
    text
}

/// In block style, the name first: where one document has a line more than another, a diff is a line.
fn mapping(text: &mut String, fields: &Map<String, Value>, depth: usize) {
    let mut names: Vec<&String> = fields.keys().collect();
    let rank = |name: &str| {
        ["name", "key", "variables", "validations", "auditAnnotations"]
            .iter()
            .position(|it| *it == name)
            .map_or(3, |index| index * 2)
    };
    names.sort_by_key(|name| rank(name));
    for (index, name) in names.into_iter().enumerate() {
        // The first field of an item of a list stands behind its dash.
        if index > 0 || !text.ends_with("- ") {
            text.push_str(&"  ".repeat(depth));
        }
        let _ = write!(text, "{name}:");
        if let Some(value) = fields.get(name) {
            field(text, value, depth + 1);
        }
    }
}

fn field(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) => {
            text.push('\n');
            mapping(text, fields, depth);
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).map(scalar).collect();
            let _ = writeln!(text, " [{}]", items.join(", "));
        }
        Value::Array(items) => {
            text.push('\n');
            for item in items {
                text.push_str(&"  ".repeat(depth));
                text.push_str("- ");
                if let Value::Object(fields) = item {
                    mapping(text, fields, depth + 1);
                }
            }
        }
        Value::String(string) if is_plain(string) => {
            let _ = writeln!(text, " {string}");
        }
        // Expressions: printable ASCII that neither begins nor ends with a blank.
        Value::String(string) => {
            text.push_str(" |-\n");
            for line in string.lines() {
                let _ = writeln!(text, "{}{line}", "  ".repeat(depth));
            }
        }
        other => {
            let _ = writeln!(text, " {other}");
        }
    }
}

fn scalar(string: &str) -> String {
    if is_plain(string) {
        string.to_owned()
    } else {
        Value::from(string).to_string()
    }
}

/// Whether YAML reads these characters as a string without quotes.
fn is_plain(string: &str) -> bool {
    string.starts_with(|first: char| first.is_ascii_alphabetic())
        && string
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "./-".contains(character))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&string)
}
