//! Locks in annotations of ConfigMaps and Endpoints, with the component that sends them.

mod lock;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::lock::{Dialect, LEADER, Lock};
use crate::{
    Test,
    components::{register_all, restore},
    guard::Guard,
    harness::{api::Api, audit::text, leases::Verb, schedule::Phase, until, world::World},
    test,
};

const WEBHOOK: &str = "annotation-locks.leasehold.dev";
/// What has this annotation, and its kind.
const RESOURCES: [(&str, &str); 2] = [("configmaps", "ConfigMap"), ("endpoints", "Endpoints")];
/// The duration that honest candidates wait for.
const SHORT: i64 = 6;
/// The duration of what is attacked, longer than any test.
const LONG: i64 = 600;

/// The tests of this file: the component is registered for them alone, and they count.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(6),
        "annotation_locks::guarded_with_the_component",
        guarded_with_the_component,
    )]
}

async fn guarded_with_the_component(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let namespace = "annotation-locks";
    let api = world.leases(namespace).await?.api;
    let before = register_all(world).await?;
    let outcome = guarded(world, guard, &api, namespace).await;
    restore(world, &before).await?;
    outcome
}

/// How often the API server called the webhook. One write may count more than once: see `renewals.rs`.
async fn calls(world: &World) -> anyhow::Result<f64> {
    let metrics = world.plane().await?.metrics().await?;
    Ok(metrics.sum("apiserver_admission_webhook_request_total", &[("name", WEBHOOK)]))
}

fn later(time: Timestamp, milliseconds: i64) -> anyhow::Result<Timestamp> {
    Ok(time.checked_add(SignedDuration::from_millis(milliseconds))?)
}

async fn guarded(world: &World, guard: &Guard, api: &Api, namespace: &str) -> anyhow::Result<()> {
    let lock = |(resource, kind): (&'static str, &'static str), name: String| Lock {
        api,
        namespace,
        resource,
        kind,
        name,
    };
    let now = api.now().await?;
    until("the API server to know the component", || async {
        let probe = lock(("configmaps", "ConfigMap"), "probe".to_owned());
        let reply = probe
            .create(
                json!({"annotations": {LEADER: r#"{"holderIdentity":"probe","leaseDurationSeconds":1}"#}}),
            )
            .await?;
        if reply.code < 300 {
            api.delete(&probe.path()).await?;
        }
        Ok((reply.code == 403).then_some(()))
    })
    .await?;

    let mut honest = Vec::new();
    for resource in RESOURCES {
        for dialect in Dialect::ALL {
            let name = format!("renewed-{}", format!("{dialect:?}").to_lowercase());
            let lock = lock(resource, name);
            renewals_are_not_sent(world, &lock, dialect, now).await?;
            honest.push((lock, dialect));
        }
        for verb in Verb::ALL {
            let lock = lock(resource, format!("attacked-{}", verb.slug()));
            attacks_are_denied(&lock, verb).await?;
        }
        malformed_records_are_counted(world, guard, &lock(resource, "malformed".to_owned())).await?;
        unlocked_objects_are_not_sent(world, &lock(resource, "unlocked".to_owned())).await?;
    }

    let records = guard.audit_records_now(namespace)?;
    for (_, kind) in RESOURCES {
        ensure!(
            records
                .iter()
                .any(|record| text(record, "/kind") == kind && text(record, "/decision") == "denied"),
            "the audit log knows of no denial on a {kind}"
        );
    }

    // Nobody renewed the first locks any more: once their time is over, each goes to another holder.
    let since = api.now().await?;
    api.until_elapsed(since, SHORT).await?;
    for (lock, dialect) in honest {
        let now = api.now().await?;
        let reply = lock
            .write(Verb::Put, &dialect.record("b", SHORT, [now, now], 1))
            .await?;
        ensure!(
            reply.code == 200,
            "{} {}: an honest takeover got {} {}",
            lock.kind,
            lock.name,
            reply.code,
            reply.message()
        );
    }
    Ok(())
}

async fn renewals_are_not_sent(
    world: &World,
    lock: &Lock<'_>,
    dialect: Dialect,
    acquired: Timestamp,
) -> anyhow::Result<()> {
    let record = |milliseconds, holder| -> anyhow::Result<String> {
        Ok(dialect.record(holder, SHORT, [acquired, later(acquired, milliseconds)?], 0))
    };
    lock.create_held(&record(0, "a")?).await?;
    let mut milliseconds = 0;
    for verb in Verb::ALL {
        let before = calls(world).await?;
        for _ in 0..3 {
            milliseconds += 1000;
            lock.write(verb, &record(milliseconds, "a")?).await?.accepted()?;
        }
        let sent = calls(world).await? - before;
        ensure!(
            sent == 0.0,
            "{} {}: {verb:?}: renewals were sent {sent} times",
            lock.kind,
            lock.name
        );
    }
    // Anything else is sent, or the counter would prove nothing: here an unknown field, then a label.
    let before = calls(world).await?;
    let more = record(milliseconds, "a")?.replacen('{', r#"{"more":1,"#, 1);
    lock.write(Verb::Put, &more).await?.accepted()?;
    let between = calls(world).await?;
    lock.merge_metadata(json!({"labels": {"app": "shop"}}))
        .await?
        .accepted()?;
    let after = calls(world).await?;
    ensure!(
        between > before && after > between,
        "{} {}: calls: {before}, {between}, {after}",
        lock.kind,
        lock.name
    );
    lock.write(Verb::Put, &record(milliseconds, "a")?)
        .await?
        .accepted()?;
    // A renewal that clears the stamps along the way is none.
    let reply = lock
        .merge_metadata(json!({
            "managedFields": [{}],
            "annotations": {LEADER: record(milliseconds + 1000, "a")?},
        }))
        .await?;
    ensure!(
        reply.code == 200 || reply.message().contains("stamp-tampered"),
        "{} {}: {} {}",
        lock.kind,
        lock.name,
        reply.code,
        reply.message()
    );
    let stored = api_object(lock).await?;
    ensure!(
        owners(&stored) > 0,
        "{} {}: nobody owns the annotation any more: {stored}",
        lock.kind,
        lock.name
    );
    Ok(())
}

async fn api_object(lock: &Lock<'_>) -> anyhow::Result<Value> {
    lock.api.get(&lock.path()).await?.accepted()
}

/// How many entries of managedFields own the annotation.
fn owners(object: &Value) -> usize {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let key = format!(
        "/fieldsV1/f:metadata/f:annotations/f:{}",
        LEADER.replace('/', "~1")
    );
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry.pointer(&key).is_some())
        .count()
}

fn managed_fields(object: &mut Value) -> anyhow::Result<&mut Vec<Value>> {
    object
        .pointer_mut("/metadata/managedFields")
        .and_then(Value::as_array_mut)
        .context("no managedFields")
}

async fn attacks_are_denied(lock: &Lock<'_>, verb: Verb) -> anyhow::Result<()> {
    let now = lock.api.now().await?;
    lock.create_held(&Dialect::ClientGo.record("a", LONG, [now, now], 0))
        .await?;
    let ahead = later(now, 3_600_000)?;
    for (record, cause) in [
        (
            Dialect::ClientGo.record("b", LONG, [now, now], 1),
            "an early takeover",
        ),
        (
            Dialect::ClientGo.record("b", LONG, [ahead, ahead], 1),
            "an early takeover, its clock an hour ahead",
        ),
        (
            Dialect::Fabric8.record("b", LONG, [now, now], 1),
            "an early takeover by another dialect",
        ),
    ] {
        let reply = lock.write(verb, &record).await?;
        let expected = format!(
            "takeover-before-expiry: \"b\" may not take lease {}/{} (annotation of its {}) from \"a\" yet",
            lock.namespace, lock.name, lock.kind
        );
        ensure!(
            reply.code == 403 && reply.message().contains(&expected),
            "{} {}: {cause} got {} {}",
            lock.kind,
            lock.name,
            reply.code,
            reply.message()
        );
    }
    // As long as what the match condition compares, then longer than that; near misses of its pattern all over.
    for repetitions in [200, 10_000] {
        let filler = r#"\"renewTime\": x "#.repeat(repetitions);
        let record = Dialect::ClientGo.record("b", LONG, [now, now], 1);
        let padded = record.replacen('{', &format!(r#"{{"x":"{filler}","#), 1);
        let reply = lock.write(verb, &padded).await?;
        ensure!(
            reply.code == 403 && reply.message().contains("takeover-before-expiry: "),
            "{} {}: an early takeover of {} bytes got {} {}",
            lock.kind,
            lock.name,
            padded.len(),
            reply.code,
            reply.message()
        );
    }
    // A takeover that claims to have been stamped in an hour, by somebody else.
    let mut claimed = api_object(lock).await?;
    for entry in managed_fields(&mut claimed)? {
        entry["manager"] = "forger".into();
        entry["time"] = format!("{ahead:.0}").into();
    }
    let record = Dialect::ClientGo.record("b", LONG, [ahead, ahead], 1);
    let metadata = json!({
        "annotations": {LEADER: record},
        "managedFields": claimed.pointer("/metadata/managedFields"),
    });
    let reply = lock.merge_metadata(metadata).await?;
    ensure!(
        reply.code == 403 && reply.message().contains("takeover-before-expiry: "),
        "{} {}: an early takeover with forged stamps got {} {}",
        lock.kind,
        lock.name,
        reply.code,
        reply.message()
    );
    // A forged stamp along with a label, and stamps removed.
    let mut forged = api_object(lock).await?;
    for entry in managed_fields(&mut forged)? {
        entry["time"] = "2020-01-01T00:00:00Z".into();
    }
    let back_dated = forged.pointer("/metadata/managedFields").cloned();
    for managed_fields in [back_dated, Some(json!([{}]))] {
        let metadata = json!({"managedFields": managed_fields, "labels": {"forged": "yes"}});
        let reply = lock.merge_metadata(metadata).await?;
        ensure!(
            reply.code == 403 && reply.message().contains("stamp-tampered: "),
            "{} {}: forged stamps got {} {}",
            lock.kind,
            lock.name,
            reply.code,
            reply.message()
        );
    }
    Ok(())
}

async fn malformed_records_are_counted(world: &World, guard: &Guard, lock: &Lock<'_>) -> anyhow::Result<()> {
    let counted = async || -> anyhow::Result<f64> {
        Ok(guard
            .metrics()
            .await?
            .sum("leasehold_malformed_records_total", &[]))
    };
    let now = lock.api.now().await?;
    lock.create_held(&Dialect::ClientGo.record("a", LONG, [now, now], 0))
        .await?;
    let mut before = counted().await?;
    // Bytes of all kinds, one that is longer than what the match condition compares, and back to a good record.
    let long = format!(
        "{{\"holderIdentity\":\"b\",\"x\":\"{}\"",
        "\\\"".repeat(60 * 1024)
    );
    let good = Dialect::ClientGo.record("b", LONG, [now, now], 9);
    for value in [
        "",
        "no json",
        "{\"renewTime\": 7}",
        "\u{0}\u{7f}\u{10ffff}",
        &long,
        &good,
    ] {
        let reply = lock.write(Verb::MergePatch, value).await?;
        ensure!(
            reply.code == 200
                && reply
                    .warnings
                    .iter()
                    .any(|warning| warning.contains("cannot be read")),
            "{} with {:?}…: {} {} {:?}",
            lock.kind,
            value.chars().take(20).collect::<String>(),
            reply.code,
            reply.message(),
            reply.warnings
        );
        let after = counted().await?;
        ensure!(
            after > before,
            "a malformed record was not counted: {before}, {after}"
        );
        before = after;
    }
    let metrics = world.plane().await?.metrics().await?;
    let failed = metrics.sum(
        "apiserver_admission_webhook_fail_open_count",
        &[("name", WEBHOOK)],
    );
    ensure!(failed == 0.0, "{failed} calls were passed over");
    Ok(())
}

async fn unlocked_objects_are_not_sent(world: &World, lock: &Lock<'_>) -> anyhow::Result<()> {
    let before = calls(world).await?;
    lock.create(json!({"annotations": {"other": "x"}}))
        .await?
        .accepted()?;
    lock.merge_metadata(json!({"labels": {"app": "shop"}}))
        .await?
        .accepted()?;
    lock.merge_metadata(json!({"annotations": null}))
        .await?
        .accepted()?;
    lock.api.delete(&lock.path()).await?.accepted()?;
    lock.create(json!({})).await?.accepted()?;
    let sent = calls(world).await? - before;
    ensure!(sent == 0.0, "objects without a lock were sent {sent} times");
    // The annotation comes, and goes again with its object.
    let now = lock.api.now().await?;
    lock.write(
        Verb::MergePatch,
        &Dialect::ClientGo.record("a", LONG, [now, now], 0),
    )
    .await?
    .accepted()?;
    ensure!(calls(world).await? > before, "a new lock was not sent");
    Ok(())
}
