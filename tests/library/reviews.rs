//! What a real API server's reviews are answered.

use serde_json::Value;

use crate::fixtures::{instant, judge, response, review};

fn answer(policy: &str, name: &str) -> Value {
    let review = review(name);
    let (answer, _) = judge(policy, review.to_string().as_bytes(), instant(&review));
    response(&answer, &review)
}

#[test]
fn each_captured_review_gets_its_verdict() {
    let denied = [
        ("label-with-forged-stamps", "stamp-tampered: "),
        // Captured with the token of the holder's sibling.
        ("release-by-nulls", "foreign-release: "),
        ("takeover-by-apply", "takeover-before-expiry: "),
        ("takeover-cleared-stamps", "stamp-tampered: "),
        ("takeover-early", "takeover-before-expiry: "),
        ("takeover-early-dry-run", "takeover-before-expiry: "),
        ("takeover-forged-stamps", "takeover-before-expiry: "),
        ("takeover-holder-only", "takeover-before-expiry: "),
        ("takeover-lying-clock", "takeover-before-expiry: "),
    ];
    for (file, _) in crate::fixtures::all() {
        let name = file.trim_end_matches(".json");
        let response = answer("", name);
        match denied.iter().find(|(denied, _)| *denied == name) {
            None => assert_eq!(response["allowed"], true, "{name}: {response}"),
            Some((_, rule)) => {
                assert_eq!(response["allowed"], false, "{name}: {response}");
                assert_eq!(response["status"]["code"], 403);
                assert_eq!(response["status"]["reason"], "Forbidden");
                let message = response["status"]["message"].as_str().unwrap();
                assert!(message.contains(rule), "{name}: {message}");
            }
        }
    }
    assert_eq!(answer("", "takeover-after-expiry")["allowed"], true);
}

#[test]
fn a_denial_names_the_rule_the_numbers_and_where_to_read_more() {
    let message = answer("", "takeover-early")["status"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "takeover-before-expiry: \"payments-7d4b9c6f5-q8w4m_91c7\" may not take lease shop/payments from",
        "renewed 1 s ago (API server clock), valid for 15 s, free in 14 s at the earliest",
        "See: leasehold explain takeover-before-expiry",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains('\n'));
}

#[test]
fn audit_mode_allows_in_silence_and_says_what_would_be_denied() {
    let response = answer("mode: audit", "takeover-early");
    assert_eq!(response["allowed"], true);
    assert_eq!(response["warnings"], Value::Null, "the client is not told");
    assert_eq!(response["auditAnnotations"]["verdict"], "allow (would be denied)");
    assert_eq!(response["auditAnnotations"]["change"], "takeover");
    let violation = response["auditAnnotations"]["takeover-before-expiry"]
        .as_str()
        .unwrap();
    assert!(
        violation.starts_with("would be denied: \"payments-"),
        "{violation}"
    );
}

#[test]
fn a_rule_whose_action_is_warn_warns_the_client() {
    let response = answer(
        "rules: {takeover-before-expiry: {action: warn}}",
        "takeover-early",
    );
    assert_eq!(response["allowed"], true);
    let warnings = response["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .starts_with("takeover-before-expiry: \"payments-"),
        "{warnings:?}"
    );
    assert_eq!(response["auditAnnotations"]["verdict"], "warn");
}

#[test]
fn an_uneventful_renewal_gets_the_shortest_answer() {
    let response = answer("", "renew");
    let mut fields: Vec<_> = response.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["allowed", "uid"]);
}

#[test]
fn verdicts_are_counted() {
    let review = review("takeover-early");
    let (_, metrics) = judge("", review.to_string().as_bytes(), instant(&review));
    for line in [
        "leasehold_reviews_total{change=\"takeover\",purpose=\"timed\",verdict=\"deny\"} 1",
        "leasehold_reviews_total{change=\"takeover\",purpose=\"timed\",verdict=\"allow\"} 0",
        "leasehold_violations_total{rule=\"takeover-before-expiry\",decision=\"denied\"} 1",
        "leasehold_violations_total{rule=\"stamp-tampered\",decision=\"denied\"} 0",
        "leasehold_holder_changes_total{change=\"takeover\"} 0",
        "leasehold_takeover_evidence_total{kind=\"stamped\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in:\n{metrics}");
    }
}

#[test]
fn a_dry_run_is_judged_alike_and_changes_nothing() {
    let early = answer("", "takeover-early-dry-run");
    assert_eq!(early["allowed"], false);
    let mut late = review("takeover-after-expiry");
    late["request"]["dryRun"] = true.into();
    let (answer, metrics) = judge("", late.to_string().as_bytes(), instant(&late));
    assert_eq!(response(&answer, &late)["allowed"], true);
    assert!(
        metrics.contains("leasehold_holder_changes_total{change=\"takeover\"} 0\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("leasehold_dry_run_reviews_total 1\n"),
        "{metrics}"
    );
}

#[test]
fn what_is_no_lease_is_allowed_with_a_warning() {
    let mut pods = review("create");
    pods["request"]["resource"] = serde_json::json!({"group": "", "version": "v1", "resource": "pods"});
    let (answer, metrics) = judge("", pods.to_string().as_bytes(), instant(&pods));
    let response = response(&answer, &pods);
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("does not judge /v1/pods"),
        "{response}"
    );
    assert!(
        metrics.contains("leasehold_unguarded_reviews_total 1\n"),
        "{metrics}"
    );
}
