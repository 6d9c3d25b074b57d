//! What a fence is about, and what it leaves alone.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{B, Fenced, LEASE, anchor, apply, config_map, ensure_refused};
use crate::{
    Test,
    harness::{audit::text, policies, process::Process, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let phase = Phase::InProcess;
    vec![
        test(
            phase,
            "fence::audit_refuses_nothing_and_tells",
            audit_refuses_nothing,
        ),
        test(
            phase,
            "fence::names_and_labels_narrow_it",
            names_and_labels_narrow_it,
        ),
        test(
            phase,
            "fence::a_name_that_needs_escaping_means_itself",
            a_name_that_needs_escaping,
        ),
        test(
            phase,
            "fence::only_one_account_is_looked_at_if_asked_for",
            only_one_account_is_looked_at,
        ),
        test(phase, "fence::operators_give_a_reason", operators_give_a_reason),
        test(
            phase,
            "fence::the_api_server_finds_the_types_right",
            types_are_right,
        ),
    ]
}

async fn audit_refuses_nothing(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-audit";
    let fenced = Fenced::new(world, namespace, &["--resource", "ConfigMap"]).await?;
    let told = until("the audit log to tell what would be refused", || async {
        fenced.probe(&fenced.b).await?.accepted()?;
        let audit = world.plane().await?.audit()?;
        let told = audit.0.iter().find_map(|event| {
            let failure = event
                .pointer("/annotations/validation.policy.admission.k8s.io~1validation_failure")
                .and_then(Value::as_str)?;
            (text(event, "/objectRef/namespace") == namespace).then(|| failure.to_owned())
        });
        Ok(told)
    })
    .await?;
    ensure!(
        told.contains("does not hold lease fence-audit/lock") && told.contains(B),
        "{told}"
    );
    // Not even while there is no Lease, which no validationActions could soften.
    fenced.leases.delete(LEASE).await?.accepted()?;
    for _ in 0..5 {
        fenced.probe(&fenced.b).await?.accepted()?;
    }
    Ok(())
}

async fn names_and_labels_narrow_it(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-narrow";
    let resource = ["--resource", "v1/configmaps", "--mode", "enforce"];
    let named = Fenced::new(world, namespace, &[&resource[..], &["--name", "orders"]].concat()).await?;
    let lease = format!("{namespace}/{LEASE}");
    let by_label = [
        "--lease",
        &lease,
        "--fence-name",
        "fence-by-label",
        "--selector",
        "app=ledger",
    ];
    apply(world, "by-label", &[&by_label[..], &resource].concat()).await?;
    let path = named.path();
    let ledger = |name: &str| {
        let mut ledger = config_map(name);
        if let Some(labels) = ledger.pointer_mut("/metadata/labels") {
            *labels = json!({"app": "ledger"});
        }
        ledger
    };
    until("both fences to be on", || async {
        let dry = format!("{path}?dryRun=All");
        let orders = named.b.post(&dry, &config_map("orders")).await?;
        let ledger = named.b.post(&dry, &ledger("ledger")).await?;
        Ok((orders.code == 403 && ledger.code == 403).then_some(()))
    })
    .await?;
    named.b.post(&path, &config_map("others")).await?.accepted()?;
    for object in [config_map("orders"), ledger("ledger")] {
        named.a.post(&path, &object).await?.accepted()?;
    }
    // Neither by taking the label off, nor by putting it on.
    for (name, label) in [("ledger", json!(null)), ("others", json!("ledger"))] {
        let patch = json!({"metadata": {"labels": {"app": label}}});
        let reply = named.b.merge_patch(&format!("{path}/{name}"), &patch).await?;
        ensure_refused(&reply, name, "does not hold lease")?;
    }
    // A deletion of many names none of them in the request.
    let all = named.b.delete(&path).await?;
    ensure_refused(&all, "DELETE of the collection", "does not hold lease")?;
    named.admin.get(&format!("{path}/orders")).await?.accepted()?;
    named.admin.get(&format!("{path}/ledger")).await?.accepted()?;
    Ok(())
}

async fn a_name_that_needs_escaping(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-escaped";
    let nasty = "a\"] || true || name in [\"\\\u{e9}'";
    let flags = ["--resource", "Role", "--mode", "enforce", "--name", nasty];
    let fenced = Fenced::new(world, namespace, &flags).await?;
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles?dryRun=All");
    let role = |name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": [],
        })
    };
    until("the fence to be on", || async {
        Ok((fenced.b.post(&path, &role(nasty)).await?.code == 403).then_some(()))
    })
    .await?;
    fenced.a.post(&path, &role(nasty)).await?.accepted()?;
    for other in ["a", "a\"", "\u{e9}"] {
        fenced.b.post(&path, &role(other)).await?.accepted()?;
    }
    Ok(())
}

async fn only_one_account_is_looked_at(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-account";
    let account = format!("{namespace}/elector");
    let flags = [
        "--resource",
        "v1/configmaps",
        "--mode",
        "enforce",
        "--only-service-account",
        &account,
    ];
    let fenced = Fenced::new(world, namespace, &flags).await?;
    fenced.until_refused(&fenced.b, B).await?;
    fenced.until_passes(&fenced.a).await?;
    fenced.until_passes(&fenced.leases.api).await?;
    // A token of the same account that is bound to no pod proves nothing.
    let plane = world.plane().await?;
    let unbound = plane.client(&plane.service_account_token(namespace, "elector").await?)?;
    ensure_refused(
        &fenced.probe(&unbound).await?,
        "a token bound to no pod",
        ": user \"system:serviceaccount:fence-account:elector\" does not hold",
    )
}

async fn operators_give_a_reason(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-reason";
    let policy: PathBuf = world.folder().join("fence-reason-policy.yaml");
    std::fs::write(
        &policy,
        "breakGlass: {groups: [writers], requireAnnotation: true}\n",
    )?;
    let policy = policy.to_str().context("the folder's name is not text")?;
    let fenced = Fenced::config_maps(world, namespace, &["--policy-file", policy]).await?;
    let path = fenced.path();
    let writer = &fenced.leases.api;
    // Not in the groups.
    ensure_refused(&fenced.probe(&fenced.admin).await?, "admin", "does not hold")?;
    let because = |name: &str, reason: &str| {
        let mut object = config_map(name);
        if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.insert(
                "annotations".to_owned(),
                json!({"leasehold.dev/break-glass": reason}),
            );
        }
        object
    };
    ensure_refused(
        &writer.post(&path, &because("orders", "  ")).await?,
        "a blank",
        "does not hold",
    )?;
    ensure_refused(
        &fenced.b.post(&path, &because("orders", "let me")).await?,
        "the annotation alone",
        "does not hold",
    )?;
    writer
        .post(&path, &because("orders", "node 7 is lost"))
        .await?
        .accepted()?;
    // The reason that was left there is no reason for what comes after, but for a deletion.
    let order = format!("{path}/orders");
    let again = writer
        .merge_patch(&order, &json!({"data": {"by": "hand"}}))
        .await?;
    ensure_refused(&again, "an old reason", "does not hold")?;
    let anew = json!({"metadata": {"annotations": {"leasehold.dev/break-glass": "node 8, too"}}});
    writer.merge_patch(&order, &anew).await?.accepted()?;
    writer.delete(&order).await?.accepted()?;
    Ok(())
}

/// The API server compiles what it is given; kube-controller-manager holds it to the types of what it is about.
async fn types_are_right(world: &'static World) -> anyhow::Result<()> {
    anchor(world).await?;
    let lease = "fence-types/lock";
    let everything = [
        "--lease",
        lease,
        "--fence-name",
        "fence-types-everything",
        "--resource",
        "v1/configmaps",
        "--resource",
        "apps/v1/deployments",
        "--resource",
        "apps/v1/deployments/status",
        "--resource",
        "v1/pods",
        "--resource",
        "rbac.authorization.k8s.io/v1/clusterroles",
        "--mode",
        "enforce",
        "--all-namespaces",
        "--name",
        "orders",
        "--selector",
        "app=a,!b",
        "--only-service-account",
        "fence-types/elector",
    ];
    let least = [
        "--lease",
        lease,
        "--fence-name",
        "fence-types-least",
        "--resource",
        "Secret",
        "--when-free=allow",
        "--when-expired=allow",
    ];
    apply(world, "types-everything", &everything).await?;
    apply(world, "types-least", &least).await?;
    let plane = world.plane().await?;
    let kubeconfig = plane.admin_kubeconfig();
    let controller = Process::start(
        world.folder(),
        "kube-controller-manager-types",
        &world.assets.binary("kube-controller-manager"),
        [
            format!("--kubeconfig={}", kubeconfig.display()),
            "--controllers=validatingadmissionpolicy-status-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ],
    )
    .await?;
    let admin = world.admin().await?;
    for name in [
        "fence-types-everything",
        "fence-types-least",
        "leasehold-fence-anchor",
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}");
        let checked = until("the types to be checked", || async {
            let policy = admin.get(&path).await?.accepted()?;
            Ok(policy.pointer("/status/typeChecking").cloned())
        })
        .await?;
        ensure!(checked == json!({}), "{name}: {checked}");
    }
    drop(controller);
    policies::settled(&admin, "fence-types.settled").await
}
