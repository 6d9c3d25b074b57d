//! Events: denials on the Lease, a refused policy on its ConfigMap, few however many there are.

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    Test,
    attacks::held,
    guard::{self, POLICY_CONFIG_MAP},
    harness::{
        api::Api,
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        until,
        world::World,
    },
    test,
};

const LEASE: &str = "lock";
/// Longer than any of these tests takes on the slowest machine.
const VALID_SECONDS: i64 = 600;

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Attacked,
            "events::a_thousand_denials_are_told_by_few_events",
            a_thousand_denials_are_told_by_few_events,
        ),
        test(
            Phase::Attacked,
            "events::each_lease_that_ever_had_a_name_has_its_own",
            each_lease_that_ever_had_a_name_has_its_own,
        ),
        test(
            Phase::Alone(1),
            "events::a_refused_policy_is_told_on_its_config_map",
            a_refused_policy_is_told_on_its_config_map,
        ),
    ]
}

/// The Events on one object of a namespace.
async fn events_on(api: &Api, namespace: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let list = api.get(&path).await?.accepted()?;
    let items = list
        .pointer("/items")
        .and_then(Value::as_array)
        .context("no items")?;
    let on = |event: &&Value| text(event, "/regarding/name") == name;
    Ok(items.iter().filter(on).cloned().collect())
}

/// How often what an Event tells of occurred.
fn occurrences(event: &Value) -> u64 {
    event
        .pointer("/series/count")
        .and_then(Value::as_u64)
        .unwrap_or(1)
}

async fn hold(leases: &Leases) -> anyhow::Result<Value> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()
}

/// Makes Leasehold create an Event and count it up, for whoever examines what it asks of the API server.
pub(crate) async fn create_and_update_one(world: &World) -> anyhow::Result<()> {
    let leases = world.leases("event-rights").await?;
    hold(&leases).await?;
    until("an Event with a count", || async {
        attack(&leases, 1, false).await?;
        let events = events_on(&leases.api, &leases.namespace, LEASE).await?;
        Ok(events.iter().any(|event| occurrences(event) > 1).then_some(()))
    })
    .await
}

/// Takeovers that come too early, each of which is denied.
async fn attack(leases: &Leases, times: usize, dry: bool) -> anyhow::Result<()> {
    for _ in 0..times {
        // Each by its own clock: one that lagged behind would be warned of, too.
        let edit = Edit::spec("b", held("b", Timestamp::now(), VALID_SECONDS, 1));
        let edit = if dry { edit.dry() } else { edit };
        let reply = leases.edit(Verb::MergePatch, LEASE, &edit).await?;
        ensure!(reply.code == 403, "answered {}: {}", reply.code, reply.message());
    }
    Ok(())
}

async fn a_thousand_denials_are_told_by_few_events(world: &'static World) -> anyhow::Result<()> {
    const SIDE_BY_SIDE: usize = 8;
    const EACH: usize = 125;
    let guard = world.guard().await?;
    let leases = world.leases("event-series").await?;
    let lease = hold(&leases).await?;
    attack(&leases, 3, true).await?;
    try_join_all((0..SIDE_BY_SIDE).map(|_| attack(&leases, EACH, false))).await?;

    let all = u64::try_from(SIDE_BY_SIDE * EACH)?;
    let events = until("Events that tell of every denial", || async {
        let events = events_on(&leases.api, &leases.namespace, LEASE).await?;
        let told: u64 = events.iter().map(occurrences).sum();
        ensure!(
            told <= all,
            "{told} of {all} were told, dry runs among them: {events:?}"
        );
        Ok((told == all).then_some(events))
    })
    .await?;
    ensure!(
        events.len() <= guard.replicas().len(),
        "more than one Event a replica: {events:?}"
    );
    for event in &events {
        for (pointer, expected) in [
            ("/type", "Warning"),
            ("/reason", "TakeoverBeforeExpiry"),
            ("/action", "Denied"),
            ("/reportingController", "leasehold"),
            ("/regarding/kind", "Lease"),
            ("/regarding/apiVersion", "coordination.k8s.io/v1"),
            ("/regarding/uid", text(&lease, "/metadata/uid")),
        ] {
            ensure!(
                text(event, pointer) == expected,
                "{pointer} is not {expected:?}: {event}"
            );
        }
        let note = text(event, "/note");
        let expected = "denied: takeover-before-expiry: \"b\" may not take lease event-series/lock from \"a\" yet: renewed ";
        ensure!(note.starts_with(expected), "the note says: {note}");
    }
    let described = world
        .plane()
        .await?
        .kubectl(&["describe", "lease", LEASE, "--namespace", &leases.namespace])
        .await?;
    for part in ["TakeoverBeforeExpiry", "may not take lease", "leasehold"] {
        ensure!(
            described.contains(part),
            "kubectl describe does not show {part:?}: {described}"
        );
    }

    // What the API server was asked for that: an Event a replica, and its count now and then.
    let user = format!("system:serviceaccount:{}:leasehold", guard::NAMESPACE);
    let audit = world.plane().await?.audit()?;
    let writes = audit.0.iter().filter(|event| {
        text(event, "/user/username") == user
            && text(event, "/objectRef/resource") == "events"
            && text(event, "/objectRef/namespace") == leases.namespace
    });
    let writes = writes.count();
    ensure!(
        (2..all.try_into()?).contains(&(writes * 10)),
        "{writes} writes for {all} denials"
    );
    Ok(())
}

async fn each_lease_that_ever_had_a_name_has_its_own(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("event-deleted").await?;
    let admin = world.admin().await?;
    let told_of = async |lease: &Value| {
        let uid = text(lease, "/metadata/uid").to_owned();
        until("an Event on this very lease", || async {
            let events = events_on(&leases.api, &leases.namespace, LEASE).await?;
            Ok(events
                .into_iter()
                .find(|event| text(event, "/regarding/uid") == uid))
        })
        .await
    };
    let first = hold(&leases).await?;
    attack(&leases, 1, false).await?;
    told_of(&first).await?;

    // Somebody with the right to break glass: the rules do not hold the test up.
    admin.delete(&leases.path(LEASE)).await?.accepted()?;
    let second = hold(&leases).await?;
    attack(&leases, 1, false).await?;
    let event = told_of(&second).await?;
    ensure!(
        occurrences(&event) == 1,
        "those of its predecessor are counted in: {event}"
    );

    // An Event that is gone, as each is after an hour, is created anew when there is something to tell. Which replica
    // is asked is not known, so each may have had one.
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", leases.namespace);
    admin.delete(&path).await?.accepted()?;
    until("a new Event in place of the deleted one", || async {
        attack(&leases, 1, false).await?;
        let events = events_on(&leases.api, &leases.namespace, LEASE).await?;
        Ok(events
            .iter()
            .any(|event| text(event, "/regarding/uid") == text(&second, "/metadata/uid"))
            .then_some(()))
    })
    .await
}

async fn a_refused_policy_is_told_on_its_config_map(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    let bad = "apiVersion: leasehold.dev/v1alpha1\nkind: LeasePolicy\nmode: event-horizon\n";
    // Stored by breaking glass: the webhook of the policy would keep it out.
    guard.force_policy(&admin, bad).await?;
    let found = until("an Event on the policy's ConfigMap", || async {
        let events = events_on(&admin, guard::NAMESPACE, POLICY_CONFIG_MAP).await?;
        Ok(events
            .into_iter()
            .find(|event| text(event, "/note").contains("event-horizon")))
    })
    .await;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    let event = found?;
    let note = text(&event, "/note");
    for part in ["was refused", "line 3"] {
        ensure!(note.contains(part), "the note does not say {part:?}: {note}");
    }
    ensure!(text(&event, "/reason") == "PolicyRefused", "{event}");
    let described = world
        .plane()
        .await?
        .kubectl(&[
            "describe",
            "configmap",
            POLICY_CONFIG_MAP,
            "--namespace",
            guard::NAMESPACE,
        ])
        .await?;
    ensure!(
        described.contains("PolicyRefused") && described.contains("event-horizon"),
        "kubectl describe does not show it: {described}"
    );
    Ok(())
}
