//! The Helm chart: rendered and installed by the real helm, and held to what kustomize gives.

mod helm;

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use self::helm::{CHART, RELEASE, helm, next_version, objects, render, rendered, without_helm_labels};
use crate::{
    Test,
    guard::NAMESPACE,
    harness::{assets::repository, audit::text, schedule::Phase, world::World},
    installation::{Bare, OWN_SECRET, ensure_pods_are_admitted, trust},
    manifests::from_root,
    test,
};

/// An overlay, the components on top of it, and the values that ask the chart for the same.
const PAIRS: [(&str, &[&str], &[&str]); 11] = [
    ("manifests/overlays/audit", &[], &[]),
    ("manifests/overlays/enforce", &[], &["mode=enforce"]),
    (
        "manifests/overlays/audit",
        &["certs/files"],
        &["certificates.source=secret"],
    ),
    (
        "manifests/overlays/audit",
        &["certs/cert-manager"],
        &["certificates.source=certManager"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/watch-full"],
        &["mode=enforce", "components.watchFull.enabled=true"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/fail-closed"],
        &["mode=enforce", "components.failClosed.enabled=true"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/annotation-locks"],
        &["mode=enforce", "components.annotationLocks.enabled=true"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/kube-system"],
        &["mode=enforce", "components.kubeSystem.enabled=true"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/repair-registration"],
        &["mode=enforce", "components.repairRegistration.enabled=true"],
    ),
    (
        "manifests/overlays/enforce",
        &["manifests/components/monitoring"],
        &["mode=enforce", "components.monitoring.enabled=true"],
    ),
    (
        "manifests/overlays/audit",
        &[
            "manifests/components/watch-full",
            "manifests/components/fail-closed",
            "manifests/components/annotation-locks",
            "manifests/components/kube-system",
            "manifests/components/repair-registration",
            "manifests/components/monitoring",
            "certs/cert-manager",
        ],
        &[
            "components.watchFull.enabled=true",
            "components.failClosed.enabled=true",
            "components.annotationLocks.enabled=true",
            "components.kubeSystem.enabled=true",
            "components.repairRegistration.enabled=true",
            "components.monitoring.enabled=true",
            "certificates.source=certManager",
        ],
    ),
];

/// Values that are refused, and words of the refusal.
const REFUSED: [(&str, &str); 16] = [
    ("mode=enforced", "at '/mode': value must be 'enforce'"),
    ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
    ("replica=3", "additional properties 'replica' not allowed"),
    (
        "policy.rules.foreign-write.action=deny",
        "at '/policy/rules/foreign-write/action': value must be 'warn'",
    ),
    (
        "policy.rules.foreign-writes.action=warn",
        "at '/policy/rules': additional properties 'foreign-writes' not allowed",
    ),
    (
        "policy.mode=audit",
        "at '/policy': additional properties 'mode' not allowed",
    ),
    (
        "policy.clockSlack=1",
        "at '/policy/clockSlack': got number, want string",
    ),
    (
        "policy.clockSlack=soon",
        "at '/policy/clockSlack': 'soon' does not match pattern",
    ),
    (
        "certificates.source=vault",
        "at '/certificates/source': value must be one of 'selfManaged', 'secret', 'certManager'",
    ),
    (
        "certificates.caBundle=abc",
        "at '/certificates/caBundle': 'abc' does not match pattern",
    ),
    (
        "certificates.caBundle=-----BEGIN CERTIFICATE-----",
        "certificates.caBundle is for certificates.source secret",
    ),
    (
        "components.failClosed.enabled=yes",
        "at '/components/failClosed/enabled': got string, want boolean",
    ),
    (
        "components.failClosed.namespaces={kube-system}",
        "components.failClosed.namespaces names \"kube-system\", which is left out of everything",
    ),
    (
        "components.watchFull.namespaces={leasehold-system}",
        "components.watchFull.namespaces names \"leasehold-system\", which is left out of everything",
    ),
    (
        "networkPolicy.apiServer.cidrs={192.0.2.1}",
        "at '/networkPolicy/apiServer/cidrs/0': '192.0.2.1' does not match pattern",
    ),
    (
        "extraArgs={debug}",
        "at '/extraArgs/0': 'debug' does not match pattern",
    ),
];

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "chart::gives_what_kustomize_gives",
            gives_what_kustomize_gives,
        ),
        test(
            Phase::Attacked,
            "chart::namespaces_can_be_named_in_place_of_labels",
            namespaces_can_be_named_in_place_of_labels,
        ),
        test(
            Phase::Attacked,
            "chart::bad_values_are_refused",
            bad_values_are_refused,
        ),
        test(
            Phase::Attacked,
            "chart::installs_upgrades_and_leaves_nothing_behind",
            installs_upgrades_and_leaves_nothing_behind,
        ),
    ]
}

async fn gives_what_kustomize_gives(world: &'static World) -> anyhow::Result<()> {
    let plane = world.plane().await?;
    for (number, (overlay, components, values)) in PAIRS.into_iter().enumerate() {
        let folder = world.folder().join(format!("chart-{number}"));
        std::fs::create_dir_all(&folder)?;
        let components: Vec<String> = components
            .iter()
            .map(|component| from_root(&folder, &repository(component)))
            .collect();
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [from_root(&folder, &repository(overlay))],
            "components": components,
        });
        std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        let folder = folder.display().to_string();
        let mut by_kustomize = objects(&plane.kubectl(&["kustomize", &folder]).await?)?;
        let mut by_helm = objects(&rendered(world, NAMESPACE, values).await?)?;

        // A release lives in a namespace that is there before it: the chart cannot bring its own.
        let namespace = by_kustomize.remove(&format!("Namespace /{NAMESPACE}"));
        ensure!(namespace.is_some(), "{overlay} brings no Namespace");
        for (name, object) in &mut by_helm {
            without_helm_labels(name, object)?;
        }
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        ensure!(
            names(&by_kustomize) == names(&by_helm),
            "with {values:?}: kustomize gives {:?}, helm {:?}",
            names(&by_kustomize),
            names(&by_helm)
        );
        for (name, object) in &by_kustomize {
            let same = &by_helm[name];
            ensure!(
                same == object,
                "with {values:?}, {name} differs: kustomize gives\n{object:#}\nhelm gives\n{same:#}"
            );
        }
    }

    // Nothing in the templates takes the namespace for granted.
    let (_, _, all) = PAIRS[PAIRS.len() - 1];
    let elsewhere = rendered(world, "elsewhere", all).await?;
    let here = rendered(world, NAMESPACE, all).await?;
    ensure!(
        elsewhere == here.replace(NAMESPACE, "elsewhere"),
        "in another namespace, more than the namespace differs"
    );
    Ok(())
}

async fn namespaces_can_be_named_in_place_of_labels(world: &'static World) -> anyhow::Result<()> {
    let values = [
        "components.watchFull.enabled=true",
        "components.watchFull.namespaces={shop,bank}",
        "components.failClosed.enabled=true",
        "components.failClosed.namespaces={bank}",
        "excludedNamespaces={legacy,kube-system}",
    ];
    let objects = objects(&rendered(world, NAMESPACE, &values).await?)?;
    let registration = &objects["ValidatingWebhookConfiguration /leasehold"];
    let selected: BTreeMap<String, Value> = registration["webhooks"]
        .as_array()
        .context("no webhooks")?
        .iter()
        .filter(|webhook| text(webhook, "/name").ends_with("leases.leasehold.dev"))
        .map(|webhook| {
            (
                text(webhook, "/name").to_owned(),
                webhook["namespaceSelector"]["matchExpressions"].clone(),
            )
        })
        .collect();
    let name = "kubernetes.io/metadata.name";
    let excluded = json!({"key": name, "operator": "NotIn", "values": ["kube-system", "kube-node-lease", NAMESPACE, "legacy"]});
    let expected = BTreeMap::from([
        (
            "leases.leasehold.dev".to_owned(),
            // What the closed webhook takes, this one leaves.
            json!([excluded, {"key": name, "operator": "NotIn", "values": ["bank"]}]),
        ),
        (
            "renewals.leases.leasehold.dev".to_owned(),
            json!([{"key": name, "operator": "In", "values": ["shop", "bank"]}, excluded]),
        ),
        (
            "closed.leases.leasehold.dev".to_owned(),
            json!([{"key": name, "operator": "In", "values": ["bank"]}, excluded]),
        ),
    ]);
    ensure!(
        selected == expected,
        "selected are {selected:#?}, not {expected:#?}"
    );
    let deployment = &objects[&format!("Deployment {NAMESPACE}/leasehold")];
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args");
    let said: Vec<_> = arguments
        .and_then(Value::as_array)
        .context("no args")?
        .iter()
        .filter_map(|flag| flag.as_str()?.strip_prefix("--registered-webhook="))
        .collect();
    ensure!(
        said == [
            "renewals.leases.leasehold.dev=shop",
            "renewals.leases.leasehold.dev=bank",
            "closed.leases.leasehold.dev=bank",
        ],
        "the choice is said as {said:?}"
    );
    Ok(())
}

async fn bad_values_are_refused(world: &'static World) -> anyhow::Result<()> {
    for (value, words) in REFUSED {
        match render(world, NAMESPACE, &[value]).await? {
            Ok(_) => anyhow::bail!("{value} was accepted"),
            Err(refusal) => ensure!(refusal.contains(words), "{value} was refused so: {refusal}"),
        }
    }
    // What the program takes once only, and the chart gives it already.
    let (_, _, all) = PAIRS[PAIRS.len() - 1];
    for values in [&[][..], all] {
        let objects = objects(&rendered(world, NAMESPACE, values).await?)?;
        let deployment = &objects[&format!("Deployment {NAMESPACE}/leasehold")];
        let arguments = deployment.pointer("/spec/template/spec/containers/0/args");
        let arguments = arguments.and_then(Value::as_array).context("no args")?;
        let flags: Vec<_> = arguments
            .iter()
            .filter_map(Value::as_str)
            .filter(|flag| flag.starts_with("--") && !flag.starts_with("--registered-webhook="))
            .collect();
        ensure!(flags.len() >= 10, "only {flags:?}");
        for flag in flags {
            let refused = render(world, NAMESPACE, &[&format!("extraArgs={{{flag}}}")]).await?;
            ensure!(
                refused.as_ref().is_err_and(
                    |said| said.contains(&format!("extraArgs names {flag}, which the chart sets"))
                ),
                "{flag} once more: {refused:?}"
            );
        }
    }
    let further = ["extraArgs={--log-level=debug,--excluded-namespace=x,--tls-cert-life=240h}"];
    rendered(world, NAMESPACE, &further).await?;
    let chart = repository(CHART).display().to_string();
    let linted = helm(world, None, &["lint", "--strict", &chart]).await?;
    ensure!(
        linted
            .as_ref()
            .is_ok_and(|said| !said.contains("[WARNING]") && !said.contains("[ERROR]")),
        "helm lint: {linted:?}"
    );
    Ok(())
}

async fn installs_upgrades_and_leaves_nothing_behind(world: &'static World) -> anyhow::Result<()> {
    let bare = Bare::start(world, "bare-helm").await?;
    let admin = bare.plane.admin()?;
    let run = async |arguments: &[&str]| helm(world, Some(&bare.plane), arguments).await;
    let accepted = async |arguments: &[&str]| -> anyhow::Result<String> {
        run(arguments)
            .await?
            .map_err(|refusal| anyhow::anyhow!("helm {}: {refusal}", arguments.join(" ")))
    };
    let policy = async || -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/leasehold-policy");
        let stored = admin.get(&path).await?.accepted()?;
        Ok(text(&stored, "/data/policy.yaml").to_owned())
    };
    let chart = repository(CHART).display().to_string();
    let namespace = repository("manifests/base/namespace.yaml").display().to_string();

    bare.plane.kubectl(&["apply", "-f", &namespace]).await?;
    let values = bare.folder.join("values.yaml");
    std::fs::write(
        &values,
        "mode: enforce\npolicy: {rules: {flapping: {action: \"off\"}}, overrides: [{match: {names: [old]}, mode: audit}]}\n\
         components: {failClosed: {enabled: true}}\n",
    )?;
    let values = values.display().to_string();
    accepted(&["install", RELEASE, &chart, "-n", NAMESPACE, "-f", &values]).await?;
    bare.certificates_by_a_replica().await?;
    ensure_pods_are_admitted(&admin).await?;
    let installed = policy().await?;
    leasehold::policy::Policy::parse(&installed).context("the installed policy")?;
    let trusted = trust(&admin, OWN_SECRET).await?;

    // The next version, with the values of the release.
    let next = next_version(&bare.folder)?;
    accepted(&[
        "upgrade",
        RELEASE,
        &next,
        "-n",
        NAMESPACE,
        "--reset-then-reuse-values",
    ])
    .await?;
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/leasehold");
    let deployment = admin.get(&path).await?.accepted()?;
    ensure!(
        text(&deployment, "/spec/template/spec/containers/0/image") == "leasehold:99.0.0",
        "not upgraded: {deployment}"
    );
    ensure!(policy().await? == installed, "the upgrade changed the policy");
    ensure!(
        trust(&admin, OWN_SECRET).await? == trusted,
        "the upgrade changed the certificate or what trusts it"
    );

    // A policy that was edited in place is not lost in silence: the upgrade names the field and stops.
    let patch = json!({"data": {"policy.yaml": "mode: audit\n"}});
    let path =
        format!("/api/v1/namespaces/{NAMESPACE}/configmaps/leasehold-policy?fieldManager=kubectl-edit");
    admin.merge_patch(&path, &patch).await?.accepted()?;
    let refused = run(&[
        "upgrade",
        RELEASE,
        &next,
        "-n",
        NAMESPACE,
        "--reset-then-reuse-values",
        "--set",
        "mode=off",
    ])
    .await?;
    ensure!(
        refused
            .as_ref()
            .is_err_and(|said| said.contains("kubectl-edit") && said.contains("policy.yaml")),
        "an upgrade over an edit said {refused:?}"
    );
    ensure!(policy().await? == "mode: audit\n", "the edit was lost");

    accepted(&["uninstall", RELEASE, "-n", NAMESPACE]).await?;
    bare.ensure_left_is(&[
        &format!("Namespace /{NAMESPACE}"),
        // Made by the replica, not by the chart.
        &format!("Secret {NAMESPACE}/{OWN_SECRET}"),
        &format!("Lease {NAMESPACE}/{OWN_SECRET}"),
    ])
    .await?;
    let deletions = bare.deletions()?;
    let position = |name: &str| {
        deletions
            .iter()
            .position(|deleted| deleted == name)
            .with_context(|| format!("{name} was not deleted, only {deletions:?}"))
    };
    ensure!(
        position("validatingwebhookconfigurations/leasehold")? < position("deployments/leasehold")?
            && position("validatingwebhookconfigurations/leasehold")? < position("services/leasehold")?,
        "the registration outlived what it calls: {deletions:?}"
    );
    bare.plane.kubectl(&["delete", "-f", &namespace]).await?;
    bare.ensure_nothing_is_left().await
}
