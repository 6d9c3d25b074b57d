//! The policy's ConfigMap, edited while Leasehold runs.

use anyhow::ensure;
use futures::future::try_join_all;

use crate::{
    Test,
    attacks::{Attack, refused, would_be_refused},
    guard::Guard,
    harness::{assets::repository, leases::Verb, schedule::Phase, until, world::World},
    test,
};

/// The tests of this file: the policy is everybody's.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::Alone(0),
            "policy::audit_allows_and_logs_what_enforce_refuses",
            audit_allows_and_logs,
        ),
        test(
            Phase::Alone(1),
            "policy::bad_documents_are_kept_out",
            bad_documents_are_kept_out,
        ),
    ]
}

/// The policy of the overlay, as a ConfigMap holds it.
fn overlay_policy(overlay: &str) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(repository(&format!(
        "manifests/overlays/{overlay}/policy.yaml"
    )))?)
}

async fn audit_allows_and_logs(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    guard.set_policy(&admin, &overlay_policy("audit")?).await?;
    let attempts = Attack::all().map(|(verb, attack)| async move {
        let leases = world
            .leases(&format!("audit-{}-{}", attack.slug(), verb.slug()))
            .await?;
        would_be_refused(world, &leases, verb, attack)
            .await
            .map_err(|error| error.context(format!("{} by {verb:?}", attack.slug())))
    });
    let outcome = try_join_all(attempts).await;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    outcome?;
    let leases = world.leases("audit-then-enforce").await?;
    refused(world, &leases, Verb::Put, Attack::Honest).await
}

/// What every replica says of its policy.
async fn ensure_told(guard: &Guard, healthy: bool, result: &str, said: &str) -> anyhow::Result<()> {
    let expected = if healthy { 1.0 } else { 0.0 };
    for replica in guard.replicas() {
        let what = format!("a replica to tell of its policy ({result})");
        until(&what, || async {
            let metrics = replica.metrics().await?;
            let told = metrics.sum("leasehold_policy_last_load_successful", &[]) == expected
                && metrics.sum("leasehold_policy_loads_total", &[("result", result)]) > 0.0;
            Ok(told.then_some(()))
        })
        .await?;
        // Ready all the same: the last good policy is in force.
        let (code, report) = replica.get("/readyz?verbose").await?;
        ensure!(code == 200, "/readyz answers {code}: {report}");
        ensure!(
            report.contains(said),
            "/readyz?verbose does not say {said:?}: {report}"
        );
        let log = replica.log()?;
        ensure!(
            healthy || log.contains(said),
            "the log does not say {said:?}: {log}"
        );
    }
    Ok(())
}

async fn bad_documents_are_kept_out(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    let bad = [
        ("mode", "mode: nonsense\n", "nonsense"),
        ("field", "mode: audit\nmodus: audit\n", "modus"),
        (
            "rule",
            "mode: audit\nrules: {takeover-before-expiri: {action: audit}}\n",
            "takeover-before-expiri",
        ),
        (
            "bounds",
            "mode: audit\nrules: {duration-out-of-bounds: {min: 2h, max: 1h}}\n",
            "min",
        ),
        ("yaml", "mode: [audit\n", "line"),
    ];
    for (name, document, said) in bad {
        let document = format!("apiVersion: leasehold.dev/v1alpha1\nkind: LeasePolicy\n{document}");
        guard.force_policy(&admin, &document).await?;
        ensure_told(guard, false, "refused", said).await?;
        let leases = world.leases(&format!("bad-policy-{name}")).await?;
        refused(world, &leases, Verb::MergePatch, Attack::HolderOnly).await?;
        guard.set_policy(&admin, guard.deployed_policy()).await?;
        ensure_told(guard, true, "loaded", "[+]policy ok").await?;
    }
    // The ConfigMap gone is no reason to be without a policy, either.
    guard.delete_policy(&admin).await?;
    ensure_told(guard, false, "missing", "leasehold-system/leasehold-policy").await?;
    let leases = world.leases("no-policy").await?;
    let outcome = refused(world, &leases, Verb::Put, Attack::Honest).await;
    guard.create_policy(&admin).await?;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    ensure_told(guard, true, "loaded", "[+]policy ok").await?;
    outcome
}
