//! A replica whose clock jumps by an hour, forth and back: its verdicts stay, electors do not notice, and neither its
//! watch nor its certificates suffer.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Test,
    electors::{LEASE, elector, renewals, sees_leader, started_leading},
    guard::{Replica, set_endpoints},
    harness::{
        assets::repository,
        audit::text,
        faketime,
        leases::{Edit, Leases, Verb},
        schedule::Phase,
        until,
        world::World,
    },
    reviews::Reviewer,
    table, test,
};

/// Where the clock stands to the machine's, one step after the other, in seconds.
const STEPS: [i64; 4] = [3600, 0, -3600, 0];

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(4),
        "clock::an_hour_changes_nothing",
        an_hour_changes_nothing,
    )]
}

async fn an_hour_changes_nothing(world: &'static World) -> anyhow::Result<()> {
    faketime::ensure_installed()?;
    let guard = crate::guard(world).await?;
    let admin = world.admin().await?;
    let all: Vec<String> = world.network.replicas().iter().map(ToString::to_string).collect();
    let replica = guard.replicas().first().context("no replicas")?;
    let clock = Clock(world.folder().join("clock"));
    clock.stand_at(0)?;
    replica.terminate().await?;
    replica.start_with(&clock.environment()).await?;
    // Only this one is asked.
    for other in guard.replicas().iter().skip(1) {
        other.terminate().await?;
    }
    set_endpoints(&admin, all.get(..1).unwrap_or_default()).await?;
    guard.wait_until_asked(world).await?;

    let reviewer = Reviewer::all(world)
        .await?
        .into_iter()
        .next()
        .context("no replicas")?;
    let reviews = captured_reviews(&repository("tests/data/reviews"))?;
    let before = judge(&reviewer, &reviews).await?;
    let upkeep = Upkeep::of(replica).await?;
    let (mut seen, mut changed, mut writes) = (Vec::new(), Vec::new(), 0);
    for (number, step) in STEPS.into_iter().enumerate() {
        clock.stand_at(step)?;
        // The policy is still watched, and what the replica notes of it shows that its clock did jump.
        let document = format!("{}# step {number}\n", guard.deployed_policy());
        let version = guard.edit_policy(&admin, &document).await?;
        until("the policy to be taken up after the clock jumped", || async {
            let labels = [("resource_version", version.as_str())];
            Ok((replica.metrics().await?.sum("leasehold_policy_active", &labels) > 0.0).then_some(()))
        })
        .await?;
        seen.push(clock_of(replica).await? - Timestamp::now().as_second());
        for (name, answer) in judge(&reviewer, &reviews).await? {
            if before
                .iter()
                .any(|(other, before)| *other == name && *before != answer)
            {
                changed.push(format!("{name} at {step:+} s"));
            }
        }
        let leases = world.leases(&format!("chaos-clock-{number}")).await?;
        writes += write(&leases)
            .await
            .with_context(|| format!("with the clock at {step:+} s"))?;
        if step != 0 {
            elect(world, &leases)
                .await
                .with_context(|| format!("with the clock at {step:+} s"))?;
        }
    }
    let upkeep_after = Upkeep::of(replica).await?;
    let (ready, detail) = replica.get("/readyz").await?;

    replica.terminate().await?;
    for replica in guard.replicas() {
        replica.start().await?;
    }
    set_endpoints(&admin, &all).await?;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    guard.wait_until_asked(world).await?;

    table::add(
        "5. clock stepped by an hour",
        format!(
            "clock of the replica at {STEPS:?} s, one after the other; at each {} captured reviews, {} writes, two \
             electors",
            reviews.len(),
            writes / STEPS.len()
        ),
        format!(
            "clock seen at {seen:?} s; verdicts changed {}, electors stopped 0, certificate renewals {} repairs {}, \
             failed looks at the Secret {}, handshakes refused 0",
            changed.len(),
            u8::from(upkeep.not_after != upkeep_after.not_after),
            upkeep_after.repairs - upkeep.repairs,
            upkeep_after.failed - upkeep.failed,
        ),
    );
    for (step, seen) in STEPS.iter().zip(&seen) {
        // The clock is read some time after the replica's note.
        ensure!(
            (step - seen).abs() < 120,
            "the clock did not jump: {seen} s, not {step} s"
        );
    }
    ensure!(changed.is_empty(), "verdicts changed with the clock: {changed:?}");
    ensure!(
        upkeep == upkeep_after,
        "certificates: {upkeep:?}, then {upkeep_after:?}"
    );
    ensure!(ready == 200, "not ready: {detail}");
    Ok(())
}

/// A file that tells libfaketime how far to set the clock wrong, read at every look at the clock.
struct Clock(std::path::PathBuf);

impl Clock {
    fn stand_at(&self, seconds: i64) -> anyhow::Result<()> {
        // Whoever reads it meanwhile is to find it whole.
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s\n"))?;
        Ok(std::fs::rename(new, &self.0)?)
    }

    fn environment(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", faketime::library().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // Timers are to run as ever: a clock that is set moves no other on a real machine.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }
}

/// The replica's clock when it last took up a policy, in seconds since 1970.
async fn clock_of(replica: &Replica) -> anyhow::Result<i64> {
    let metrics = replica.metrics().await?;
    Ok(metrics.sum("leasehold_policy_last_successful_load_timestamp_seconds", &[]) as i64)
}

/// What became of the certificates.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Upkeep {
    not_after: f64,
    repairs: f64,
    failed: f64,
}

impl Upkeep {
    async fn of(replica: &Replica) -> anyhow::Result<Self> {
        let metrics = replica.metrics().await?;
        Ok(Self {
            not_after: metrics.sum("leasehold_certificate_not_after_timestamp_seconds", &[]),
            repairs: metrics.sum("leasehold_certificates_repairs_total", &[]),
            failed: metrics.sum("leasehold_certificates_polls_total", &[("result", "failed")]),
        })
    }
}

fn captured_reviews(folder: &Path) -> anyhow::Result<Vec<(String, Bytes)>> {
    let mut reviews = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        reviews.push((name, std::fs::read(&path)?.into()));
    }
    ensure!(!reviews.is_empty(), "no reviews in {}", folder.display());
    Ok(reviews)
}

/// The verdict on each: whether the write may pass and what its writer is told. Without the warnings: what is seen
/// again may be warned of for being seen again.
///
/// Each on a connection of its own, so that as many handshakes go well.
async fn judge(reviewer: &Reviewer, reviews: &[(String, Bytes)]) -> anyhow::Result<Vec<(String, Value)>> {
    let mut verdicts = Vec::new();
    for (name, review) in reviews {
        let answer = reviewer.connect().await?.send(review.clone()).await?;
        answer.is_allowed().with_context(|| name.clone())?;
        let document: Value = serde_json::from_slice(&answer.body)?;
        let part = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
        verdicts.push((
            name.clone(),
            json!([part("/response/allowed"), part("/response/status")]),
        ));
    }
    Ok(verdicts)
}

/// Writes of every kind, fresh by the API server's clock, each of which must come out as ever. Gives how many.
async fn write(leases: &Leases) -> anyhow::Result<usize> {
    let held = |holder: &str, at: Timestamp, transitions: i64| {
        json!({
            "holderIdentity": holder,
            "leaseDurationSeconds": 5,
            "acquireTime": format!("{at:.6}"),
            "renewTime": format!("{at:.6}"),
            "leaseTransitions": transitions,
        })
    };
    let created = leases.api.now().await?;
    leases
        .create("lock", "a", held("a", created, 0))
        .await?
        .accepted()?;
    let edit = async |manager: &str, spec: Value| {
        leases
            .edit(Verb::MergePatch, "lock", &Edit::spec(manager, spec))
            .await
    };
    let early = edit("b", held("b", created, 1)).await?;
    ensure!(
        early.code == 403,
        "a takeover that came too early was answered {}",
        early.code
    );
    let label = Edit::labels("a", json!({"app": "shop"}));
    let labelled = leases.edit(Verb::MergePatch, "lock", &label).await?;
    let since = labelled.date;
    labelled.accepted().context("a label")?;
    let longer = json!({"leaseDurationSeconds": 6});
    edit("a", longer).await?.accepted().context("another duration")?;
    let expired = leases.api.until_elapsed(since, 8).await?;
    edit("b", held("b", expired, 1))
        .await?
        .accepted()
        .context("a takeover in time")?;
    let released = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
    edit("b", released).await?.accepted().context("a release")?;
    edit("a", held("a", leases.api.now().await?, 2))
        .await?
        .accepted()
        .context("an acquisition")?;
    leases.delete("lock").await?.accepted().context("a deletion")?;
    Ok(8)
}

/// Two electors: the second takes over from the first, which is killed, and both renew.
async fn elect(world: &World, leases: &Leases) -> anyhow::Result<()> {
    let mut first = elector(world, leases, "a", "client-go-0.37", "0s").await?;
    first.event(started_leading).await?;
    let mut second = elector(world, leases, "b", "client-go-0.33", "0s").await?;
    second.event(sees_leader("a")).await?;
    renewals(leases, 2).await?;
    first.kill().await?;
    second.event(started_leading).await?;
    renewals(leases, 1).await?;
    let lease = leases.get(LEASE).await?;
    ensure!(
        text(&lease, "/spec/holderIdentity") == "b",
        "b leads, but does not hold: {lease}"
    );
    ensure!(
        second.terminate().await?.success(),
        "b ended badly: {}",
        second.log_tail(10)
    );
    Ok(())
}
