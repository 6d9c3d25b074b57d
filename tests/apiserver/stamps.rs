//! What the API server stamps, as a webhook sees it: every fact about `metadata.managedFields` that a rule leans on.
//! A failure here means that Kubernetes changed, and that the rule named in the test has to be thought over.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        api::{Edit, Leases, Verb},
        audit::text,
        recorder::Recorder,
        schedule::Phase,
        world::World,
    },
    test,
};

/// A time long gone, for forgeries.
const FORGED: &str = "2001-02-03T04:05:06Z";

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    let phase = Phase::Recorded;
    let mut tests = vec![
        test(
            phase,
            "stamps::renewal_moves_the_owners_stamp",
            renewal_moves_the_owners_stamp,
        ),
        test(
            phase,
            "stamps::label_edit_by_the_owner_moves_its_stamp",
            label_edit_by_the_owner,
        ),
        test(
            phase,
            "stamps::label_edit_by_another_leaves_the_stamp",
            label_edit_by_another,
        ),
        test(
            phase,
            "stamps::forged_times_alone_are_no_write",
            forged_times_alone,
        ),
        test(
            phase,
            "stamps::forged_times_with_a_label_are_stored",
            forged_times_with_a_label,
        ),
        test(
            phase,
            "stamps::forged_extra_owner_with_a_label_is_stored",
            forged_extra_owner_with_a_label,
        ),
        test(
            phase,
            "stamps::cleared_stamps_stay_cleared",
            cleared_stamps_stay_cleared,
        ),
        test(
            phase,
            "stamps::apply_rearms_a_blind_lease",
            apply_rearms_a_blind_lease,
        ),
        test(
            phase,
            "stamps::apply_of_what_is_there_has_no_time",
            apply_of_what_is_there,
        ),
        test(
            phase,
            "stamps::apply_of_the_same_by_the_same_is_no_write",
            apply_of_the_same_by_the_same,
        ),
        test(phase, "stamps::dry_run_is_stamped", dry_run_is_stamped),
        test(phase, "stamps::removal_moves_no_stamp", removal_moves_no_stamp),
        test(
            phase,
            "stamps::removal_of_all_leaves_no_entry",
            removal_of_all_leaves_no_entry,
        ),
        test(
            phase,
            "stamps::empty_create_has_no_entry",
            empty_create_has_no_entry,
        ),
        test(
            phase,
            "stamps::put_of_a_missing_lease_is_a_create",
            put_of_a_missing_lease_is_a_create,
        ),
        test(
            phase,
            "stamps::deletecollection_is_a_delete_each",
            deletecollection_is_a_delete_each,
        ),
    ];
    for verb in Verb::ALL {
        let slug = verb.slug();
        tests.push(test(
            phase,
            format!("stamps::takeover_is_stamped_now::{slug}"),
            move |world| takeover_is_stamped_now(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_without_renew_time::{slug}"),
            move |world| takeover_without_renew_time(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_with_forged_stamps::{slug}"),
            move |world| takeover_with_forged_stamps(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_that_clears_stamps::{slug}"),
            move |world| takeover_that_clears_stamps(world, verb),
        ));
    }
    tests
}

/// One entry of `managedFields`, as far as a rule looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    manager: String,
    time: Option<Timestamp>,
}

/// The entries that own a field of the spec.
fn owners(lease: &Value, field: &str) -> Vec<Owner> {
    entries(lease)
        .iter()
        .filter(|entry| entry.pointer(&format!("/fieldsV1/f:spec/f:{field}")).is_some())
        .map(|entry| Owner {
            manager: text(entry, "/manager").to_owned(),
            time: entry
                .get("time")
                .and_then(Value::as_str)
                .and_then(|time| time.parse().ok()),
        })
        .collect()
}

fn entries(lease: &Value) -> &[Value] {
    lease
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The one entry that owns a field, and its stamp.
fn stamp(lease: &Value, field: &str) -> anyhow::Result<Timestamp> {
    let owners = owners(lease, field);
    let [Owner { time: Some(time), .. }] = owners.as_slice() else {
        anyhow::bail!("expected one stamped owner of {field}, found {owners:?}")
    };
    Ok(*time)
}

fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// A held lease as client-go creates it.
fn held_by(holder: &str, now: Timestamp) -> Value {
    json!({
        "holderIdentity": holder,
        "leaseDurationSeconds": 15,
        "acquireTime": micro(now),
        "renewTime": micro(now),
        "leaseTransitions": 0,
    })
}

/// A lease that manager `a` created and holds, one second old at least, in a namespace of its own.
struct Scene<'a> {
    leases: Leases,
    recorder: &'a Recorder,
    created: Timestamp,
}

const LEASE: &str = "lock";

impl<'a> Scene<'a> {
    async fn set(world: &'a World, namespace: &str) -> anyhow::Result<Self> {
        let (leases, recorder) = world.recorded_leases(&format!("stamps-{namespace}")).await?;
        let before = leases.api.now().await?;
        let reply = leases.create(LEASE, "a", held_by("a", before)).await?;
        let after = reply.date;
        let created = stamp(&reply.accepted()?, "renewTime")?;
        ensure!(
            (before..=after).contains(&created),
            "created at {created}, not within {before} and {after}"
        );
        leases.api.after_second(created).await?;
        Ok(Self {
            leases,
            recorder,
            created,
        })
    }

    /// Writes, and gives the review that the webhook was sent, with the API server's clock before and after.
    async fn reviewed(&self, verb: Verb, edit: &Edit) -> anyhow::Result<Reviewed> {
        let before = self.leases.api.now().await?;
        let count = self.recorder.of(&self.leases.namespace, LEASE).len();
        let reply = self.leases.edit(verb, LEASE, edit).await?;
        let after = reply.date;
        let stored = reply.accepted()?;
        let reviews = self.recorder.of(&self.leases.namespace, LEASE);
        ensure!(reviews.len() > count, "the write was not reviewed");
        let review = reviews.last().context("no review")?;
        let part = |name: &str| {
            review
                .pointer(&format!("/request/{name}"))
                .cloned()
                .unwrap_or_default()
        };
        Ok(Reviewed {
            review: review.clone(),
            old: part("oldObject"),
            new: part("object"),
            stored,
            written: (before, after),
        })
    }

    async fn stored(&self) -> anyhow::Result<Value> {
        self.leases.get(LEASE).await
    }
}

struct Reviewed {
    review: Value,
    old: Value,
    new: Value,
    stored: Value,
    written: (Timestamp, Timestamp),
}

impl Reviewed {
    /// Checks that one entry alone owns the field in the new object, and that its stamp is this write's time.
    fn ensure_stamped_now(&self, field: &str, manager: &str) -> anyhow::Result<()> {
        let (before, after) = self.written;
        let owners = owners(&self.new, field);
        ensure!(
            owners.len() == 1,
            "expected one owner of {field}, found {owners:?}"
        );
        let stamp = stamp(&self.new, field)?;
        ensure!(
            owners.iter().all(|owner| owner.manager == manager),
            "{field} is not {manager}'s: {owners:?}"
        );
        ensure!(
            (before..=after).contains(&stamp),
            "{field} is stamped {stamp}, not within {before} and {after}"
        );
        Ok(())
    }
}

async fn renewal_moves_the_owners_stamp(world: &'static World) -> anyhow::Result<()> {
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

async fn label_edit_by_the_owner(world: &'static World) -> anyhow::Result<()> {
    let scene = Scene::set(world, "label-owner").await?;
    let write = scene
        .reviewed(Verb::Put, &Edit::labels("a", json!({"app": "shop"})))
        .await?;
    write.ensure_stamped_now("renewTime", "a")
}

async fn label_edit_by_another(world: &'static World) -> anyhow::Result<()> {
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

/// A takeover by somebody whose clock is an hour ahead.
async fn takeover_is_stamped_now(world: &'static World, verb: Verb) -> anyhow::Result<()> {
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

async fn takeover_without_renew_time(world: &'static World, verb: Verb) -> anyhow::Result<()> {
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
async fn takeover_with_forged_stamps(world: &'static World, verb: Verb) -> anyhow::Result<()> {
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

async fn takeover_that_clears_stamps(world: &'static World, verb: Verb) -> anyhow::Result<()> {
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

async fn forged_times_alone(world: &'static World) -> anyhow::Result<()> {
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

async fn forged_times_with_a_label(world: &'static World) -> anyhow::Result<()> {
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
async fn forged_extra_owner_with_a_label(world: &'static World) -> anyhow::Result<()> {
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

async fn cleared_stamps_stay_cleared(world: &'static World) -> anyhow::Result<()> {
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

async fn apply_rearms_a_blind_lease(world: &'static World) -> anyhow::Result<()> {
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

async fn apply_of_what_is_there(world: &'static World) -> anyhow::Result<()> {
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

async fn apply_of_the_same_by_the_same(world: &'static World) -> anyhow::Result<()> {
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

async fn dry_run_is_stamped(world: &'static World) -> anyhow::Result<()> {
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

/// A release by nulls, as three libraries do it.
async fn removal_moves_no_stamp(world: &'static World) -> anyhow::Result<()> {
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

async fn removal_of_all_leaves_no_entry(world: &'static World) -> anyhow::Result<()> {
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

async fn empty_create_has_no_entry(world: &'static World) -> anyhow::Result<()> {
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

async fn put_of_a_missing_lease_is_a_create(world: &'static World) -> anyhow::Result<()> {
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

async fn deletecollection_is_a_delete_each(world: &'static World) -> anyhow::Result<()> {
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
