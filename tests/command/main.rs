//! The commands as users run them: arguments in, text and exit code out.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests say what they expect by unwrapping it"
)]

mod check;
mod demo;
mod export;
mod fence;
mod replay;
mod suggest;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn data(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/reviews")
        .join(name)
        .display()
        .to_string()
}

fn leasehold(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn temporary(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn explain_knows_every_rule_that_a_denial_names() {
    let list = stdout(&leasehold(&["explain", "-o", "json"], ""));
    let rules: Value = serde_json::from_str(&list).unwrap();
    let rules = rules.as_array().unwrap();
    assert!(rules.len() >= 5);
    for rule in rules {
        let name = rule["rule"].as_str().unwrap();
        let text = stdout(&leasehold(&["explain", name], ""));
        assert!(text.starts_with(&format!("{name} (default: ")), "{text}");
        assert!(text.contains("What to do: "), "{text}");
        assert!(text.contains(&format!("    {name}: {{action: ")), "{text}");
    }
    for line in rules[0]["documentation"].as_str().unwrap().lines() {
        assert!(!line.starts_with(' '), "{line:?}");
    }
    let unknown = leasehold(&["explain", "takeover"], "");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("takeover-before-expiry"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn policy_prints_what_it_accepts() {
    let default = stdout(&leasehold(&["policy", "default"], ""));
    let valid = leasehold(&["policy", "validate", "-o", "json", "-"], &default);
    assert_eq!(valid.status.code(), Some(0), "{}", stderr(&valid));
    let document: Value = serde_json::from_str(&stdout(&valid)).unwrap();
    assert_eq!(document["rules"]["duration-out-of-bounds"]["max"], "7d");
    let schema: Value = serde_json::from_str(&stdout(&leasehold(&["policy", "schema"], ""))).unwrap();
    assert_eq!(schema["properties"]["mode"]["default"], "enforce");
    let invalid = leasehold(
        &["policy", "validate", "-"],
        "rules:\n  duration-out-of-bounds: {min: 9, max: 8s}\n",
    );
    assert_eq!(invalid.status.code(), Some(2));
    assert!(
        stderr(&invalid)
            .contains("line 2, column 33, rules.duration-out-of-bounds.min: \"9\" is not a duration"),
        "{}",
        stderr(&invalid)
    );
    let large = leasehold(&["policy", "validate", "-"], &"# padding\n".repeat(200_000));
    assert!(
        stderr(&large).contains("over 1048576 bytes"),
        "{}",
        stderr(&large)
    );
}

#[test]
fn version_and_completion_print() {
    assert_eq!(
        stdout(&leasehold(&["version"], "")),
        format!("leasehold {}\n", env!("CARGO_PKG_VERSION"))
    );
    let version: Value = serde_json::from_str(&stdout(&leasehold(&["version", "-o", "json"], ""))).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            stdout(&leasehold(&["completion", shell], "")).contains("leasehold"),
            "{shell}"
        );
    }
}

#[test]
fn policy_explain_names_the_line_that_decided() {
    let policy = temporary(
        "mode: enforce\nrules:\n  duration-out-of-bounds: {max: 2h}\noverrides:\n  - match: {namespaces: [team-*]}\n    \
         mode: audit\n  - match: {labels: {app: old}}\n    rules:\n      duration-out-of-bounds: {min: 1s}\n",
    );
    let file = policy.path().display().to_string();
    let explain = |arguments: &[&str]| {
        let mut all = vec!["policy", "explain", "team-a/payments", "--policy-file", &file];
        all.extend(arguments);
        leasehold(&all, "")
    };
    let words = |output: &Output, setting: &str| -> Vec<String> {
        let text = stdout(output);
        let line = text.lines().find(|line| line.starts_with(setting)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    let table = explain(&["--labels", "app=old,tier=web"]);
    assert_eq!(table.status.code(), Some(0), "{}", stderr(&table));
    assert_eq!(words(&table, "mode"), ["mode", "audit", "override", "1", "6"]);
    let setting = "rules.duration-out-of-bounds.min";
    assert_eq!(words(&table, setting), [setting, "1s", "override", "2", "9"]);
    let setting = "rules.duration-out-of-bounds.max";
    assert_eq!(words(&table, setting), [setting, "2h", "policy", "3"]);
    assert_eq!(words(&table, "maxSkew"), ["maxSkew", "5s", "default", "-"]);

    let json: Value = serde_json::from_str(&stdout(&explain(&["-o", "json"]))).unwrap();
    assert_eq!(json["lease"], "team-a/payments");
    assert_eq!(json["overrides"][1]["failing"], "labels");

    let policy = "overrides: [{match: {serviceAccounts: [storage/*]}, mode: audit}]";
    let explain = |more: &[&str]| {
        let mut all = vec!["policy", "explain", "shop/volume", "--policy-file", "-"];
        all.extend(more);
        stdout(&leasehold(&all, policy))
    };
    let unasked = explain(&[]);
    assert!(
        unasked.contains("only for its service accounts; name one by --service-account"),
        "{unasked}"
    );
    assert!(!unasked.contains("override 1"), "{unasked}");
    assert!(explain(&["--service-account", "storage/manager"]).contains("override 1"));
    let other = explain(&["--service-account", "shop/manager"]);
    assert!(other.contains("no: serviceAccounts"), "{other}");

    let bad = leasehold(&["policy", "explain", "payments"], "");
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        stderr(&bad).contains("expected NAMESPACE/NAME, as in shop/payments"),
        "{}",
        stderr(&bad)
    );
    let bad = leasehold(&["policy", "explain", "a/b", "--policy-file", "-"], "mode: on\n");
    assert_eq!(bad.status.code(), Some(2));
    assert!(
        stderr(&bad).contains("policy file -: line 1, column 7, mode: unknown value `on`"),
        "{}",
        stderr(&bad)
    );
}

#[test]
fn what_cannot_be_written_is_named() {
    let review = data("renew.json");
    let log = temporary(&suggest::record("transition-not-counted", "payments", "1"));
    let log = log.path().display().to_string();
    for arguments in [
        &["check", &review][..],
        &["check", "-o", "json", &review],
        &["explain"],
        &["policy", "default"],
        &["policy", "suggest", &log],
        &["export", "vap"],
        &["version"],
        &["completion", "bash"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(arguments)
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = stderr(&output);
        assert!(
            message.starts_with("leasehold: standard output cannot be written: No space left on device"),
            "{arguments:?}: {message}"
        );
    }
}

/// The help of a command on a terminal of that width.
fn help(command: &str, columns: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(command.split(' '))
        .arg("--help")
        .env("COLUMNS", columns)
        .output()
        .unwrap();
    stdout(&output)
}

#[test]
fn help_is_wrapped_to_the_terminal_and_nowhere_else() {
    for command in [
        "serve",
        "check",
        "explain",
        "export vap",
        "policy explain",
        "policy suggest",
        "demo",
    ] {
        let (narrow, wide) = (help(command, "80"), help(command, "100"));
        for (text, width) in [(&narrow, 80), (&wide, 100)] {
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.windows(2) {
                let [line, next] = pair else { unreachable!() };
                let prose = |line: &str| line.starts_with(|first: char| first.is_ascii_alphabetic());
                let word = next.split(' ').next().unwrap();
                assert!(
                    !prose(line) || !prose(next) || line.len() + 1 + word.len() > width,
                    "{command}, {width} columns: broken before its end: {line}"
                );
            }
        }
        let examples = |text: &str| {
            text.split_once("\nExamples:\n")
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or_default()
        };
        let (narrow, wide) = (examples(&narrow), examples(&wide));
        for line in wide.lines().filter(|line| line.starts_with("  ")) {
            assert!(narrow.contains(line), "{command}: wrapped at 80 columns: {line}");
        }
    }
}
