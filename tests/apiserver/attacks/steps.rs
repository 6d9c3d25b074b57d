//! Takeovers in two steps: a first write, harmless to look at, that would open the way for a second one.

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{LEASE, VALID_SECONDS, ensure_denied, held};
use crate::harness::{
    audit::text,
    leases::{Edit, Verb},
    world::World,
};

/// The verbs that can carry either first step: server-side apply takes no managedFields and removes no other's field.
const VERBS: [Verb; 4] = [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch];

/// Without a renewTime there is no stamp that says when the lease was renewed.
pub(super) async fn clearing_the_renew_time_is_refused(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("two-steps-cleared").await?;
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let before = leases.get(LEASE).await?;
    for verb in VERBS {
        let clear = Edit::spec("b", json!({"renewTime": null}));
        let reply = leases.edit(verb, LEASE, &clear).await?;
        ensure_denied(&reply, "stamp-tampered").with_context(|| format!("{verb:?}"))?;
        let take = Edit::spec("b", held("b", leases.api.now().await?, VALID_SECONDS, 1));
        let reply = leases.edit(verb, LEASE, &take).await?;
        ensure_denied(&reply, "takeover-before-expiry").with_context(|| format!("{verb:?}"))?;
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    Ok(())
}

/// A stamp forged by less than `maxSkew` cannot be told from a writer's entry stamped anew by a faster API server. It
/// passes, and makes the lease older or younger by no more than that: it does not make it free.
pub(super) async fn a_stamp_forged_a_little_ahead_frees_nothing(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    for verb in VERBS {
        let leases = world.leases(&format!("two-steps-{}", verb.slug())).await?;
        let now = leases.api.now().await?;
        let lease = leases
            .create(LEASE, "a", held("a", now, VALID_SECONDS, 0))
            .await?
            .accepted()?;
        let mut entries = lease
            .pointer("/metadata/managedFields")
            .cloned()
            .context("no managedFields")?;
        let ahead = leases
            .api
            .now()
            .await?
            .checked_add(SignedDuration::from_secs(3))?;
        let forged = Value::from(format!("{ahead:.0}"));
        *entries.pointer_mut("/0/time").context("no time")? = forged.clone();
        let forge = Edit::labels("b", json!({"app": "forged"})).with_managed_fields(entries);
        leases.edit(verb, LEASE, &forge).await?.accepted()?;
        let stored = leases.get(LEASE).await?;
        let of_the_holder = stored
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array)
            .and_then(|entries| entries.iter().find(|entry| text(entry, "/manager") == "a"));
        ensure!(
            of_the_holder.is_some_and(|entry| entry.get("time") == Some(&forged)),
            "{verb:?}: the stamp is not forged: {stored}"
        );
        let take = Edit::spec("b", held("b", leases.api.now().await?, VALID_SECONDS, 1));
        let reply = leases.edit(verb, LEASE, &take).await?;
        ensure_denied(&reply, "takeover-before-expiry").with_context(|| format!("{verb:?}"))?;
    }
    Ok(())
}
