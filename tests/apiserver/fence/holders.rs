//! Who may write: the pod that holds the lease, by its token, and nobody else.

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};

use super::{A, A_HOLDS, B, B_HOLDS, Fenced, LEASE, VALID_SECONDS, changes, config_map, ensure_refused};
use crate::{
    Test,
    attacks::held,
    harness::{audit::text, pods, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let phase = Phase::InProcess;
    vec![
        test(
            phase,
            "fence::after_a_takeover_the_old_leader_is_refused",
            after_a_takeover,
        ),
        test(phase, "fence::every_verb_is_held", every_verb_is_held),
        test(
            phase,
            "fence::identities_are_held_to_the_pod",
            identities_are_held_to_the_pod,
        ),
        test(
            phase,
            "fence::while_nobody_holds_nobody_writes",
            while_nobody_holds_nobody_writes,
        ),
        test(
            phase,
            "fence::while_nobody_holds_everybody_may_write_if_asked_for",
            while_nobody_holds_everybody_may_write,
        ),
        test(
            phase,
            "fence::an_expired_lease_stops_its_holder",
            an_expired_lease_stops_its_holder,
        ),
    ]
}

async fn after_a_takeover(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, "fence-takeover", &[]).await?;
    let (path, create) = (fenced.path(), config_map("orders"));
    fenced.a.post(&path, &create).await?.accepted()?;
    let early = fenced.b.post(&path, &config_map("of-b")).await?;
    ensure_refused(&early, "the candidate", &format!("pod {B:?}"))?;

    fenced.taken_over_by(B_HOLDS).await?;
    fenced.until_passes(&fenced.b).await?;
    let order = format!("{path}/orders");
    let late = fenced
        .a
        .merge_patch(&order, &json!({"data": {"by": "the old leader"}}))
        .await?;
    let words = format!(
        "pod {A:?} of user \"system:serviceaccount:fence-takeover:elector\" does not hold lease fence-takeover/{LEASE}, \
         {B_HOLDS:?} does, and only the holder's pod may write what it fences"
    );
    ensure_refused(&late, "the old leader", &words)?;
    ensure!(late.reason() == "Forbidden", "reason {}", late.reason());
    fenced
        .b
        .merge_patch(&order, &json!({"data": {"by": "the new leader"}}))
        .await?
        .accepted()?;
    let stored = fenced.admin.get(&order).await?.accepted()?;
    ensure!(text(&stored, "/data/by") == "the new leader", "{stored}");
    Ok(())
}

async fn every_verb_is_held(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, "fence-verbs", &[]).await?;
    let path = fenced.path();
    for name in ["orders", "more"] {
        fenced.a.post(&path, &config_map(name)).await?.accepted()?;
    }
    for (verb, method, url, content_type, body) in changes("orders", &path) {
        for (writer, api, words) in [
            ("another pod", &fenced.b, "does not hold lease"),
            (
                "no pod",
                &fenced.leases.api,
                ": user \"writer\" does not hold lease",
            ),
        ] {
            let body = body.to_string().into_bytes();
            let reply = api.request(method.clone(), &url, content_type, body).await?;
            ensure_refused(&reply, &format!("{verb} by {writer}"), words)?;
        }
        let body = body.to_string().into_bytes();
        let reply = fenced.a.request(method, &url, content_type, body).await?;
        ensure!(reply.code == 200, "{verb} by the leader: {}", reply.message());
    }
    let order = format!("{path}/orders");
    ensure_refused(&fenced.b.delete(&order).await?, "DELETE", "does not hold lease")?;
    let all = fenced.b.delete(&path).await?;
    ensure_refused(&all, "DELETE of the collection", "does not hold lease")?;
    fenced.a.delete(&order).await?.accepted()?;

    // Or a namespace could not be deleted while somebody leads.
    let plane = world.plane().await?;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "namespace-controller"},
    });
    let accounts = "/api/v1/namespaces/kube-system/serviceaccounts";
    fenced.admin.post(accounts, &account).await?.accepted()?;
    let token = plane
        .service_account_token("kube-system", "namespace-controller")
        .await?;
    let more = format!("{path}/more");
    plane.client(&token)?.delete(&more).await?.accepted()?;

    // By hand, and the API server's audit log tells of it.
    fenced
        .admin
        .post(&path, &config_map("by-hand"))
        .await?
        .accepted()?;
    let note = "leasehold-fence-fence-verbs-lock/break-glass";
    until("the audit log to tell of broken glass", || async {
        let audit = world.plane().await?.audit()?;
        let told = audit.0.iter().any(|event| {
            let note = event.pointer("/annotations").and_then(|all| all.get(note));
            note.and_then(Value::as_str).is_some_and(|note| {
                note.starts_with("user \"admin\", reason \"\": user \"admin\" does not hold lease")
            })
        });
        Ok(told.then_some(()))
    })
    .await
}

async fn identities_are_held_to_the_pod(world: &'static World) -> anyhow::Result<()> {
    let namespace = "fence-identities";
    let fenced = Fenced::config_maps(world, namespace, &[]).await?;
    let pod = fenced
        .admin
        .get(&format!("/api/v1/namespaces/{namespace}/pods/{A}"))
        .await?
        .accepted()?;
    let uuid = "2f1c8f0e-5b0a-4c1c-9d3e-8a7b6c5d4e3f";
    let uid = text(&pod, "/metadata/uid");
    let own = [
        A.to_owned(),
        uid.to_owned(),
        format!("{A}_{uuid}"),
        format!("{A}-{uuid}"),
        format!("{A}_anything \"at\" all\nand more"),
        format!("{A}/1"),
        format!("{A}:8080"),
    ];
    for identity in own {
        // So that passing is news.
        fenced.lease(json!({"holderIdentity": B_HOLDS})).await?;
        fenced.until_refused(&fenced.a, B_HOLDS).await?;
        fenced.lease(json!({"holderIdentity": identity})).await?;
        fenced.until_passes(&fenced.a).await?;
        let other = fenced.probe(&fenced.b).await?;
        ensure!(other.code == 403, "{identity:?}: b passed");
    }
    // A pod of that name elsewhere.
    let elsewhere = "fence-identities-elsewhere";
    world.leases(elsewhere).await?;
    pods::create_account(world, elsewhere).await?;
    let token = pods::token(world, elsewhere, A).await?;
    let other = fenced.probe(&world.plane().await?.client(&token)?).await?;
    ensure_refused(&other, "a pod elsewhere", &format!("pod {A:?} of user"))?;

    let foreign = [
        "payments-7d4b9c6f5-x2x9".to_owned(),
        format!("{A}x"),
        format!("{A}-0"),
        format!("{A}-q8w4m"),
        format!("{A}-{uuid}-q8w4m"),
        format!("{A}.shop"),
        format!("x{A}"),
        "_".to_owned(),
        uuid.to_owned(),
    ];
    for identity in foreign {
        fenced.lease(json!({"holderIdentity": identity})).await?;
        fenced
            .until_refused(&fenced.a, &format!("{identity:?} does, and only"))
            .await?;
        fenced
            .until_refused(&fenced.leases.api, &format!("{identity:?} does, and only"))
            .await?;
    }
    Ok(())
}

async fn while_nobody_holds_nobody_writes(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, "fence-free", &[]).await?;
    let path = fenced.path();
    for name in ["orders", "more"] {
        fenced.a.post(&path, &config_map(name)).await?.accepted()?;
    }
    fenced.lease(json!({"holderIdentity": ""})).await?;
    fenced
        .until_refused(
            &fenced.a,
            "nobody holds lease fence-free/lock, and only its holder's pod",
        )
        .await?;
    fenced.lease(json!({"holderIdentity": A_HOLDS})).await?;
    fenced.until_passes(&fenced.a).await?;
    fenced.lease(json!({"holderIdentity": null})).await?;
    fenced.until_refused(&fenced.a, "nobody holds").await?;
    ensure_refused(
        &fenced.a.delete(&format!("{path}/orders")).await?,
        "DELETE",
        "nobody holds",
    )?;

    // No Lease at all: the API server refuses before it asks any condition, an operator too.
    fenced.leases.delete(LEASE).await?.accepted()?;
    let words = "no params found for policy binding with `Deny` parameterNotFoundAction";
    fenced.until_refused(&fenced.a, words).await?;
    let operator = fenced.probe(&fenced.admin).await?;
    ensure!(
        operator.code == 422 && operator.message().contains(words),
        "an operator: {operator:?}"
    );
    // Or a namespace whose Lease goes first could never be deleted.
    fenced.b.delete(&format!("{path}/orders")).await?.accepted()?;

    let now = fenced.leases.api.now().await?;
    fenced
        .leases
        .create(LEASE, "elector", held(A_HOLDS, now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    fenced.until_passes(&fenced.a).await?;
    ensure_refused(
        &fenced.b.delete(&format!("{path}/more")).await?,
        "DELETE",
        "does not hold",
    )
}

async fn while_nobody_holds_everybody_may_write(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, "fence-free-for-all", &["--when-free=allow"]).await?;
    fenced.lease(json!({"holderIdentity": ""})).await?;
    fenced.until_passes(&fenced.leases.api).await?;
    fenced.lease(json!({"holderIdentity": B_HOLDS})).await?;
    fenced.until_refused(&fenced.leases.api, "does not hold").await?;
    fenced.leases.delete(LEASE).await?.accepted()?;
    fenced.until_passes(&fenced.leases.api).await
}

async fn an_expired_lease_stops_its_holder(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, "fence-expired", &[]).await?;
    let lenient = Fenced::config_maps(world, "fence-unexpiring", &["--when-expired=allow"]).await?;
    let order = format!("{}/orders", fenced.path());
    fenced
        .a
        .post(&fenced.path(), &config_map("orders"))
        .await?
        .accepted()?;
    let now = fenced.leases.api.now().await?;
    let ago = |seconds| -> anyhow::Result<Value> {
        let renewed = now.checked_sub(jiff::SignedDuration::from_secs(seconds))?;
        Ok(json!({"renewTime": format!("{renewed:.6}"), "leaseDurationSeconds": 15}))
    };
    fenced.lease(ago(60)?).await?;
    lenient.lease(ago(60)?).await?;
    let create = fenced
        .until_refused(&fenced.a, "but it has expired: renewed 6")
        .await?;
    ensure!(
        create.contains(" s ago by its holder's clock, valid for 15 s and 5 s more for that clock"),
        "{create}"
    );
    let update = fenced
        .a
        .merge_patch(&order, &json!({"data": {"by": "a late leader"}}))
        .await?;
    ensure_refused(&update, "an update", "but it has expired")?;
    ensure_refused(&fenced.probe(&fenced.b).await?, "another", "does not hold")?;
    lenient.until_passes(&lenient.a).await?;

    // Renewed: it leads again.
    fenced.lease(held(A_HOLDS, now, VALID_SECONDS, 0)).await?;
    fenced.until_passes(&fenced.a).await?;
    // Numbers that overflow whatever adds to them, and such as are not there.
    for (renewed, seconds) in [
        (json!("9999-12-31T23:59:59.000000Z"), json!(i32::MAX)),
        (json!(null), json!(15)),
        (ago(60)?["renewTime"].clone(), json!(null)),
    ] {
        fenced.lease(json!({"holderIdentity": B_HOLDS})).await?;
        fenced.until_refused(&fenced.a, "does not hold").await?;
        fenced
            .lease(json!({
                "holderIdentity": A_HOLDS, "renewTime": renewed, "leaseDurationSeconds": seconds,
            }))
            .await?;
        fenced.until_passes(&fenced.a).await?;
    }
    fenced
        .lease(json!({"renewTime": "1000-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}))
        .await?;
    fenced.until_refused(&fenced.a, "but it has expired").await?;
    // A deletion carries no stamp of its own.
    let reply = fenced
        .a
        .request(Method::DELETE, &order, "application/json", Vec::new())
        .await?;
    reply.accepted()?;
    Ok(())
}
