//! What of a policy the API server can hold: the component that ships, the README's table, and what is refused.

use std::path::PathBuf;

use leasehold::policy::in_process::{Export, ExportError, ExportOptions, Source};
use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// With both policies.
const ADVICE: ExportOptions = ExportOptions {
    advice: true,
    source: Source::Objects,
};

/// Both policies.
fn export(document: &str) -> Export {
    Export::of(document, ADVICE).unwrap()
}

/// What is exported unless more is asked for.
fn refusals(document: &str) -> Export {
    Export::of(document, ExportOptions::default()).unwrap()
}

/// The expressions of one policy, joined.
fn expressions(export: &Export, part: &str) -> String {
    let name = format!("{part}.leases.leasehold.dev");
    export
        .objects()
        .iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == name)
        .map(Value::to_string)
        .collect()
}

fn actions(export: &Export) -> Vec<String> {
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
    let expected = refusals(&read("manifests/base/policy.yaml")).to_yaml();
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
        ("", &["Deny", "Warn"][..]),
        ("mode: audit", &["Warn"]),
        (
            "mode: audit\noverrides: [{match: {names: [a]}, mode: enforce}]",
            &["Deny", "Warn"],
        ),
    ] {
        assert_eq!(actions(&export(document)), expected, "{document}");
    }
    assert_eq!(actions(&refusals("")), ["Deny"]);
    for options in [ADVICE, ExportOptions::default()] {
        assert_eq!(Export::of("mode: off", options), Err(ExportError::Nothing));
    }
    assert_eq!(
        Export::of("mode: audit", ExportOptions::default()),
        Err(ExportError::NoRefusal)
    );
    let audit = expressions(&export("mode: audit"), "advice");
    assert!(
        audit.contains("would be denied: ") && !audit.contains("validations"),
        "{audit}"
    );
}

/// Each validation, annotation and variable costs a write, also one that breaks no rule.
#[test]
fn the_policy_that_refuses_asks_once_and_tells_nothing_else() {
    let objects = refusals("").objects();
    let [policy, _] = objects.as_slice() else {
        panic!("one policy and one binding, not {}", objects.len());
    };
    assert_eq!(policy["spec"]["validations"].as_array().unwrap().len(), 1);
    assert_eq!(policy["spec"].get("auditAnnotations"), None);
    let variables = policy["spec"]["variables"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert!(names.len() <= 12, "{names:?}");
}

#[test]
fn a_lease_with_the_name_of_a_variable_keeps_it() {
    let export = refusals("overrides: [{match: {names: ['variables.update']}, mode: audit}]");
    let expressions = expressions(&export, "deny");
    assert!(
        expressions.contains(r#"object.metadata.name == \"variables.update\""#),
        "{expressions}"
    );
}

/// Names and namespaces of policies that the API server reads from its own disk.
#[test]
fn policies_from_files_have_names_of_their_kind_and_hold_for_the_control_plane() {
    let options = ExportOptions {
        source: Source::Files,
        ..ADVICE
    };
    let export = Export::of("", options).unwrap();
    for object in export.objects() {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.ends_with(".leases.leasehold.dev.static.k8s.io"), "{name}");
        let selector = &object["spec"]["matchConstraints"]["namespaceSelector"];
        assert!(!selector.to_string().contains("kube-system"), "{selector}");
    }
    // A document of comments alone is an error there.
    let yaml = export.to_yaml();
    let first = yaml.split("\n---\n").next().unwrap();
    assert!(first.contains("\nkind: ValidatingAdmissionPolicy\n"), "{first}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    assert_eq!(objects, export.objects());
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
    assert!(!expressions(&export, "advice").contains("ClockSkewed"));
    assert!(expressions(&self::export(""), "advice").contains("ClockSkewed"));
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
    let error = Export::of(&document, ADVICE).unwrap_err();
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
