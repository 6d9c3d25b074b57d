//! Locks, status boards and claims, as their programs write them: nothing is denied, and nobody is warned.

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{LEASE, ensure_silent};
use crate::harness::{
    leases::{Edit, Verb},
    world::World,
};

/// One use: the spec that it creates its Lease with, and what it writes then.
struct Use {
    name: &'static str,
    created: Value,
    writes: Vec<(Verb, Value)>,
}

/// The shapes of `docs/electors.md`'s table of other uses. `now` is a time as these programs write it.
fn uses(now: &str, later: &str) -> Vec<Use> {
    vec![
        // Terraform, OpenTofu: a holder, and nothing else; force-unlock removes another's.
        Use {
            name: "state-lock",
            created: json!({"holderIdentity": "8f3c9e1a-0d6f-4b3f-9a55-0c9d5c1b2f3a"}),
            writes: vec![
                (Verb::Put, json!({"holderIdentity": null})),
                (
                    Verb::Put,
                    json!({"holderIdentity": "5e0b7c1c-5e0d-4f4b-8f9a-550c9d5c1b2f"}),
                ),
                (
                    Verb::Put,
                    json!({"holderIdentity": "91c7a3d2-7e6f-4f5a-8b9c-0d1e2f3a4b5c"}),
                ),
                (Verb::Put, json!({"holderIdentity": null})),
            ],
        },
        // Gardener's etcd-backup-restore: the last revision of a snapshot, and a member's role.
        Use {
            name: "full-snapshot-revisions",
            created: json!({}),
            writes: vec![
                (
                    Verb::MergePatch,
                    json!({"holderIdentity": "4711", "renewTime": now}),
                ),
                (
                    Verb::MergePatch,
                    json!({"holderIdentity": "4799", "renewTime": later}),
                ),
            ],
        },
        Use {
            name: "etcd-member",
            created: json!({}),
            writes: vec![
                (
                    Verb::MergePatch,
                    json!({"holderIdentity": "86c9:d1e5:Member", "renewTime": now}),
                ),
                (
                    Verb::MergePatch,
                    json!({"holderIdentity": "86c9:d1e5:Leader", "renewTime": later}),
                ),
                (Verb::MergePatch, json!({"renewTime": now})),
            ],
        },
        // A claim: who takes it over looks whether the holder's object lives.
        Use {
            name: "cluster-claim",
            created: json!({"holderIdentity": "run-1", "acquireTime": now}),
            writes: vec![
                (
                    Verb::Put,
                    json!({"holderIdentity": "run-2", "acquireTime": later}),
                ),
                (
                    Verb::Apply,
                    json!({"holderIdentity": "run-3", "acquireTime": later}),
                ),
                (Verb::JsonPatch, json!({"holderIdentity": "run-4"})),
            ],
        },
        // A heartbeat: never another holder.
        Use {
            name: "heartbeat",
            created: json!({"holderIdentity": "cluster-1", "leaseDurationSeconds": 60, "renewTime": now}),
            writes: vec![(Verb::Put, json!({"renewTime": later}))],
        },
    ]
}

pub(super) async fn leases_that_elect_nobody_are_let_be(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("uses").await?;
    let now = leases.api.now().await?;
    let (now, later) = (
        format!("{now:.6}"),
        format!("{:.6}", now + SignedDuration::from_secs(1)),
    );
    for Use {
        name,
        created,
        writes,
    } in uses(&now, &later)
    {
        let reply = leases.create(name, "program", created).await?;
        ensure_silent(reply).with_context(|| format!("{name}: create"))?;
        for (verb, spec) in writes {
            let what = format!("{name}: {verb:?} {spec}");
            let reply = leases.edit(verb, name, &Edit::spec("program", spec)).await?;
            ensure_silent(reply).context(what)?;
        }
        ensure_silent(leases.delete(name).await?).with_context(|| format!("{name}: delete"))?;
    }
    Ok(())
}

/// k8slock and fleetlock: counted like an election, and never renewed.
pub(super) async fn a_lock_that_counts_is_warned_of_and_works(world: &'static World) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("counting-lock").await?;
    let free = json!({"holderIdentity": "", "leaseTransitions": 0});
    ensure_silent(leases.create(LEASE, "program", free).await?)?;
    for count in 1..4 {
        let spec = json!({"holderIdentity": format!("node-{count}"), "leaseTransitions": count});
        let reply = leases
            .edit(Verb::Put, LEASE, &Edit::spec("program", spec))
            .await?;
        ensure!(
            matches!(reply.warnings.as_slice(), [only] if only.contains("duration-out-of-bounds: ")),
            "{:?}",
            reply.warnings
        );
        reply.accepted()?;
        let unlock = Edit::spec("program", json!({"holderIdentity": ""}));
        ensure_silent(leases.edit(Verb::Put, LEASE, &unlock).await?)?;
    }
    Ok(())
}

/// The lease is free in between, so that no write is early.
pub(super) async fn a_record_that_changes_kind_in_every_write_gets_answers(
    world: &'static World,
) -> anyhow::Result<()> {
    world.guard().await?;
    let leases = world.leases("kinds").await?;
    let now = leases.api.now().await?;
    let now = format!("{now:.6}");
    leases.create(LEASE, "program", json!({})).await?.accepted()?;
    // As large as etcd takes an object with this name twice in one review.
    let long = "x".repeat(700 * 1024);
    for spec in [
        json!({"holderIdentity": "lock"}),
        json!({"holderIdentity": ""}),
        json!({"holderIdentity": "", "renewTime": now, "acquireTime": now}),
        json!({"holderIdentity": null, "renewTime": null, "acquireTime": null}),
        json!({"holderIdentity": long}),
        json!({"holderIdentity": null}),
        json!({"holderIdentity": "board", "renewTime": now}),
        json!({"holderIdentity": null, "renewTime": null}),
        json!({"holderIdentity": "claim", "acquireTime": "9999-12-31T23:59:59.999999Z"}),
    ] {
        let shown = spec.to_string();
        let shown = shown.get(..80).unwrap_or(&shown).to_owned();
        let reply = leases
            .edit(Verb::MergePatch, LEASE, &Edit::spec("program", spec))
            .await?;
        ensure_silent(reply).context(shown)?;
    }
    Ok(())
}
