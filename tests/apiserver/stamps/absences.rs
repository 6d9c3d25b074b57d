//! Where there is nothing to stamp: removals, empty leases, creations by PUT, deletions.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{LEASE, Scene, entries, held_by, owners, stamp};
use crate::harness::{
    audit::text,
    leases::{Edit, Verb},
    world::World,
};

/// A release by nulls, as three libraries do it.
pub(super) async fn removal_moves_no_stamp(world: &'static World) -> anyhow::Result<()> {
    for verb in [Verb::Put, Verb::MergePatch, Verb::JsonPatch, Verb::StrategicPatch] {
        let scene = Scene::set(world, &format!("removal-{}", verb.slug())).await?;
        let nulls = json!({"holderIdentity": null, "renewTime": null, "acquireTime": null});
        let write = scene.reviewed(verb, &Edit::spec("a", nulls)).await?;
        ensure!(
            owners(&write.new, "renewTime").is_empty(),
            "{verb:?}: somebody owns the removed renewTime"
        );
        let kept = stamp(&write.new, "leaseDurationSeconds")?;
        ensure!(
            kept == scene.created,
            "{verb:?}: a removal moved the stamp from {} to {kept}",
            scene.created
        );
    }
    Ok(())
}

pub(super) async fn removal_of_all_leaves_no_entry(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "removal-all").await?;
    let nulls = json!({
        "holderIdentity": null, "renewTime": null, "acquireTime": null, "leaseDurationSeconds": null, "leaseTransitions": null,
    });
    let write = scene.reviewed(Verb::MergePatch, &Edit::spec("a", nulls)).await?;
    let left = entries(&write.new);
    ensure!(
        left.iter().all(|entry| entry
            .pointer("/fieldsV1/f:spec")
            .is_none_or(|spec| spec == &json!({}))),
        "somebody owns a removed field: {left:?}"
    );
    Ok(())
}

pub(super) async fn empty_create_has_no_entry(world: &'static World) -> anyhow::Result<()> {
    let (leases, recorder) = world.recorded_leases("stamps-empty").await?;
    leases.create(LEASE, "a", json!({})).await?.accepted()?;
    let review = recorder.last(&leases.namespace, LEASE)?;
    let object = review.pointer("/request/object").context("no object")?;
    ensure!(
        entries(object).is_empty(),
        "an empty create has entries: {:?}",
        entries(object)
    );
    ensure!(text(&review, "/request/operation") == "CREATE", "not a CREATE");
    Ok(())
}

pub(super) async fn put_of_a_missing_lease_is_a_create(world: &'static World) -> anyhow::Result<()> {
    let (leases, recorder) = world.recorded_leases("stamps-put-create").await?;
    let now = leases.api.now().await?;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": leases.namespace},
        "spec": held_by("a", now),
    });
    let path = leases.path(LEASE);
    let body = lease.to_string().into_bytes();
    leases
        .api
        .request(http::Method::PUT, &path, "application/json", body)
        .await?
        .accepted()?;
    let review = recorder.last(&leases.namespace, LEASE)?;
    ensure!(
        text(&review, "/request/operation") == "CREATE",
        "a PUT of a missing Lease is not a CREATE"
    );
    ensure!(
        review.pointer("/request/oldObject").is_none_or(Value::is_null),
        "a CREATE has an oldObject"
    );
    Ok(())
}

pub(super) async fn deletecollection_is_a_delete_each(world: &'static World) -> anyhow::Result<()> {
    let (leases, recorder) = world.recorded_leases("stamps-deletecollection").await?;
    let now = leases.api.now().await?;
    for name in ["one", "two"] {
        leases.create(name, "a", held_by("a", now)).await?.accepted()?;
    }
    leases
        .api
        .delete(leases.path("").trim_end_matches('/'))
        .await?
        .accepted()?;
    for name in ["one", "two"] {
        let review = recorder.last(&leases.namespace, name)?;
        ensure!(
            text(&review, "/request/operation") == "DELETE",
            "{name}: not a DELETE"
        );
        ensure!(
            text(&review, "/request/name").is_empty(),
            "{name}: a deletecollection names its objects now"
        );
        ensure!(
            review.pointer("/request/object").is_none_or(Value::is_null),
            "{name}: a DELETE has an object"
        );
        let old = review.pointer("/request/oldObject").context("no oldObject")?;
        stamp(old, "renewTime").with_context(|| format!("{name}: no stamp in the oldObject"))?;
    }
    Ok(())
}
