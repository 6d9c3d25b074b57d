//! A live election that is written so that it looks like a lock or a status board: no such write passes.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{LEASE, Siblings, VALID_SECONDS, by, live};
use crate::{
    attacks::{ensure_denied, held},
    harness::{
        leases::{Edit, Verb},
        world::World,
    },
};

/// What takes a record's fields off, and the rule that refuses it. Nobody can tell whether the writer is the holder.
fn disguises() -> [(&'static str, Value, &'static str); 6] {
    [
        (
            "the duration",
            json!({"leaseDurationSeconds": null}),
            "duration-out-of-bounds",
        ),
        (
            "duration and count",
            json!({"leaseDurationSeconds": null, "leaseTransitions": null}),
            "duration-out-of-bounds",
        ),
        (
            "all but the holder",
            json!({"leaseDurationSeconds": null, "leaseTransitions": null, "renewTime": null, "acquireTime": null}),
            "duration-out-of-bounds",
        ),
        ("renewTime", json!({"renewTime": null}), "stamp-tampered"),
        (
            "all, with another holder",
            json!({
                "holderIdentity": "lock", "leaseDurationSeconds": null, "leaseTransitions": null,
                "renewTime": null, "acquireTime": null,
            }),
            "takeover-before-expiry",
        ),
        (
            "all, the holder too",
            json!({
                "holderIdentity": null, "leaseDurationSeconds": null, "leaseTransitions": null,
                "renewTime": null, "acquireTime": null,
            }),
            "duration-out-of-bounds",
        ),
    ]
}

/// Each disguise, and the taking that it would open the way for.
pub(super) async fn a_live_election_cannot_pass_for_a_lock(
    world: &'static World,
    verb: Verb,
) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases(&format!("disguise-{}", verb.slug())).await?;
    live(&leases, "candidate-a").await?;
    let before = leases.get(LEASE).await?;
    for (what, spec, rule) in disguises() {
        // Server-side apply has no null: it removes what its manager owned and applies no longer, which is shown apart.
        if verb == Verb::Apply {
            continue;
        }
        let reply = leases.edit(verb, LEASE, &Edit::spec("stranger", spec)).await?;
        ensure_denied(&reply, rule).with_context(|| format!("{verb:?} removes {what}"))?;
    }
    let claim = Edit::spec("stranger", json!({"holderIdentity": "lock"}));
    let reply = leases.edit(verb, LEASE, &claim).await?;
    ensure_denied(&reply, "takeover-before-expiry").with_context(|| format!("{verb:?}: the claim"))?;
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    Ok(())
}

/// A manager that applied the fields and applies them no longer gives them up, and they go.
pub(super) async fn dropping_ownership_does_not_take_the_duration_off(
    world: &'static World,
) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("disguise-ownership").await?;
    let now = leases.api.now().await?;
    let whole = held("candidate-a", now, VALID_SECONDS, 0);
    leases.create(LEASE, "gitops", json!({})).await?.accepted()?;
    leases
        .edit(Verb::Apply, LEASE, &Edit::spec("elector", whole.clone()))
        .await?
        .accepted()?;
    let before = leases.get(LEASE).await?;
    let field = |name: &str| whole.get(name).cloned().unwrap_or_default();
    for (kept, rule) in [
        (
            json!({"holderIdentity": "candidate-a", "leaseTransitions": 0, "renewTime": field("renewTime"), "acquireTime": field("acquireTime")}),
            "duration-out-of-bounds",
        ),
        (json!({"holderIdentity": "candidate-a"}), "duration-out-of-bounds"),
        (json!({"holderIdentity": "lock"}), "takeover-before-expiry"),
        (json!({}), "duration-out-of-bounds"),
    ] {
        let what = kept.to_string();
        let reply = leases
            .edit(Verb::Apply, LEASE, &Edit::spec("elector", kept))
            .await?;
        ensure_denied(&reply, rule).context(what)?;
    }
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    Ok(())
}

/// A sibling of the holder's pod, by every way to end a lease.
pub(super) async fn a_stranger_neither_clears_nor_deletes_a_live_lease(
    world: &'static World,
) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("disguise-stranger").await?;
    let siblings = Siblings::in_namespace(world, &leases.namespace).await?;
    live(&by(&leases, &siblings.holder.0), &siblings.holder.1).await?;
    let theirs = by(&leases, &siblings.other.0);
    let before = leases.get(LEASE).await?;
    for spec in [
        json!({"holderIdentity": ""}),
        json!({"holderIdentity": null}),
        json!({"holderIdentity": null, "leaseDurationSeconds": null, "renewTime": null, "acquireTime": null}),
        json!({"leaseDurationSeconds": 1}),
    ] {
        for verb in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch] {
            let what = format!("{verb:?} {spec}");
            let reply = theirs
                .edit(verb, LEASE, &Edit::spec("elector", spec.clone()))
                .await?;
            ensure_denied(&reply, "foreign-release").context(what)?;
        }
    }
    ensure_denied(&theirs.delete(LEASE).await?, "foreign-release").context("delete")?;
    ensure!(
        leases.get(LEASE).await? == before,
        "a refused write changed the lease"
    );
    Ok(())
}
