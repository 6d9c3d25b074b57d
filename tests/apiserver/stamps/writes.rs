//! Writes that leave the holder alone: renewals, labels, forgeries, server-side apply.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FORGED, LEASE, Owner, Scene, entries, held_by, micro, owners, stamp};
use crate::harness::{
    audit::text,
    leases::{Edit, Verb},
    world::World,
};

pub(super) async fn renewal_moves_the_owners_stamp(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "renewal").await?;
    let now = scene.leases.api.now().await?;
    let write = scene
        .reviewed(Verb::Put, &Edit::spec("a", json!({"renewTime": micro(now)})))
        .await?;
    write.ensure_stamped_now("renewTime", "a")?;
    ensure!(
        stamp(&write.old, "renewTime")? == scene.created,
        "the old object lost its stamp"
    );
    ensure!(
        text(&write.review, "/request/options/fieldManager") == "a",
        "no field manager in the options"
    );
    Ok(())
}

pub(super) async fn label_edit_by_the_owner(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "label-owner").await?;
    let write = scene
        .reviewed(Verb::Put, &Edit::labels("a", json!({"app": "shop"})))
        .await?;
    write.ensure_stamped_now("renewTime", "a")
}

pub(super) async fn label_edit_by_another(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "label-another").await?;
    let write = scene
        .reviewed(Verb::MergePatch, &Edit::labels("b", json!({"app": "shop"})))
        .await?;
    ensure!(
        stamp(&write.new, "renewTime")? == scene.created,
        "another's label edit moved the stamp"
    );
    Ok(())
}

pub(super) async fn forged_times_alone(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "forged-alone").await?;
    let before = scene.stored().await?;
    let mut forged = entries(&before).to_vec();
    *forged
        .first_mut()
        .and_then(|entry| entry.pointer_mut("/time"))
        .context("no time")? = FORGED.into();
    let edit = Edit::spec("b", json!({})).with_managed_fields(Value::from(forged));
    scene.leases.edit(Verb::Put, LEASE, &edit).await?.accepted()?;
    ensure!(scene.stored().await? == before, "the forgery was stored");
    Ok(())
}

pub(super) async fn forged_times_with_a_label(world: &'static World) -> anyhow::Result<()> {
    for verb in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch] {
        let scene = Scene::set(world, &format!("forged-label-{}", verb.slug())).await?;
        let mut forged = entries(&scene.stored().await?).to_vec();
        *forged
            .first_mut()
            .and_then(|entry| entry.pointer_mut("/time"))
            .context("no time")? = FORGED.into();
        let edit = Edit::labels("b", json!({"app": "shop"})).with_managed_fields(Value::from(forged));
        let write = scene.reviewed(verb, &edit).await?;
        let forged: Timestamp = FORGED.parse()?;
        ensure!(
            stamp(&write.new, "renewTime")? == forged,
            "{verb:?}: the review does not show the forgery"
        );
        ensure!(
            stamp(&write.old, "renewTime")? == scene.created,
            "{verb:?}: the old object lost its stamp"
        );
        ensure!(
            stamp(&write.stored, "renewTime")? == forged,
            "{verb:?}: the forgery was not stored"
        );
    }
    Ok(())
}

/// A second owner of renewTime, from the far future, put there by a label edit: what would delay takeovers.
pub(super) async fn forged_extra_owner_with_a_label(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "forged-extra").await?;
    let mut forged = entries(&scene.stored().await?).to_vec();
    let mut extra = forged.first().context("no entries")?.clone();
    *extra.pointer_mut("/manager").context("no manager")? = "c".into();
    *extra.pointer_mut("/time").context("no time")? = "2099-01-01T00:00:00Z".into();
    forged.push(extra);
    let edit = Edit::labels("b", json!({"app": "shop"})).with_managed_fields(Value::from(forged));
    let write = scene.reviewed(Verb::Put, &edit).await?;
    let found = owners(&write.new, "renewTime");
    ensure!(found.len() == 2, "the second owner is not there: {found:?}");
    let future: Timestamp = "2099-01-01T00:00:00Z".parse()?;
    ensure!(
        found.iter().any(|owner| owner.time == Some(future)),
        "its time was not kept: {found:?}"
    );
    // The next change of renewTime takes the field from both.
    let now = scene.leases.api.now().await?;
    scene
        .reviewed(Verb::Put, &Edit::spec("a", json!({"renewTime": micro(now)})))
        .await?
        .ensure_stamped_now("renewTime", "a")
}

pub(super) async fn cleared_stamps_stay_cleared(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "cleared").await?;
    let edit = Edit::labels("b", json!({"app": "shop"})).with_managed_fields(json!([{}]));
    let write = scene.reviewed(Verb::Put, &edit).await?;
    ensure!(
        entries(&write.new).is_empty(),
        "entries are left: {:?}",
        entries(&write.new)
    );
    for (transitions, verb) in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch]
        .into_iter()
        .enumerate()
    {
        let now = scene.leases.api.now().await?;
        let spec =
            json!({"holderIdentity": verb.slug(), "renewTime": micro(now), "leaseTransitions": transitions});
        let write = scene.reviewed(verb, &Edit::spec("a", spec)).await?;
        ensure!(
            entries(&write.new).is_empty(),
            "{verb:?} brought entries back: {:?}",
            entries(&write.new)
        );
    }
    Ok(())
}

pub(super) async fn apply_rearms_a_blind_lease(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "rearmed").await?;
    let edit = Edit::labels("b", json!({"app": "shop"})).with_managed_fields(json!([{}]));
    scene.reviewed(Verb::Put, &edit).await?;
    let write = scene
        .reviewed(Verb::Apply, &Edit::labels("doctor", json!({"armed": "yes"})))
        .await?;
    let managers: Vec<&str> = entries(&write.new)
        .iter()
        .map(|entry| text(entry, "/manager"))
        .collect();
    ensure!(
        managers.contains(&"doctor") && managers.contains(&"before-first-apply"),
        "managers are {managers:?}"
    );
    let rest = owners(&write.new, "renewTime");
    ensure!(
        rest.len() == 1 && rest.iter().all(|owner| owner.manager == "before-first-apply"),
        "found {rest:?}"
    );
    let now = scene.leases.api.now().await?;
    let renewal = Edit::spec("a", json!({"renewTime": micro(now)}));
    scene
        .reviewed(Verb::Put, &renewal)
        .await?
        .ensure_stamped_now("renewTime", "a")
}

pub(super) async fn apply_of_what_is_there(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "apply-same").await?;
    let spec = scene
        .stored()
        .await?
        .pointer("/spec")
        .cloned()
        .context("no spec")?;
    let write = scene.reviewed(Verb::Apply, &Edit::spec("applier", spec)).await?;
    let found = owners(&write.new, "renewTime");
    let applier = found
        .iter()
        .find(|owner| owner.manager == "applier")
        .context("the applier owns nothing")?;
    ensure!(
        applier.time.is_none(),
        "the applier's entry has a time: {applier:?}"
    );
    ensure!(
        found.contains(&Owner {
            manager: "a".to_owned(),
            time: Some(scene.created)
        }),
        "the former owner's stamp moved: {found:?}"
    );
    Ok(())
}

pub(super) async fn apply_of_the_same_by_the_same(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "apply-again").await?;
    let now = scene.leases.api.now().await?;
    let spec = held_by("a", now);
    let write = scene
        .reviewed(Verb::Apply, &Edit::spec("applier", spec.clone()))
        .await?;
    write.ensure_stamped_now("renewTime", "applier")?;
    scene.leases.api.after_second(now).await?;
    let before = scene.stored().await?;
    scene
        .leases
        .edit(Verb::Apply, LEASE, &Edit::spec("applier", spec))
        .await?
        .accepted()?;
    ensure!(scene.stored().await? == before, "the same apply was a write");
    Ok(())
}

pub(super) async fn dry_run_is_stamped(world: &'static World) -> anyhow::Result<()> {
    for verb in Verb::ALL {
        let scene = Scene::set(world, &format!("dry-{}", verb.slug())).await?;
        let before = scene.stored().await?;
        let now = scene.leases.api.now().await?;
        let edit = Edit::spec("b", json!({"holderIdentity": "b", "renewTime": micro(now)})).dry();
        let write = scene.reviewed(verb, &edit).await?;
        write.ensure_stamped_now("holderIdentity", "b")?;
        ensure!(
            write.review.pointer("/request/dryRun") == Some(&Value::Bool(true)),
            "{verb:?}: dryRun is not set"
        );
        ensure!(scene.stored().await? == before, "{verb:?}: a dry run was stored");
    }
    Ok(())
}
