//! Real electors: client-go's of two versions, in pods. They fail over, release and renew, with their clocks right or an
//! hour off, and nobody is ever denied anything.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    Test,
    guard::Guard,
    harness::{
        assets::Assets, audit::text, leases::Leases, network::Network, pods::Pod, process::Process,
        schedule::Phase, until, world::World,
    },
    test,
};

/// The Lease that they all contend for, in a namespace of each test's own.
pub(crate) const LEASE: &str = "lock";

/// The shortest lease that the policy allows is 5 s.
pub(crate) const TIMINGS: [&str; 3] = ["-lease-duration=6s", "-renew-deadline=4s", "-retry-period=1s"];

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    let phase = Phase::Undisturbed;
    let mut tests = Vec::new();
    // The first elector's clock, and the others'.
    let clocks = [
        ("clocks_right", "0s", "0s"),
        ("first_ahead", "1h", "-1h"),
        ("first_behind", "-1h", "1h"),
    ];
    for version in Assets::elector_versions() {
        for (clock, first, others) in clocks {
            let name = format!("electors::{version}::{clock}");
            tests.push(test(phase, name, move |world| async move {
                let namespace = format!("{version}-{clock}").replace(['_', '.'], "-");
                let casts = [(version, first), (version, others), (version, first)];
                terms_of_three(world, &namespace, casts).await
            }));
        }
    }
    let mixed = [
        ("client-go-0.36", "0s"),
        ("client-go-0.37", "1h"),
        ("client-go-0.33", "-1h"),
    ];
    tests.push(test(phase, "electors::mixed_versions", move |world| {
        terms_of_three(world, "mixed-versions", mixed)
    }));
    tests
}

/// Starts an elector that is in no pod. Its events come from the process.
pub(crate) async fn elector(
    world: &World,
    leases: &Leases,
    identity: &str,
    version: &str,
    clock_offset: &str,
) -> anyhow::Result<Process> {
    let kubeconfig = world.plane().await?.writer_kubeconfig();
    elector_at(world, leases, &kubeconfig, identity, version, clock_offset).await
}

/// The same, by way of the API server of this kubeconfig.
pub(crate) async fn elector_at(
    world: &World,
    leases: &Leases,
    kubeconfig: &Path,
    identity: &str,
    version: &str,
    clock_offset: &str,
) -> anyhow::Result<Process> {
    elector_as(
        world,
        leases,
        kubeconfig,
        identity,
        version,
        clock_offset,
        TIMINGS,
    )
    .await
}

/// The same, with a lease of 3 s, which is shorter than the default policy allows.
pub(crate) async fn hasty_elector(
    world: &World,
    leases: &Leases,
    identity: &str,
    version: &str,
) -> anyhow::Result<Process> {
    let kubeconfig = world.plane().await?.writer_kubeconfig();
    let timings = ["-lease-duration=3s", "-renew-deadline=2s", "-retry-period=500ms"];
    elector_as(world, leases, &kubeconfig, identity, version, "0s", timings).await
}

async fn elector_as(
    world: &World,
    leases: &Leases,
    kubeconfig: &Path,
    identity: &str,
    version: &str,
    clock_offset: &str,
    timings: [&str; 3],
) -> anyhow::Result<Process> {
    let mut arguments = vec![
        format!("-kubeconfig={}", kubeconfig.display()),
        format!("-namespace={}", leases.namespace),
        format!("-lease={LEASE}"),
        format!("-identity={identity}"),
        format!("-clock-offset={clock_offset}"),
        "-release-on-cancel".to_owned(),
        // Says in its log why an attempt failed.
        "-v=4".to_owned(),
    ];
    arguments.extend(timings.map(str::to_owned));
    let name = format!("elector-{}-{identity}", leases.namespace);
    Process::start_talking(world.folder(), &name, &world.assets.elector(version), arguments).await
}

pub(crate) fn started_leading(event: &Value) -> bool {
    text(event, "/event") == "started-leading"
}

pub(crate) fn sees_leader(leader: &str) -> impl Fn(&Value) -> bool {
    move |event| text(event, "/event") == "new-leader" && text(event, "/leader") == leader
}

/// Waits until the lease was renewed as many times.
pub(crate) async fn renewals(leases: &Leases, times: usize) -> anyhow::Result<()> {
    let mut last = leases.get(LEASE).await?;
    for _ in 0..times {
        let seen = text(&last, "/spec/renewTime").to_owned();
        last = until("a renewal", || async {
            let lease = leases.get(LEASE).await?;
            Ok((text(&lease, "/spec/renewTime") != seen).then_some(lease))
        })
        .await?;
    }
    Ok(())
}

/// What the guard and the API server refused so far, by their metrics.
pub(crate) async fn refusals(world: &World, guard: &Guard) -> anyhow::Result<(f64, f64)> {
    let leasehold = guard
        .metrics()
        .await?
        .sum("leasehold_reviews_total", &[("verdict", "deny")]);
    let rejections = "apiserver_admission_webhook_rejection_count";
    let apiserver = world
        .plane()
        .await?
        .metrics()
        .await?
        .sum(rejections, &[("name", &guard.webhook)]);
    Ok((leasehold, apiserver))
}

/// How the electors' clocks stand to the API server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    Right,
    Skewed,
}

/// The changes to be seen once a leader that releases has ended. client-go before 0.34 that is ended amid a renewal
/// releases by the resourceVersion before that: the API server itself answers 409, and the lease is left to expire.
pub(crate) fn changes_after_end(ended: &Process) -> &'static [&'static str] {
    let told = ended.log_tail(10);
    if told.contains("Failed to release lock: Operation cannot be fulfilled") {
        eprintln!("NOTICE: an elector that was ended amid a renewal could not release its lease");
        return &["create", "takeover"];
    }
    &["create", "takeover", "release", "acquire"]
}

/// Checks that nothing was refused in this namespace, by everybody who keeps a record, and that the guard was asked
/// about these changes.
pub(crate) async fn ensure_undisturbed(
    world: &World,
    leases: &Leases,
    refused_before: (f64, f64),
    changes: &[&str],
    clocks: Clocks,
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let refused = refusals(world, guard).await?;
    ensure!(
        refused == refused_before,
        "refused so far (Leasehold, API server): {refused_before:?}, then {refused:?}"
    );
    let audit = world.plane().await?.audit()?;
    let denials = audit.refused_lease_writes(&leases.namespace);
    ensure!(
        denials.is_empty(),
        "the API server's audit log has denials: {denials:?}"
    );
    for change in changes {
        let seen =
            |record: &Value| text(record, "/record") == "holderChange" && text(record, "/change") == *change;
        guard
            .audit_records(&leases.namespace, &format!("the {change}"), seen)
            .await?;
    }
    let records = guard.audit_records_now(&leases.namespace)?;
    let violations: Vec<&Value> = records
        .iter()
        .filter(|record| text(record, "/record") == "violation")
        .collect();
    let told: Vec<&str> = violations.iter().map(|record| text(record, "/message")).collect();
    match clocks {
        Clocks::Right => ensure!(
            violations.is_empty(),
            "Leasehold's audit log has violations: {told:?}"
        ),
        // A word to whoever looks after the machine, and no more.
        Clocks::Skewed => {
            let warned = |record: &&Value| {
                text(record, "/rule") == "clock-skewed" && text(record, "/decision") == "warned"
            };
            ensure!(
                violations.iter().all(warned),
                "violations other than the clocks': {told:?}"
            );
            ensure!(
                !violations.is_empty(),
                "nobody is warned of clocks that are an hour off"
            );
        }
    }
    Ok(())
}

/// Checks that Leasehold could tell, of every change of the holder in this namespace, that the holder's own pod wrote
/// it: or else the rules on who writes were not put to the test.
pub(crate) async fn ensure_by_own_pods(world: &World, leases: &Leases) -> anyhow::Result<()> {
    for record in world.guard().await?.audit_records_now(&leases.namespace)? {
        if text(&record, "/record") != "holderChange" {
            continue;
        }
        let (new, old) = (text(&record, "/newHolder"), text(&record, "/oldHolder"));
        let holder = if new.is_empty() { old } else { new };
        let pod = text(&record, "/pod");
        // Some create the lease before anybody holds it. On this machine's own host, an identity that is made of its
        // name is not that of the pod.
        let of_the_pod = holder.is_empty() || holder.starts_with(pod) || world.network == Network::Loopback;
        ensure!(
            !pod.is_empty() && of_the_pod,
            "not by the token of the holder's own pod: {record}"
        );
    }
    Ok(())
}

/// The first leads and is killed; the second takes over and is told to stop; the third acquires.
async fn terms_of_three(
    world: &'static World,
    namespace: &str,
    casts: [(&str, &str); 3],
) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    let leases = world.leases(namespace).await?;
    let before = refusals(world, guard).await?;
    let right = casts.iter().all(|(_, clock)| *clock == "0s");
    let clocks = if right { Clocks::Right } else { Clocks::Skewed };
    let [(first, first_clock), (second, second_clock), (third, third_clock)] = casts;
    let [first_pod, second_pod, third_pod] = Pod::three(world, namespace).await?;
    let start = async |pod: &Pod, version: &str, clock: &str| {
        elector_as(
            world,
            &leases,
            &pod.kubeconfig,
            &pod.identity,
            version,
            clock,
            TIMINGS,
        )
        .await
    };

    let mut a = start(&first_pod, first, first_clock).await?;
    a.event(started_leading)
        .await
        .context("a does not acquire the new lease")?;
    let mut b = start(&second_pod, second, second_clock).await?;
    b.event(sees_leader(&first_pod.identity)).await?;
    renewals(&leases, 3).await.context("a does not renew")?;

    a.kill().await?;
    b.event(started_leading)
        .await
        .context("b does not take over from the killed a")?;
    let lease = leases.get(LEASE).await?;
    ensure!(
        text(&lease, "/spec/holderIdentity") == second_pod.identity,
        "b leads, but does not hold: {lease}"
    );
    ensure!(
        lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64) == Some(1),
        "not counted: {lease}"
    );
    let mut c = start(&third_pod, third, third_clock).await?;
    c.event(sees_leader(&second_pod.identity)).await?;
    renewals(&leases, 2).await.context("b does not renew")?;

    let status = b.terminate().await?;
    ensure!(status.success(), "b ended with {status}: {}", b.log_tail(10));
    let changes = changes_after_end(&b);
    c.event(started_leading)
        .await
        .context("c does not acquire what b released")?;
    let lease = leases.get(LEASE).await?;
    ensure!(
        text(&lease, "/spec/holderIdentity") == third_pod.identity,
        "c leads, but does not hold: {lease}"
    );
    ensure!(
        lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64) == Some(2),
        "not counted: {lease}"
    );
    renewals(&leases, 1).await.context("c does not renew")?;
    let status = c.terminate().await?;
    ensure!(status.success(), "c ended with {status}: {}", c.log_tail(10));

    ensure_undisturbed(world, &leases, before, changes, clocks).await?;
    ensure_by_own_pods(world, &leases).await
}
