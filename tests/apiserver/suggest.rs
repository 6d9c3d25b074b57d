//! From audit to enforce: `leasehold policy suggest` on the audit log that Leasehold itself wrote, and the same electors and
//! writes once more under the policy that it printed.

use std::process::Stdio;

use anyhow::{Context, ensure};
use leasehold::policy::{Mode, Policy};
use serde_json::{Value, json};

use crate::{
    Test,
    attacks::ensure_denied,
    electors::{LEASE, hasty_elector, sees_leader, started_leading},
    guard::Guard,
    harness::{
        api::Reply,
        assets::Assets,
        audit::text,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        world::World,
    },
    test,
};

/// A lease that is taken while it is held, which no suggestion excuses.
const STOLEN: &str = "stolen";

/// The test of this file: the policy is everybody's.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(1),
        "suggest::what_ran_in_mode_audit_runs_under_the_suggested_policy",
        what_ran_in_mode_audit_runs_under_the_suggested_policy,
    )]
}

async fn what_ran_in_mode_audit_runs_under_the_suggested_policy(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let admin = world.admin().await?;
    let leases = world.leases("suggest").await?;
    let audit = "apiVersion: leasehold.dev/v1alpha1\nkind: LeasePolicy\nmode: audit\n";
    guard.set_policy(&admin, audit).await?;
    let outcome = try_in_audit_then_enforce(world, guard, &leases).await;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    outcome
}

async fn try_in_audit_then_enforce(
    world: &'static World,
    guard: &Guard,
    leases: &Leases,
) -> anyhow::Result<()> {
    let admin = world.admin().await?;
    let seen = everything(world, leases).await?;
    ensure!(
        seen.iter().all(|(_, reply)| reply.code < 300),
        "mode audit refused {seen:?}"
    );
    let denied = |record: &Value| text(record, "/decision") == "would be denied";
    let is_stolen = |record: &Value| denied(record) && text(record, "/name") == STOLEN;
    let records = guard
        .audit_records(&leases.namespace, "the last write", is_stolen)
        .await?;
    let names = |records: &[Value]| -> std::collections::BTreeSet<String> {
        let denied = records.iter().filter(|record| denied(record));
        denied.map(|record| text(record, "/name").to_owned()).collect()
    };
    let wanted = [LEASE, "long", "forgot-its-duration", "uncounted", STOLEN];
    ensure!(
        names(&records) == wanted.map(str::to_owned).into(),
        "not each of these has something that would be denied: {:?}",
        names(&records)
    );

    let suggested = suggest(&records).await?;
    let mode = Policy::parse(&suggested)?.document().mode;
    ensure!(mode == Mode::Enforce, "{suggested}");
    let (commented, stated): (Vec<_>, Vec<_>) = suggested
        .lines()
        .partition(|line| line.trim_start().starts_with('#'));
    ensure!(
        commented.iter().any(|line| line.contains(STOLEN))
            && !stated.iter().any(|line| line.contains(STOLEN)),
        "the early takeover is excused, or not listed: {suggested}"
    );
    for name in wanted {
        leases.delete(name).await?.accepted()?;
    }
    guard.set_policy(&admin, &suggested).await?;
    for (what, reply) in everything(world, leases).await? {
        if what.starts_with(STOLEN) && what.ends_with("takeover") {
            ensure_denied(&reply, "takeover-before-expiry").context(what)?;
        } else {
            reply.accepted().with_context(|| format!("{what}\n{suggested}"))?;
        }
    }
    Ok(())
}

/// Electors whose lease is too short, and writes that the default policy refuses, each with what came of it.
async fn everything(world: &'static World, leases: &Leases) -> anyhow::Result<Vec<(String, Reply)>> {
    let mut a = hasty_elector(world, leases, "a", "client-go-0.37").await?;
    a.event(started_leading).await.context("a does not acquire")?;
    let mut b = hasty_elector(world, leases, "b", "client-go-0.33").await?;
    b.event(sees_leader("a")).await?;
    a.kill().await?;
    b.event(started_leading).await.context("b does not take over")?;
    ensure!(b.terminate().await?.success(), "b: {}", b.log_tail(10));

    let now = format!("{:.6}", leases.api.now().await?);
    let held = |holder: &str, seconds: i64, transitions: i64| {
        json!({
            "holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": now, "renewTime": now,
            "leaseTransitions": transitions,
        })
    };
    let forgot = json!({"holderIdentity": "a", "acquireTime": now, "renewTime": now, "leaseTransitions": 0});
    let mut replies = Vec::new();
    for (name, spec) in [
        ("long", held("a", 8 * 24 * 3600, 0)),
        ("forgot-its-duration", forgot),
        ("uncounted", held("a", 600, 3)),
        (STOLEN, held("a", 600, 0)),
    ] {
        replies.push((
            format!("{name}: create"),
            leases.create(name, "elector", spec).await?,
        ));
    }
    let release = json!({"holderIdentity": ""});
    for (what, name, spec) in [
        ("release", "uncounted", release),
        ("acquire", "uncounted", held("b", 600, 3)),
        ("takeover", STOLEN, held("b", 600, 1)),
    ] {
        let edit = Edit::spec("elector", spec);
        replies.push((
            format!("{name}: {what}"),
            leases.edit(Verb::Put, name, &edit).await?,
        ));
    }
    Ok(replies)
}

/// `leasehold policy suggest -`, as an operator runs it on what `kubectl logs` prints.
async fn suggest(records: &[Value]) -> anyhow::Result<String> {
    let mut log = String::new();
    for record in records {
        log.push_str(&format!("[pod/leasehold-0] {record}\n"));
    }
    log.push_str("a line of another program\n");
    let mut child = tokio::process::Command::new(Assets::leasehold())
        .args(["policy", "suggest", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, log.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let summary = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1),
        "{:?}, for overrides that were added: {summary}",
        output.status
    );
    ensure!(
        summary.contains("1 "),
        "the foreign line is not counted: {summary}"
    );
    eprintln!("{summary}");
    Ok(String::from_utf8(output.stdout)?)
}
