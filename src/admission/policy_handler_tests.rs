use serde_json::{Value, json};

use super::*;
use crate::policy::BREAK_GLASS_ANNOTATION;

const GOOD: &str = "mode: audit\n";
const BAD: &str = "mode: enforce\nrules:\n  takeover-before-expiri: {action: warn}\n";

struct Case {
    operation: &'static str,
    old: Option<Value>,
    new: Option<Value>,
}

fn create(new: Value) -> Case {
    Case {
        operation: "CREATE",
        old: None,
        new: Some(new),
    }
}

fn update(old: Value, new: Value) -> Case {
    Case {
        operation: "UPDATE",
        old: Some(old),
        new: Some(new),
    }
}

fn holding(document: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"policy.yaml": document}})
}

fn because(reason: &str, mut config_map: Value) -> Value {
    config_map["metadata"]["annotations"][BREAK_GLASS_ANNOTATION] = reason.into();
    config_map
}

fn review(case: &Case) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "namespace": "system",
            "name": "policy",
            "operation": case.operation,
            "userInfo": {"username": "alice"},
            "object": case.new,
            "oldObject": case.old,
        },
    })
}

fn mk_handler() -> PolicyHandler {
    PolicyHandler::new(Some("system/policy".parse().unwrap()), Arc::new(Metrics::new()))
}

fn answer(handler: &PolicyHandler, review: &Value) -> Value {
    let answer = handler.handle(review.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

fn is_allowed(answer: &Value) -> bool {
    answer["response"]["allowed"].as_bool().unwrap()
}

#[test]
fn only_a_change_to_a_bad_document_is_denied() {
    let unlabelled = holding(BAD);
    let mut labelled = holding(BAD);
    labelled["metadata"]["labels"] = json!({"app": "guard"});
    let no_key = json!({"data": {"policy.yml": GOOD}});
    let cases = [
        ("a good one is created", create(holding(GOOD)), true),
        ("an empty one is the default", create(holding("")), true),
        ("a bad one is created", create(holding(BAD)), false),
        ("one without the key is created", create(no_key.clone()), false),
        ("one without data is created", create(json!({})), false),
        ("good to bad", update(holding(GOOD), holding(BAD)), false),
        ("bad to worse", update(holding(BAD), holding("mode: [")), false),
        ("bad to good", update(holding(BAD), holding(GOOD)), true),
        (
            "the key is taken away",
            update(holding(GOOD), no_key.clone()),
            false,
        ),
        ("a bad one is labelled", update(unlabelled, labelled), true),
        (
            "other keys change",
            update(no_key, json!({"data": {"more": "1"}})),
            true,
        ),
    ];
    for (name, case, allowed) in cases {
        let answer = answer(&mk_handler(), &review(&case));
        assert_eq!(is_allowed(&answer), allowed, "{name}: {answer}");
    }
}

#[test]
fn a_deletion_is_never_refused_whatever_is_deleted() {
    for old in [holding(BAD), holding(GOOD), json!({})] {
        let case = Case {
            operation: "DELETE",
            old: Some(old),
            new: None,
        };
        assert!(is_allowed(&answer(&mk_handler(), &review(&case))));
    }
}

#[test]
fn the_denial_has_the_words_of_policy_validate_with_line_and_column() {
    let answer = answer(&mk_handler(), &review(&create(holding(BAD))));
    let words = Policy::parse(BAD).unwrap_err().to_string();
    assert!(words.starts_with("line 3, column 3"), "{words}");
    assert_eq!(
        answer["response"]["status"]["message"],
        format!("ConfigMap system/policy, policy.yaml: {words}")
    );
    assert_eq!(answer["response"]["status"]["code"], 403);
    assert_eq!(answer["response"]["uid"], "u-1");
}

#[test]
fn the_write_that_gives_a_reason_passes_and_later_ones_do_not() {
    let excused = answer(
        &mk_handler(),
        &review(&update(holding(GOOD), because("for 0.2", holding(BAD)))),
    );
    assert!(is_allowed(&excused), "{excused}");
    let warnings = excused["response"]["warnings"].to_string();
    assert!(
        warnings.contains("break-glass: ") && warnings.contains("line 3, column 3"),
        "{warnings}"
    );

    for (name, case) in [
        (
            "the reason was there before",
            update(
                because("for 0.2", holding(GOOD)),
                because("for 0.2", holding(BAD)),
            ),
        ),
        ("an empty reason", create(because(" ", holding(BAD)))),
    ] {
        let answer = answer(&mk_handler(), &review(&case));
        assert!(!is_allowed(&answer), "{name}: {answer}");
    }
    let anew = update(
        because("for 0.2", holding(GOOD)),
        because("for 0.3", holding(BAD)),
    );
    assert!(is_allowed(&answer(&mk_handler(), &review(&anew))));
}

#[test]
fn no_other_object_is_judged() {
    let bad = create(holding(BAD));
    for (pointer, other) in [
        ("/request/name", "policy-2"),
        ("/request/namespace", "elsewhere"),
        ("/request/resource/resource", "secrets"),
        ("/request/resource/group", "example.com"),
    ] {
        let mut review = review(&bad);
        *review.pointer_mut(pointer).unwrap() = other.into();
        let answer = answer(&mk_handler(), &review);
        assert!(is_allowed(&answer), "{pointer}: {answer}");
        assert!(
            answer["response"]["warnings"]
                .to_string()
                .contains("another policy")
        );
    }
    // The policy comes from a file.
    let handler = PolicyHandler::new(None, Arc::new(Metrics::new()));
    assert!(is_allowed(&answer(&handler, &review(&bad))));
}

#[test]
fn what_is_no_review_is_told_so() {
    let mut odd = review(&create(holding(GOOD)));
    odd["request"]["operation"] = "PATCH".into();
    let mut incomplete = review(&create(holding(GOOD)));
    incomplete["request"]["object"] = Value::Null;
    for (body, said) in [
        ("".to_owned(), "the body is empty"),
        ("{}".to_owned(), "expected kind AdmissionReview"),
        (odd.to_string(), "request.operation"),
        (incomplete.to_string(), "request.object is missing"),
    ] {
        let answer = mk_handler().handle(body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn each_outcome_is_counted() {
    let handler = mk_handler();
    for case in [
        create(holding(GOOD)),
        create(holding(BAD)),
        create(because("for 0.2", holding(BAD))),
    ] {
        answer(&handler, &review(&case));
    }
    let text = handler.metrics.encode().unwrap();
    for (result, count) in [("allowed", 1), ("denied", 1), ("excused", 1), ("foreign", 0)] {
        let line = format!("leasehold_policy_reviews_total{{result=\"{result}\"}} {count}");
        assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
    }
}
