//! Longhorn's fast failover: a controller decides who holds a share manager's lease.

use anyhow::Context;
use serde_json::json;

use super::{Siblings, by, ensure_silent};
use crate::{
    attacks::ensure_denied,
    harness::{
        api::Api,
        leases::{Edit, Leases, Verb},
        pods,
        world::World,
    },
};

const VOLUME: &str = "pvc-0b7c1c5e";
/// Of its pods and of its manager alike.
const ACCOUNT: &str = "longhorn-service-account";

/// The share manager's pod on this node fills in its node's name, and counts.
fn serves(node: &str, now: &str, transitions: i64) -> Edit {
    let spec = json!({
        "holderIdentity": node, "leaseDurationSeconds": 600, "acquireTime": now, "renewTime": now,
        "leaseTransitions": transitions,
    });
    Edit::spec("longhorn-share-manager", spec)
}

/// The lease, made free by the manager, owned by its ShareManager.
async fn make(leases: &Leases) -> anyhow::Result<()> {
    let owner = json!({
        "apiVersion": "longhorn.io/v1beta2", "kind": "ShareManager", "name": VOLUME,
        "uid": "0b7c1c5e-0d6f-4b3f-9a55-0c9d5c1b2f3a",
    });
    let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 7, "leaseTransitions": 0});
    let reply = leases
        .create_owned(VOLUME, "longhorn-manager", spec, Some(owner))
        .await?;
    ensure_silent(reply)?;
    Ok(())
}

pub(super) async fn fails_over_and_nobody_else_does(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("longhorn").await?;
    let siblings = Siblings::in_namespace(world, &leases.namespace).await?;
    let token = pods::account_token(world, &leases.namespace, ACCOUNT).await?;
    let longhorn: Api = world.plane().await?.client(&token)?;
    let own = by(&leases, &longhorn);
    let now = format!("{:.6}", leases.api.now().await?);

    make(&own).await?;
    ensure_silent(own.edit(Verb::Put, VOLUME, &serves("node-1", &now, 1)).await?).context("node-1")?;
    let take = serves("node-2", &now, 2);
    for (who, client) in [
        ("a pod of another account", &siblings.other.0),
        ("a user", &leases.api),
    ] {
        let reply = by(&leases, client).edit(Verb::Put, VOLUME, &take).await?;
        ensure_denied(&reply, "takeover-before-expiry").context(who)?;
        let clear = Edit::spec("longhorn-manager", json!({"renewTime": null}));
        let reply = by(&leases, client).edit(Verb::Put, VOLUME, &clear).await?;
        ensure_denied(&reply, "stamp-tampered").context(who)?;
    }
    // The manager takes the times off, and the next pod takes the lease at once.
    for field in ["acquireTime", "renewTime"] {
        let clear = Edit::spec("longhorn-manager", json!({field: null}));
        ensure_silent(own.edit(Verb::Put, VOLUME, &clear).await?).context(field)?;
    }
    ensure_silent(own.edit(Verb::Put, VOLUME, &take).await?).context("node-2")?;
    // Another lease of the same account is guarded like everybody's.
    let other = json!({
        "holderIdentity": "a", "leaseDurationSeconds": 600, "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
    });
    own.create("longhorn-upgrade", "longhorn-manager", other)
        .await?
        .accepted()?;
    let reply = own
        .edit(Verb::Put, "longhorn-upgrade", &serves("b", &now, 1))
        .await?;
    ensure_denied(&reply, "takeover-before-expiry").context("a lease that no ShareManager owns")
}
