//! Whatever arrives, the answer is a verdict or a reason.

use leasehold::admission::Answer;
use serde_json::{Value, json};

use crate::fixtures::{instant, judge, response, review};

fn handle(body: &[u8]) -> Answer {
    judge("", body, instant(&review("takeover-early"))).0
}

#[track_caller]
fn refused(body: &[u8], reason: &str) {
    let answer = handle(body);
    assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&answer.body));
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains(reason), "{error:?} should say {reason:?}");
    assert!(
        !error.contains("struct"),
        "{error:?} speaks of what only programmers know"
    );
}

/// The early takeover with one change to it.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut review = review("takeover-early");
    change(&mut review["request"]);
    review
}

#[track_caller]
fn judged(change: impl FnOnce(&mut Value)) -> Value {
    let review = changed(change);
    response(&handle(review.to_string().as_bytes()), &review)
}

#[test]
fn what_is_no_review_is_refused_with_a_reason() {
    refused(b"", "the body is empty");
    refused(b" \n", "the body is empty");
    refused(b"{", "not an AdmissionReview: it is cut off");
    refused(b"not json", "it is no JSON object");
    refused(b"[]", "it is no JSON object");
    refused(b"null", "it is no JSON object");
    let list = json!([review("takeover-early"), review("takeover-early")]);
    refused(list.to_string().as_bytes(), "one review is expected, by itself");
    // What serde would take for the fields of a review, in their order.
    let fields = json!([
        "admission.k8s.io/v1",
        "AdmissionReview",
        review("takeover-early")["request"]
    ]);
    refused(fields.to_string().as_bytes(), "it is no JSON object");
    refused(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":"none"}"#,
        "expected an AdmissionRequest",
    );
    refused(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":[]}"#,
        "expected an AdmissionRequest",
    );
    refused(b"\xff\xfe{}", "not UTF-8");
    refused(b"{\"skipped\":\"\xff\"}", "not UTF-8");
    refused(b"{}", "found kind \"\" of \"\"");
    refused(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        "has no request",
    );
    refused(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#,
        "has no request",
    );
    refused(
        br#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
        "admission.k8s.io/v1beta1",
    );
    refused(
        br#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview"}"#,
        "ConversionReview",
    );
    refused(
        br#"{"apiVersion":1,"kind":"AdmissionReview"}"#,
        "expected a string",
    );
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    for (pointer, value, reason) in [
        (
            "/object/spec/leaseDurationSeconds",
            json!("abc"),
            "request.object.spec.leaseDurationSeconds: invalid type: string \"abc\", expected a whole number from -2147483648 to 2147483647",
        ),
        (
            "/oldObject/spec/leaseTransitions",
            json!(99_999_999_999_i64),
            "request.oldObject.spec.leaseTransitions: invalid value: integer `99999999999`, expected a whole number",
        ),
        (
            "/object/spec/renewTime",
            json!("soon"),
            "request.object.spec.renewTime: invalid value: string \"soon\", expected a time such as 2026-11-20T09:30:00Z",
        ),
        (
            "/object/metadata/managedFields",
            json!(5),
            "request.object.metadata.managedFields: invalid type: integer `5`, expected a list",
        ),
        (
            "/object/metadata/managedFields/0/manager",
            json!({}),
            "request.object.metadata.managedFields[0].manager: ",
        ),
        (
            "/uid",
            json!(7),
            "request.uid: invalid type: integer `7`, expected a string",
        ),
    ] {
        let bad = changed(|request| *request.pointer_mut(pointer).unwrap() = value.clone());
        refused(bad.to_string().as_bytes(), &format!("AdmissionReview: {reason}"));
    }
    // A name that a client chose is not repeated at any length.
    let long = changed(|request| {
        request["object"]["metadata"]["labels"] = json!({ "l".repeat(200): 5 });
    });
    refused(
        long.to_string().as_bytes(),
        "AdmissionReview: invalid type: integer `5`, expected a string",
    );
}

#[test]
fn a_review_cut_short_anywhere_is_refused() {
    let whole = review("takeover-early").to_string();
    for length in 1..whole.len() {
        refused(&whole.as_bytes()[..length], "it is cut off: EOF while parsing");
    }
    refused(format!("{whole} x").as_bytes(), "trailing characters");
}

#[test]
fn a_request_without_a_uid_is_never_answered_as_a_review() {
    for uid in [json!(""), Value::Null] {
        let without = changed(|request| request["uid"] = uid);
        let answer = handle(without.to_string().as_bytes());
        assert_eq!(answer.status, 400);
    }
    let without = changed(|request| {
        request.as_object_mut().unwrap().remove("uid");
    });
    refused(without.to_string().as_bytes(), "request.uid is missing");
}

#[test]
fn fields_of_the_wrong_kind_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 24] = [
        ("invalid type: integer `5`, expected a string", |request| {
            request["operation"] = 5.into();
        }),
        ("request.operation is \"PATCH\"", |request| {
            request["operation"] = "PATCH".into();
        }),
        ("request.operation is \"\"", |request| {
            request["operation"] = Value::Null;
        }),
        ("request.object is missing", |request| {
            request["object"] = Value::Null;
        }),
        ("request.oldObject is missing", |request| {
            request["oldObject"] = Value::Null;
        }),
        ("expected a string", |request| {
            request["object"]["spec"]["holderIdentity"] = 7.into();
        }),
        ("expected a whole number", |request| {
            request["object"]["spec"]["leaseTransitions"] = "1".into();
        }),
        ("expected a whole number", |request| {
            request["object"]["spec"]["leaseTransitions"] = 2_147_483_648_i64.into();
        }),
        ("expected a whole number", |request| {
            request["object"]["spec"]["leaseDurationSeconds"] = (-2_147_483_649_i64).into();
        }),
        ("expected a whole number", |request| {
            request["object"]["spec"]["leaseDurationSeconds"] = 1.5.into();
        }),
        ("expected a time", |request| {
            request["object"]["spec"]["renewTime"] = "yesterday".into();
        }),
        ("expected a time", |request| {
            request["oldObject"]["metadata"]["managedFields"][0]["time"] = "12:00".into();
        }),
        ("expected a time", |request| {
            request["oldObject"]["metadata"]["creationTimestamp"] = 0.into();
        }),
        ("expected a list", |request| {
            request["object"]["metadata"]["managedFields"] = json!({});
        }),
        ("expected a Lease's spec", |request| {
            request["object"]["spec"] = "none".into();
        }),
        ("expected an object with metadata and spec", |request| {
            request["object"] = "none".into();
        }),
        ("expected an object's metadata", |request| {
            request["oldObject"]["metadata"] = 1.into();
        }),
        ("expected an entry of managedFields", |request| {
            request["oldObject"]["metadata"]["managedFields"] = json!([1]);
        }),
        ("expected a set of fields", |request| {
            request["oldObject"]["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:spec": "x"}}]);
        }),
        ("expected a map of strings", |request| {
            request["object"]["metadata"]["annotations"] = json!("x");
        }),
        ("expected a map of strings", |request| {
            request["object"]["metadata"]["labels"] = json!("x");
        }),
        ("expected a user's name", |request| request["userInfo"] = 1.into()),
        ("expected a group, version and resource", |request| {
            request["resource"] = "leases".into();
        }),
        ("expected true or false", |request| {
            request["dryRun"] = "yes".into();
        }),
    ];
    for (reason, change) in cases {
        refused(changed(change).to_string().as_bytes(), reason);
    }
}

#[test]
fn duplicate_keys_are_refused_where_they_would_matter() {
    let body = review("takeover-early").to_string();
    for field in ["dryRun", "holderIdentity", "userInfo", "oldObject"] {
        let twice = body.replacen(
            &format!("\"{field}\":"),
            &format!("\"{field}\":null,\"{field}\":"),
            1,
        );
        assert_ne!(twice, body);
        refused(twice.as_bytes(), &format!("duplicate field `{field}`"));
    }
}

#[test]
fn deep_nesting_is_refused_or_skipped() {
    // Where nothing is read, nothing is built up: the value is skipped.
    let deep = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let body = review("takeover-early").to_string();
    let skipped = body.replacen(
        "\"dryRun\":",
        &format!("\"unknown\":{},\"dryRun\":", deep(50_000)),
        1,
    );
    assert_eq!(handle(skipped.as_bytes()).status, 200);
    let read = body.replacen(
        "\"kind\":\"AdmissionReview\"",
        &format!("\"kind\":{}", deep(50_000)),
        1,
    );
    refused(read.as_bytes(), "expected a string");
    refused("[".repeat(100_000).as_bytes(), "");
}

#[test]
fn what_the_api_server_would_accept_gets_a_verdict() {
    let denied = |response: &Value| response["allowed"] == false;
    // A Lease without a spec, before or after, is a free one.
    assert!(!denied(&judged(
        |request| request["oldObject"]["spec"] = Value::Null
    )));
    // By somebody of whom nobody can tell whether it is the holder. The lease is live and counted, so it must not lose both
    // fields by which it is known for an election.
    let emptied = |keep: Value| {
        [false, true].map(|removed| {
            denied(&judged(|request| {
                let object = request["object"].as_object_mut().unwrap();
                if removed && keep.is_null() {
                    object.remove("spec");
                } else {
                    object.insert("spec".to_owned(), keep.clone());
                }
                request["userInfo"].as_object_mut().unwrap().remove("extra");
            }))
        })
    };
    assert_eq!(emptied(Value::Null), [true, true]);
    assert_eq!(emptied(json!({"leaseTransitions": 3})), [false, false]);
    // Null fields are absent ones.
    for field in ["acquireTime", "renewTime", "strategy", "preferredHolder"] {
        assert!(
            denied(&judged(|request| request["object"]["spec"][field] = Value::Null)),
            "{field}"
        );
    }
    for field in ["labels", "annotations", "name"] {
        assert!(
            denied(&judged(
                |request| request["object"]["metadata"][field] = Value::Null
            )),
            "{field}"
        );
    }
    // No managedFields at all: nothing proves anything, and our clock stands in.
    let without = judged(|request| {
        for object in ["object", "oldObject"] {
            request[object]["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("managedFields");
        }
    });
    assert!(denied(&without), "it is younger than its own duration: {without}");
    // Entries without a time, without fields, of other fields.
    let entries = json!([{}, {"fieldsV1": {}}, {"time": null, "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]);
    let undated = judged(|request| request["oldObject"]["metadata"]["managedFields"] = entries);
    assert!(denied(&undated), "judged by its creation: {undated}");
    // Negative numbers never reach a webhook; here they are just out of bounds.
    let negative = judged(|request| request["object"]["spec"]["leaseDurationSeconds"] = (-5).into());
    assert!(
        negative["status"]["message"]
            .as_str()
            .unwrap()
            .contains("a duration of -5 s"),
        "{negative}"
    );
    let brick = judged(|request| request["object"]["spec"]["leaseTransitions"] = i32::MAX.into());
    assert!(
        brick["status"]["message"]
            .as_str()
            .unwrap()
            .contains("transition-overflow"),
        "{brick}"
    );
}

#[test]
fn the_latest_of_300_entries_counts() {
    let late = instant(&review("takeover-early"));
    let entry = |seconds: i64, field: &str| {
        let time = late
            .checked_sub(jiff::SignedDuration::from_secs(seconds))
            .unwrap();
        json!({"manager": format!("m{seconds}"), "operation": "Update", "time": time.to_string(),
               "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {field: {}}}})
    };
    let crowd = |newest: i64| -> Value {
        (0..300)
            .map(|index| entry(newest + index, "f:renewTime"))
            .collect()
    };
    let early = judged(|request| request["oldObject"]["metadata"]["managedFields"] = crowd(3));
    assert!(
        early["status"]["message"]
            .as_str()
            .unwrap()
            .contains("renewed 3 s ago"),
        "{early}"
    );
    let late = judged(|request| request["oldObject"]["metadata"]["managedFields"] = crowd(15));
    assert_eq!(late["allowed"], true, "{late}");
}

#[test]
fn identities_of_any_characters_are_quoted_in_one_line() {
    let odd = judged(|request| request["object"]["spec"]["holderIdentity"] = "a\"\n\u{202e}\u{7}ü".into());
    let message = odd["status"]["message"].as_str().unwrap();
    assert!(
        message.contains(r#""a\"\n\u{202e}\u{7}ü" may not take"#),
        "{message}"
    );
    let long = judged(|request| request["object"]["spec"]["holderIdentity"] = "x".repeat(100_000).into());
    assert!(
        long["status"]["message"].as_str().unwrap().len() < 1_500,
        "cut where nobody would read on"
    );
}
