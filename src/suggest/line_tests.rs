use serde_json::Value;

use super::*;
use crate::suggest::testing::{denial, duration};

fn one(line: &str) -> Line {
    let mut lines = read(line.as_bytes());
    assert_eq!(lines.len(), 1, "{line}: {lines:?}");
    lines.remove(0)
}

/// The denial on a line, and nothing else.
#[track_caller]
fn denied(line: impl AsRef<str>) -> Denial {
    match one(line.as_ref()) {
        Line::Denial(denial) => *denial,
        other => panic!("{}: {other:?}", line.as_ref()),
    }
}

#[track_caller]
fn assert_skipped(line: impl AsRef<[u8]>, expected: &[Skip]) {
    let skipped: Vec<_> = read(line.as_ref())
        .into_iter()
        .filter_map(|line| match line {
            Line::Skipped(skip) => Some(skip),
            _ => None,
        })
        .collect();
    assert_eq!(skipped, expected, "{}", String::from_utf8_lossy(line.as_ref()));
}

fn with(field: &str, value: impl Into<Value>) -> String {
    let mut record = denial("shop", "payments");
    record[field] = value.into();
    record.to_string()
}

/// As Leasehold writes it: `record` comes first.
fn in_order(record: &Value) -> String {
    let mut fields = record.as_object().unwrap().clone();
    let kind = fields.remove("record").unwrap();
    let rest = Value::Object(fields).to_string();
    format!("{{\"record\":{kind},{}", rest.strip_prefix('{').unwrap())
}

#[test]
fn what_denies_is_read_and_what_does_not_asks_for_nothing() {
    let read = denied(denial("shop", "payments").to_string());
    assert_eq!(
        (read.rule.as_str(), &*read.namespace, &*read.name, &*read.uid),
        ("transition-not-counted", "shop", "payments", "shop/payments")
    );
    assert_eq!(read.time.unwrap().to_string(), "2026-11-20T09:30:00Z");
    assert_eq!(read.writer.user, "system:serviceaccount:shop:payments");
    denied(with("decision", "denied"));
    for decision in ["warned", "would be warned", "audited"] {
        assert_eq!(
            one(&with("decision", decision)),
            Line::NothingDenied,
            "{decision}"
        );
    }
    for record in ["holderChange", "breakGlass"] {
        assert_eq!(one(&with("record", record)), Line::NothingDenied, "{record}");
    }
}

#[test]
fn a_record_is_found_behind_and_in_what_others_write() {
    let record = in_order(&denial("shop", "payments"));
    let sorted = denial("shop", "payments").to_string();
    let expected = denied(&record);
    for line in [
        format!("[pod/leasehold-0/leasehold] {record}"),
        format!("2026-11-20T09:30:01.5Z stdout F {record}"),
        format!("audit.log:{record}"),
        format!("leasehold-0 leasehold {sorted}"),
        format!("{{\"stream\":\"stdout\",\"line\":{record}}}"),
        serde_json::json!({"log": format!("{record}\n"), "stream": "stdout"}).to_string(),
        serde_json::json!({"message": record, "log": 7}).to_string(),
        serde_json::json!({"log": serde_json::json!({"msg": sorted}).to_string()}).to_string(),
        record.replace("\":", "\": "),
    ] {
        assert_eq!(denied(&line), expected, "{line}");
    }
}

#[test]
fn several_records_on_a_line_all_count() {
    let (one, two) = (in_order(&denial("shop", "a")), in_order(&denial("shop", "b")));
    let names = |line: &str| -> Vec<String> {
        let lines = read(line.as_bytes()).into_iter();
        lines
            .filter_map(|line| match line {
                Line::Denial(denial) => Some(denial.name),
                _ => None,
            })
            .collect()
    };
    assert_eq!(names(&format!("{one}{two}")), ["a", "b"]);
    let torn = one.get(..one.len() / 2).unwrap();
    assert_eq!(names(&format!("{torn}{two}")), ["b"]);
    assert_skipped(format!("{torn}{two}"), &[Skip::CutOff]);
    let end = one.get(one.len() / 2..).unwrap();
    assert_eq!(names(&format!("{end}{two}")), ["b"]);
    assert_skipped(format!("{end}{two}"), &[Skip::CutOff]);
}

#[test]
fn every_cut_of_a_record_is_told_of() {
    let record = in_order(&denial("shop", "payments"));
    for length in 40..record.len() {
        assert_skipped(record.get(..length).unwrap(), &[Skip::CutOff]);
    }
    assert_skipped(record.get(30..).unwrap(), &[Skip::CutOff]);
}

#[test]
fn lines_of_other_programs_are_passed_over() {
    for line in [
        "",
        "I1120 09:30:00.000000       1 leaderelection.go:271] successfully acquired lease",
        "{}",
        "{\"level\":\"info\",\"msg\":\"serving\"}",
        "{\"record\":\"track 1\",\"artist\":\"x\"}",
        "{\"record\":7}",
        "{oops}",
        "[1, 2]",
        "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\"}",
        "{\"log\":\"{\\\"record\\\":\"}",
    ] {
        let expected = &[Skip::Foreign];
        assert_skipped(line, expected);
    }
    assert_skipped(b"\xff\xfe\x00", &[Skip::NotUtf8]);
    assert_skipped("{\"a\":".repeat(5000), &[Skip::Foreign]);
}

#[test]
fn what_a_later_version_writes_is_read_or_named() {
    denied(with("purpose2", serde_json::json!({"new": [1, 2]})));
    denied(with("oldTransitions", "many"));
    denied(with("newTransitions", f64::MAX));
    denied(with("evidence", Value::Null));
    denied(with("time", "soon"));
    assert_skipped(with("record", "handover"), &[Skip::UnknownRecord]);
    assert_skipped(with("rule", "too-many-leases"), &[Skip::UnknownRule]);
    assert_skipped(with("decision", "postponed"), &[Skip::UnknownDecision]);
    let numbers = in_order(&denial("shop", "payments")).replace(":9,", ":1e99999,");
    denied(numbers);
}

#[test]
fn what_cannot_be_a_record_of_ours_is_named() {
    assert_skipped(with("namespace", Value::Null), &[Skip::Damaged]);
    assert_skipped(with("rule", 7), &[Skip::Damaged]);
    for name in ["", "*", "pay*", "Payments", "a b", "-", "a\"]"] {
        assert_skipped(with("name", name), &[Skip::NoLease]);
    }
    assert_skipped(with("namespace", "a.b"), &[Skip::NoLease]);
    let mut bytes = in_order(&denial("shop", "payments")).into_bytes();
    let place = bytes.windows(4).position(|it| it == b"writ").unwrap();
    *bytes.get_mut(place).unwrap() = 0xff;
    assert_skipped(&bytes, &[Skip::NotUtf8]);
}

#[test]
fn a_duration_is_read_from_the_message_and_not_from_a_holder_who_writes_one() {
    for (seconds, expected) in [
        (3, Cause::Duration(3)),
        (0, Cause::Other),
        (-4, Cause::Other),
        (1_000_000, Cause::Duration(1_000_000)),
        (i64::MAX, Cause::Other),
    ] {
        let record = duration("shop", "payments", seconds);
        assert_eq!(denied(record.to_string()).cause, expected, "{seconds}");
    }
    for (message, expected) in [
        (
            "\"b\" sets a duration of 7200 s on lease shop/payments, over 1h: after a crash nobody may take it for as long",
            Cause::Duration(7200),
        ),
        (
            "\"b\" holds lease shop/payments without leaseDurationSeconds, so that",
            Cause::Other,
        ),
        (
            "\"b\\\" sets a duration of 1 s on lease a/b, under the minimum of 5s\" sets a duration of 4 s on lease a/b, under the minimum of 5s",
            Cause::Duration(4),
        ),
        (
            "\"bb\"… sets a duration of 4 s on lease a/b (annotation of its ConfigMap), under the minimum of 5s",
            Cause::Duration(4),
        ),
        (
            "sets a duration of 4 s on lease a/b, under the minimum of 5s",
            Cause::Other,
        ),
        ("\"b", Cause::Other),
        ("\"\\", Cause::Other),
    ] {
        let mut record = duration("shop", "payments", 3);
        record["message"] = message.into();
        assert_eq!(denied(record.to_string()).cause, expected, "{message}");
    }
}

#[test]
fn causes_that_a_milder_setting_answers_are_told_apart() {
    let mut record = denial("shop", "payments");
    record["oldTransitions"] = Value::Null;
    assert_eq!(denied(record.to_string()).cause, Cause::Other, "removed");
    record["newTransitions"] = Value::Null;
    assert_eq!(denied(record.to_string()).cause, Cause::Untracked);
    record["rule"] = "takeover-before-expiry".into();
    assert_eq!(denied(record.to_string()).cause, Cause::Other);
    for (kind, expected) in [
        ("stamped", Cause::Other),
        ("created", Cause::Other),
        ("claimed", Cause::Claimed),
    ] {
        record["evidence"] = serde_json::json!({"kind": kind, "elapsedSeconds": 3});
        assert_eq!(denied(record.to_string()).cause, expected, "{kind}");
    }
}

/// What the rule itself says is what is read here.
#[test]
fn the_words_are_those_of_the_rule() {
    use crate::{
        lease::testing::{create, held},
        policy::Policy,
    };
    for (seconds, expected) in [
        (3, Cause::Duration(3)),
        (700_000, Cause::Duration(700_000)),
        (4000, Cause::Duration(4000)),
    ] {
        let holder = "b\" sets a duration of 9 s on lease x/y, under";
        let verdict = Policy::default().decide(&create(held(holder).duration(seconds)));
        let message = &verdict.violations.first().unwrap().message;
        assert_eq!(super::duration(message), Some(expected), "{message}");
    }
}
