//! An operator takes a lease by hand: what the client, the audit logs and the metrics are told.

use leasehold::{
    admission::{Subject, decode},
    audit::AuditRecord,
    policy::Policy,
};
use serde_json::{Value, json};

use crate::fixtures::{instant, judge, response, review};

/// The early takeover by another user, with a reason if there is one.
fn early(user: &str, group: &str, reason: Option<&str>) -> Value {
    let mut review = review("takeover-early");
    let request = &mut review["request"];
    request["userInfo"] = json!({"username": user, "groups": [group, "system:authenticated"]});
    if let Some(reason) = reason {
        request["object"]["metadata"]["annotations"] = json!({"leasehold.dev/break-glass": reason});
    }
    review
}

fn answer(policy: &str, review: &Value) -> (Value, String) {
    let (answer, metrics) = judge(policy, review.to_string().as_bytes(), instant(review));
    (response(&answer, review), metrics)
}

/// The audit log's lines on this review.
fn audit(policy: &str, review: &Value) -> Vec<Value> {
    let body = review.to_string();
    let attempt = decode(body.as_bytes(), instant(review)).unwrap();
    let Subject::Lease(write) = &attempt.subject else {
        panic!("{review}")
    };
    let verdict = Policy::parse(policy).unwrap().decide(write);
    AuditRecord::of(&attempt, write, &verdict)
        .map(|record| serde_json::to_value(record).unwrap())
        .collect()
}

#[test]
fn an_operator_passes_and_everybody_is_told_who_and_why() {
    let review = early("alice", "system:masters", Some("node 7 is lost"));
    let (response, metrics) = answer("", &review);
    assert_eq!(response["allowed"], true);
    let warnings: Vec<_> = response["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect();
    assert_eq!(
        warnings[0],
        "break-glass: user \"alice\" of group system:masters passes where others are denied, and the audit log says so; \
         reason: \"node 7 is lost\""
    );
    assert!(
        warnings[1].starts_with("takeover-before-expiry: "),
        "what was wrong is still said: {warnings:?}"
    );
    let annotations = &response["auditAnnotations"];
    assert_eq!(
        annotations["break-glass"],
        "used: user \"alice\", group system:masters: reason: \"node 7 is lost\""
    );
    assert_eq!(annotations["verdict"], "warn");
    assert!(
        metrics.contains("leasehold_break_glass_total{outcome=\"used\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("leasehold_violations_total{rule=\"takeover-before-expiry\",decision=\"warned\"} 1"),
        "{metrics}"
    );

    let lines = audit("", &review);
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["record"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["violation", "breakGlass", "holderChange"]);
    for line in &lines {
        assert_eq!(line["user"], "alice");
        assert_eq!(line["breakGlass"], "used");
        assert_eq!(line["breakGlassGroup"], "system:masters");
        assert_eq!(line["breakGlassReason"], "node 7 is lost");
        assert_eq!(line["verdict"], "warn");
    }
    assert_eq!(
        (&lines[0]["action"], &lines[0]["decision"]),
        (&json!("enforce"), &json!("warned"))
    );
}

#[test]
fn the_annotation_of_anybody_else_changes_nothing_and_is_logged() {
    let plain = early("bob", "developers", None);
    let annotated = early("bob", "developers", Some("let me"));
    let (without, metrics) = answer("", &plain);
    let (with, metrics_with) = answer("", &annotated);
    assert_eq!(without["allowed"], false);
    assert_eq!(with["allowed"], false);
    assert_eq!(with["status"], without["status"], "it changes nothing");
    let warnings = with["warnings"].to_string();
    assert!(
        warnings.contains("leasehold.dev/break-glass changes nothing"),
        "{warnings}"
    );
    assert_eq!(
        with["auditAnnotations"]["break-glass"],
        "refused: user \"bob\", group none: reason: \"let me\""
    );
    for outcome in ["used", "unneeded", "refused"] {
        assert!(
            metrics.contains(&format!("leasehold_break_glass_total{{outcome=\"{outcome}\"}} 0")),
            "{metrics}"
        );
    }
    assert!(
        metrics_with.contains("leasehold_break_glass_total{outcome=\"refused\"} 1"),
        "{metrics_with}"
    );
    let lines = audit("", &annotated);
    assert!(
        lines.iter().all(|line| line["breakGlass"] == "refused"),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line["record"] == "breakGlass"),
        "{lines:?}"
    );
}

#[test]
fn in_mode_audit_no_client_is_told() {
    for (user, group) in [("alice", "system:masters"), ("bob", "developers")] {
        let (response, _) = answer("mode: audit", &early(user, group, Some("because")));
        assert_eq!(
            (&response["allowed"], &response["warnings"]),
            (&json!(true), &Value::Null)
        );
        assert!(
            response["auditAnnotations"]["break-glass"].is_string(),
            "{response}"
        );
    }
}

#[test]
fn the_api_servers_own_takeover_is_no_operators() {
    let (response, _) = answer("", &early("system:apiserver", "system:masters", None));
    assert_eq!(response["allowed"], false, "{response}");
}

#[test]
fn a_reason_of_any_bytes_is_said_in_one_line() {
    for reason in ["a\n\"b\"\u{202e}\u{0}", &"x".repeat(200_000)] {
        let (response, _) = answer("", &early("alice", "system:masters", Some(reason)));
        assert_eq!(response["allowed"], true);
        for text in [
            &response["warnings"][0],
            &response["auditAnnotations"]["break-glass"],
        ] {
            let text = text.as_str().unwrap();
            assert!(
                !text.contains('\n') && !text.contains('\u{202e}') && text.len() < 600,
                "{text}"
            );
        }
    }
}

#[test]
fn overrides_hold_for_reviews_as_they_come() {
    let review = review("takeover-early");
    let labelled = "overrides: [{match: {labels: {app: shop}}, mode: audit}]";
    assert_eq!(answer(labelled, &review).0["allowed"], true);
    let mut exempting = review.clone();
    exempting["request"]["oldObject"]["metadata"]["labels"] = Value::Null;
    assert_eq!(
        answer(labelled, &exempting).0["allowed"],
        false,
        "the label comes with the write"
    );
    let named = |pattern: &str| {
        format!("overrides: [{{match: {{namespaces: [sh*], names: [{pattern}]}}, mode: audit}}]")
    };
    assert_eq!(answer(&named("pay*s"), &review).0["allowed"], true);
    assert_eq!(answer(&named("pay*x"), &review).0["allowed"], false);
}
