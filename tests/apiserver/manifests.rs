//! The manifests: what they hold is valid to the API server, and what they grant is what is used.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    Test, events,
    guard::{self, NAMESPACE},
    harness::{
        api::Api, assets::repository, audit::text, control_plane::ControlPlane, network::Network,
        schedule::Phase, world::World,
    },
    test,
};

/// The tests of this file. RBAC comes last of all: it looks back on what every other test made Leasehold ask for.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "manifests::every_overlay_is_valid",
            every_overlay_is_valid,
        ),
        test(
            Phase::Attacked,
            "manifests::certificate_components_are_valid",
            certificate_components_are_valid,
        ),
        test(
            Phase::Attacked,
            "manifests::the_monitoring_component_is_valid",
            the_monitoring_component_is_valid,
        ),
        test(
            Phase::Attacked,
            "manifests::a_second_apply_changes_nothing",
            a_second_apply_changes_nothing,
        ),
        test(
            Phase::Alone(9),
            "manifests::rbac_grants_what_is_used",
            rbac_grants_what_is_used,
        ),
    ]
}

/// The folders under `manifests` that hold a kustomization which renders by itself: not the components.
fn kustomizations() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![repository("manifests")];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() && path != repository("manifests/components") {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "kustomization.yaml") {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    Ok(found)
}

async fn every_overlay_is_valid(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let kustomizations = kustomizations()?;
    ensure!(
        kustomizations.len() >= 3,
        "base and two overlays were expected, found {kustomizations:?}"
    );
    for folder in kustomizations {
        validate_all(world, &folder).await?;
    }
    Ok(())
}

/// Renders a kustomization, has the API server judge what it knows, and gives the rendered documents.
pub(crate) async fn validate_all(world: &World, folder: &Path) -> anyhow::Result<Vec<Value>> {
    let plane = world.plane().await?;
    let rendered = plane
        .kubectl(&["kustomize", &folder.display().to_string()])
        .await?;
    let documents: Vec<&str> = rendered.split("\n---\n").collect();
    ensure!(!rendered.is_empty(), "{} renders nothing", folder.display());
    for document in &documents {
        // cert-manager's types are not there: that a document is well-formed is all that can be shown of those.
        if !is_custom(document) {
            validate(plane, world, document)
                .await
                .with_context(|| folder.display().to_string())?;
        }
    }
    documents
        .iter()
        .map(|document| Ok(serde_saphyr::from_str(document)?))
        .collect()
}

/// `certs/` takes the overlays further: both components, as the manual says to use them.
async fn certificate_components_are_valid(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let by_hand = world.folder().join("by-hand");
    let script = repository("certs/make-certs.sh");
    let output = Command::new(&script)
        .arg("--output")
        .arg(&by_hand)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{} --output failed: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );

    let folder = world.folder().join("overlay");
    for (name, components) in [
        ("by hand", vec![repository("certs/files"), by_hand]),
        ("cert-manager", vec![repository("certs/cert-manager")]),
    ] {
        std::fs::create_dir_all(&folder)?;
        let overlay = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [from_root(&folder, &repository("manifests/overlays/audit"))],
            "components": components
                .iter()
                .map(|component| from_root(&folder, component))
                .collect::<Vec<_>>(),
        });
        std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
        let documents = validate_all(world, &folder)
            .await
            .with_context(|| name.to_owned())?;
        let of_kind = |kind: &str| {
            documents
                .iter()
                .filter(|document| text(document, "/kind") == kind)
                .count()
        };
        let registration = documents
            .iter()
            .find(|document| text(document, "/kind") == "ValidatingWebhookConfiguration")
            .context("no registration is rendered")?;
        if name == "cert-manager" {
            let injected = text(
                registration,
                "/metadata/annotations/cert-manager.io~1inject-ca-from",
            );
            ensure!(
                injected == "leasehold-system/leasehold-serving",
                "the injector is told {injected:?}"
            );
            let serving = documents
                .iter()
                .find(|document| text(document, "/metadata/name") == "leasehold-serving")
                .context("there is no Certificate of that name")?;
            ensure!(
                text(serving, "/spec/secretName") == "leasehold-tls",
                "another Secret: {serving}"
            );
            ensure!(
                of_kind("Issuer") == 2 && of_kind("Certificate") == 2,
                "not two issuers and two certificates"
            );
        } else {
            ensure!(
                !text(registration, "/webhooks/0/clientConfig/caBundle").is_empty(),
                "no caBundle"
            );
            ensure!(of_kind("Secret") == 1, "no Secret is rendered");
        }
    }
    Ok(())
}

/// What the component holds that Kubernetes itself knows is valid, and all of it is where it should be.
async fn the_monitoring_component_is_valid(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let folder = world.folder().join("monitoring");
    std::fs::create_dir_all(&folder)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&folder, &repository("manifests/overlays/enforce"))],
        "components": [from_root(&folder, &repository("manifests/components/monitoring"))],
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let documents = validate_all(world, &folder).await?;
    for (kind, name) in [
        ("PodMonitor", "leasehold"),
        ("PrometheusRule", "leasehold"),
        ("ConfigMap", "leasehold-dashboard"),
    ] {
        let found = documents.iter().find(|document| {
            text(document, "/kind") == kind
                && text(document, "/metadata/name") == name
                && text(document, "/metadata/namespace") == NAMESPACE
        });
        ensure!(found.is_some(), "no {kind} {name} is rendered");
        if kind == "PodMonitor" {
            // The port that it scrapes is one of the Deployment's, by name.
            let deployment = documents
                .iter()
                .find(|document| text(document, "/kind") == "Deployment")
                .context("no Deployment is rendered")?;
            let port = found.map_or("", |monitor| text(monitor, "/spec/podMetricsEndpoints/0/port"));
            let ports = deployment.pointer("/spec/template/spec/containers/0/ports");
            let named = |candidate: &Value| text(candidate, "/name") == port;
            ensure!(
                ports
                    .and_then(Value::as_array)
                    .is_some_and(|ports| ports.iter().any(named)),
                "no port is called {port:?}"
            );
        }
    }
    Ok(())
}

/// A path as kustomize takes it, which is relative.
pub(crate) fn from_root(folder: &Path, target: &Path) -> String {
    let up = folder
        .components()
        .skip(1)
        .map(|_| "..")
        .collect::<Vec<_>>()
        .join("/");
    format!("{up}{}", target.display())
}

/// Whether a document is of a type that Kubernetes itself does not have.
fn is_custom(document: &str) -> bool {
    let group = document
        .lines()
        .find_map(|line| line.strip_prefix("apiVersion: "))
        .unwrap_or_default();
    group.contains("cert-manager.io") || group.contains("monitoring.coreos.com")
}

/// Lets the API server judge one document: strictly, and without storing it.
async fn validate(plane: &ControlPlane, world: &World, document: &str) -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new_in(world.folder())?;
    std::fs::write(file.path(), document)?;
    let path = file.path().display().to_string();
    let printed = plane
        .kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &path,
        ])
        .await?;
    ensure!(printed.contains("serverside-applied"), "kubectl says: {printed}");
    Ok(())
}

async fn a_second_apply_changes_nothing(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let plane = world.plane().await?;
    let rendered = plane
        .kubectl(&["kustomize", &repository(guard::OVERLAY).display().to_string()])
        .await?;
    let documents: Vec<&str> = rendered
        .split("\n---\n")
        // Without a network namespace the registration had to be rewritten.
        .filter(|it| {
            world.network == Network::Namespace || !it.contains("kind: ValidatingWebhookConfiguration")
        })
        .collect();
    let file = world.folder().join("applied-again.yaml");
    std::fs::write(&file, documents.join("\n---\n"))?;
    // Fails when there is a difference, and shows it.
    let difference = plane
        .kubectl(&["diff", "-f", &file.display().to_string()])
        .await?;
    ensure!(
        difference.is_empty(),
        "applied again, the manifests change something: {difference}"
    );
    Ok(())
}

/// One thing that may be asked of the API server: group, resource, name (empty: any), verb.
type Right = (String, String, String, String);

async fn rbac_grants_what_is_used(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let granted = granted(&world.admin().await?).await?;
    ensure!(!granted.is_empty(), "the manifests grant nothing");
    // The policy is watched by every guard; Events need a reason.
    events::create_and_update_one(world).await?;

    let user = format!("system:serviceaccount:{NAMESPACE}:leasehold");
    let audit = world.plane().await?.audit()?;
    let mut used = BTreeSet::new();
    for event in audit
        .0
        .iter()
        .filter(|event| text(event, "/user/username") == user)
    {
        let code = event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        ensure!(code != 403 && code != 401, "Leasehold was refused: {event}");
        if event.get("objectRef").is_none() {
            // Versions and discovery: open to everybody.
            continue;
        }
        let field = |name: &str| text(event, &format!("/objectRef/{name}")).to_owned();
        let resource = match field("subresource").as_str() {
            "" => field("resource"),
            subresource => format!("{}/{subresource}", field("resource")),
        };
        let namespace = field("namespace");
        let verb = text(event, "/verb").to_owned();
        // Events are written where their leases are.
        let is_event = resource == "events";
        ensure!(
            is_event
                || namespace == NAMESPACE
                || namespace.is_empty() && resource == "validatingwebhookconfigurations",
            "Leasehold asked in namespace {namespace:?}: {event}"
        );
        // The log has the name of what was created from its body, which RBAC does not see; and Events have any name.
        let name = if verb == "create" || is_event {
            String::new()
        } else {
            field("name")
        };
        // A server-side apply of what is not there asks RBAC for both, by name.
        if verb == "patch" && code == 201 {
            used.insert((
                field("apiGroup"),
                resource.clone(),
                name.clone(),
                "create".to_owned(),
            ));
        }
        used.insert((field("apiGroup"), resource, name, verb));
    }
    let unused: Vec<&Right> = granted.iter().filter(|right| !used.contains(right)).collect();
    ensure!(
        unused.is_empty(),
        "granted and never used: {unused:?}; used: {used:?}"
    );
    let unasked: Vec<&Right> = used.iter().filter(|right| !granted.contains(right)).collect();
    ensure!(
        unasked.is_empty(),
        "used, and granted by nothing in the manifests: {unasked:?}"
    );
    Ok(())
}

/// Every right that a binding gives to the ServiceAccount, in whatever namespace.
async fn granted(admin: &Api) -> anyhow::Result<BTreeSet<Right>> {
    let base = "/apis/rbac.authorization.k8s.io/v1";
    let mut rights = BTreeSet::new();
    let account = json!({"kind": "ServiceAccount", "name": "leasehold", "namespace": NAMESPACE});
    for kind in ["rolebindings", "clusterrolebindings"] {
        let bindings = admin.get(&format!("{base}/{kind}")).await?.accepted()?;
        for binding in bindings
            .pointer("/items")
            .and_then(Value::as_array)
            .context("no items")?
        {
            let subjects = binding.get("subjects").and_then(Value::as_array);
            if !subjects.is_some_and(|subjects| subjects.contains(&account)) {
                continue;
            }
            let name = text(binding, "/roleRef/name");
            let path = match text(binding, "/roleRef/kind") {
                "Role" => format!(
                    "{base}/namespaces/{}/roles/{name}",
                    text(binding, "/metadata/namespace")
                ),
                _ => format!("{base}/clusterroles/{name}"),
            };
            let role = admin.get(&path).await?.accepted()?;
            for rule in role
                .pointer("/rules")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let list = |name: &str| -> Vec<String> {
                    let items = rule.get(name).and_then(Value::as_array).into_iter().flatten();
                    items.filter_map(Value::as_str).map(str::to_owned).collect()
                };
                let mut names = list("resourceNames");
                if names.is_empty() {
                    names.push(String::new());
                }
                for group in list("apiGroups") {
                    for resource in list("resources") {
                        for name in &names {
                            for verb in list("verbs") {
                                rights.insert((group.clone(), resource.clone(), name.clone(), verb));
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(rights)
}
