//! helm, the chart, and what it renders.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{assets::repository, audit::text, control_plane::ControlPlane, world::World};

pub(super) const CHART: &str = "manifests/helm/leasehold";
pub(super) const RELEASE: &str = "guard";

/// What Helm's conventions add to every object, and the only thing in which the chart differs.
const HELM_LABELS: [(&str, &str); 4] = [
    ("app.kubernetes.io/instance", RELEASE),
    ("app.kubernetes.io/managed-by", "Helm"),
    ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
    ("helm.sh/chart", concat!("leasehold-", env!("CARGO_PKG_VERSION"))),
];

/// Runs helm, with no configuration of this machine's user, and gives what it printed, or what it refused.
pub(super) async fn helm(
    world: &World,
    plane: Option<&ControlPlane>,
    arguments: &[&str],
) -> anyhow::Result<Result<String, String>> {
    let home = world.folder().join("helm");
    let mut command = Command::new(&world.assets.helm);
    command
        .args(arguments)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .env("KUBECONFIG", home.join("none"));
    if let Some(plane) = plane {
        command.env("KUBECONFIG", plane.admin_kubeconfig());
    }
    let output = command.output().await.context("cannot run helm")?;
    Ok(if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// Renders the chart with values as `--set` takes them.
pub(super) async fn render(
    world: &World,
    namespace: &str,
    values: &[&str],
) -> anyhow::Result<Result<String, String>> {
    let chart = repository(CHART).display().to_string();
    let mut arguments = vec!["template", RELEASE, &chart, "--namespace", namespace];
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(world, None, &arguments).await
}

pub(super) async fn rendered(world: &World, namespace: &str, values: &[&str]) -> anyhow::Result<String> {
    render(world, namespace, values)
        .await?
        .map_err(|refusal| anyhow::anyhow!("helm template with {values:?}: {refusal}"))
}

/// The objects of a rendering, by kind, namespace and name; the policy read, so that its layout and comments do not
/// count.
pub(super) fn objects(rendered: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for document in format!("\n{rendered}").split("\n---\n") {
        if document
            .lines()
            .all(|line| line.is_empty() || line.starts_with('#'))
        {
            continue;
        }
        let mut object: Value = serde_saphyr::from_str(document)?;
        if let Some(policy) = object.pointer_mut("/data/policy.yaml") {
            *policy = serde_saphyr::from_str(policy.as_str().context("the policy is no text")?)?;
        }
        let name = format!(
            "{} {}/{}",
            text(&object, "/kind"),
            text(&object, "/metadata/namespace"),
            text(&object, "/metadata/name")
        );
        ensure!(
            found.insert(name.clone(), object).is_none(),
            "{name} is there twice"
        );
    }
    Ok(found)
}

/// Takes away what Helm adds, all of which must be there.
pub(super) fn without_helm_labels(name: &str, object: &mut Value) -> anyhow::Result<()> {
    let metadata = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
        .with_context(|| format!("{name} has no metadata"))?;
    let labels = metadata
        .get_mut("labels")
        .and_then(Value::as_object_mut)
        .with_context(|| format!("{name} has no labels"))?;
    for (label, expected) in HELM_LABELS {
        let found = labels.remove(label);
        ensure!(
            found == Some(json!(expected)),
            "{name}: label {label} is {found:?}, not {expected:?}"
        );
    }
    if labels.is_empty() {
        metadata.remove("labels");
    }
    Ok(())
}

/// The chart as a later version of it would be.
pub(super) fn next_version(folder: &Path) -> anyhow::Result<String> {
    let next = folder.join("next");
    copy(&repository(CHART), &next)?;
    let path = next.join("Chart.yaml");
    let chart = std::fs::read_to_string(&path)?;
    let later = chart.replace(env!("CARGO_PKG_VERSION"), "99.0.0");
    ensure!(
        chart != later,
        "the chart's version is not the program's: {chart}"
    );
    std::fs::write(&path, later)?;
    Ok(next.display().to_string())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
