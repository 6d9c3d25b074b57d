//! What the registration should be made into, where the operator said that it may be.
//!
//! A configuration that is gone is applied (server-side); one that has drifted is patched with its list of webhooks, in
//! which the fields that drifted are those of the manifests and all others are as they were read. Not by server-side
//! apply: that merges `matchConditions` by their names, and so could not take away a condition that somebody added.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{ValidatingWebhook, ValidatingWebhookConfiguration},
};

use super::{Expected, Problem, ProblemKind};

/// `actual`, with every one of these problems mended as far as it can be. `bundle` is a `caBundle` that is known to
/// verify what is served, if there is one.
pub fn repaired(
    expected: &Expected,
    actual: &ValidatingWebhookConfiguration,
    problems: &[Problem],
    bundle: Option<&[u8]>,
) -> ValidatingWebhookConfiguration {
    let mut repaired = actual.clone();
    let webhooks = repaired.webhooks.get_or_insert_with(Vec::new);
    for good in expected.webhooks_for(webhooks) {
        let of_it = problems.iter().filter(|problem| problem.webhook == good.name);
        for Problem { kind, .. } in of_it {
            match webhooks.iter_mut().find(|webhook| webhook.name == good.name) {
                Some(webhook) => mend(webhook, &good, *kind, bundle),
                None => webhooks.push(trusted(good.clone(), bundle)),
            }
        }
    }
    repaired
}

/// Whether this can be mended. The webhook of a component that is gone cannot: the replicas that a roll-out is about to
/// take away still say that it belongs there, and would bring back for good what the operator has just taken out.
pub(super) fn can_be_mended(expected: &Expected, problem: &Problem) -> bool {
    problem.kind != ProblemKind::WebhookMissing || !expected.is_of_component(&problem.webhook)
}

/// The whole configuration, where it is gone, with the components that were there when it was last seen, or that the
/// Deployment names.
pub(super) fn anew(
    expected: &Expected,
    name: &str,
    last_seen: &[String],
    bundle: Option<&[u8]>,
) -> Result<ValidatingWebhookConfiguration, String> {
    let is_there = |name: &str| last_seen.iter().any(|it| it == name) || expected.said().any(|it| it == name);
    let mut configuration = expected.render(is_there)?;
    configuration.metadata.name = Some(name.to_owned());
    let webhooks = configuration.webhooks.take().unwrap_or_default();
    configuration.webhooks = Some(
        // Once more, for the namespaces that were chosen.
        expected
            .webhooks_for(&webhooks)
            .into_iter()
            .map(|webhook| trusted(webhook, bundle))
            .collect(),
    );
    Ok(configuration)
}

fn trusted(mut webhook: ValidatingWebhook, bundle: Option<&[u8]>) -> ValidatingWebhook {
    webhook.client_config.ca_bundle = bundle.map(|bundle| ByteString(bundle.to_vec()));
    webhook
}

fn mend(webhook: &mut ValidatingWebhook, good: &ValidatingWebhook, kind: ProblemKind, bundle: Option<&[u8]>) {
    let good = good.clone();
    match kind {
        ProblemKind::Service => {
            webhook.client_config.service = good.client_config.service;
            webhook.client_config.url = good.client_config.url;
        }
        ProblemKind::CaBundle => {
            if let Some(bundle) = bundle {
                webhook.client_config.ca_bundle = Some(ByteString(bundle.to_vec()));
            }
        }
        ProblemKind::Rules => webhook.rules = good.rules,
        ProblemKind::MatchConditions => webhook.match_conditions = good.match_conditions,
        ProblemKind::MatchPolicy => webhook.match_policy = good.match_policy,
        ProblemKind::NamespaceSelector => webhook.namespace_selector = good.namespace_selector,
        ProblemKind::ObjectSelector => webhook.object_selector = good.object_selector,
        ProblemKind::FailurePolicy => webhook.failure_policy = good.failure_policy,
        ProblemKind::Timeout => webhook.timeout_seconds = good.timeout_seconds,
        ProblemKind::Protocol => {
            webhook.side_effects = good.side_effects;
            webhook.admission_review_versions = good.admission_review_versions;
        }
        // Found, so not missing.
        ProblemKind::ConfigurationMissing | ProblemKind::WebhookMissing => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::problem::compare, *};

    /// Everything wrong at once, in a configuration that somebody else uses, too.
    fn mk_drifted() -> ValidatingWebhookConfiguration {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let mut value =
            serde_json::to_value(expected.render(|name| name.starts_with("closed.")).unwrap()).unwrap();
        value["metadata"]["resourceVersion"] = json!("7");
        let webhooks = value["webhooks"].as_array_mut().unwrap();
        for (field, drifted) in [
            ("failurePolicy", json!("Fail")),
            ("timeoutSeconds", json!(30)),
            ("matchPolicy", json!("Exact")),
            ("sideEffects", json!("Some")),
            ("rules", json!([])),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({"matchLabels": {"a": "b"}})),
            ("clientConfig", json!({"url": "https://elsewhere.example.com"})),
        ] {
            webhooks[0][field] = drifted;
        }
        let conditions = webhooks[0]["matchConditions"].as_array_mut().unwrap();
        conditions.push(json!({"name": "never", "expression": "false"}));
        webhooks[1] = json!({
            "name": "somebody.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": "https://example.com"}, "failurePolicy": "Fail",
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_drift_is_mended_and_nothing_else_is_touched() {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let drifted = mk_drifted();
        let problems = compare(&expected, Some(&drifted));
        assert_eq!(problems.len(), 10, "{problems:?}");
        let mended = repaired(&expected, &drifted, &problems, Some(b"bundle"));
        assert_eq!(compare(&expected, Some(&mended)), []);
        let webhooks = |configuration: &ValidatingWebhookConfiguration| -> Value {
            serde_json::to_value(&configuration.webhooks).unwrap()
        };
        assert_eq!(
            webhooks(&mended)[1],
            webhooks(&drifted)[1],
            "somebody else's webhook"
        );
        assert_eq!(mended.metadata, drifted.metadata);
        let added = mended.webhooks.as_ref().unwrap().last().unwrap();
        assert_eq!(added.name, "policy.leasehold.dev");
        assert_eq!(
            added.client_config.ca_bundle,
            Some(ByteString(b"bundle".to_vec()))
        );
    }

    #[test]
    fn only_what_is_told_is_mended() {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let drifted = mk_drifted();
        let problems = compare(&expected, Some(&drifted));
        for kind in [ProblemKind::Timeout, ProblemKind::Rules] {
            let one: Vec<_> = problems.iter().filter(|it| it.kind == kind).cloned().collect();
            let mended = repaired(&expected, &drifted, &one, None);
            let left = compare(&expected, Some(&mended));
            assert_eq!(left.len(), problems.len() - 1, "{kind:?}");
            assert!(left.iter().all(|it| it.kind != kind));
        }
    }

    #[test]
    fn a_bundle_that_is_good_takes_the_place_of_one_that_is_not() {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let actual = expected.render(|_| false).unwrap();
        let problem = Problem {
            kind: ProblemKind::CaBundle,
            webhook: "leases.leasehold.dev".to_owned(),
            detail: String::new(),
        };
        let bundle = |bundle| {
            let mended = repaired(&expected, &actual, std::slice::from_ref(&problem), bundle);
            mended.webhooks.unwrap()[0].client_config.ca_bundle.clone()
        };
        assert_eq!(bundle(Some(b"good")), Some(ByteString(b"good".to_vec())));
        assert_eq!(bundle(None), None);
    }

    #[test]
    fn what_is_gone_comes_back_with_the_components_that_were_there() {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let seen = ["closed.leases.leasehold.dev".to_owned()];
        let anew = anew(&expected, "guard", &seen, Some(b"bundle")).unwrap();
        assert_eq!(anew.metadata.name.as_deref(), Some("guard"));
        assert_eq!(compare(&expected, Some(&anew)), []);
        let webhooks = anew.webhooks.unwrap();
        assert_eq!(webhooks.len(), 3);
        assert!(webhooks.iter().all(|it| it.client_config.ca_bundle.is_some()));
    }

    #[test]
    fn what_is_gone_comes_back_as_the_deployment_says_where_nobody_saw_it() {
        let registered = [
            "closed.leases.leasehold.dev=bank",
            "kube-system.leases.leasehold.dev",
        ];
        let registered = registered.map(|it| it.parse().unwrap());
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let expected = expected.with_registered(&registered).unwrap();
        let anew = anew(&expected, "guard", &[], None).unwrap();
        assert_eq!(compare(&expected, Some(&anew)), []);
        assert_eq!(anew.webhooks.unwrap().len(), 4);
    }

    #[test]
    fn the_webhook_of_a_component_that_may_have_been_taken_out_is_not_brought_back() {
        let registered = ["closed.leases.leasehold.dev".parse().unwrap()];
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let expected = expected.with_registered(&registered).unwrap();
        let mut actual = expected.render(|_| false).unwrap();
        actual.webhooks.as_mut().unwrap().pop();
        let problems = compare(&expected, Some(&actual));
        let mended = problems
            .iter()
            .filter(|problem| can_be_mended(&expected, problem));
        let mended: Vec<_> = mended.map(|problem| problem.webhook.as_str()).collect();
        assert_eq!((problems.len(), mended), (2, vec!["policy.leasehold.dev"]));
    }
}
