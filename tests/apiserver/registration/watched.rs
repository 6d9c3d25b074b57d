//! A registration, who watches it, and what is told of it.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    guard::{self, NAMESPACE, REGISTRATIONS, Replica},
    harness::{
        api::Api,
        assets::repository,
        audit::text,
        control_plane::free_port,
        until,
        world::{World, base64},
    },
};

/// A registration as the manifests have it, under another name, which trusts the authority of the tests.
pub(super) async fn register(world: &World, name: &str) -> anyhow::Result<Value> {
    let rendered = rendered(world, &repository(guard::OVERLAY)).await?;
    register_rendered(world, name, &rendered).await
}

pub(super) async fn rendered(world: &World, overlay: &Path) -> anyhow::Result<Vec<Value>> {
    let rendered = world
        .plane()
        .await?
        .kubectl(&["kustomize", &overlay.display().to_string()])
        .await?;
    let documents = rendered.split("\n---\n");
    Ok(documents.map(serde_saphyr::from_str).collect::<Result<_, _>>()?)
}

pub(super) fn of_kind<'a>(documents: &'a [Value], kind: &str) -> anyhow::Result<&'a Value> {
    let found = documents.iter().find(|it| text(it, "/kind") == kind);
    found.with_context(|| format!("no {kind} is rendered"))
}

pub(super) async fn register_rendered(
    world: &World,
    name: &str,
    rendered: &[Value],
) -> anyhow::Result<Value> {
    let plane = world.plane().await?;
    let mut configuration = of_kind(rendered, "ValidatingWebhookConfiguration")?.clone();
    configuration["metadata"] = json!({"name": name});
    let bundle = base64(plane.authority().pem());
    for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
        webhook["clientConfig"]["caBundle"] = json!(bundle);
    }
    let admin = world.admin().await?;
    admin.post(REGISTRATIONS, &configuration).await?.accepted()
}

pub(super) fn path(name: &str) -> String {
    format!("{REGISTRATIONS}/{name}")
}

/// A process that watches the registration of that name, and serves what the authority of the tests issued.
pub(super) async fn watcher(
    world: &World,
    name: &str,
    kubeconfig: &Path,
    more: &[&str],
) -> anyhow::Result<Replica> {
    let service = format!("leasehold.{NAMESPACE}.svc");
    let leaf =
        world
            .plane()
            .await?
            .authority()
            .issue(world.folder(), &format!("{name}-watcher"), &[&service])?;
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--tls-cert-file={}", leaf.certificate.display()),
        format!("--tls-private-key-file={}", leaf.key.display()),
        format!("--webhook-configuration={name}"),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!(
            "--policy-file={}",
            repository("manifests/base/policy.yaml").display()
        ),
        "--bind-address=127.0.0.1".to_owned(),
        "--secure-port=0".to_owned(),
        "--admin-bind-address=127.0.0.1".to_owned(),
        format!("--admin-port={}", admin.port()),
        "--shutdown-delay=0s".to_owned(),
    ];
    arguments.extend(more.iter().map(|&flag| flag.to_owned()));
    let replica = Replica::new(world, &format!("{name}-watcher"), arguments, admin);
    replica.start().await?;
    Ok(replica)
}

pub(super) async fn count(replica: &Replica, problem: &str) -> anyhow::Result<f64> {
    let metrics = replica.metrics().await?;
    Ok(metrics.sum("leasehold_registration_problems", &[("problem", problem)]))
}

pub(super) async fn until_told(replica: &Replica, problem: &str) -> anyhow::Result<()> {
    until(&format!("{problem} to be told"), || async {
        Ok((count(replica, problem).await? > 0.0).then_some(()))
    })
    .await?;
    let (code, report) = replica.get("/readyz?verbose").await?;
    ensure!(code == 200, "{problem} makes it unready: {report}");
    ensure!(
        report.contains("[+]registration ok: ValidatingWebhookConfiguration "),
        "the report does not tell of {problem}: {report}"
    );
    let log = replica.log()?;
    ensure!(
        log.lines().any(|line| line.contains(problem)
            && line.contains("the registration is not as the manifests say")
            && line.contains("\"level\":\"ERROR\"")),
        "the log does not tell of {problem}: {log}"
    );
    Ok(())
}

/// Until the registration was seen as it should be.
pub(super) async fn until_well(replica: &Replica) -> anyhow::Result<()> {
    until("the registration to be well", || async {
        let metrics = replica.metrics().await?;
        let well = metrics.sum("leasehold_registration_watch_up", &[]) == 1.0
            && metrics.sum("leasehold_registration_problems", &[]) == 0.0;
        let (_, report) = replica.get("/readyz?verbose").await?;
        Ok((well && report.contains("[+]registration ok\n")).then_some(()))
    })
    .await
}

/// Until it has repaired so often, and all is well.
pub(super) async fn until_repaired(replica: &Replica, times: f64) -> anyhow::Result<()> {
    until("the registration to be repaired", || async {
        let metrics = replica.metrics().await?;
        let repaired = metrics.sum("leasehold_registration_repairs_total", &[("result", "repaired")]);
        Ok((repaired >= times).then_some(()))
    })
    .await?;
    until_well(replica).await
}

/// Changes one field of one webhook.
pub(super) async fn weaken(admin: &Api, name: &str, pointer: &str, value: &Value) -> anyhow::Result<()> {
    let stored = admin.get(&path(name)).await?.accepted()?;
    let mut webhooks = stored["webhooks"].clone();
    *webhooks
        .pointer_mut(pointer)
        .with_context(|| format!("no {pointer}"))? = value.clone();
    admin
        .merge_patch(&path(name), &json!({"webhooks": webhooks}))
        .await?
        .accepted()?;
    Ok(())
}
