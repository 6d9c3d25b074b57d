//! `leasehold export vap`.

use serde_json::Value;

use crate::{leasehold, stderr, stdout, temporary};

#[test]
fn export_prints_documents_for_kubectl() {
    let yaml = leasehold(&["export", "vap"], "");
    assert_eq!(yaml.status.code(), Some(0), "{}", stderr(&yaml));
    let json = leasehold(&["export", "vap", "-o", "json"], "");
    let list: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(list["kind"], "List");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&stdout(&yaml)).unwrap();
    assert_eq!(Value::from(documents), list["items"]);
    assert_eq!(
        stdout(&yaml),
        stdout(&leasehold(&["export", "vap"], "")),
        "the same again"
    );
}

#[test]
fn export_refuses_what_cel_cannot_hold_unless_it_may_leave_it_out() {
    let policy = temporary("mode: enforce\nrules:\n  flapping: {changes: 3}\n");
    let path = policy.path().display().to_string();
    let refused = leasehold(&["export", "vap", "--policy-file", &path], "");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(stdout(&refused), "");
    let told = stderr(&refused);
    assert!(
        told.contains(&format!(
            "policy file {path}: line 3, rules.flapping: CEL has no memory"
        )) && told.contains("--partial"),
        "{told}"
    );
    let partial = leasehold(&["export", "vap", "--policy-file", &path, "--partial"], "");
    assert_eq!(partial.status.code(), Some(0));
    assert!(stdout(&partial).contains("# LEFT OUT: line 3, rules.flapping: CEL has no memory"));
}

#[test]
fn export_reads_a_policy_from_standard_input_and_names_its_mistakes() {
    let advice = ["export", "vap", "--policy-file", "-", "--advice"];
    let good = leasehold(&advice, "mode: audit");
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(!stdout(&good).contains("validationActions: [Deny]"));
    assert!(stdout(&good).contains("validationActions: [Warn]"));
    for (document, expected) in [
        ("mode: strict", "line 1, column 7, mode"),
        (
            "mode: off",
            "nothing of this policy is for the API server to hold",
        ),
        ("mode: audit", "would refuse nothing"),
    ] {
        let bad = leasehold(&["export", "vap", "--policy-file", "-"], document);
        assert_eq!(bad.status.code(), Some(2), "{document}");
        assert!(stderr(&bad).contains(expected), "{}", stderr(&bad));
    }
}

#[test]
fn export_explains_rule_by_rule() {
    let table = stdout(&leasehold(&["export", "vap", "--explain"], ""));
    for (rule, held) in [
        ("takeover-before-expiry", "partly"),
        ("transition-overflow", "fully"),
        ("flapping", "not"),
    ] {
        let line = table.lines().find(|line| line.starts_with(rule)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(held), "{line}");
    }
    let json = leasehold(&["export", "vap", "--explain", "-o", "json"], "");
    let explained: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(explained["rules"][0]["rule"], "takeover-before-expiry");
    assert_eq!(
        explained["rules"][0]["policies"],
        serde_json::json!(["deny", "advice"])
    );
}

#[test]
fn static_writes_the_files_of_an_api_server_and_says_what_to_do_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("new/leasehold");
    let to = to.to_str().unwrap();
    let written = leasehold(&["export", "vap", "--static", to], "");
    assert!(written.status.success(), "{}", stderr(&written));
    assert!(written.stdout.is_empty(), "{}", stdout(&written));
    let told = stderr(&written);
    assert!(
        told.contains("--admission-control-config-file=/etc/kubernetes/leasehold/admission.yaml"),
        "{told}"
    );
    let read = |name: &str| std::fs::read_to_string(format!("{to}/{name}")).unwrap();
    assert!(read("policies/leasehold.yaml").contains("name: deny.leases.leasehold.dev.static.k8s.io\n"));
    assert!(read("admission.yaml").contains("staticManifestsDir: \"/etc/kubernetes/leasehold/policies\"\n"));
    assert!(read("kubeadm.yaml").contains("admission-control-config-file"));
    // Nothing else, for the API server reads every file of the folder.
    let files: Vec<_> = std::fs::read_dir(format!("{to}/policies")).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[test]
fn static_refuses_what_the_api_server_would() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("leasehold");
    let to = to.to_str().unwrap();
    for (arguments, code, told) in [
        (&["--host-folder", "here"][..], 2, "takes an absolute path only"),
        (&["--policy-file", "-"], 2, "exported with --advice"),
        (&["-o", "json"], 2, "cannot be used with"),
    ] {
        let arguments = [&["export", "vap", "--static", to], arguments].concat();
        let refused = leasehold(&arguments, "mode: audit");
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}");
        assert!(stderr(&refused).contains(told), "{}", stderr(&refused));
    }
    assert!(!folder.path().join("leasehold").exists());
}
