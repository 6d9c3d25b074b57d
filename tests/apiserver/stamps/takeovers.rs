//! Takeovers, honest and forged: the entry that owns the holder carries this write's time, whatever is sent.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{FORGED, LEASE, Owner, Scene, entries, held_by, micro, owners, stamp};
use crate::harness::{
    leases::{Edit, Verb},
    world::World,
};

/// A takeover by somebody whose clock is an hour ahead.
pub(super) async fn takeover_is_stamped_now(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    let scene = Scene::set(world, &format!("takeover-{}", verb.slug())).await?;
    let lie = scene.leases.api.now().await? + jiff::SignedDuration::from_hours(1);
    let mut spec = held_by("b", lie);
    *spec.pointer_mut("/leaseTransitions").context("spec")? = 1.into();
    let write = scene.reviewed(verb, &Edit::spec("b", spec)).await?;
    write.ensure_stamped_now("holderIdentity", "b")?;
    write.ensure_stamped_now("renewTime", "b")?;
    ensure!(
        stamp(&write.old, "renewTime")? == scene.created,
        "the old object lost its stamp"
    );
    Ok(())
}

pub(super) async fn takeover_without_renew_time(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    let scene = Scene::set(world, &format!("holder-only-{}", verb.slug())).await?;
    let write = scene
        .reviewed(verb, &Edit::spec("b", json!({"holderIdentity": "b"})))
        .await?;
    write.ensure_stamped_now("holderIdentity", "b")?;
    let expected = [Owner {
        manager: "a".to_owned(),
        time: Some(scene.created),
    }];
    let found = owners(&write.new, "renewTime");
    ensure!(found == expected, "renewTime, left alone, is owned by {found:?}");
    Ok(())
}

/// Every time forged, and one more entry that claims the fields of the write.
pub(super) async fn takeover_with_forged_stamps(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    let scene = Scene::set(world, &format!("forged-{}", verb.slug())).await?;
    let mut forged = entries(&scene.stored().await?).to_vec();
    for entry in &mut forged {
        *entry.pointer_mut("/time").context("an entry without a time")? = FORGED.into();
    }
    let mut extra = forged.first().context("no entries")?.clone();
    *extra
        .pointer_mut("/manager")
        .context("an entry without a manager")? = "b".into();
    forged.push(extra);
    let now = scene.leases.api.now().await?;
    let spec = json!({"holderIdentity": "b", "renewTime": micro(now), "acquireTime": micro(now), "leaseTransitions": 1});
    let edit = Edit::spec("b", spec).with_managed_fields(Value::from(forged));
    if verb == Verb::Apply {
        let reply = scene.leases.edit(verb, LEASE, &edit).await?;
        ensure!(
            reply.code == 400,
            "server-side apply took managedFields: {} {}",
            reply.code,
            reply.message()
        );
        return Ok(());
    }
    let write = scene.reviewed(verb, &edit).await?;
    write.ensure_stamped_now("holderIdentity", "b")?;
    write.ensure_stamped_now("renewTime", "b")?;
    // What the write did not change is stamped as the writer pleases.
    let forged: Timestamp = FORGED.parse()?;
    let unchanged = owners(&write.new, "leaseDurationSeconds");
    ensure!(
        unchanged.iter().any(|owner| owner.time == Some(forged)),
        "no forged time survived: {unchanged:?}"
    );
    Ok(())
}

pub(super) async fn takeover_that_clears_stamps(world: &'static World, verb: Verb) -> anyhow::Result<()> {
    let scene = Scene::set(world, &format!("clearing-{}", verb.slug())).await?;
    let edit = Edit::spec("b", json!({"holderIdentity": "b"})).with_managed_fields(json!([{}]));
    if verb == Verb::Apply {
        let reply = scene.leases.edit(verb, LEASE, &edit).await?;
        ensure!(
            reply.code == 400,
            "server-side apply took managedFields: {} {}",
            reply.code,
            reply.message()
        );
        return Ok(());
    }
    let write = scene.reviewed(verb, &edit).await?;
    ensure!(
        entries(&write.new).is_empty(),
        "entries are left: {:?}",
        entries(&write.new)
    );
    ensure!(
        stamp(&write.old, "renewTime")? == scene.created,
        "the old object lost its stamp"
    );
    Ok(())
}
