//! Takeovers before and after expiry.

use anyhow::{Context, ensure};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Attack, LEASE, SHORT_SECONDS, SLACK_SECONDS, VALID_SECONDS, ensure_denied, held, seconds_left};
use crate::harness::{
    POLL,
    audit::text,
    leases::{Edit, Leases, Verb},
    world::World,
};

/// A lease that `a` holds, and the edit that is to be refused.
pub(crate) async fn victim(leases: &Leases, attack: Attack) -> anyhow::Result<(Value, Edit)> {
    let now = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    // Forged times must differ from the true ones, and honest ones too.
    let now = leases.api.after_second(now).await?;
    let edit = attack.edit(&lease, now)?;
    Ok((lease, edit))
}

/// In mode enforce: as a dry run and in earnest.
pub(crate) async fn refused(
    world: &World,
    leases: &Leases,
    verb: Verb,
    attack: Attack,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let (before, edit) = victim(leases, attack).await?;
    for edit in [edit.clone().dry(), edit] {
        let reply = leases.edit(verb, LEASE, &edit).await?;
        ensure_denied(&reply, "takeover-before-expiry")?;
        if attack == Attack::ClearedStamps {
            ensure_denied(&reply, "stamp-tampered")?;
        }
        let left = seconds_left(reply.message())?;
        ensure!(
            (VALID_SECONDS - 60..=VALID_SECONDS).contains(&left),
            "{left} s left of {VALID_SECONDS}"
        );
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );

    let denied = |record: &Value, dry_run: bool| {
        text(record, "/rule") == "takeover-before-expiry"
            && text(record, "/decision") == "denied"
            && record.pointer("/dryRun") == Some(&Value::Bool(dry_run))
    };
    let records = guard
        .audit_records(&leases.namespace, "the denial", |record| denied(record, false))
        .await?;
    ensure!(
        records.iter().any(|record| denied(record, true)),
        "the dry run's denial is not logged: {}",
        Value::from(records.clone())
    );
    let takeovers = records
        .iter()
        .filter(|record| text(record, "/record") == "holderChange" && text(record, "/change") == "takeover");
    ensure!(
        takeovers.count() == 0,
        "a refused takeover is logged as a change: {}",
        Value::from(records.clone())
    );
    // Once for the dry run, once in earnest.
    let told = annotated(world, leases, "denied: ").await?;
    ensure!(told == 2, "the API server's audit log tells of {told} denials");
    Ok(())
}

/// How many characters the longest name has here: nearly all that etcd stores of an object (`--max-request-bytes`, 1.5
/// MiB).
const LONGEST: usize = 1_400_000;

/// A name of a character that the API server writes as six bytes into a review (`\u003c`), so that the review is as long
/// as one can be.
pub(crate) fn longest_name() -> String {
    "<".repeat(LONGEST)
}

/// A review that is too long to be read would pass. By one verb after the other: of many at once some are shed.
///
/// The API server waits for an answer as long as it can be told to: an unoptimised build, on a busy machine, is not to be
/// taken for a passed review.
pub(super) async fn the_longest_review_is_judged(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let admin = world.admin().await?;
    let registration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/leasehold";
    let wait = async |seconds: u64| -> anyhow::Result<()> {
        let patch = json!([{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": seconds}]);
        let body = patch.to_string().into_bytes();
        admin
            .request(Method::PATCH, registration, "application/json-patch+json", body)
            .await?
            .accepted()?;
        Ok(())
    };
    let before = admin.get(registration).await?.accepted()?;
    let before = before
        .pointer("/webhooks/0/timeoutSeconds")
        .and_then(Value::as_u64);
    wait(29).await?;
    let judged = long_reviews(world).await;
    wait(before.context("no timeout")?).await?;
    judged
}

async fn long_reviews(world: &'static World) -> anyhow::Result<()> {
    let leases = world.leases("longest").await?;
    // The API server learns of the timeout in its own time: until then it may give up early, and let one pass.
    let learnt = crate::harness::until("the API server to wait for a long review", || async {
        let now = leases.api.now().await?;
        let name = longest_name();
        leases
            .create("probe", "a", held("a", now, VALID_SECONDS, 0))
            .await?
            .accepted()?;
        let take = Edit::spec("b", held(&name, now, VALID_SECONDS, 1));
        let refused = leases.edit(Verb::Put, "probe", &take).await?.code == 403;
        leases.delete("probe").await?.accepted()?;
        Ok(refused.then_some(()))
    });
    learnt.await?;
    let now = leases.api.now().await?;
    let name = longest_name();
    let other = format!("{}b", name.split_at(1).1);
    for holder in ["a", &name] {
        leases
            .create(LEASE, "a", held(holder, now, VALID_SECONDS, 0))
            .await?
            .accepted()?;
        for verb in Verb::ALL {
            // Where the holder has such a name, too, both objects of the review are that long.
            for successor in ["b", &other] {
                let take = Edit::spec("b", held(successor, now, VALID_SECONDS, 1));
                ensure_denied(&leases.edit(verb, LEASE, &take).await?, "takeover-before-expiry")
                    .with_context(|| format!("{verb:?}: {} after {}", successor.len(), holder.len()))?;
            }
        }
        leases.delete(LEASE).await?.accepted()?;
    }
    Ok(())
}

/// In mode audit: allowed and logged, as a dry run and in earnest.
pub(crate) async fn would_be_refused(
    world: &World,
    leases: &Leases,
    verb: Verb,
    attack: Attack,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let (before, edit) = victim(leases, attack).await?;
    leases.edit(verb, LEASE, &edit.clone().dry()).await?.accepted()?;
    ensure!(leases.get(LEASE).await? == before, "a dry run changed the lease");
    let stored = leases.edit(verb, LEASE, &edit).await?.accepted()?;
    ensure!(
        text(&stored, "/spec/holderIdentity") == "b",
        "b did not take over"
    );

    let takeover =
        |record: &Value| text(record, "/record") == "holderChange" && text(record, "/change") == "takeover";
    let records = guard
        .audit_records(&leases.namespace, "the takeover", takeover)
        .await?;
    for dry_run in [true, false] {
        let told = records.iter().any(|record| {
            text(record, "/rule") == "takeover-before-expiry"
                && text(record, "/decision") == "would be denied"
                && record.pointer("/dryRun") == Some(&Value::Bool(dry_run))
        });
        ensure!(
            told,
            "dry run {dry_run}: \"would be denied\" is not logged: {}",
            Value::from(records.clone())
        );
    }
    ensure!(
        records.iter().filter(|record| takeover(record)).count() == 1,
        "not one change is logged: {}",
        Value::from(records.clone())
    );
    let told = annotated(world, leases, "would be denied: ").await?;
    ensure!(
        told == 2,
        "the API server's audit log tells of {told} takeovers that would be denied"
    );
    Ok(())
}

/// How many writes in a namespace the API server's own audit log annotates with this decision on the takeover.
pub(super) async fn annotated(world: &World, leases: &Leases, decision: &str) -> anyhow::Result<usize> {
    let webhook = &world.guard().await?.webhook;
    let annotation = format!("/annotations/{webhook}~1takeover-before-expiry");
    let audit = world.plane().await?.audit()?;
    let told = audit
        .lease_writes(&leases.namespace)
        .filter(|event| text(event, &annotation).starts_with(decision));
    Ok(told.count())
}

/// Tries to take over until it works: never before the lease has expired by the API server's stamps.
pub(super) async fn takeover_after_expiry_passes(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("expiry-{}", verb.slug())).await?;
    let created = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", created, SHORT_SECONDS, 0))
        .await?
        .accepted()?;
    let renewed = stamp(&lease)?;
    let taken = crate::harness::until("the lease to expire", || async {
        let now = leases.api.now().await?;
        let reply = leases
            .edit(verb, LEASE, &Edit::spec("b", held("b", now, SHORT_SECONDS, 1)))
            .await?;
        if reply.code == 403 {
            ensure_denied(&reply, "takeover-before-expiry")?;
            let left = seconds_left(reply.message())?;
            ensure!(
                (1..=SHORT_SECONDS).contains(&left),
                "{left} s left of {SHORT_SECONDS}"
            );
            tokio::time::sleep(POLL).await;
            return Ok(None);
        }
        reply.accepted().map(Some)
    })
    .await?;
    let denials = world
        .plane()
        .await?
        .audit()?
        .refused_lease_writes(&leases.namespace)
        .len();
    let waited = stamp(&taken)?.duration_since(renewed).as_secs();
    ensure!(denials > 0, "no attempt was refused");
    ensure!(
        waited >= SHORT_SECONDS - SLACK_SECONDS,
        "taken over after {waited} s of {SHORT_SECONDS}"
    );
    ensure!(text(&taken, "/spec/holderIdentity") == "b", "b did not take over");
    Ok(())
}

/// The stamp of the entry that owns the holder.
fn stamp(lease: &Value) -> anyhow::Result<Timestamp> {
    let entries = lease
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .context("no managedFields")?;
    let owner = entries
        .iter()
        .find(|entry| entry.pointer("/fieldsV1/f:spec/f:holderIdentity").is_some())
        .context("nobody owns the holder")?;
    Ok(text(owner, "/time").parse()?)
}
