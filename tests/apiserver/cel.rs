//! What goes into an expression of CEL as a literal, read by the API server's own CEL.

use anyhow::ensure;
use leasehold::cel::literal;
use serde_json::{Map, Value, json};

use crate::{
    Test,
    harness::{
        api::{Api, Reply},
        schedule::Phase,
        until,
        world::World,
    },
    test,
};

const NAMESPACE: &str = "cel-literals";

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::InProcess,
        "cel::a_literal_means_its_text_to_the_api_server",
        a_literal_means_its_text,
    )]
}

/// Texts that mean something else wherever they are not a literal through and through.
fn nasty() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        "\"",
        "'",
        "\\",
        "\\\\\"",
        "\\\" || true || \\\"",
        "\") || true || (\"",
        "\"\"\"",
        "'''",
        "r\"raw\"",
        "\\n\\u0041\\x41\\101\\U00000041\\?\\`",
        "{{ }} ${HOME} %s %%",
        "line\nbreak\r\nand\ttab",
        "// a comment",
        "\u{0}\u{1}\u{7}\u{8}\u{b}\u{c}\u{1b}\u{7f}\u{80}\u{85}\u{9f}",
        "\u{2018}\u{201c}\u{ff02}\u{2028}\u{2029}\u{feff}\u{202e}\u{200b}",
        "\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{1f600}\u{10ffff}",
        "e\u{301} is not \u{e9}",
    ]
    .map(str::to_owned)
    .into();
    texts.push((1..=255).filter_map(char::from_u32).collect());
    texts
}

async fn a_literal_means_its_text(world: &'static World) -> anyhow::Result<()> {
    let api = world.admin().await?;
    api.create_namespace(NAMESPACE, json!({})).await?;
    let texts = nasty();
    let validations: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            json!({
                "expression": format!("object.data.text{number} == {}", literal(text)),
                "message": format!("text {number} is another"),
            })
        })
        .collect();
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAMESPACE},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
            }]},
            "matchConditions": [{
                "name": "here", "expression": format!("request.namespace == {}", literal(NAMESPACE)),
            }],
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAMESPACE},
        "spec": {"policyName": NAMESPACE, "validationActions": ["Deny"]},
    });
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    api.post(path, &policy).await?.accepted()?;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    api.post(path, &binding).await?.accepted()?;

    let other = |number: usize| format!("text {number} is another");
    until("the policy to be on", || async {
        let reply = create(&api, &texts, Some(0)).await?;
        Ok((reply.code >= 400).then_some(()))
    })
    .await?;
    for number in 0..texts.len() {
        let reply = create(&api, &texts, Some(number)).await?;
        ensure!(
            reply.code >= 400 && reply.message().ends_with(&other(number)),
            "{:?}, changed: expected to be refused for it, got {} {}",
            texts.get(number),
            reply.code,
            reply.message()
        );
    }
    create(&api, &texts, None).await?.accepted()?;
    Ok(())
}

/// A dry run of a ConfigMap with these texts, of which one may be changed.
async fn create(api: &Api, texts: &[String], changed: Option<usize>) -> anyhow::Result<Reply> {
    let data: Map<String, Value> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| {
            let ending = if changed == Some(number) { "." } else { "" };
            (format!("text{number}"), Value::from(format!("{text}{ending}")))
        })
        .collect();
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": data,
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?dryRun=All");
    api.post(&path, &config_map).await
}
