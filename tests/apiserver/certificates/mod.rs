//! Self-managed certificates: installed from nothing, rotated under load with crashes between the steps, repaired.

mod keepers;
mod load;
mod repairs;
mod rotations;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use self::{
    keepers::{Keepers, State},
    load::Load,
    repairs::{an_older_secret_that_is_restored_fails_no_handshake, what_is_broken_is_repaired},
    rotations::rotations_fail_no_handshake,
};
use crate::{
    Test,
    guard::NAMESPACE,
    harness::{audit::text, network::Network, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file. They take the machine's processors, and one kills replicas.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "certificates::are_there_after_an_installation",
            are_there_after_an_installation,
        ),
        test(
            Phase::Alone(6),
            "certificates::rotations_fail_no_handshake",
            rotations_fail_no_handshake,
        ),
        test(
            Phase::Alone(6),
            "certificates::what_is_broken_is_repaired",
            what_is_broken_is_repaired,
        ),
        test(
            Phase::Alone(6),
            "certificates::an_older_secret_that_is_restored_fails_no_handshake",
            an_older_secret_that_is_restored_fails_no_handshake,
        ),
        test(
            Phase::Attacked,
            "certificates::are_renewed_before_they_expire",
            are_renewed_before_they_expire,
        ),
        test(
            Phase::Attacked,
            "certificates::a_stuck_replica_keeps_the_old_ca",
            a_stuck_replica_keeps_the_old_ca,
        ),
        test(
            Phase::Attacked,
            "certificates::webhooks_come_and_go",
            webhooks_come_and_go,
        ),
    ]
}

/// What `kubectl apply -k` and two replicas that start at once come to.
async fn are_there_after_an_installation(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    if world.network == Network::Loopback {
        // The deployed guard is called by URL there, with certificates from files.
        return Ok(());
    }
    let admin = world.admin().await?;
    let secret = admin
        .get(&format!(
            "/api/v1/namespaces/{NAMESPACE}/secrets/leasehold-certificates"
        ))
        .await?
        .accepted()?;
    let registration = admin
        .get(&format!("{}/leasehold", crate::guard::REGISTRATIONS))
        .await?
        .accepted()?;
    let authority = text(&secret, "/data/ca.crt");
    ensure!(!authority.is_empty(), "no CA in the Secret");
    let webhooks = registration.get("webhooks").and_then(Value::as_array);
    for webhook in webhooks.context("no webhooks")? {
        ensure!(
            text(webhook, "/clientConfig/caBundle") == authority,
            "caBundle is not the CA of the Secret: {webhook}"
        );
    }
    ensure_owns_ca_bundle_alone(&registration)?;

    let reports: Value =
        serde_json::from_str(text(&secret, "/metadata/annotations/leasehold.dev~1replicas"))?;
    let not_after: jiff::Timestamp = text(&reports, "/leasehold-0/notAfter").parse()?;
    ensure!(
        reports.get("leasehold-0") == reports.get("leasehold-1"),
        "the replicas serve different leaves: {reports}"
    );
    let keys: Vec<String> = ["ca.key", "tls.key"]
        .iter()
        .map(|key| decoded_key(&secret, key))
        .collect::<anyhow::Result<_>>()?;
    let mut writers = 0.0;
    for replica in guard.replicas() {
        let metrics = replica.metrics().await?;
        let told = metrics.sum("leasehold_certificate_not_after_timestamp_seconds", &[]);
        #[allow(clippy::cast_precision_loss, reason = "a date of this age is exact")]
        let expected = not_after.as_second() as f64;
        ensure!(told == expected, "a replica tells of {told}, not {expected}");
        writers += metrics.sum("leasehold_certificates_writer", &[]);
        let (_, exposition) = replica.get("/metrics").await?;
        let (_, readiness) = replica.get("/readyz?verbose").await?;
        let log = replica.log()?;
        for told in [&exposition, &readiness, &log] {
            ensure!(
                !keys.iter().any(|key| told.contains(key)) && !told.contains("PRIVATE KEY"),
                "a private key is told: {told}"
            );
        }
    }
    ensure!(writers <= 1.0, "{writers} replicas are elected");
    Ok(())
}

/// The middle of a key's PEM, which is in nothing else.
fn decoded_key(secret: &Value, key: &str) -> anyhow::Result<String> {
    let k8s_openapi::ByteString(pem) = serde_json::from_value(
        secret
            .pointer(&format!("/data/{key}"))
            .cloned()
            .unwrap_or_default(),
    )?;
    let pem = String::from_utf8(pem)?;
    let line = pem.lines().nth(1).with_context(|| format!("{key} is no PEM"))?;
    Ok(line.to_owned())
}

fn ensure_owns_ca_bundle_alone(registration: &Value) -> anyhow::Result<()> {
    let entries = registration
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .context("no managedFields")?;
    let own: Vec<&Value> = entries
        .iter()
        .filter(|entry| text(entry, "/manager") == "leasehold-certificates")
        .collect();
    let [own] = own.as_slice() else {
        anyhow::bail!("not one entry of ours: {own:?}")
    };
    ensure!(text(own, "/operation") == "Apply", "not applied: {own}");
    let webhooks = own
        .pointer("/fieldsV1/f:webhooks")
        .and_then(Value::as_object)
        .with_context(|| format!("no webhooks: {own}"))?;
    for fields in webhooks.values() {
        let expected = json!({".": {}, "f:name": {}, "f:clientConfig": {"f:caBundle": {}}});
        ensure!(*fields == expected, "owns more than caBundle: {fields}");
    }
    let all = own.get("fieldsV1").and_then(Value::as_object);
    ensure!(
        all.is_some_and(|all| all.len() == 1),
        "owns more than webhooks: {own}"
    );
    Ok(())
}

async fn are_renewed_before_they_expire(world: &'static World) -> anyhow::Result<()> {
    let flags = [
        "--tls-ca-life=10m",
        "--tls-ca-renew-before=9m50s",
        "--tls-cert-life=2m",
        "--tls-cert-renew-before=1m57s",
    ];
    let keepers = Keepers::start_with(world, "renewals-of-certificates", &flags).await?;
    let first = keepers
        .wait_for("the pair to serve", |now| now.reports.len() == 2)
        .await?;
    let mut load = Load::start(world, &keepers).await?;
    let second = keepers
        .wait_for("another leaf", |now| now.leaf != first.leaf)
        .await?;
    let third = keepers
        .wait_for("another CA", |now| {
            now.authority != first.authority && now.leaf != second.leaf
        })
        .await?;
    keepers
        .wait_for("its leaf, or a later one", |now| now.leaf != third.leaf)
        .await?;
    load.ensure_unharmed()?;
    let seen = load.stop().await?;
    ensure!(seen.broken_connections == 0, "connections broke: {seen:?}");
    keepers.end().await
}

/// A replica that is stuck serves, for all that is known, its old leaf: so the old CA stays, however long that takes.
async fn a_stuck_replica_keeps_the_old_ca(world: &'static World) -> anyhow::Result<()> {
    let keepers = Keepers::start(world, "stuck").await?;
    let before = keepers.wait_for("the pair to serve", State::is_settled).await?;
    let writer = keepers.writer().await?;
    let stuck = keepers
        .replicas
        .iter()
        .find(|replica| replica.name() != writer.name())
        .context("no other replica")?;
    stuck.signal("STOP").await?;
    keepers.ask("ca").await?;
    let told = |step: &'static str| async move {
        let metrics = writer.metrics().await?;
        let at = metrics.sum("leasehold_certificates_step", &[("step", step)]) > 0.0;
        let behind = metrics.sum("leasehold_certificates_replicas_behind", &[]);
        let polls = metrics.sum("leasehold_certificates_polls_total", &[]);
        anyhow::Ok((at && behind == 1.0).then_some(polls))
    };
    let watched = async {
        let polls = until("the writer to wait for the stuck replica", || {
            told("wait_for_replicas")
        })
        .await?;
        // For longer than the wait of the pair: so many looks, 50 ms apart.
        until("more looks", || async {
            let metrics = writer.metrics().await?;
            let now = metrics.sum("leasehold_certificates_polls_total", &[]);
            Ok((now >= polls + 60.0).then_some(()))
        })
        .await
    };
    let outcome = watched.await;
    let meanwhile = keepers.state().await;
    stuck.signal("CONT").await?;
    outcome?;
    let meanwhile = meanwhile?.context("no Secret")?;
    ensure!(
        meanwhile.leaf != before.leaf && meanwhile.retiring == before.authority,
        "the old CA was dropped: {meanwhile:?}"
    );
    ensure!(
        meanwhile
            .bundles
            .iter()
            .all(|bundle| bundle.len() > meanwhile.authority.len()),
        "the old CA is not published: {meanwhile:?}"
    );
    keepers
        .wait_for("the stuck replica to come along", |now| {
            now.is_settled() && now.leaf == meanwhile.leaf && now.reports.len() == 2
        })
        .await?;
    keepers.end().await
}

/// A component that adds a webhook, and takes it out again: the new one gets its `caBundle`, and what Leasehold owns of
/// it is not in the way.
async fn webhooks_come_and_go(world: &'static World) -> anyhow::Result<()> {
    let plane = world.plane().await?;
    let keepers = Keepers::start(world, "webhooks").await?;
    keepers.wait_for("the pair to serve", State::is_settled).await?;
    let mut fewer = keepers
        .admin
        .get(&keepers.registration_path())
        .await?
        .accepted()?;
    fewer["metadata"] = json!({"name": keepers.name});
    let webhooks = fewer["webhooks"].as_array_mut().context("no webhooks")?;
    for webhook in webhooks.iter_mut() {
        webhook["clientConfig"]
            .as_object_mut()
            .and_then(|config| config.remove("caBundle"))
            .context("no caBundle")?;
    }
    let mut more = fewer.clone();
    let mut third = more["webhooks"][0].clone();
    third["name"] = json!("third.leasehold.dev");
    more["webhooks"]
        .as_array_mut()
        .context("no webhooks")?
        .push(third);

    let file = world.folder().join("webhooks.json").display().to_string();
    for (registration, count) in [(&fewer, 2), (&more, 3), (&fewer, 2)] {
        std::fs::write(&file, registration.to_string())?;
        plane.kubectl(&["apply", "-f", &file]).await?;
        keepers
            .wait_for("every webhook to have its caBundle", |now| {
                now.is_settled() && now.bundles.len() == count
            })
            .await?;
    }
    // As the manual warns.
    std::fs::write(&file, more.to_string())?;
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &file];
    plane.kubectl(&apply).await?;
    keepers
        .wait_for("the third webhook again", |now| {
            now.is_settled() && now.bundles.len() == 3
        })
        .await?;
    std::fs::write(&file, fewer.to_string())?;
    let refused = plane.kubectl(&apply).await;
    ensure!(
        refused.is_err_and(|error| error.to_string().contains("Required value")),
        "a server-side apply takes a webhook out: say so in certs/README.md"
    );
    keepers.end().await
}
