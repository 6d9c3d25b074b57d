//! What a lease is for: other uses of Leases are let be, a live election cannot pass for one of them, and who holds a
//! lease may give it away or delete it.

mod disguises;
mod givers;
mod longhorn;
mod uses;

use anyhow::ensure;
use serde_json::Value;

use crate::{
    Test,
    attacks::held,
    harness::{
        api::{Api, Reply},
        audit::text,
        leases::{Leases, Verb},
        pods,
        schedule::Phase,
        world::World,
    },
    test,
};

const LEASE: &str = "lock";

/// How long the leases are valid that somebody tries to take early: longer than any test takes on the slowest machine.
const VALID_SECONDS: i64 = 600;

/// The tests of this folder.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        test(
            Phase::Undisturbed,
            "purpose::leases_that_elect_nobody_are_let_be",
            uses::leases_that_elect_nobody_are_let_be,
        ),
        test(
            Phase::Undisturbed,
            "purpose::a_lock_that_counts_is_warned_of_and_works",
            uses::a_lock_that_counts_is_warned_of_and_works,
        ),
        test(
            Phase::Undisturbed,
            "purpose::a_record_that_changes_kind_in_every_write_gets_answers",
            uses::a_record_that_changes_kind_in_every_write_gets_answers,
        ),
        test(
            Phase::Attacked,
            "purpose::dropping_ownership_does_not_take_the_duration_off",
            disguises::dropping_ownership_does_not_take_the_duration_off,
        ),
        test(
            Phase::Attacked,
            "purpose::a_stranger_neither_clears_nor_deletes_a_live_lease",
            disguises::a_stranger_neither_clears_nor_deletes_a_live_lease,
        ),
        test(
            Phase::Attacked,
            "purpose::a_holder_may_hand_its_lease_over",
            givers::a_holder_may_hand_its_lease_over,
        ),
        test(
            Phase::Attacked,
            "purpose::who_may_impersonate_a_pod_passes_for_it",
            givers::who_may_impersonate_a_pod_passes_for_it,
        ),
        test(
            Phase::Attacked,
            "purpose::a_deletion_by_the_holder_is_a_release",
            givers::a_deletion_by_the_holder_is_a_release,
        ),
        test(
            Phase::Attacked,
            "purpose::longhorn_fails_over_and_nobody_else_does",
            longhorn::fails_over_and_nobody_else_does,
        ),
    ];
    tests.extend(Verb::ALL.map(|verb| {
        test(
            Phase::Attacked,
            format!("purpose::a_live_election_cannot_pass_for_a_lock::{}", verb.slug()),
            move |world| disguises::a_live_election_cannot_pass_for_a_lock(world, verb),
        )
    }));
    tests
}

/// Clients with the tokens of two pods of a Deployment, and the identities by which these hold leases.
struct Siblings {
    holder: (Api, String),
    other: (Api, String),
}

impl Siblings {
    async fn in_namespace(world: &World, namespace: &str) -> anyhow::Result<Self> {
        pods::create_account(world, namespace).await?;
        let [holder, other] = ["x2x9k", "q8w4m"].map(async |suffix| {
            let pod = format!("elector-7d4b9c6f5-{suffix}");
            let token = pods::token(world, namespace, &pod).await?;
            anyhow::Ok((world.plane().await?.client(&token)?, format!("{pod}_0b7c1c5e")))
        });
        Ok(Self {
            holder: holder.await?,
            other: other.await?,
        })
    }
}

/// The same leases, as another client writes them.
fn by(leases: &Leases, api: &Api) -> Leases {
    Leases {
        api: api.clone(),
        namespace: leases.namespace.clone(),
    }
}

/// Checks that a write passed and that nobody was warned.
fn ensure_silent(reply: Reply) -> anyhow::Result<Value> {
    ensure!(reply.warnings.is_empty(), "warned: {:?}", reply.warnings);
    reply.accepted()
}

/// Creates the lease under test, valid for long, held by this identity; its field manager says nothing of the holder.
async fn live(leases: &Leases, identity: &str) -> anyhow::Result<()> {
    let now = leases.api.now().await?;
    leases
        .create(LEASE, "elector", held(identity, now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    Ok(())
}

/// What the API server's audit log says that Leasehold saw in the last write to the lease under test.
async fn change_of_last_write(world: &World, leases: &Leases) -> anyhow::Result<String> {
    let webhook = &world.guard().await?.webhook;
    let audit = world.plane().await?.audit()?;
    let last = audit.lease_writes(&leases.namespace).last();
    let pointer = format!("/annotations/{webhook}~1change");
    Ok(last.map_or_else(String::new, |event| text(event, &pointer).to_owned()))
}
