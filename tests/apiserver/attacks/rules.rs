//! What breaks the other rules.

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{LEASE, VALID_SECONDS, ensure_denied, held};
use crate::harness::{
    leases::{Edit, Leases, Verb},
    world::World,
};

/// A lease that was held three times, and is free.
pub(super) async fn released(leases: &Leases) -> anyhow::Result<Timestamp> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, 15, 3))
        .await?
        .accepted()?;
    let release = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": format!("{now:.6}")});
    leases
        .edit(Verb::Put, LEASE, &Edit::spec("a", release))
        .await?
        .accepted()?;
    Ok(now)
}

pub(super) async fn wrong_count_is_refused(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("count-{}", verb.slug())).await?;
    let now = released(&leases).await?;
    for wrong in [0, 2, 3, 5] {
        let reply = leases
            .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, wrong)))
            .await?;
        ensure_denied(&reply, "transition-not-counted").with_context(|| format!("3 -> {wrong}"))?;
    }
    leases
        .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, 4)))
        .await?
        .accepted()?;
    Ok(())
}

pub(super) async fn overflow_is_refused(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("overflow-{}", verb.slug())).await?;
    let now = released(&leases).await?;
    let edit = Edit::spec("b", held("b", now, 15, i64::from(i32::MAX)));
    ensure_denied(&leases.edit(verb, LEASE, &edit).await?, "transition-overflow")?;
    // By the holder itself just as well: it bricks the lock all the same.
    leases
        .edit(verb, LEASE, &Edit::spec("b", held("b", now, 15, 4)))
        .await?
        .accepted()?;
    let edit = Edit::spec("b", json!({"leaseTransitions": i32::MAX}));
    ensure_denied(&leases.edit(verb, LEASE, &edit).await?, "transition-overflow")
}

/// Younger than its own duration, so that its age alone shows that a takeover is early.
pub(super) async fn young_blind_lease(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("young-blind").await?;
    let now = leases.api.now().await?;
    // Empty at first, and filled by a PUT: no entry comes about, then or later.
    leases.create(LEASE, "a", json!({})).await?.accepted()?;
    let fill = Edit::spec("a", held("a", now, VALID_SECONDS, 0));
    let lease = leases.edit(Verb::Put, LEASE, &fill).await?.accepted()?;
    ensure!(
        lease.pointer("/metadata/managedFields").is_none(),
        "the lease is not blind: {lease}"
    );
    let takeover = Edit::spec("b", held("b", now, VALID_SECONDS, 1));
    ensure_denied(
        &leases.edit(Verb::Put, LEASE, &takeover).await?,
        "takeover-before-expiry",
    )
}

pub(super) async fn duration_out_of_bounds_is_refused(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("duration").await?;
    let now = leases.api.now().await?;
    for (what, seconds) in [
        ("under the minimum", Some(4)),
        ("over the maximum", Some(604_801)),
        ("missing", None),
    ] {
        let mut spec = held("a", now, 0, 0);
        match (seconds, spec.as_object_mut()) {
            (Some(seconds), Some(spec)) => spec.insert("leaseDurationSeconds".to_owned(), seconds.into()),
            (None, Some(spec)) => spec.remove("leaseDurationSeconds"),
            (_, None) => None,
        };
        let reply = leases.create(LEASE, "a", spec).await?;
        ensure_denied(&reply, "duration-out-of-bounds").with_context(|| what.to_owned())?;
    }
    leases
        .create(LEASE, "a", held("a", now, 3600, 0))
        .await?
        .accepted()?;
    for verb in Verb::ALL {
        let raise = Edit::spec("a", json!({"leaseDurationSeconds": 604_801}));
        ensure_denied(&leases.edit(verb, LEASE, &raise).await?, "duration-out-of-bounds")?;
        // A long one is somebody's choice.
        let raise = Edit::spec("a", json!({"leaseDurationSeconds": 3601})).dry();
        let reply = leases.edit(verb, LEASE, &raise).await?;
        ensure!(
            reply
                .warnings
                .iter()
                .any(|warning| warning.contains("duration-out-of-bounds")),
            "{verb:?}: no warning: {:?}",
            reply.warnings
        );
        reply.accepted()?;
    }
    // The release of fabric8 since 7.5: the holder stays, and has a second left.
    let release = Edit::spec(
        "a",
        json!({"leaseDurationSeconds": 1, "renewTime": format!("{now:.6}")}),
    );
    leases.edit(Verb::MergePatch, LEASE, &release).await?.accepted()?;
    Ok(())
}

pub(super) async fn stamp_tampering_is_refused(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("tampering").await?;
    let now = leases.api.now().await?;
    let lease = leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let entries = lease
        .pointer("/metadata/managedFields")
        .cloned()
        .context("no managedFields")?;
    let with_time = |time: &str| -> anyhow::Result<Value> {
        let mut entries = entries.clone();
        *entries.pointer_mut("/0/time").context("no time")? = time.into();
        Ok(entries)
    };
    let mut second_owner = with_time("2099-01-01T00:00:00Z")?;
    if let (Some(list), Some(first)) = (second_owner.as_array_mut(), entries.get(0)) {
        list.push(first.clone());
        *list
            .get_mut(0)
            .and_then(|entry| entry.pointer_mut("/manager"))
            .context("no manager")? = "c".into();
    }
    let forgeries = [
        ("cleared", json!([{}])),
        ("emptied", json!([])),
        ("set back", with_time("2001-02-03T04:05:06Z")?),
        ("set ahead", with_time("2099-01-01T00:00:00Z")?),
        ("owned twice", second_owner),
    ];
    let before = leases.get(LEASE).await?;
    for verb in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch] {
        for (what, forgery) in &forgeries {
            let edit = Edit::labels("b", json!({"app": what.replace(' ', "-")}))
                .with_managed_fields(forgery.clone());
            let reply = leases.edit(verb, LEASE, &edit).await?;
            ensure_denied(&reply, "stamp-tampered").with_context(|| format!("{what} by {verb:?}"))?;
        }
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    // A label alone is nobody's business, whoever sets it.
    let labels = ["a", "b"].map(|manager| {
        let leases = &leases;
        async move {
            leases
                .edit(
                    Verb::MergePatch,
                    LEASE,
                    &Edit::labels(manager, json!({manager: "yes"})),
                )
                .await?
                .accepted()
        }
    });
    try_join_all(labels).await?;
    Ok(())
}

/// An elector that never counts is let be, and its operator told.
pub(super) async fn untracked_elector_is_warned(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("untracked").await?;
    let now = leases.api.now().await?;
    let mut spec = held("a", now, 15, 0);
    let untracked = |spec: &mut Value| spec.as_object_mut().map(|spec| spec.remove("leaseTransitions"));
    untracked(&mut spec);
    leases.create(LEASE, "a", spec).await?.accepted()?;
    let release = Edit::spec("a", json!({"holderIdentity": null}));
    leases.edit(Verb::MergePatch, LEASE, &release).await?.accepted()?;
    let mut spec = held("b", now, 15, 0);
    untracked(&mut spec);
    let reply = leases.edit(Verb::Put, LEASE, &Edit::spec("b", spec)).await?;
    let warned = reply
        .warnings
        .iter()
        .any(|warning| warning.contains("transition-not-counted"));
    ensure!(warned, "no warning: {:?}", reply.warnings);
    reply.accepted()?;
    Ok(())
}
