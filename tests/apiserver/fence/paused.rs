//! A real leader that is paused, loses its lease, and works on when it wakes up.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{A, A_HOLDS, B, B_HOLDS, Fenced, LEASE, config_map};
use crate::{
    Test,
    electors::{TIMINGS, sees_leader, started_leading},
    harness::{audit::text, process::Process, schedule::Phase, world::World},
    test,
};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![test(
        Phase::InProcess,
        "fence::a_leader_that_wakes_up_too_late_is_refused",
        wakes_up_too_late,
    )]
}

const NAMESPACE: &str = "fence-paused";
const WORK: &str = "work";

/// An elector of client-go in this pod, which works while it leads, and does not ask whether it still does.
async fn start(world: &World, fenced: &Fenced, pod: &str, identity: &str) -> anyhow::Result<Process> {
    let plane = world.plane().await?;
    let token = fenced.token(pod);
    let kubeconfig = plane.write_kubeconfig_at(&format!("{NAMESPACE}-{pod}"), plane.url(), token)?;
    let mut arguments = vec![
        format!("-kubeconfig={}", kubeconfig.display()),
        format!("-namespace={NAMESPACE}"),
        format!("-lease={LEASE}"),
        format!("-identity={identity}"),
        format!("-work-on={WORK}"),
        format!("-work-as={pod}"),
    ];
    arguments.extend(TIMINGS.map(str::to_owned));
    let program = world.assets.elector("client-go-0.37");
    Process::start_talking(
        world.folder(),
        &format!("elector-{NAMESPACE}-{pod}"),
        &program,
        arguments,
    )
    .await
}

fn worked(event: &Value) -> bool {
    text(event, "/event") == "worked"
}

async fn wakes_up_too_late(world: &'static World) -> anyhow::Result<()> {
    let fenced = Fenced::config_maps(world, NAMESPACE, &["--name", WORK, "--name", "probe"]).await?;
    fenced
        .admin
        .post(&fenced.path(), &config_map(WORK))
        .await?
        .accepted()?;
    fenced.lease(json!({"holderIdentity": ""})).await?;
    let work = async || -> anyhow::Result<Value> {
        let path = format!("{}/{WORK}", fenced.path());
        let stored = fenced.admin.get(&path).await?.accepted()?;
        Ok(stored.pointer("/data").cloned().unwrap_or_default())
    };

    let mut a = start(world, &fenced, A, A_HOLDS).await?;
    a.event(started_leading).await?;
    a.event(worked).await?;
    let mut b = start(world, &fenced, B, B_HOLDS).await?;
    b.event(sees_leader(A_HOLDS)).await?;
    a.event(worked).await?;

    a.signal("STOP").await?;
    b.event(started_leading).await?;
    b.event(worked).await?;
    let before = work().await?;
    a.signal("CONT").await?;
    let refused = a.event(|event| text(event, "/event") == "refused").await?;
    let message = text(&refused, "/message");
    ensure!(
        message.contains(&format!(
            "pod {A:?} of user \"system:serviceaccount:{NAMESPACE}:elector\" does not hold lease {NAMESPACE}/{LEASE}, \
             {B_HOLDS:?} does"
        )),
        "{message}"
    );
    // It ends at a refusal, once it knows what it lost.
    a.wait().await?;
    b.event(worked).await?;
    let after = work().await?;
    ensure!(
        after.get(A).is_some() && after.get(A) == before.get(A),
        "the old leader wrote after its successor: {before} {after}"
    );
    ensure!(after.get(B).is_some(), "the new leader wrote nothing: {after}");
    b.terminate().await?;
    Ok(())
}
