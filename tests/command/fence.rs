//! `leasehold fence`: what it prints, and what it refuses to print.

use serde_json::Value;

use super::{leasehold, stderr, stdout};

const LEASE: [&str; 4] = ["fence", "--lease", "shop/payments", "--resource"];

fn json(arguments: &[&str]) -> Value {
    let output = leasehold(&[arguments, &["--output", "json"]].concat(), "");
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn the_same_flags_print_the_same_objects_in_both_formats() {
    let flags = [
        &LEASE[..],
        &["v1/configmaps", "--name", "a\"b", "--mode", "enforce"],
    ]
    .concat();
    let yaml = leasehold(&flags, "");
    assert_eq!(stdout(&yaml), stdout(&leasehold(&flags, "")));
    let documents: Vec<Value> = stdout(&yaml)
        .split("---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect();
    let list = json(&flags);
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"], Value::from(documents));
    assert!(
        stdout(&yaml).starts_with("# Only the pod that holds Lease shop/payments may write these objects.")
    );
}

#[test]
fn audit_comes_first_and_can_refuse_nothing() {
    let list = json(&[&LEASE[..], &["configmap"]].concat());
    let [policy, binding] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
    assert_eq!(binding["spec"]["validationActions"], serde_json::json!(["Audit"]));
    assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], "Allow");
    assert_eq!(binding["spec"]["paramRef"]["namespace"], "shop");

    let list = json(&[&LEASE[..], &["configmap", "--mode", "enforce"]].concat());
    let [policy, writes, deletions] = list["items"].as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    for (binding, action, operations) in [
        (writes, "Deny", serde_json::json!(["CREATE", "UPDATE"])),
        (deletions, "Allow", serde_json::json!(["DELETE"])),
    ] {
        assert_eq!(binding["spec"]["paramRef"]["parameterNotFoundAction"], action);
        assert_eq!(
            binding["spec"]["matchResources"]["resourceRules"][0]["operations"],
            operations
        );
        assert_eq!(
            binding["spec"]["validationActions"],
            serde_json::json!(["Deny", "Audit"])
        );
    }
}

#[test]
fn the_policy_says_who_breaks_glass_and_how_far_clocks_may_differ() {
    let policy = "maxSkew: 4s\nbreakGlass: {groups: ['a\"b']}\n";
    let flags = [
        &LEASE[..],
        &["configmap", "--output", "json", "--policy-file", "-"],
    ]
    .concat();
    let output = leasehold(&flags, policy);
    let list: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let expression = |name: &str| {
        let variables = list["items"][0]["spec"]["variables"].as_array().unwrap();
        let variable = variables
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap();
        variable["expression"].as_str().unwrap().to_owned()
    };
    assert!(expression("breakGlass").contains(r#"group in ["a\"b"]"#));
    assert!(expression("expired").contains("params.spec.leaseDurationSeconds + 4"));
    let nobody = leasehold(&flags, "breakGlass: {groups: []}");
    let list: Value = serde_json::from_str(&stdout(&nobody)).unwrap();
    let variables = list["items"][0]["spec"]["variables"].as_array().unwrap();
    assert_eq!(variables.last().unwrap()["expression"], "false");
}

#[test]
fn bad_input_is_refused_with_what_to_write_instead() {
    let long = format!("shop/{}", "a".repeat(250));
    for (flags, expected) in [
        (vec!["fence"], "--lease <NAMESPACE/NAME>"),
        (vec!["fence", "--lease", "shop/payments"], "--resource <RESOURCE>"),
        (
            vec!["fence", "--lease", "payments", "--resource", "pods"],
            "\"payments\" is not NAMESPACE/NAME",
        ),
        (
            vec!["fence", "--lease", "shop/\"a", "--resource", "pods"],
            "is no object's name",
        ),
        (
            vec!["fence", "--lease", &long, "--resource", "pods"],
            "give another with --fence-name",
        ),
        (
            [&LEASE[..], &["widgets"]].concat(),
            "\"widgets\" is no known kind",
        ),
        (
            [&LEASE[..], &["apps/v1/Deployment"]].concat(),
            "it is the plural, in lower case",
        ),
        (
            [&LEASE[..], &["coordination.k8s.io/v1/leases"]].concat(),
            "would stop every takeover",
        ),
        (
            [&LEASE[..], &["pods", "--selector", "a b"]].concat(),
            "is no label's key",
        ),
        (
            [&LEASE[..], &["apps/v1/deployments/scale", "--selector", "app=a"]].concat(),
            "an object without labels",
        ),
        (
            [&LEASE[..], &["pods", "--name", "a/b"]].concat(),
            "\"a/b\" is no object's name",
        ),
        (
            [&LEASE[..], &["pods", "--only-service-account", "payments"]].concat(),
            "is not NAMESPACE/NAME",
        ),
        (
            [&LEASE[..], &["pods", "--namespace", "a", "--all-namespaces"]].concat(),
            "cannot be used with",
        ),
        (
            [&LEASE[..], &["pods", "--anchor"]].concat(),
            "cannot be used with",
        ),
        (
            [&LEASE[..], &["pods", "--policy-file", "no-such-file.yaml"]].concat(),
            "no-such-file.yaml cannot be read",
        ),
    ] {
        let output = leasehold(&flags, "");
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(
            stderr(&output).contains(expected),
            "{flags:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{flags:?}");
    }
}
