//! The objects that make a fence.

use serde::Serialize;

use super::{Enforcement, Fence, Namespaces, Nobody, Resource, Selector, expressions, selector::Requirement};

const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// One object to apply, and what to say of it where the format has comments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// What the object is for, in lines.
    #[serde(skip)]
    pub comment: String,
    #[serde(flatten)]
    object: Object,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Metadata {
    name: String,
    labels: Labels,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Labels {
    #[serde(rename = "app.kubernetes.io/name")]
    name: &'static str,
    #[serde(rename = "app.kubernetes.io/component")]
    component: &'static str,
}

const LABELS: Labels = Labels {
    name: "leasehold",
    component: "fence",
};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Spec {
    Policy(Box<PolicySpec>),
    Binding(BindingSpec),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicySpec {
    failure_policy: &'static str,
    param_kind: ParamKind,
    match_constraints: Match,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    match_conditions: Vec<Named>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    variables: Vec<Named>,
    validations: Vec<Validation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audit_annotations: Vec<AuditAnnotation>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BindingSpec {
    policy_name: String,
    param_ref: ParamRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    match_resources: Option<Match>,
    validation_actions: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ParamKind {
    api_version: &'static str,
    kind: &'static str,
}

const LEASE: ParamKind = ParamKind {
    api_version: "coordination.k8s.io/v1",
    kind: "Lease",
};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ParamRef {
    namespace: String,
    name: String,
    parameter_not_found_action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Match {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_selector: Option<Requirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_selector: Option<Requirements>,
    resource_rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Requirements {
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Expression {
    Namespaces {
        key: &'static str,
        operator: &'static str,
        values: Vec<String>,
    },
    Object(Requirement),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    resources: Vec<String>,
    operations: Vec<&'static str>,
}

/// A named expression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Named {
    name: &'static str,
    expression: String,
}

impl Named {
    pub(super) fn new(name: &'static str, expression: impl Into<String>) -> Self {
        Self {
            name,
            expression: expression.into(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    expression: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expression: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditAnnotation {
    key: &'static str,
    value_expression: &'static str,
}

/// What the name of the second binding has more than the policy's.
pub(super) const DELETE: &str = "-delete";

/// The operations that change a stored object.
const WRITES: [&str; 3] = ["CREATE", "UPDATE", "DELETE"];

impl Manifest {
    fn new(kind: &'static str, name: &str, spec: Spec, comment: String) -> Self {
        Self {
            comment,
            object: Object {
                api_version: API_VERSION,
                kind,
                metadata: Metadata {
                    name: name.to_owned(),
                    labels: LABELS,
                },
                spec,
            },
        }
    }

    /// The object's kind and name.
    pub fn kind_and_name(&self) -> (&'static str, &str) {
        (self.object.kind, &self.object.metadata.name)
    }
}

fn rules(resources: &[Resource], operations: &[&'static str]) -> Vec<Rule> {
    resources
        .iter()
        .map(|resource| Rule {
            api_groups: vec![resource.group().to_owned()],
            api_versions: vec![resource.version().to_owned()],
            resources: vec![resource.path()],
            operations: operations.to_vec(),
        })
        .collect()
}

fn namespace_selector(namespaces: &Namespaces) -> Option<Requirements> {
    let Namespaces::Named(namespaces) = namespaces else {
        return None;
    };
    Some(Requirements {
        match_expressions: vec![Expression::Namespaces {
            // The API server sees to it that this label is there, and true.
            key: "kubernetes.io/metadata.name",
            operator: "In",
            values: namespaces.iter().map(ToString::to_string).collect(),
        }],
    })
}

fn object_selector(selector: &Selector) -> Requirements {
    let requirements = selector.requirements().iter().cloned();
    Requirements {
        match_expressions: requirements.map(Expression::Object).collect(),
    }
}

impl Fence {
    /// The objects, in the order in which they are to be applied.
    pub fn manifests(&self) -> Vec<Manifest> {
        let mut manifests = vec![self.policy()];
        let closed = self.enforcement == Enforcement::Enforce && self.when_free == Nobody::Deny;
        if closed {
            manifests.push(self.binding("", "Deny", Some(&["CREATE", "UPDATE"])));
            manifests.push(self.binding(DELETE, "Allow", Some(&["DELETE"])));
        } else {
            manifests.push(self.binding("", "Allow", None));
        }
        manifests
    }

    fn policy(&self) -> Manifest {
        let spec = PolicySpec {
            failure_policy: match self.enforcement {
                // What cannot be judged is refused, which no validationActions can soften.
                Enforcement::Enforce => "Fail",
                Enforcement::Audit => "Ignore",
            },
            param_kind: LEASE,
            match_constraints: Match {
                namespace_selector: namespace_selector(&self.namespaces),
                object_selector: self.selector.as_ref().map(object_selector),
                resource_rules: rules(&self.resources, &WRITES),
            },
            match_conditions: expressions::match_conditions(self),
            variables: expressions::variables(self),
            validations: vec![Validation {
                expression: expressions::PASSES,
                message: Some(format!(
                    "only the pod that holds lease {} may write what it fences",
                    self.lease
                )),
                message_expression: Some(expressions::REFUSAL),
                reason: Some("Forbidden"),
            }],
            audit_annotations: vec![AuditAnnotation {
                key: "break-glass",
                value_expression: expressions::BREAK_GLASS_NOTE,
            }],
        };
        let spec = Spec::Policy(Box::new(spec));
        Manifest::new(
            "ValidatingAdmissionPolicy",
            self.name.as_str(),
            spec,
            self.comment(),
        )
    }

    fn binding(
        &self,
        suffix: &str,
        parameter_not_found_action: &'static str,
        operations: Option<&[&'static str]>,
    ) -> Manifest {
        let spec = BindingSpec {
            policy_name: self.name.to_string(),
            param_ref: ParamRef {
                namespace: self.lease.namespace.to_string(),
                name: self.lease.name.to_string(),
                parameter_not_found_action,
            },
            match_resources: operations.map(|operations| Match {
                namespace_selector: None,
                object_selector: None,
                resource_rules: rules(&self.resources, operations),
            }),
            validation_actions: match self.enforcement {
                Enforcement::Enforce => vec!["Deny", "Audit"],
                Enforcement::Audit => vec!["Audit"],
            },
        };
        let comment = match (operations, parameter_not_found_action) {
            (None, _) => "While the Lease does not exist, this fence asks nothing.".to_owned(),
            (_, "Deny") => format!(
                "While Lease {} does not exist, every such write is refused, an operator's too: the API server looks for \
                 the\nLease before it asks any condition. The way out is to create the Lease, or to delete this binding.",
                self.lease
            ),
            _ => "Deletions pass while the Lease does not exist, or its namespace could never be deleted."
                .to_owned(),
        };
        Manifest::new(
            "ValidatingAdmissionPolicyBinding",
            &format!("{}{suffix}", self.name),
            Spec::Binding(spec),
            comment,
        )
    }
}

/// The name of both objects of the [`anchor`].
pub const ANCHOR: &str = "leasehold-fence-anchor";

/// A policy and a binding that ask nothing of anybody, and keep the API server's watch of Leases alive.
///
/// An API server stops watching a kind of parameters when the last policy that names it is gone, and never starts
/// again (`k8s.io/apiserver/pkg/admission/plugin/policy/generic`, `policySource`: the informer of a built-in kind comes
/// from a factory that starts each only once). A fence that is created after that is judged by Leases as they were
/// then, until the API server restarts. While this policy stays, it is never the last.
pub fn anchor() -> Vec<Manifest> {
    let policy = PolicySpec {
        failure_policy: "Ignore",
        param_kind: LEASE,
        match_constraints: Match {
            namespace_selector: None,
            object_selector: None,
            // Nothing serves such a resource.
            resource_rules: vec![Rule {
                api_groups: vec!["anchor.leasehold.dev".to_owned()],
                api_versions: vec!["v1".to_owned()],
                resources: vec!["anchors".to_owned()],
                operations: vec!["CREATE"],
            }],
        },
        match_conditions: Vec::new(),
        variables: Vec::new(),
        validations: vec![Validation {
            expression: "true",
            message: None,
            message_expression: None,
            reason: None,
        }],
        audit_annotations: Vec::new(),
    };
    let binding = BindingSpec {
        policy_name: ANCHOR.to_owned(),
        param_ref: ParamRef {
            namespace: "default".to_owned(),
            name: ANCHOR.to_owned(),
            parameter_not_found_action: "Allow",
        },
        match_resources: None,
        validation_actions: vec!["Audit"],
    };
    vec![
        Manifest::new(
            "ValidatingAdmissionPolicy",
            ANCHOR,
            Spec::Policy(Box::new(policy)),
            "The anchor of all fences: it matches nothing, and keeps the API server's watch of Leases alive. Apply it once,\n\
             before the first fence, and leave it for good: when the last policy with Leases for parameters is deleted, the\n\
             API server stops following Leases until it restarts, and a fence created after that judges by old ones."
                .to_owned(),
        ),
        Manifest::new(
            "ValidatingAdmissionPolicyBinding",
            ANCHOR,
            Spec::Binding(binding),
            "There is no such Lease, and none is needed.".to_owned(),
        ),
    ]
}
