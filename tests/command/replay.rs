//! `leasehold replay`.

use serde_json::Value;

use crate::{leasehold, stderr, stdout, temporary};

/// One renewal.
const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/apis/coordination.k8s.io/v1/namespaces/shop/leases/payments","verb":"update","user":{"username":"a\u001b[31m"},"objectRef":{"resource":"leases","namespace":"shop","name":"payments","apiGroup":"coordination.k8s.io"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-27T10:00:00.000000Z","stageTimestamp":"2026-11-27T10:00:00.002000Z"}"#;

#[test]
fn replay_reads_standard_input_and_shows_names_as_they_are() {
    let table = leasehold(&["replay", "-"], EVENT);
    assert_eq!(table.status.code(), Some(0), "{}", stderr(&table));
    assert!(stdout(&table).contains("shop/payments") && !stdout(&table).contains('\u{1b}'));
    assert!(stderr(&table).contains("standard input: 1 writes to Leases in 1 as audit events, one a line"));
    let json = leasehold(&["replay", "-o", "json", "-"], EVENT);
    let replayed: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(replayed["leases"][0]["name"], "payments");
    assert_eq!(replayed["files"][0]["forms"]["events"], 1);
}

#[test]
fn replay_says_what_is_no_audit_log_and_reads_the_rest() {
    let good = temporary(EVENT);
    let good = good.path().to_str().unwrap();
    let other = temporary("not an audit log\n{\"leases\": 1}\n");
    let other = other.path().to_str().unwrap();
    let read = leasehold(&["replay", other, good, "/nowhere/audit.log"], "");
    assert_eq!(read.status.code(), Some(2));
    assert!(stdout(&read).contains("shop/payments"));
    for told in [
        format!("{other}: holds no event of a Kubernetes audit log"),
        "/nowhere/audit.log cannot be read: No such file".to_owned(),
    ] {
        assert!(stderr(&read).contains(&told), "{told}: {}", stderr(&read));
    }
    let empty = leasehold(&["replay", "--namespace", "other", good], "");
    assert!(
        stdout(&empty).contains("No write to a Lease was found"),
        "{}",
        stdout(&empty)
    );
}

#[test]
fn replay_names_the_flag_that_is_wrong() {
    for (arguments, told) in [
        (&["replay"][..], "<FILE>"),
        (&["replay", "--duration", "soon", "-"], "--duration"),
        (
            &[
                "replay",
                "--since",
                "2026-11-28T00:00:00Z",
                "--until",
                "2026-11-27T00:00:00Z",
                "-",
            ],
            "--since 2026-11-28T00:00:00Z is after --until",
        ),
        (&["replay", "-", "-"], "standard input (-) is given twice"),
    ] {
        let refused = leasehold(arguments, EVENT);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&refused).contains(told), "{}", stderr(&refused));
    }
}

#[test]
fn replay_draws_a_picture_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("led.svg");
    let drawn = leasehold(&["replay", "--svg", file.to_str().unwrap(), "-"], EVENT);
    assert_eq!(drawn.status.code(), Some(0), "{}", stderr(&drawn));
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("</svg>\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = leasehold(&["replay", "--svg", "/nowhere/led.svg", "-"], EVENT);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        stderr(&nowhere).contains("--svg /nowhere/led.svg: cannot be written"),
        "{}",
        stderr(&nowhere)
    );
}
