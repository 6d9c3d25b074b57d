//! The registration, weakened and deleted while Leasehold runs: told within seconds, and repaired only where the
//! operator said so.

mod watched;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use self::watched::{
    count, of_kind, path, register, register_rendered, rendered, until_repaired, until_told, until_well,
    watcher, weaken,
};
use crate::{
    Test,
    guard::{self, NAMESPACE},
    harness::{
        assets::repository,
        audit::text,
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
