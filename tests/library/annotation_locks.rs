//! Reviews of locks in annotations: the same rules, by the same evidence.

use leasehold::lease::annotation_lock;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{judge, response};

const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// A ConfigMap or Endpoints object with this annotation, last written by `manager` at this second of 2026-11-20.
fn object(record: Option<&str>, manager: &str, second: u32) -> Value {
    let mut metadata = json!({
        "namespace": "shop", "name": "payments", "creationTimestamp": "2026-11-01T00:00:00Z",
        "managedFields": [
            {"manager": "other", "operation": "Update", "time": "2026-11-20T09:59:59Z", "fieldsV1": {"f:data": {"f:x": {}}}},
        ],
    });
    if let Some(record) = record {
        metadata["annotations"] = json!({LEADER: record, "unrelated": "{"});
        let entry = json!({
            "manager": manager, "operation": "Update", "time": format!("2026-11-20T09:00:{second:02}Z"),
            "fieldsV1": {"f:metadata": {"f:annotations": {".": {}, (format!("f:{LEADER}")): {}}}},
        });
        metadata["managedFields"].as_array_mut().unwrap().push(entry);
    }
    json!({"metadata": metadata, "data": {"spec": "not one"}})
}

fn review(resource: &str, old: &Value, new: &Value) -> Value {
    let operation = match (old.is_null(), new.is_null()) {
        (true, _) => "CREATE",
        (_, true) => "DELETE",
        _ => "UPDATE",
    };
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "6b0a", "resource": {"group": "", "version": "v1", "resource": resource},
            "namespace": "shop", "name": "payments", "operation": operation,
            "userInfo": {"username": "b", "groups": ["system:authenticated"]},
            "oldObject": old, "object": new,
        },
    })
}

/// The response, and the count of malformed records and of reviews of what is not judged.
fn judged(review: &Value) -> (Value, [bool; 2]) {
    let now = "2026-11-20T09:00:50Z".parse().unwrap();
    let (answer, metrics) = judge("", review.to_string().as_bytes(), now);
    let counted = |name: &str| {
        let zero = format!("leasehold_{name}_total 0\n");
        let one = format!("leasehold_{name}_total 1\n");
        assert!(metrics.contains(&zero) != metrics.contains(&one), "{metrics}");
        metrics.contains(&one)
    };
    (
        response(&answer, review),
        [counted("malformed_records"), counted("unguarded_reviews")],
    )
}

/// The record of `holder` in each dialect, renewed at this second by its own word.
fn dialects(holder: &str, transitions: i32, second: u32) -> [String; 3] {
    let time = format!("2026-11-20T09:00:{second:02}");
    [
        format!(
            r#"{{"holderIdentity":"{holder}","leaseDurationSeconds":15,"acquireTime":"{time}Z","renewTime":"{time}Z","leaderTransitions":{transitions}}}"#
        ),
        format!(
            r#"{{"holderIdentity":"{holder}","leaseDuration":15.000000000,"acquireTime":"{time}.000001Z","renewTime":"{time}.000001Z","leaderTransitions":{transitions}}}"#
        ),
        format!(
            r#"{{"holderIdentity": "{holder}", "leaseDurationSeconds": "15", "acquireTime": "2026-11-20 04:00:{second:02}.5", "renewTime": "2026-11-20 04:00:{second:02}.5"}}"#
        ),
    ]
}

#[test]
fn an_early_takeover_is_denied_in_every_dialect_and_one_that_waited_is_not() {
    for (resource, kind) in [("configmaps", "ConfigMap"), ("endpoints", "Endpoints")] {
        for (waited, allowed) in [(4, false), (13, false), (14, true), (15, true)] {
            for (old, new) in dialects("a", 3, 10).iter().zip(&dialects("b", 4, 10 + waited)) {
                let review = review(
                    resource,
                    &object(Some(old), "m", 10),
                    &object(Some(new), "m", 10 + waited),
                );
                let (response, counted) = judged(&review);
                assert_eq!(response["allowed"], allowed, "{new} after {waited} s: {response}");
                assert_eq!(counted, [false, false]);
                if !allowed {
                    let left = 15 - waited;
                    let expected = format!(
                        "takeover-before-expiry: \"b\" may not take lease shop/payments (annotation of its {kind}) from \
                         \"a\" yet: renewed {waited} s ago (API server clock), valid for 15 s, free in {left} s at the \
                         earliest. See: leasehold explain takeover-before-expiry"
                    );
                    let message = response["status"]["message"].as_str().unwrap();
                    assert!(message.starts_with(&expected), "{message}");
                }
            }
        }
    }
}

#[test]
fn no_spelling_of_the_holder_that_go_reads_hides_an_early_takeover() {
    let [before, ..] = dialects("a", 3, 10);
    let [after, ..] = dialects("b", 4, 14);
    let old = object(Some(&before), "m", 10);
    for spelling in [
        r#""HolderIdentity":"b""#,
        r#""holderidentity":"b""#,
        r#""holderIdentity":"b","holderIdentity":null"#,
        r#""holderIdentity":"a","HOLDERIDENTITY":"b""#,
        r#""HOLDERIDENTITY":null,"holder\u0049dentity":"b","HolderIdentity":null"#,
    ] {
        let taken = after.replace(r#""holderIdentity":"b""#, spelling);
        let (response, counted) = judged(&review("configmaps", &old, &object(Some(&taken), "m", 14)));
        assert_eq!(response["allowed"], false, "{taken}");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("takeover-before-expiry: \"b\" may not take"),
            "{message}"
        );
        assert_eq!(counted, [false, false]);
    }
}

#[test]
fn an_honest_life_raises_no_denial() {
    for dialect in 0..3 {
        let record =
            |holder, transitions, second| dialects(holder, transitions, second).into_iter().nth(dialect);
        let created = object(record("a", 0, 10).as_deref(), "m", 10);
        let renewed = object(record("a", 0, 12).as_deref(), "m", 12);
        let taken = object(record("b", 1, 30).as_deref(), "m", 30);
        let bare = object(None, "m", 0);
        for (old, new) in [
            (&Value::Null, &created),
            (&bare, &created),
            (&created, &renewed),
            (&renewed, &taken),
            (&taken, &Value::Null),
        ] {
            let (response, counted) = judged(&review("configmaps", old, new));
            assert_eq!(response["allowed"], true, "{dialect}: {response}");
            assert_eq!(counted, [false, false]);
        }
    }
}

#[test]
fn stamps_of_an_annotation_are_guarded_too() {
    let [record, ..] = dialects("a", 3, 10);
    let old = object(Some(&record), "m", 10);
    for (second, allowed) in [(10, true), (50, true), (9, false), (59, false)] {
        let (response, _) = judged(&review("configmaps", &old, &object(Some(&record), "m", second)));
        assert_eq!(response["allowed"], allowed, "{second}: {response}");
    }
    let mut cleared = old.clone();
    cleared["metadata"]["managedFields"] = json!([]);
    let (response, _) = judged(&review("configmaps", &old, &cleared));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("stamp-tampered: "), "{message}");
}

#[test]
fn objects_without_a_record_pass_in_silence() {
    let bare = object(None, "m", 0);
    for (old, new) in [(&Value::Null, &bare), (&bare, &bare), (&bare, &Value::Null)] {
        let (response, counted) = judged(&review("configmaps", old, new));
        assert_eq!(response, json!({"uid": "6b0a", "allowed": true}));
        assert_eq!(counted, [false, false]);
    }
}

#[test]
fn a_malformed_record_is_allowed_warned_of_and_counted_on_either_side() {
    let [record, ..] = dialects("a", 3, 10);
    let good = object(Some(&record), "m", 10);
    let bad = object(Some("{\"holderIdentity\":\"secret\""), "m", 11);
    for (old, new) in [
        (&good, &bad),
        (&bad, &good),
        (&Value::Null, &bad),
        (&bad, &Value::Null),
        (&bad, &bad),
    ] {
        let (response, counted) = judged(&review("configmaps", old, new));
        assert_eq!(response["allowed"], true, "{response}");
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("cannot be read (it is not a JSON object (line 1, column 26))"),
            "{warning}"
        );
        assert!(!response.to_string().contains("secret"), "{response}");
        assert_eq!(counted, [true, false]);
    }
}

/// Text that is nearly a record, so that mistakes deep in it are tried too.
fn nearly_a_record() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("holderIdentity"),
        Just("leaseDurationSeconds"),
        Just("leaseDuration"),
        Just("acquireTime"),
        Just("renewTime"),
        Just("leaderTransitions"),
        Just("more"),
    ];
    let value = prop_oneof![
        any::<String>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "-?[0-9]{1,5}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{0,15}(Z|[+-][0-9:]{1,5})?".prop_map(Value::from),
        "-?[0-9]{1,30}(\\.[0-9]{0,9})?(e[0-9]{1,4})?".prop_map(Value::from),
        Just(json!([[null, {}]])),
        Just(Value::Null),
    ];
    prop::collection::vec((key, value), 0..8).prop_map(|fields| {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(key, value)| format!("\"{key}\": {value}"))
            .collect();
        format!("{{{}}}", fields.join(", "))
    })
}

proptest! {
    #[test]
    fn no_annotation_can_hurt(
        old in prop_oneof![any::<String>(), nearly_a_record()],
        new in prop_oneof![any::<String>(), nearly_a_record()],
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = new.char_indices().nth(cut.index(new.chars().count().max(1))).map_or(0, |(at, _)| at);
        for new in [new.as_str(), &new[..cut]] {
            let review = review("endpoints", &object(Some(&old), "m", 10), &object(Some(new), "m", 12));
            let (response, [malformed, _]) = judged(&review);
            let unreadable = annotation_lock::parse(&old).is_err() || annotation_lock::parse(new).is_err();
            prop_assert_eq!(malformed, unreadable);
            prop_assert!(!unreadable || response["allowed"] == true, "{}", response);
        }
    }
}

#[test]
fn the_longest_annotations_that_the_api_server_stores_are_read() {
    // The sum of all annotations may be 256 KiB (k8s.io/apimachinery/pkg/api/validation).
    let long = 256 * 1024;
    for (value, readable) in [
        ("[".repeat(long), false),
        ("{\"x\":".repeat(long / 5), false),
        (
            format!("{{\"leaderTransitions\":{}}}", "9".repeat(long - 22)),
            false,
        ),
        ("\\".repeat(long), false),
        (
            format!(
                "{{\"leaderTransitions\":3,\"renewTime\":\"2026-11-18T09:00:00Z\",\"holderIdentity\":\"{}\"}}",
                "a".repeat(long - 78)
            ),
            true,
        ),
        (
            format!("{{\"x\":{}1{}}}", "[".repeat(long / 3), "]".repeat(long / 3)),
            true,
        ),
    ] {
        let review = review("configmaps", &Value::Null, &object(Some(&value), "m", 10));
        let (response, [malformed, _]) = judged(&review);
        assert_eq!(malformed, !readable, "{}", &value[..30]);
        // Held by somebody, counted, and without a duration: what is long is judged like what is short, and answered in brief.
        assert_eq!(response["allowed"], !value.contains("holderIdentity"));
        assert!(
            response.to_string().len() < 4096,
            "{}",
            response.to_string().len()
        );
    }
}
