//! `leasehold policy suggest`.

use std::{io::Write, process::Output};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{leasehold, stderr, stdout, temporary};

/// A record as mode audit writes it.
pub(crate) fn record(rule: &str, name: &str, uid: &str) -> String {
    json!({
        "record": "violation", "time": "2026-11-20T09:30:00Z", "uid": uid, "kind": "Lease", "namespace": "shop",
        "name": name, "change": "takeover", "purpose": "timed", "verdict": "allow", "mode": "audit", "rule": rule,
        "action": "enforce", "decision": "would be denied", "message": "what was wrong",
        "user": "system:serviceaccount:shop:payments", "pod": "payments-0", "oldTransitions": 3, "newTransitions": 3,
        "evidence": {"kind": "stamped", "elapsedSeconds": 4}, "dryRun": false,
    })
    .to_string()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn file(content: &[u8]) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let path = file.path().display().to_string();
    (file, path)
}

fn suggest(arguments: &[&str], input: &str) -> Output {
    leasehold(&[&["policy", "suggest"], arguments].concat(), input)
}

#[track_caller]
fn assert_told(output: &Output, code: i32, expected: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for expected in expected {
        assert!(told.contains(expected), "{expected:?} in:\n{told}");
    }
}

#[test]
fn its_policy_is_valid_and_refuses_nothing_more_of_the_log() {
    let log = [
        record("transition-not-counted", "payments", "1"),
        record("foreign-write", "payments", "2"),
        record("takeover-before-expiry", "payments", "3"),
    ]
    .join("\n");
    let first = suggest(&["-"], &log);
    assert_told(
        &first,
        1,
        &[
            "leasehold: 3 lines read: 3 denials (0 repeated, 1 that the policy allows already), 0 other records",
            "leasehold: takeover-before-expiry: not excused, 1 write to 1 lease: provably an attack or a bug",
            "leasehold: overrides added: 1\n",
        ],
    );
    let policy = stdout(&first);
    assert!(policy.contains("\nmode: enforce\n"), "{policy}");
    assert!(
        policy.contains("# Not excused: ") && policy.contains("# - shop/payments: 1 write"),
        "{policy}"
    );
    let valid = leasehold(&["policy", "validate", "-o", "json", "-"], &policy);
    assert_eq!(valid.status.code(), Some(0), "{}", stderr(&valid));
    let document: Value = serde_json::from_str(&stdout(&valid)).unwrap();
    assert_eq!(
        document["overrides"],
        json!([{
            "match": {"namespaces": ["shop"], "names": ["payments"]},
            "rules": {"transition-not-counted": {"action": "warn"}}
        }])
    );
    let added = temporary(&policy);
    let again = suggest(&["--policy-file", &added.path().display().to_string(), "-"], &log);
    assert_told(
        &again,
        0,
        &["2 that the policy allows already", "leasehold: nothing to add\n"],
    );
    assert_eq!(stdout(&again), policy);
}

#[test]
fn a_policy_keeps_its_text_and_comments() {
    let policy = temporary(
        "# Ours.\nmode: audit   # until Monday\noverrides:\n- match: {names: [a]} # why\n  mode: \"off\"\n",
    );
    let path = policy.path().display().to_string();
    let output = suggest(
        &["--policy-file", &path, "-"],
        &record("transition-not-counted", "payments", "1"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stdout(&output),
        "# Ours.\nmode: audit   # until Monday\noverrides:\n- match: {names: [a]} # why\n  mode: \"off\"\n\
         # transition-not-counted: 1 write to 1 lease, 2026-11-20T09:30:00Z.\n\
         # By system:serviceaccount:shop:payments, pod payments-0.\n\
         # Cost: the second of two candidates that both believe they won is not refused, and terms cannot be\n\
         #   told apart.\n\
         - match:\n    namespaces: [\"shop\"]\n    names: [\"payments\"]\n  rules: {transition-not-counted: {action: warn}}\n"
    );
    let bad = temporary("overrides: null\n");
    let path = bad.path().display().to_string();
    let output = suggest(
        &["--policy-file", &path, "-"],
        &record("transition-not-counted", "payments", "1"),
    );
    assert_told(
        &output,
        2,
        &[&format!(
            "leasehold: policy file {path}: overrides cannot be added to the text"
        )],
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn what_is_provably_wrong_is_excused_when_it_is_included_by_name() {
    let log = record("stamp-tampered", "payments", "1");
    assert_eq!(suggest(&["-"], &log).status.code(), Some(0));
    let output = suggest(
        &["--include", "foreign-release", "--include", "stamp-tampered", "-"],
        &log,
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("rules: {stamp-tampered: {action: warn}}\n"),
        "{}",
        stdout(&output)
    );
    let unknown = suggest(&["--include", "stamp-tamperd", "-"], &log);
    assert_told(
        &unknown,
        2,
        &[
            "invalid value 'stamp-tamperd' for '--include <RULE>'",
            "[possible values: takeover-before-expiry, transition-overflow, stamp-tampered, foreign-release]",
            "a similar value exists: 'stamp-tampered'",
        ],
    );
}

#[test]
fn logs_of_several_replicas_and_of_a_collector_are_read_at_once() {
    let one = record("transition-not-counted", "payments", "1");
    let two = record("transition-not-counted", "orders", "2");
    let (_kept, compressed) = file(&gzip(&format!("{one}\n{one}\n")));
    let (_kept, other) = file(format!("[pod/leasehold-1/leasehold] {two}\n{one}\n").as_bytes());
    let output = suggest(&["-o", "json", &compressed, &other], "");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let findings: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(findings["summary"]["denials"], 4);
    assert_eq!(findings["summary"]["duplicates"], 2);
    let suggestion = &findings["suggestions"][0];
    assert_eq!(suggestion["match"]["names"], json!(["orders", "payments"]));
    assert_eq!(
        (&suggestion["count"], &suggestion["leases"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(suggestion["widening"], "none");
    assert_eq!(suggestion["writers"][0]["pod"], "payments-0");
    assert_eq!(suggestion["firstSeen"], "2026-11-20T09:30:00Z");
}

#[test]
fn bad_input_is_named_and_keeps_nothing_else_from_being_judged() {
    let good = record("transition-not-counted", "payments", "1");
    let compressed = gzip(
        &(0..500)
            .map(|it| record("transition-not-counted", "orders", &it.to_string()) + "\n")
            .collect::<String>(),
    );
    let (_kept, cut) = file(&compressed[..compressed.len() - 20]);
    let (_kept, empty) = file(b"");
    let (_kept, whole) = file(good.as_bytes());
    let output = suggest(&["no-such-file.log", "/", &empty, &cut, &whole], "");
    assert_told(
        &output,
        2,
        &[
            "leasehold: no-such-file.log cannot be read: No such file",
            "leasehold: / cannot be read: Is a directory",
            &format!("leasehold: {empty}: holds no record of Leasehold's audit log"),
            &format!("leasehold: {cut} cannot be read after line "),
            ": its gzip is cut off or damaged: ",
            "leasehold: overrides added: 1, by what could be read\n",
        ],
    );
    assert!(
        stdout(&output).contains("names: [\"orders\", \"payments\"]"),
        "{}",
        stdout(&output)
    );

    let mut lines = Vec::new();
    lines.extend(b"I1120 leaderelection.go:271] acquired\n\n");
    lines.extend(&good.as_bytes()[..good.len() - 30]);
    lines.extend(b"\n\xff\xfe\n");
    lines.extend(vec![b'x'; 16 * 1024 * 1024 + 1]);
    lines.push(b'\n');
    lines.extend(record("a-rule-to-come", "payments", "2").as_bytes());
    lines.push(b'\n');
    lines.extend(good.replace("violation", "somethingNew").as_bytes());
    lines.push(b'\n');
    lines.extend(good.replace("\"payments\"", "\"*\"").as_bytes());
    lines.push(b'\n');
    lines.extend(good.replace(":3,", ":99999999999999999999999,").as_bytes());
    let (_kept, path) = file(&lines);
    let output = suggest(&[&path], "");
    let places =
        |reason: &str, line: usize| format!("leasehold: 1 skipped, {reason}; the first: {path}:{line}\n");
    assert_told(
        &output,
        2,
        &[
            "leasehold: 8 lines read: 1 denial (",
            &places("not of the audit log", 1),
            &places("cut off", 3),
            &places("not UTF-8", 4),
            &places("too long", 5),
            &places("denied by a rule that this version does not know", 6),
            &places("a kind of record that this version does not know", 7),
            &places("a denial that names no lease", 8),
            "overrides added: 1",
        ],
    );
}

#[test]
fn strict_stops_where_a_line_is_skipped() {
    let good = record("transition-not-counted", "payments", "1");
    let output = suggest(&["--strict", "-"], &format!("{good}\n\n{good}\nhello\n"));
    assert_told(
        &output,
        2,
        &["leasehold: -:4: not of the audit log; leave --strict out"],
    );
    assert_eq!(stdout(&output), "");
    assert_eq!(suggest(&["--strict", "-"], &good).status.code(), Some(1));
}

#[test]
fn another_programs_log_is_no_success() {
    for input in ["", "\n\n", "hello\n", "{\"kind\":\"Event\"}\n"] {
        let output = suggest(&["-"], input);
        assert_told(
            &output,
            2,
            &["leasehold: -: holds no record of Leasehold's audit log"],
        );
    }
    let twice = suggest(&["-", "--policy-file", "-"], "");
    assert_told(&twice, 2, &["standard input (-) is given twice"]);
}

#[test]
fn a_log_without_denials_needs_nothing() {
    let change = record("x", "payments", "1").replace("violation", "holderChange");
    let output = suggest(&["-"], &change);
    assert_told(
        &output,
        0,
        &["leasehold: 1 line read: 0 denials (", ", 1 other record\n"],
    );
    assert_eq!(
        stdout(&output),
        "# What is not stated has its default: leasehold policy default\napiVersion: leasehold.dev/v1alpha1\n\
         kind: LeasePolicy\nmode: enforce\n"
    );
}
