//! The holder's own pod: it may give its lease to a successor, and delete it.

use anyhow::ensure;
use serde_json::Value;

use super::{LEASE, Siblings, VALID_SECONDS, by, change_of_last_write, ensure_silent, live};
use crate::{
    attacks::{ensure_denied, held},
    harness::{
        audit::text,
        leases::{Edit, Leases, Verb},
        world::World,
    },
};

/// A write that makes `identity` the holder, counted.
async fn give_to(leases: &Leases, identity: &str, transitions: i64) -> anyhow::Result<Edit> {
    let now = leases.api.now().await?;
    Ok(Edit::spec(
        "elector",
        held(identity, now, VALID_SECONDS, transitions),
    ))
}

pub(super) async fn a_holder_may_hand_its_lease_over(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    for verb in Verb::ALL {
        let leases = world.leases(&format!("handover-{}", verb.slug())).await?;
        let siblings = Siblings::in_namespace(world, &leases.namespace).await?;
        let ((holder, first), (other, second)) = (&siblings.holder, &siblings.other);
        live(&by(&leases, holder), first).await?;

        // Taken by the successor, it is early.
        let take = give_to(&leases, second, 1).await?;
        ensure_denied(
            &by(&leases, other).edit(verb, LEASE, &take).await?,
            "takeover-before-expiry",
        )?;
        // Another process of the holder's own pod claims it: early, too.
        let claim = give_to(&leases, &first.replace("0b7c", "91c7"), 1).await?;
        ensure_denied(
            &by(&leases, holder).edit(verb, LEASE, &claim).await?,
            "takeover-before-expiry",
        )?;
        // Uncounted, it is refused like any other new term.
        let uncounted = give_to(&leases, second, 0).await?;
        ensure_denied(
            &by(&leases, holder).edit(verb, LEASE, &uncounted).await?,
            "transition-not-counted",
        )?;
        // Given by the holder, it passes.
        let give = give_to(&leases, second, 1).await?;
        ensure_silent(by(&leases, holder).edit(verb, LEASE, &give).await?)?;
        let change = change_of_last_write(world, &leases).await?;
        ensure!(change == "handover", "{verb:?} was taken for {change:?}");
    }
    Ok(())
}

/// The API server vouches for the pod of an impersonated user as the impersonator stated it: the right to impersonate
/// with `userextras` is the right to write as any holder.
pub(super) async fn who_may_impersonate_a_pod_passes_for_it(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("impersonation").await?;
    let siblings = Siblings::in_namespace(world, &leases.namespace).await?;
    let ((holder, first), (other, second)) = (&siblings.holder, &siblings.other);
    live(&by(&leases, holder), first).await?;
    let give = give_to(&leases, second, 1).await?;
    let user = format!("system:serviceaccount:{}:elector", leases.namespace);
    let pod = first.split('_').next().unwrap_or_default();
    // A pod's own token passes for no other pod, whatever rights its account has.
    ensure_denied(
        &by(&leases, other).edit(Verb::Put, LEASE, &give).await?,
        "takeover-before-expiry",
    )?;
    let impersonator = by(&leases, &other.impersonating(&user, pod));
    ensure_silent(impersonator.edit(Verb::Put, LEASE, &give).await?)?;
    let change = change_of_last_write(world, &leases).await?;
    ensure!(change == "handover", "taken for {change:?}");
    Ok(())
}

pub(super) async fn a_deletion_by_the_holder_is_a_release(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases("deletions").await?;
    let siblings = Siblings::in_namespace(world, &leases.namespace).await?;
    let (holder, identity) = &siblings.holder;

    live(&by(&leases, holder), identity).await?;
    ensure_silent(by(&leases, holder).delete(LEASE).await?)?;
    live(&by(&leases, holder), identity).await?;
    // By somebody of whom nobody can tell: noted, and nobody is warned.
    ensure_silent(leases.delete(LEASE).await?)?;
    let fired = |record: &Value| text(record, "/rule") == "deleted-while-held";
    let records = guard
        .audit_records(&leases.namespace, "the deletion that nobody can tell", fired)
        .await?;
    let noted: Vec<_> = records.iter().filter(|record| fired(record)).collect();
    ensure!(
        noted.len() == 1 && noted.iter().all(|record| text(record, "/decision") == "audited"),
        "expected one deletion to be noted: {noted:?}"
    );
    Ok(())
}
