//! The registration, weakened and deleted while Leasehold runs: told within seconds, and repaired only where the
//! operator said so.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::{
    Test,
    guard::{self, NAMESPACE, REGISTRATIONS, Replica},
    harness::{
        api::Api,
        assets::repository,
        audit::text,
        control_plane::free_port,
        network::Network,
        schedule::Phase,
        until,
        world::{World, base64},
    },
    manifests::from_root,
    test,
};

/// The tests of this file. They change what is registered.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Alone(7),
            "registration::every_weakening_is_told_and_that_it_is_over",
            every_weakening_is_told_and_that_it_is_over,
        ),
        test(
            Phase::Alone(7),
            "registration::the_webhook_of_a_component_is_missed",
            the_webhook_of_a_component_is_missed,
        ),
        test(
            Phase::Alone(7),
            "registration::one_that_may_not_be_read_is_told_and_keeps_nobody_from_being_ready",
            one_that_may_not_be_read_is_told_and_keeps_nobody_from_being_ready,
        ),
        test(
            Phase::Alone(7),
            "registration::repaired_only_where_the_operator_said_so",
            repaired_only_where_the_operator_said_so,
        ),
        test(
            Phase::Alone(7),
            "registration::the_rights_of_the_manifests_suffice",
            the_rights_of_the_manifests_suffice,
        ),
    ]
}

/// A registration as the manifests have it, under another name, which trusts the authority of the tests.
async fn register(world: &World, name: &str) -> anyhow::Result<Value> {
    let rendered = rendered(world, &repository(guard::OVERLAY)).await?;
    register_rendered(world, name, &rendered).await
}

async fn rendered(world: &World, overlay: &Path) -> anyhow::Result<Vec<Value>> {
    let rendered = world
        .plane()
        .await?
        .kubectl(&["kustomize", &overlay.display().to_string()])
        .await?;
    let documents = rendered.split("\n---\n");
    Ok(documents.map(serde_saphyr::from_str).collect::<Result<_, _>>()?)
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> anyhow::Result<&'a Value> {
    let found = documents.iter().find(|it| text(it, "/kind") == kind);
    found.with_context(|| format!("no {kind} is rendered"))
}

async fn register_rendered(world: &World, name: &str, rendered: &[Value]) -> anyhow::Result<Value> {
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

fn path(name: &str) -> String {
    format!("{REGISTRATIONS}/{name}")
}

/// A process that watches the registration of that name, and serves what the authority of the tests issued.
async fn watcher(world: &World, name: &str, kubeconfig: &Path, more: &[&str]) -> anyhow::Result<Replica> {
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

async fn count(replica: &Replica, problem: &str) -> anyhow::Result<f64> {
    let metrics = replica.metrics().await?;
    Ok(metrics.sum("leasehold_registration_problems", &[("problem", problem)]))
}

async fn until_told(replica: &Replica, problem: &str) -> anyhow::Result<()> {
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
async fn until_well(replica: &Replica) -> anyhow::Result<()> {
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
async fn until_repaired(replica: &Replica, times: f64) -> anyhow::Result<()> {
    until("the registration to be repaired", || async {
        let metrics = replica.metrics().await?;
        let repaired = metrics.sum("leasehold_registration_repairs_total", &[("result", "repaired")]);
        Ok((repaired >= times).then_some(()))
    })
    .await?;
    until_well(replica).await
}

/// Changes one field of one webhook.
async fn weaken(admin: &Api, name: &str, pointer: &str, value: &Value) -> anyhow::Result<()> {
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

async fn every_weakening_is_told_and_that_it_is_over(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let name = "leasehold-watched";
    let admin = world.admin().await?;
    let registered = register(world, name).await?;
    let restore = json!({"webhooks": registered["webhooks"]});
    let kubeconfig = world.plane().await?.admin_kubeconfig();
    let replica = watcher(world, name, &kubeconfig, &[]).await?;
    until_well(&replica).await?;

    let another = crate::harness::certificates::Authority::new()?;
    // What does not hide another weakening is done at once.
    let rounds = [
        vec![
            ("/0/failurePolicy", json!("Fail"), "failure-policy"),
            ("/0/timeoutSeconds", json!(30), "timeout"),
            ("/0/matchPolicy", json!("Exact"), "match-policy"),
            ("/0/admissionReviewVersions", json!(["v1", "v1beta1"]), "protocol"),
            ("/0/rules/0/operations", json!(["CREATE"]), "rules"),
            (
                "/0/matchConditions/0/expression",
                json!("false"),
                "match-conditions",
            ),
            (
                "/0/namespaceSelector",
                json!({"matchExpressions": [{"key": "exempt", "operator": "DoesNotExist"}]}),
                "namespace-selector",
            ),
            (
                "/0/objectSelector",
                json!({"matchLabels": {"guarded": "yes"}}),
                "object-selector",
            ),
            ("/0/clientConfig/service/name", json!("elsewhere"), "service"),
            (
                "/0/clientConfig/caBundle",
                json!(base64(another.pem())),
                "ca-bundle",
            ),
        ],
        vec![("/1/clientConfig/caBundle", json!(""), "ca-bundle")],
        vec![("/1/name", json!("renamed.example.com"), "webhook-missing")],
    ];
    for round in rounds {
        for (pointer, value, _) in &round {
            weaken(&admin, name, pointer, value).await?;
        }
        for (_, _, problem) in &round {
            until_told(&replica, problem).await?;
        }
        admin.merge_patch(&path(name), &restore).await?.accepted()?;
        until_well(&replica).await?;
    }
    admin.delete(&path(name)).await?.accepted()?;
    until_told(&replica, "configuration-missing").await?;
    ensure!(count(&replica, "webhook-missing").await? == 0.0, "told twice");
    register(world, name).await?;
    until_well(&replica).await?;

    ensure!(replica.terminate().await?.success(), "it ended badly");
    admin.delete(&path(name)).await?.accepted()?;
    Ok(())
}

/// Deleted with all that it added elsewhere, a component's webhook is missed by what its Deployment says.
async fn the_webhook_of_a_component_is_missed(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let name = "leasehold-with-component";
    let folder = world.folder().join(name);
    std::fs::create_dir_all(&folder)?;
    let overlay = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [from_root(&folder, &repository(guard::OVERLAY))],
        "components": [from_root(&folder, &repository("manifests/components/fail-closed"))],
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string())?;
    let with_component = rendered(world, &folder).await?;
    let arguments = of_kind(&with_component, "Deployment")?.pointer("/spec/template/spec/containers/0/args");
    let said: Vec<&str> = arguments
        .and_then(Value::as_array)
        .context("the Deployment has no args")?
        .iter()
        .filter_map(Value::as_str)
        .filter(|flag| flag.starts_with("--registered-webhook="))
        .collect();
    ensure!(said.len() == 1, "the component says {said:?}");

    let admin = world.admin().await?;
    let registered = register_rendered(world, name, &with_component).await?;
    let kubeconfig = world.plane().await?.admin_kubeconfig();
    let replica = watcher(world, name, &kubeconfig, &said).await?;
    until_well(&replica).await?;

    // What is left is a registration that never had the component.
    let without = register(world, "leasehold-without-component").await?;
    let deleted = json!({"webhooks": without["webhooks"]});
    admin.merge_patch(&path(name), &deleted).await?.accepted()?;
    until_told(&replica, "webhook-missing").await?;
    let (_, report) = replica.get("/readyz?verbose").await?;
    ensure!(
        report.contains("webhook closed.leases.leasehold.dev: it is not registered any more"),
        "the report does not name it: {report}"
    );
    let restored = json!({"webhooks": registered["webhooks"]});
    admin.merge_patch(&path(name), &restored).await?.accepted()?;
    until_well(&replica).await?;

    ensure!(replica.terminate().await?.success(), "it ended badly");
    for name in [name, "leasehold-without-component"] {
        admin.delete(&path(name)).await?.accepted()?;
    }
    Ok(())
}

async fn repaired_only_where_the_operator_said_so(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let admin = world.admin().await?;
    let kubeconfig = world.plane().await?.admin_kubeconfig();
    let (told, repaired) = ("leasehold-only-told", "leasehold-repaired");
    register(world, told).await?;
    let registered = register(world, repaired).await?;
    let onlooker = watcher(world, told, &kubeconfig, &[]).await?;
    let repairer = watcher(world, repaired, &kubeconfig, &["--repair-registration"]).await?;
    until_well(&onlooker).await?;
    until_well(&repairer).await?;

    // One update of all, so that each is seen whole.
    let mut webhooks = registered["webhooks"].clone();
    webhooks[0]["failurePolicy"] = json!("Fail");
    webhooks[0]["clientConfig"]["caBundle"] = json!("");
    let conditions = webhooks[0]["matchConditions"].as_array_mut().context("none")?;
    conditions.push(json!({"name": "never", "expression": "false"}));
    webhooks.as_array_mut().context("none")?.truncate(1);
    // Somebody else's webhook is left alone.
    let mut other = registered["webhooks"][1].clone();
    other["name"] = json!("policy.somebody.example.com");
    other["timeoutSeconds"] = json!(7);
    webhooks.as_array_mut().context("none")?.push(other.clone());
    let drifted = json!({ "webhooks": webhooks });
    let at_first = admin.merge_patch(&path(told), &drifted).await?.accepted()?;
    admin.merge_patch(&path(repaired), &drifted).await?.accepted()?;
    until_told(&onlooker, "failure-policy").await?;
    until_repaired(&repairer, 1.0).await?;
    let mended = admin.get(&path(repaired)).await?.accepted()?;
    let webhook = |name: &str| -> anyhow::Result<Value> {
        let webhooks = mended["webhooks"].as_array().context("no webhooks")?;
        let found = webhooks.iter().find(|webhook| text(webhook, "/name") == name);
        Ok(found.with_context(|| format!("no {name}: {mended}"))?.clone())
    };
    for original in registered["webhooks"].as_array().context("no webhooks")? {
        let name = text(original, "/name");
        ensure!(
            webhook(name)? == *original,
            "{name} is not as it was: {}",
            webhook(name)?
        );
    }
    ensure!(webhook("policy.somebody.example.com")? == other, "{mended}");

    admin.delete(&path(repaired)).await?.accepted()?;
    until_repaired(&repairer, 2.0).await?;
    let anew = admin.get(&path(repaired)).await?.accepted()?;
    ensure!(
        anew["webhooks"] == registered["webhooks"],
        "not as it was: {anew}"
    );
    let log = repairer.log()?;
    ensure!(log.contains("the registration was repaired"), "{log}");

    // By then there was time enough.
    let at_last = admin.get(&path(told)).await?.accepted()?;
    ensure!(at_last == at_first, "repaired unasked: {at_last}");
    for replica in [&onlooker, &repairer] {
        ensure!(replica.terminate().await?.success(), "it ended badly");
    }
    for name in [told, repaired] {
        admin.delete(&path(name)).await?.accepted()?;
    }
    Ok(())
}

async fn one_that_may_not_be_read_is_told_and_keeps_nobody_from_being_ready(
    world: &'static World,
) -> anyhow::Result<()> {
    world.guard().await?;
    let admin = world.admin().await?;
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}});
    admin.post(&accounts, &account).await?.accepted()?;
    let plane = world.plane().await?;
    let nobody = plane.service_account_kubeconfig(NAMESPACE, "nobody").await?;
    // Ready once this returns.
    let replica = watcher(world, "leasehold-unreadable", &nobody, &[]).await?;
    let (code, report) = replica.get("/readyz?verbose").await?;
    ensure!(
        code == 200 && report.contains("[+]registration ok: it cannot be watched, trying on: "),
        "{code}: {report}"
    );
    let metrics = replica.metrics().await?;
    ensure!(
        metrics.sum("leasehold_registration_watch_up", &[]) == 0.0
            && metrics.sum("leasehold_registration_watch_errors_total", &[]) > 0.0,
        "the metrics do not tell of it"
    );
    let log = replica.log()?;
    ensure!(
        log.matches("registration watch lost, trying on").count() == 1 && log.contains("forbidden"),
        "{log}"
    );
    ensure!(replica.terminate().await?.success(), "it ended badly");
    admin.delete(&format!("{accounts}/nobody")).await?.accepted()?;
    Ok(())
}

/// The deployed replicas tell, and with the component one repairs, by the rights of the manifests.
async fn the_rights_of_the_manifests_suffice(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    if world.network == Network::Loopback {
        // There the registration is another, and its replica is told of none.
        return Ok(());
    }
    let admin = world.admin().await?;
    let plane = world.plane().await?;
    for replica in guard.replicas() {
        until_well(replica).await?;
    }
    weaken(&admin, "leasehold", "/0/timeoutSeconds", &json!(2)).await?;
    for replica in guard.replicas() {
        until_told(replica, "timeout").await?;
    }

    until("an Event on the registration", || async {
        let events = admin
            .get("/apis/events.k8s.io/v1/namespaces/default/events")
            .await?;
        let events = events.body["items"].as_array().cloned().unwrap_or_default();
        let found = events.iter().any(|event| {
            text(event, "/reason") == "RegistrationDrifted"
                && text(event, "/regarding/name") == "leasehold"
                && text(event, "/note").contains("timeoutSeconds is 2, expected 1")
        });
        Ok(found.then_some(()))
    })
    .await?;

    // Left in place: the test of all rights looks at it, too.
    let rbac = repository("manifests/components/repair-registration/rbac.yaml");
    plane
        .kubectl(&["apply", "-f", &rbac.display().to_string()])
        .await?;
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "leasehold").await?;
    let repairer = watcher(world, "leasehold", &kubeconfig, &["--repair-registration"]).await?;
    for replica in guard.replicas() {
        until_well(replica).await?;
    }
    admin.delete(&path("leasehold")).await?.accepted()?;
    until("the registration to be back", || async {
        let reply = admin.get(&path("leasehold")).await?;
        let webhooks = reply.body["webhooks"].as_array().cloned().unwrap_or_default();
        // To caBundle the replicas see themselves.
        let trusted = |webhook: &Value| !text(webhook, "/clientConfig/caBundle").is_empty();
        Ok((!webhooks.is_empty() && webhooks.iter().all(trusted)).then_some(()))
    })
    .await?;
    for replica in guard.replicas() {
        until_well(replica).await?;
    }
    ensure!(repairer.terminate().await?.success(), "it ended badly");
    guard.wait_until_asked(world).await
}
