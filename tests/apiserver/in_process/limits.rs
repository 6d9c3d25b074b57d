//! What a policy may hold at the most, what it may be made of, and that it does not go off in silence.

use std::fmt::Write;

use anyhow::ensure;
use serde_json::Value;

use super::{BINDINGS, POLICIES, guarded_leases, install};
use crate::{
    Test,
    attacks::{LEASE, VALID_SECONDS, held},
    harness::{
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        until,
        world::World,
    },
    test,
};

/// More overrides than anybody writes by hand.
const OVERRIDES: usize = 120;

pub(super) fn tests() -> Vec<Test> {
    vec![
        test(
            Phase::InProcess,
            "in_process::many_overrides_stay_within_the_budget",
            many_overrides_stay_within_the_budget,
        ),
        test(
            Phase::InProcess,
            "in_process::names_from_the_policy_stay_names",
            names_from_the_policy_stay_names,
        ),
        test(
            Phase::InProcess,
            "in_process::a_policy_made_anew_judges_anew",
            a_policy_made_anew_judges_anew,
        ),
    ]
}

/// Takes a lease of that name over early; whether that was refused as it should be.
async fn is_refused(leases: &Leases, name: &str) -> anyhow::Result<bool> {
    let now = leases.api.now().await?;
    leases
        .create(name, "a", held("a", now, VALID_SECONDS, 0))
        .await?
        .accepted()?;
    let takeover = Edit::spec("b", held("b", now, VALID_SECONDS, 1));
    let reply = leases.edit(Verb::Put, name, &takeover).await?;
    ensure!(
        reply.code == 200 || reply.message().contains("takeover-before-expiry: "),
        "{}",
        reply.message()
    );
    Ok(reply.code == 403)
}

/// What costs too much is no refusal: with failurePolicy Ignore the write passes.
async fn many_overrides_stay_within_the_budget(world: &'static World) -> anyhow::Result<()> {
    let mut document = "overrides:\n".to_owned();
    for number in 0..OVERRIDES {
        let _ = writeln!(
            document,
            "- match: {{namespaces: ['in-process-many', 'x{number}*y*z'], names: ['legacy-{number}', '*-{number}-*'], \
             labels: {{}}}}\n  mode: {}\n  rules: {{duration-out-of-bounds: {{min: {}s, max: {}s}}, takeover-before-expiry: \
             {{claimed: {}}}}}",
            if number == 77 { "audit" } else { "enforce" },
            number % 5 + 1,
            3600 + number,
            if number % 2 == 0 { "audit" } else { "warn" },
        );
    }
    let document = document.replace(", labels: {}", "");
    let names = install(world, "many", &document, false).await?;
    let leases = guarded_leases(world, "many", "in-process-many").await?;
    for (name, refused) in [
        (LEASE, true),
        ("legacy-76", true),
        ("legacy-77", false),
        ("a-77-b", false),
        ("legacy-119", true),
        // The lowest that matches decides.
        ("a-77-119-b", true),
    ] {
        ensure!(
            is_refused(&leases, name).await? == refused,
            "an early takeover of {name} should{} be refused",
            if refused { "" } else { " not" }
        );
    }
    // What is so long to type-check would keep the controller from the others.
    let admin = world.admin().await?;
    for name in &names {
        for path in [BINDINGS, POLICIES] {
            admin.delete(&format!("{path}/{name}")).await?.accepted()?;
        }
    }
    Ok(())
}

/// Nothing that a policy says is read as CEL.
async fn names_from_the_policy_stay_names(world: &'static World) -> anyhow::Result<()> {
    let document = r#"
breakGlass:
  groups: ['x"] || true || "" in ["', 'x'' || true || ''', 'x\', "x\"", 'x\"])||true//', 'é\u{41}', "x\n|| true"]
"#;
    install(world, "names", document, false).await?;
    let leases = guarded_leases(world, "names", "in-process-names").await?;
    ensure!(
        is_refused(&leases, LEASE).await?,
        "a name of the policy was read as CEL"
    );
    Ok(())
}

/// A policy with parameters stays off in silence after it was deleted and created again; these have none.
async fn a_policy_made_anew_judges_anew(world: &'static World) -> anyhow::Result<()> {
    let admin = world.admin().await?;
    let names = install(world, "anew", "", false).await?;
    let leases = guarded_leases(world, "anew", "in-process-anew").await?;
    ensure!(is_refused(&leases, LEASE).await?, "the policy does not judge");
    for round in 0..2 {
        for name in &names {
            for path in [BINDINGS, POLICIES] {
                admin.delete(&format!("{path}/{name}")).await?.accepted()?;
            }
        }
        let name = format!("probe-{round}");
        until("the policy to be gone", || async {
            let reply = leases.create(&name, "probe", short()).await?;
            Ok((reply.code == 201).then_some(()))
        })
        .await?;
        install(world, "anew", "", false).await?;
        let name = format!("probe-again-{round}");
        until("the policy to judge again", || async {
            let reply = leases.create(&name, "probe", short()).await?;
            if reply.code == 403 {
                return Ok(Some(()));
            }
            reply.accepted()?;
            leases.delete(&name).await?.accepted()?;
            Ok(None)
        })
        .await?;
        ensure!(
            is_refused(&leases, &format!("lock-{round}")).await?,
            "made anew, the policy does not judge"
        );
    }
    Ok(())
}

/// A lease that the default policy does not let be created.
fn short() -> Value {
    serde_json::json!({"holderIdentity": "probe", "leaseDurationSeconds": 1})
}
