//! What is wrong with a registration, by comparing it with the manifests.

use std::fmt;

use k8s_openapi::{
    api::admissionregistration::v1::{
        RuleWithOperations, ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::Expected;

/// What is wrong: the values of the label `problem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// There is no such configuration.
    ConfigurationMissing,
    /// A webhook of the manifests, or of a component that the Deployment names, is gone.
    WebhookMissing,
    /// It calls something else.
    Service,
    /// The API server cannot trust what is served.
    CaBundle,
    /// Other writes are sent, or fewer.
    Rules,
    /// What is sent under which condition.
    MatchConditions,
    /// Other versions of the API are not converted.
    MatchPolicy,
    /// Other namespaces, or labels that exempt one.
    NamespaceSelector,
    /// Labels that exempt an object.
    ObjectSelector,
    /// What happens when nobody answers.
    FailurePolicy,
    /// How long the API server waits.
    Timeout,
    /// The versions of the review, and what is said of side effects.
    Protocol,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::ConfigurationMissing,
        Self::WebhookMissing,
        Self::Service,
        Self::CaBundle,
        Self::Rules,
        Self::MatchConditions,
        Self::MatchPolicy,
        Self::NamespaceSelector,
        Self::ObjectSelector,
        Self::FailurePolicy,
        Self::Timeout,
        Self::Protocol,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigurationMissing => "configuration-missing",
            Self::WebhookMissing => "webhook-missing",
            Self::Service => "service",
            Self::CaBundle => "ca-bundle",
            Self::Rules => "rules",
            Self::MatchConditions => "match-conditions",
            Self::MatchPolicy => "match-policy",
            Self::NamespaceSelector => "namespace-selector",
            Self::ObjectSelector => "object-selector",
            Self::FailurePolicy => "failure-policy",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// In which webhook; empty for the configuration itself.
    pub webhook: String,
    /// More about it, for people.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.webhook.is_empty() {
            write!(f, "webhook {}: ", self.webhook)?;
        }
        f.write_str(&self.detail)
    }
}

/// What differs from the manifests; `None` is a configuration that is not there. Webhooks that the manifests do not
/// have are somebody else's, and `caBundle` is looked at by [`super::trust`].
pub fn compare(expected: &Expected, actual: Option<&ValidatingWebhookConfiguration>) -> Vec<Problem> {
    let Some(actual) = actual else {
        return vec![Problem {
            kind: ProblemKind::ConfigurationMissing,
            webhook: String::new(),
            detail: "it does not exist, so nothing is guarded".to_owned(),
        }];
    };
    let find = |name: &str| actual.webhooks.iter().flatten().find(|it| it.name == name);
    let missing = |name: &str| Problem {
        kind: ProblemKind::WebhookMissing,
        detail: "it is not registered any more".to_owned(),
        webhook: name.to_owned(),
    };
    let mut problems = Vec::new();
    for webhook in expected.webhooks_for(actual.webhooks.as_deref().unwrap_or_default()) {
        match find(&webhook.name) {
            Some(actual) => differences(&webhook, actual, &mut problems),
            None => problems.push(missing(&webhook.name)),
        }
    }
    // Of components: none of these is among the former, which has only those that are there.
    problems.extend(expected.said().filter(|name| find(name).is_none()).map(missing));
    problems
}

fn differences(expected: &ValidatingWebhook, actual: &ValidatingWebhook, problems: &mut Vec<Problem>) {
    let mut tell = |kind, detail: String| {
        problems.push(Problem {
            kind,
            webhook: expected.name.clone(),
            detail,
        });
    };
    if !same_service(expected, actual) {
        tell(
            ProblemKind::Service,
            "clientConfig leads elsewhere than to Leasehold".to_owned(),
        );
    }
    if rules(expected) != rules(actual) {
        tell(
            ProblemKind::Rules,
            "rules are not those of the manifests: not every write is sent".to_owned(),
        );
    }
    if sorted_conditions(expected) != sorted_conditions(actual) {
        tell(
            ProblemKind::MatchConditions,
            "matchConditions are not those of the manifests: not every write is sent, or renewals are"
                .to_owned(),
        );
    }
    if selector(expected.namespace_selector.as_ref()) != selector(actual.namespace_selector.as_ref()) {
        tell(
            ProblemKind::NamespaceSelector,
            "namespaceSelector is not that of the manifests: namespaces are left out, or taken in".to_owned(),
        );
    }
    if selector(expected.object_selector.as_ref()) != selector(actual.object_selector.as_ref()) {
        tell(
            ProblemKind::ObjectSelector,
            "objectSelector leaves objects out by their labels".to_owned(),
        );
    }
    for (kind, field, expected, actual) in [
        (
            ProblemKind::FailurePolicy,
            "failurePolicy",
            expected.failure_policy.clone(),
            actual.failure_policy.clone(),
        ),
        (
            ProblemKind::MatchPolicy,
            "matchPolicy",
            expected.match_policy.clone(),
            actual.match_policy.clone(),
        ),
        (
            ProblemKind::Timeout,
            "timeoutSeconds",
            expected.timeout_seconds.map(|seconds| seconds.to_string()),
            actual.timeout_seconds.map(|seconds| seconds.to_string()),
        ),
        (
            ProblemKind::Protocol,
            "sideEffects",
            Some(expected.side_effects.clone()),
            Some(actual.side_effects.clone()),
        ),
        (
            ProblemKind::Protocol,
            "admissionReviewVersions",
            Some(expected.admission_review_versions.join(", ")),
            Some(actual.admission_review_versions.join(", ")),
        ),
    ] {
        if expected != actual {
            let told = |value: Option<String>| value.unwrap_or_else(|| "absent".to_owned());
            tell(
                kind,
                format!("{field} is {}, expected {}", told(actual), told(expected)),
            );
        }
    }
}

/// Where it calls, with the defaults that the API server fills in.
fn same_service(expected: &ValidatingWebhook, actual: &ValidatingWebhook) -> bool {
    let place = |service: &ServiceReference| {
        (
            service.namespace.clone(),
            service.name.clone(),
            service.path.clone(),
            service.port.unwrap_or(443),
        )
    };
    let service = |webhook: &ValidatingWebhook| webhook.client_config.service.as_ref().map(place);
    service(expected) == service(actual) && expected.client_config.url == actual.client_config.url
}

/// Rules whose order, and the order within, does not matter.
fn rules(webhook: &ValidatingWebhook) -> Vec<RuleWithOperations> {
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        Some(list)
    };
    let mut rules: Vec<_> = webhook
        .rules
        .iter()
        .flatten()
        .map(|rule| RuleWithOperations {
            api_groups: sorted(&rule.api_groups),
            api_versions: sorted(&rule.api_versions),
            operations: sorted(&rule.operations),
            resources: sorted(&rule.resources),
            scope: rule.scope.clone().or_else(|| Some("*".to_owned())),
        })
        .collect();
    rules.sort_by_cached_key(|rule| format!("{rule:?}"));
    rules
}

fn sorted_conditions(webhook: &ValidatingWebhook) -> Vec<(String, String)> {
    let conditions = webhook.match_conditions.iter().flatten();
    let mut conditions: Vec<_> = conditions
        .map(|condition| (condition.name.clone(), condition.expression.clone()))
        .collect();
    conditions.sort();
    conditions
}

/// An absent selector and an empty one both take everything, and values are a set.
fn selector(selector: Option<&LabelSelector>) -> LabelSelector {
    let mut selector = selector.cloned().unwrap_or_default();
    selector.match_labels = selector.match_labels.filter(|labels| !labels.is_empty());
    let mut expressions = selector.match_expressions.unwrap_or_default();
    for expression in &mut expressions {
        if let Some(values) = &mut expression.values {
            values.sort();
            values.dedup();
        }
    }
    expressions.sort_by_cached_key(|expression| format!("{expression:?}"));
    selector.match_expressions = Some(expressions).filter(|expressions| !expressions.is_empty());
    selector
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
