use std::path::Path;

use super::*;

fn names(webhooks: &[ValidatingWebhook]) -> Vec<&str> {
    webhooks.iter().map(|webhook| webhook.name.as_str()).collect()
}

#[test]
fn the_manifests_are_understood() {
    let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
    let base = expected.webhooks(|_| false);
    assert_eq!(names(&base), ["leases.leasehold.dev", "policy.leasehold.dev"]);
    let all = expected.webhooks(|_| true);
    assert_eq!(all.len(), base.len() + COMPONENTS.len());
    let closed = all.iter().find(|it| it.name.starts_with("closed.")).unwrap();
    assert_eq!(closed.rules, base[0].rules, "taken from the base");
    assert_eq!(closed.match_conditions, base[0].match_conditions);
    assert_eq!(closed.failure_policy.as_deref(), Some("Fail"));
    assert_ne!(all[0].namespace_selector, base[0].namespace_selector);
}

#[test]
fn every_component_that_changes_the_registration_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/components");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(path.join("kustomization.yaml")).unwrap();
        if text.contains("kind: ValidatingWebhookConfiguration") {
            found.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    let known: BTreeSet<_> = COMPONENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn a_component_that_is_not_understood_is_told_and_not_guessed() {
    let adding = "patches:\n- patch: |-\n    - {op: add, path: /webhooks/-, value: {name: a}}\n";
    assert!(Component::parse(adding).is_ok());
    for (text, said) in [
        ("patches: []", "no webhook is added"),
        (
            "patches:\n- patch: |-\n    - {op: replace, path: /webhooks/0/rules, value: []}\n",
            "replace of /webhooks/0/rules",
        ),
        (
            &format!("{adding}replacements:\n- source: {{fieldPath: data.x}}\n  targets: []\n"),
            "data.x is not understood",
        ),
    ] {
        let error = Component::parse(text).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn every_component_says_what_it_registers() {
    for (folder, text) in COMPONENTS {
        let kustomization: Kustomization = serde_saphyr::from_str(text).unwrap();
        let of_deployment: Vec<_> = kustomization
            .patches
            .iter()
            .filter(|it| {
                it.target
                    .as_ref()
                    .is_some_and(|target| target.kind == "Deployment")
            })
            .collect();
        let [patch] = of_deployment[..] else {
            panic!("{folder} patches the Deployment {} times", of_deployment.len());
        };
        let additions: Vec<Addition> = serde_saphyr::from_str(&patch.patch).unwrap();
        let flags: Vec<_> = additions
            .iter()
            .map(|it| (it.path.as_str(), it.value.as_str().unwrap()))
            .collect();
        let flag = format!("--registered-webhook={}", Component::parse(text).unwrap().webhook);
        assert_eq!(
            flags,
            [("/spec/template/spec/containers/0/args/-", flag.as_str())],
            "{folder}"
        );
    }
}

#[test]
fn only_what_a_component_registers_can_be_said() {
    let said = |text: &str| {
        let expected = Expected::from_manifests("leasehold-system", &[]).unwrap();
        let registered = text.split(',').map(|it| it.parse().unwrap());
        let result = expected.with_registered(&registered.collect::<Vec<_>>());
        result.map(|it| it.said).map_err(|error| error.to_string())
    };
    let closed = "closed.leases.leasehold.dev";
    assert_eq!(said(closed).unwrap()[closed], Vec::<String>::new());
    let named = said(&format!("{closed}=shop,{closed}=bank")).unwrap();
    assert_eq!(named[closed], ["shop", "bank"]);
    let error = said("leases.leasehold.dev").unwrap_err();
    assert!(
        error.contains("leases.leasehold.dev: no component registers it") && error.contains(closed),
        "{error}"
    );
    let error = said("kube-system.leases.leasehold.dev=shop").unwrap_err();
    assert!(error.contains("leave =shop out"), "{error}");
}
