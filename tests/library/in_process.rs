//! What of a policy the API server can hold: the component that ships, the README's table, and what is refused.

use std::path::PathBuf;

use leasehold::policy::in_process::{Export, ExportError};
use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

fn export(document: &str) -> Export {
    Export::of(document).unwrap()
}

/// The expressions of one policy, joined.
fn expressions(export: &Export, level: &str) -> String {
    let name = format!("{level}.leases.leasehold.dev");
    export
        .objects()
        .iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == name)
        .map(Value::to_string)
        .collect()
}

fn levels(export: &Export) -> Vec<String> {
    export
        .objects()
        .iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding")
        .map(|object| {
            object["spec"]["validationActions"][0]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn the_component_is_what_the_base_policy_exports() {
    let path = "manifests/components/in-process/policies.yaml";
    let expected = export(&read("manifests/base/policy.yaml")).to_yaml();
    if std::env::var_os("LEASEHOLD_BLESS").is_some() {
        std::fs::write(repository(path), &expected).unwrap();
    }
    assert!(
        read(path) == expected,
        "{path} is stale; renew it with LEASEHOLD_BLESS=1 cargo test --test library in_process, and read the diff"
    );
}

#[test]
fn the_yaml_says_what_the_objects_say() {
    for document in [
        "",
        "mode: audit",
        "overrides: [{match: {names: ['a.b*c*', d]}, mode: audit}]\nbreakGlass: {groups: ['a\"b', '\u{e9}']}",
    ] {
        let export = export(document);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&export.to_yaml()).unwrap();
        assert_eq!(objects, export.objects(), "{document}");
        assert_eq!(
            export.to_yaml(),
            self::export(document).to_yaml(),
            "the same text again"
        );
    }
}

#[test]
fn the_readme_says_of_every_rule_what_the_api_server_alone_can_hold() {
    let readme = read("README.md");
    let table = readme
        .split("| rule | the API server alone | left to the webhook |\n|---|---|---|\n")
        .nth(1)
        .unwrap();
    let documented: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<_> = export("")
        .rules()
        .iter()
        .map(|rule| {
            let left = rule.left.unwrap_or("");
            format!("| `{}` | {} | {left} |", rule.rule, rule.in_process)
        })
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn modes_and_actions_decide_which_policies_there_are() {
    for (document, expected) in [
        ("", &["Deny", "Warn", "Audit"][..]),
        ("mode: audit", &["Audit"]),
        (
            "mode: audit\noverrides: [{match: {names: [a]}, mode: enforce}]",
            &["Deny", "Warn", "Audit"],
        ),
    ] {
        assert_eq!(levels(&export(document)), expected, "{document}");
    }
    assert_eq!(Export::of("mode: off"), Err(ExportError::Nothing));
    let audit = expressions(&export("mode: audit"), "audit");
    assert!(
        audit.contains("would be denied: ") && !audit.contains("validations"),
        "{audit}"
    );
}

#[test]
fn a_rule_that_is_off_is_in_no_policy() {
    let export = export("rules: {clock-skewed: {action: off}}");
    let rule = export
        .rules()
        .iter()
        .find(|rule| rule.rule == "clock-skewed")
        .unwrap();
    assert_eq!(rule.policies, Vec::<&str>::new());
    assert!(!expressions(&export, "warn").contains("ClockSkewed"));
}

#[test]
fn what_the_policy_states_and_cel_cannot_hold_is_named_with_its_line() {
    for (document, expected) in [
        ("", &[][..]),
        ("rules:\n  stamp-tampered: {action: warn}", &[]),
        ("rules:\n  flapping: {action: off}", &[]),
        (
            "rules:\n  flapping: {changes: 3}",
            &["line 2, rules.flapping: CEL has no memory"],
        ),
        (
            "rules:\n  foreign-release:\n    action: enforce",
            &["line 3, rules.foreign-release: a removal of fields"],
        ),
        (
            "overrides:\n- match: {names: [a]}\n  mode: audit\n- match: {names: [b]}\n  rules:\n    shared-identity: {action: audit}",
            &["line 6, override 2, rules.shared-identity: CEL has no memory"],
        ),
        (
            "overrides:\n- match: {names: [a]}\n  rules:\n    flapping: {action: off}",
            &[],
        ),
    ] {
        let obstacles: Vec<_> = export(document)
            .obstacles()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(obstacles.len(), expected.len(), "{document}: {obstacles:?}");
        for (obstacle, start) in obstacles.iter().zip(expected) {
            assert!(
                obstacle.starts_with(start),
                "{obstacle:?} should begin with {start:?}"
            );
        }
    }
}

#[test]
fn what_is_left_out_stands_in_a_comment() {
    let yaml = export("rules:\n  flapping: {changes: 3}").to_yaml();
    assert!(
        yaml.contains("# LEFT OUT: line 2, rules.flapping: CEL has no memory\n"),
        "{}",
        yaml.split("---").next().unwrap()
    );
}

#[test]
fn an_override_that_is_too_long_for_an_expression_is_refused_with_its_line() {
    let names: Vec<_> = (0..500)
        .map(|number| format!("'a*{}*{number}'", "x".repeat(200)))
        .collect();
    let document = format!(
        "mode: enforce\noverrides:\n- match: {{names: [{}]}}\n  mode: audit",
        names.join(", ")
    );
    let error = Export::of(&document).unwrap_err();
    assert!(
        matches!(
            error,
            ExportError::TooLong {
                line: 3,
                number: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_policies_leave_out_what_the_registration_leaves_out() {
    let registration: Value = serde_saphyr::from_str(&read("manifests/base/webhook.yaml")).unwrap();
    let webhook = &registration["webhooks"][0];
    let in_one_line = |text: &Value| {
        text.as_str()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    for object in export("").objects() {
        if object["kind"] != "ValidatingAdmissionPolicy" {
            continue;
        }
        let constraints = &object["spec"]["matchConstraints"];
        assert_eq!(constraints["namespaceSelector"], webhook["namespaceSelector"]);
        assert_eq!(object["spec"]["failurePolicy"], webhook["failurePolicy"]);
        assert_eq!(
            in_one_line(&object["spec"]["matchConditions"][0]["expression"]),
            in_one_line(&webhook["matchConditions"][0]["expression"])
        );
        // A deletion has no object for CEL to judge.
        assert_eq!(
            constraints["resourceRules"][0]["operations"],
            serde_json::json!(["CREATE", "UPDATE"])
        );
    }
}
