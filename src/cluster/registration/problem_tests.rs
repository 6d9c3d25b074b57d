use serde_json::{Value, json};

use super::*;

fn deployed(components: &[&str]) -> Value {
    let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
    let configuration = expected.render(|name| components.iter().any(|it| name.starts_with(it)));
    let mut value = serde_json::to_value(configuration.unwrap()).unwrap();
    // What the API server fills in, and what it reorders for nobody.
    for webhook in value["webhooks"].as_array_mut().unwrap() {
        webhook["objectSelector"] = json!({});
        webhook["clientConfig"]["caBundle"] = json!("QQ==");
    }
    value
}

fn problems(value: &Value) -> Vec<(ProblemKind, String)> {
    let actual: ValidatingWebhookConfiguration = serde_json::from_value(value.clone()).unwrap();
    let found = compare(
        &Expected::from_manifests("leasehold-system", &[]).unwrap(),
        Some(&actual),
    );
    found.into_iter().map(|it| (it.kind, it.webhook)).collect()
}

fn kinds(value: &Value) -> Vec<ProblemKind> {
    problems(value).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn what_the_manifests_register_has_no_problem_with_or_without_components() {
    for components in [
        &[][..],
        &["closed."],
        &["renewals."],
        &["kube-system."],
        &["annotation-locks."],
        &["closed.", "renewals.", "kube-system.", "annotation-locks."],
    ] {
        assert_eq!(problems(&deployed(components)), [], "{components:?}");
    }
}

#[test]
fn each_weakening_is_told_by_its_own_name() {
    let leases = "/webhooks/0";
    for (field, weakened, kind) in [
        ("failurePolicy", json!("Fail"), ProblemKind::FailurePolicy),
        ("timeoutSeconds", json!(30), ProblemKind::Timeout),
        ("matchPolicy", json!("Exact"), ProblemKind::MatchPolicy),
        ("sideEffects", json!("Some"), ProblemKind::Protocol),
        (
            "admissionReviewVersions",
            json!(["v1beta1"]),
            ProblemKind::Protocol,
        ),
        ("rules", json!([]), ProblemKind::Rules),
        ("rules/0/operations", json!(["CREATE"]), ProblemKind::Rules),
        ("rules/0/resources", json!(["leases/status"]), ProblemKind::Rules),
        ("rules/0/scope", json!("Cluster"), ProblemKind::Rules),
        (
            "matchConditions/0/expression",
            json!("false"),
            ProblemKind::MatchConditions,
        ),
        // Renewals would wait for Leasehold.
        ("matchConditions", json!([]), ProblemKind::MatchConditions),
        (
            "namespaceSelector",
            json!({"matchLabels": {"guarded": "yes"}}),
            ProblemKind::NamespaceSelector,
        ),
        // kube-system is taken in.
        ("namespaceSelector", json!({}), ProblemKind::NamespaceSelector),
        (
            "objectSelector",
            json!({"matchLabels": {"guarded": "yes"}}),
            ProblemKind::ObjectSelector,
        ),
        (
            "clientConfig/service/name",
            json!("someone-else"),
            ProblemKind::Service,
        ),
        ("clientConfig/service/path", json!("/"), ProblemKind::Service),
        ("clientConfig/service/port", json!(444), ProblemKind::Service),
    ] {
        let mut value = deployed(&["closed."]);
        *value.pointer_mut(&format!("{leases}/{field}")).unwrap() = weakened.clone();
        let expected = (kind, "leases.leasehold.dev".to_owned());
        assert_eq!(problems(&value), [expected], "{field}: {weakened}");
    }
}

#[test]
fn an_added_condition_or_an_exempting_label_is_told() {
    let mut value = deployed(&[]);
    let conditions = value["webhooks"][1]["matchConditions"].as_array_mut().unwrap();
    conditions.push(json!({"name": "never", "expression": "false"}));
    assert_eq!(kinds(&value), [ProblemKind::MatchConditions]);

    let exempt = json!({"key": "leasehold.dev/ignore", "operator": "DoesNotExist"});
    let mut value = deployed(&[]);
    let expressions = &mut value["webhooks"][0]["namespaceSelector"]["matchExpressions"];
    expressions.as_array_mut().unwrap().push(exempt);
    assert_eq!(kinds(&value), [ProblemKind::NamespaceSelector]);
}

#[test]
fn a_label_that_one_webhook_leaves_to_another_exempts_once_that_is_gone() {
    let mut value = deployed(&["closed."]);
    let webhooks = value["webhooks"].as_array_mut().unwrap();
    webhooks.retain(|webhook| !webhook["name"].as_str().unwrap().starts_with("closed."));
    let expected = (ProblemKind::NamespaceSelector, "leases.leasehold.dev".to_owned());
    assert_eq!(problems(&value), [expected]);
}

#[test]
fn what_is_gone_is_told() {
    let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
    let gone = compare(&expected, None);
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].kind, ProblemKind::ConfigurationMissing);

    let mut value = deployed(&["renewals."]);
    value["webhooks"].as_array_mut().unwrap().remove(0);
    let missing = (ProblemKind::WebhookMissing, "leases.leasehold.dev".to_owned());
    assert_eq!(problems(&value), [missing]);
    value["webhooks"] = Value::Null;
    assert_eq!(
        kinds(&value),
        [ProblemKind::WebhookMissing, ProblemKind::WebhookMissing]
    );
}

#[test]
fn order_defaults_and_webhooks_of_others_do_not_matter() {
    let mut value = deployed(&["renewals.", "closed."]);
    let webhooks = value["webhooks"].as_array_mut().unwrap();
    webhooks.reverse();
    let mut other = webhooks[0].clone();
    other["name"] = json!("somebody.example.com");
    other["failurePolicy"] = json!("Fail");
    webhooks.push(other);
    for webhook in webhooks {
        let webhook = webhook.as_object_mut().unwrap();
        webhook.remove("objectSelector");
        if let Some(operations) = webhook["rules"][0]["operations"].as_array_mut() {
            operations.reverse();
        }
        let service = webhook["clientConfig"]["service"].as_object_mut().unwrap();
        service.remove("port");
    }
    assert_eq!(problems(&value), []);
}

#[test]
fn each_kind_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = ProblemKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(names.len(), ProblemKind::ALL.len());
}

#[test]
fn an_installation_elsewhere_with_more_left_out_is_as_expected_where_that_was_said() {
    let excluded = ["sandbox".to_owned()];
    let here = Expected::from_manifests("guards", &excluded).unwrap();
    let rendered = here.render(|_| true).unwrap();
    assert_eq!(compare(&here, Some(&rendered)), []);
    let text = serde_json::to_string(&rendered).unwrap();
    assert!(text.contains(r#""namespace":"guards""#) && !text.contains("leasehold-system"));
    assert!(text.contains(r#"["kube-system","kube-node-lease","guards","sandbox"]"#));
    // Where it was not said, it is a drift.
    let unsaid = Expected::from_manifests("guards", &[]).unwrap();
    let told = compare(&unsaid, Some(&rendered));
    assert!(
        !told.is_empty() && told.iter().all(|it| it.kind == ProblemKind::NamespaceSelector),
        "{told:?}"
    );
}

#[test]
fn a_namespace_that_is_left_out_anyway_may_be_named_again() {
    for (namespace, excluded, values) in [
        // What the chart makes of excludedNamespaces={legacy,kube-system}.
        (
            "guards",
            &["legacy", "kube-system", "legacy"][..],
            json!(["kube-system", "kube-node-lease", "guards", "legacy"]),
        ),
        ("kube-system", &[], json!(["kube-system", "kube-node-lease"])),
    ] {
        let excluded: Vec<String> = excluded.iter().map(|&it| it.to_owned()).collect();
        let expected = Expected::from_manifests(namespace, &excluded).unwrap();
        let mut actual = expected.render(|_| true).unwrap();
        let mut lists = 0;
        for webhook in actual.webhooks.iter_mut().flatten() {
            let selector = webhook.namespace_selector.iter_mut();
            for expression in selector.flat_map(|it| it.match_expressions.iter_mut().flatten()) {
                if expression.key == "kubernetes.io/metadata.name" && expression.operator == "NotIn" {
                    // What a repair writes is what the chart writes.
                    assert_eq!(json!(expression.values), values, "{}", webhook.name);
                    // Written twice by hand, it is as good.
                    expression.values.as_mut().unwrap().push("kube-system".to_owned());
                    lists += 1;
                }
            }
        }
        assert_eq!(lists, 4, "in the base and in three components");
        assert_eq!(compare(&expected, Some(&actual)), []);
    }
}

#[test]
fn namespaces_that_a_component_takes_in_by_name_are_left_to_it_and_to_nobody_else() {
    let named = |operator: &str, names: &[&str]| json!({"key": "kubernetes.io/metadata.name", "operator": operator, "values": names});
    let expression = |value: &mut Value, webhook: usize, key: &str, by: Value| {
        let expressions = &mut value["webhooks"][webhook]["namespaceSelector"]["matchExpressions"];
        let expressions = expressions.as_array_mut().unwrap();
        *expressions.iter_mut().find(|it| it["key"] == key).unwrap() = by;
    };
    let mut value = deployed(&["closed."]);
    expression(
        &mut value,
        0,
        "leasehold.dev/failure",
        named("NotIn", &["shop", "bank"]),
    );
    expression(
        &mut value,
        2,
        "leasehold.dev/failure",
        named("In", &["bank", "shop"]),
    );
    assert_eq!(problems(&value), []);
    // The bank is left out by one and not taken in by the other.
    expression(
        &mut value,
        2,
        "kubernetes.io/metadata.name",
        named("In", &["shop"]),
    );
    assert_eq!(kinds(&value), [ProblemKind::NamespaceSelector]);
}

fn problems_where_registered(registered: &[&str], value: &Value) -> Vec<(ProblemKind, String)> {
    let registered: Vec<_> = registered.iter().map(|it| it.parse().unwrap()).collect();
    let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
    let expected = expected.with_registered(&registered).unwrap();
    let actual = serde_json::from_value(value.clone()).unwrap();
    let found = compare(&expected, Some(&actual));
    found.into_iter().map(|it| (it.kind, it.webhook)).collect()
}

/// Without its flag nobody could tell that the component was ever there.
#[track_caller]
fn is_missed_once_it_is_deleted(webhook: &str) {
    assert_eq!(
        problems_where_registered(&[webhook], &deployed(&[webhook])),
        [],
        "while it is there"
    );
    // All that it added is gone with it, as if it had never been chosen.
    let without = deployed(&[]);
    assert_eq!(problems(&without), []);
    assert_eq!(
        problems_where_registered(&[webhook], &without),
        [(ProblemKind::WebhookMissing, webhook.to_owned())]
    );
}

#[test]
fn the_webhook_of_annotation_locks_is_missed() {
    is_missed_once_it_is_deleted("annotation-locks.leasehold.dev");
}

#[test]
fn the_webhook_of_kube_system_is_missed() {
    is_missed_once_it_is_deleted("kube-system.leases.leasehold.dev");
}

#[test]
fn the_webhook_of_watch_full_is_missed() {
    is_missed_once_it_is_deleted("renewals.leases.leasehold.dev");
}

#[test]
fn the_webhook_of_fail_closed_is_missed_and_with_it_the_namespaces_that_the_base_leaves_to_it() {
    let webhook = "closed.leases.leasehold.dev";
    is_missed_once_it_is_deleted(webhook);
    let mut value = deployed(&[webhook]);
    value["webhooks"].as_array_mut().unwrap().pop();
    assert_eq!(
        problems_where_registered(&[webhook], &value),
        [
            (ProblemKind::NamespaceSelector, "leases.leasehold.dev".to_owned()),
            (ProblemKind::WebhookMissing, webhook.to_owned()),
        ]
    );
}

#[test]
fn no_selector_by_name_turns_fail_into_ignore_where_the_choice_was_said() {
    let closed = "closed.leases.leasehold.dev";
    let chosen = |names: Value| {
        let mut value = deployed(&["closed."]);
        for (webhook, operator) in [(0, "NotIn"), (2, "In")] {
            let expressions = &mut value["webhooks"][webhook]["namespaceSelector"]["matchExpressions"];
            let expressions = expressions.as_array_mut().unwrap();
            let expression = expressions
                .iter_mut()
                .find(|it| it["key"] == "leasehold.dev/failure");
            *expression.unwrap() =
                json!({"key": "kubernetes.io/metadata.name", "operator": operator, "values": names});
        }
        value
    };
    let drifted = [
        (ProblemKind::NamespaceSelector, "leases.leasehold.dev".to_owned()),
        (ProblemKind::NamespaceSelector, closed.to_owned()),
    ];
    // By label, as the component has it: both were rewritten to agree with each other.
    assert_eq!(
        problems_where_registered(&[closed], &chosen(json!(["nowhere"]))),
        drifted
    );
    // By name, as the chart may have it.
    let said = [&*format!("{closed}=bank"), &format!("{closed}=shop")];
    assert_eq!(
        problems_where_registered(&said, &chosen(json!(["shop", "bank"]))),
        []
    );
    assert_eq!(
        problems_where_registered(&said, &chosen(json!(["shop"]))),
        drifted
    );
    assert_eq!(problems_where_registered(&said, &deployed(&["closed."])), drifted);
}
