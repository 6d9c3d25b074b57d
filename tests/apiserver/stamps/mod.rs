//! What the API server stamps, as a webhook sees it: every fact about `metadata.managedFields` that a rule leans on.
//! Kubernetes 1.30.14, 1.36.3 and 1.37.2 agree on all of it.
//!
//! A failure here means that Kubernetes changed, and that the rule named in the test has to be thought over.

mod absences;
mod takeovers;
mod writes;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Test,
    harness::{
        audit::text,
        leases::{Edit, Leases, Verb},
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
            writes::renewal_moves_the_owners_stamp,
        ),
        test(
            phase,
            "stamps::label_edit_by_the_owner_moves_its_stamp",
            writes::label_edit_by_the_owner,
        ),
        test(
            phase,
            "stamps::label_edit_by_another_leaves_the_stamp",
            writes::label_edit_by_another,
        ),
        test(
            phase,
            "stamps::forged_times_alone_are_no_write",
            writes::forged_times_alone,
        ),
        test(
            phase,
            "stamps::forged_times_with_a_label_are_stored",
            writes::forged_times_with_a_label,
        ),
        test(
            phase,
            "stamps::forged_extra_owner_with_a_label_is_stored",
            writes::forged_extra_owner_with_a_label,
        ),
        test(
            phase,
            "stamps::cleared_stamps_stay_cleared",
            writes::cleared_stamps_stay_cleared,
        ),
        test(
            phase,
            "stamps::apply_rearms_a_blind_lease",
            writes::apply_rearms_a_blind_lease,
        ),
        test(
            phase,
            "stamps::apply_of_what_is_there_has_no_time",
            writes::apply_of_what_is_there,
        ),
        test(
            phase,
            "stamps::apply_of_the_same_by_the_same_is_no_write",
            writes::apply_of_the_same_by_the_same,
        ),
        test(phase, "stamps::dry_run_is_stamped", writes::dry_run_is_stamped),
        test(
            phase,
            "stamps::removal_moves_no_stamp",
            absences::removal_moves_no_stamp,
        ),
        test(
            phase,
            "stamps::removal_of_all_leaves_no_entry",
            absences::removal_of_all_leaves_no_entry,
        ),
        test(
            phase,
            "stamps::empty_create_has_no_entry",
            absences::empty_create_has_no_entry,
        ),
        test(
            phase,
            "stamps::put_of_a_missing_lease_is_a_create",
            absences::put_of_a_missing_lease_is_a_create,
        ),
        test(
            phase,
            "stamps::deletecollection_is_a_delete_each",
            absences::deletecollection_is_a_delete_each,
        ),
    ];
    for verb in Verb::ALL {
        let slug = verb.slug();
        tests.push(test(
            phase,
            format!("stamps::takeover_is_stamped_now::{slug}"),
            move |world| takeovers::takeover_is_stamped_now(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_without_renew_time::{slug}"),
            move |world| takeovers::takeover_without_renew_time(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_with_forged_stamps::{slug}"),
            move |world| takeovers::takeover_with_forged_stamps(world, verb),
        ));
        tests.push(test(
            phase,
            format!("stamps::takeover_that_clears_stamps::{slug}"),
            move |world| takeovers::takeover_that_clears_stamps(world, verb),
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
