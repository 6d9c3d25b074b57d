//! Electors that can be brought to lead two at a time: without the guard they do, with it they do not.

use anyhow::{Context, ensure};
use http::Method;

use crate::{
    Test,
    candidate::{Candidate, two_leaders},
    electors::{LEASE, renewals},
    harness::{audit::text, leases::Leases, proxy::Proxy, schedule::Phase, until, world::World},
    programs::{Elector, Instance, LEASE_SECONDS},
    table, test,
};

/// The tests of this file.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    // The guard is not deployed before the first phase is over.
    for (phase, guarded) in [(Phase::Recorded, false), (Phase::Attacked, true)] {
        let guard = if guarded { "guarded" } else { "unguarded" };
        tests.push(test(
            phase,
            format!("race::of_two_winners::{guard}"),
            move |world| two_winners(world, guarded),
        ));
        tests.push(test(
            phase,
            format!("race::blind_renewal::{guard}"),
            move |world| blind_renewal(world, guarded),
        ));
        for elector in [Elector::KubeLeaderElection, Elector::Kubert] {
            tests.push(test(
                phase,
                format!("race::clock_ahead::{}::{guard}", elector.name()),
                move |world| clock_ahead(world, elector, guarded),
            ));
        }
        tests.push(test(
            phase,
            format!("race::own_duration::{guard}"),
            move |world| own_duration(world, guarded),
        ));
    }
    tests
}

/// A namespace for a scenario, with the guard in place where it is to be.
async fn place(world: &World, name: &str, guarded: bool) -> anyhow::Result<Leases> {
    if guarded {
        world.guard().await?;
    }
    let suffix = if guarded { "guarded" } else { "unguarded" };
    world.leases(&format!("{name}-{suffix}")).await
}

/// kube-leader-election reads the lease, and takes it by a patch without resourceVersion. Two candidates read that it
/// is expired; a proxy holds the patch of each until both are there.
async fn two_winners(world: &'static World, guarded: bool) -> anyhow::Result<()> {
    let elector = Elector::KubeLeaderElection;
    let leases = place(world, "two-winners", guarded).await?;
    let plane = world.plane().await?;
    let proxy = Proxy::start(world, &leases.namespace).await?;
    let kubeconfig = plane.writer_kubeconfig_at(&format!("proxy-{}", leases.namespace), &proxy.url())?;
    let instance = |identity| Instance {
        kubeconfig: &kubeconfig,
        namespace: &leases.namespace,
        lease: LEASE,
        identity,
        seconds: LEASE_SECONDS,
        clock_ahead: 0,
    };

    let mut a = Candidate::start_as(world, elector, instance("a")).await?;
    a.leads().await?;
    renewals(&leases, 2).await?;
    let mut takeovers =
        proxy.hold(|method, _, body| method == Method::PATCH && contains(body, "holderIdentity"));
    let mut b = Candidate::start_as(world, elector, instance("b")).await?;
    let mut c = Candidate::start_as(world, elector, instance("c")).await?;
    b.sees("a").await?;
    c.sees("a").await?;
    a.kill().await?;

    let first = takeovers
        .recv()
        .await
        .context("no candidate tries to take over")?;
    let second = takeovers
        .recv()
        .await
        .context("only one candidate tries to take over")?;
    proxy.hold_nothing();
    first.release();
    second.release();
    if guarded {
        // Whichever came second is told why not, and then sees the other lead.
        let refusal = "takeover-before-expiry";
        tokio::select! {
            refused = b.fails(refusal) => { refused?; b.sees("c").await? }
            refused = c.fails(refusal) => { refused?; c.sees("b").await? }
        }
    } else {
        b.leads().await?;
        c.leads().await?;
        // One of them learns the truth from its next read.
        tokio::select! {
            stopped = b.stops_leading() => stopped?,
            stopped = c.stops_leading() => stopped?,
        }
    }
    renewals(&leases, 2).await.context("the winner does not renew")?;
    let together = two_leaders(&[&b, &c]);
    ensure!(
        b.believes_to_lead() != c.believes_to_lead(),
        "one is to lead in the end"
    );
    b.terminate().await?;
    c.terminate().await?;
    if guarded {
        ensure!(together.is_none(), "two led at the same time, for {together:?}");
    }
    finish(world, elector, "two patches race", &leases, guarded, together).await
}

/// kube-leader-election reads that it holds the lease, and renews by a patch without resourceVersion or holder. A
/// leader whose patch is late renews its successor's lease, and since the patch says when it was made, it sets
/// renewTime *back*: by its clock the successor's lease has expired, and it takes that lease while the successor leads.
///
/// The late patch is a pure renewal, which the lean registration does not send: that the late leader believes to lead
/// until its next read is the elector's own flaw, guard or no guard. That it takes a live lease is not.
async fn blind_renewal(world: &'static World, guarded: bool) -> anyhow::Result<()> {
    let elector = Elector::KubeLeaderElection;
    let leases = place(world, "blind-renewal", guarded).await?;
    let plane = world.plane().await?;
    let proxy = Proxy::start(world, &leases.namespace).await?;
    let kubeconfig = plane.writer_kubeconfig_at(&format!("proxy-{}", leases.namespace), &proxy.url())?;
    let instance = |identity| Instance {
        kubeconfig: &kubeconfig,
        namespace: &leases.namespace,
        lease: LEASE,
        identity,
        seconds: LEASE_SECONDS,
        clock_ahead: 0,
    };
    let holder = async || anyhow::Ok(text(&leases.get(LEASE).await?, "/spec/holderIdentity").to_owned());

    let mut a = Candidate::start_as(world, elector, instance("a")).await?;
    a.leads().await?;
    renewals(&leases, 2).await?;
    let mut held = proxy.hold(|method, _, body| method == Method::PATCH && !contains(body, "holderIdentity"));
    let mut b = Candidate::start_as(world, elector, instance("b")).await?;
    let renewal_of_a = held.recv().await.context("a does not renew")?;
    b.leads().await.context("b does not take over from the late a")?;
    let renewal_of_b = held.recv().await.context("b does not renew")?;
    let before = leases.get(LEASE).await?;
    renewal_of_a.release();
    let after = until("a's renewal", || async {
        let after = leases.get(LEASE).await?;
        Ok((after.pointer("/spec/renewTime") != before.pointer("/spec/renewTime")).then_some(after))
    })
    .await?;
    ensure!(
        text(&after, "/spec/renewTime") < text(&before, "/spec/renewTime"),
        "a's renewal did not set renewTime back: {before} became {after}"
    );
    if guarded {
        a.fails("takeover-before-expiry").await?;
        ensure!(holder().await? == "b", "b does not hold any more");
        renewal_of_b.release();
        proxy.hold_nothing();
        a.stops_leading().await?;
        ensure!(b.believes_to_lead(), "b does not lead on");
    } else {
        until("a to take b's lease", || async {
            Ok((holder().await? == "a").then_some(()))
        })
        .await?;
        ensure!(b.believes_to_lead(), "b stopped leading before a took its lease");
    }
    let together = two_leaders(&[&a, &b]);
    proxy.hold_nothing();
    a.kill().await?;
    b.kill().await?;
    let scenario = "renews its successor's lease late";
    finish(world, elector, scenario, &leases, guarded, together).await
}

/// Electors that compare renewTime with their own clock: one whose clock is ahead takes a lease that is being renewed.
async fn clock_ahead(world: &'static World, elector: Elector, guarded: bool) -> anyhow::Result<()> {
    let leases = place(world, &format!("clock-ahead-{}", elector.name()), guarded).await?;
    let kubeconfig = world.plane().await?.writer_kubeconfig();
    let ahead = Instance {
        kubeconfig: &kubeconfig,
        namespace: &leases.namespace,
        lease: LEASE,
        identity: "b",
        seconds: LEASE_SECONDS,
        clock_ahead: 10 * LEASE_SECONDS.cast_signed(),
    };

    let mut a = Candidate::start(world, elector, &leases, "a").await?;
    a.leads().await?;
    renewals(&leases, 1).await?;
    let mut b = Candidate::start_as(world, elector, ahead).await?;
    if guarded {
        b.fails("takeover-before-expiry").await?;
        renewals(&leases, 3).await.context("a does not renew any more")?;
        let together = two_leaders(&[&a, &b]);
        // It has only to wait.
        a.kill().await?;
        b.leads()
            .await
            .context("b does not take over after the killed a")?;
        b.terminate().await?;
        ensure!(together.is_none(), "two led at the same time, for {together:?}");
        finish(world, elector, "clock a minute ahead", &leases, guarded, together).await
    } else {
        b.leads().await?;
        a.stops_leading().await?;
        let together = two_leaders(&[&a, &b]);
        a.kill().await?;
        b.kill().await?;
        finish(world, elector, "clock a minute ahead", &leases, guarded, together).await
    }
}

/// The official Java client waits for the duration that it is configured with, not for the one in the lease. A leader
/// that is cut off believes to lead until its own renew deadline, which lies between the two.
async fn own_duration(world: &'static World, guarded: bool) -> anyhow::Result<()> {
    let elector = Elector::Java;
    let leases = place(world, "own-duration", guarded).await?;
    let plane = world.plane().await?;
    let proxy = Proxy::start(world, &leases.namespace).await?;
    let behind_proxy = plane.writer_kubeconfig_at(&format!("proxy-{}", leases.namespace), &proxy.url())?;
    let direct = plane.writer_kubeconfig();
    let long = Instance {
        kubeconfig: &behind_proxy,
        namespace: &leases.namespace,
        lease: LEASE,
        identity: "a",
        seconds: 3 * LEASE_SECONDS,
        clock_ahead: 0,
    };
    let short = Instance {
        kubeconfig: &direct,
        identity: "b",
        seconds: LEASE_SECONDS,
        ..long
    };

    let mut a = Candidate::start_as(world, elector, long).await?;
    a.leads().await?;
    renewals(&leases, 2).await?;
    let mut b = Candidate::start_as(world, elector, short).await?;
    b.sees("a").await?;
    let mut held = proxy.hold(|_, _, _| true);
    let cut_off = held.recv().await.context("a does not renew")?;
    if guarded {
        until("b to be refused", || async {
            let refused = plane.audit()?.refused_lease_writes(&leases.namespace);
            Ok(refused.first().cloned())
        })
        .await
        .and_then(|refusal| {
            ensure!(
                refusal.contains("takeover-before-expiry"),
                "refused by another rule: {refusal}"
            );
            Ok(())
        })?;
    }
    b.leads()
        .await
        .context("b does not take over from the cut off a")?;
    a.stops_leading().await?;
    let together = two_leaders(&[&a, &b]);
    if guarded {
        ensure!(together.is_none(), "two led at the same time, for {together:?}");
    }
    a.kill().await?;
    drop(cut_off);
    b.terminate().await?;
    let scenario = "candidate's own duration is shorter";
    finish(world, elector, scenario, &leases, guarded, together).await
}

/// Notes the row. Without the guard two leaders must have been seen, or the scenario proves nothing.
async fn finish(
    world: &World,
    elector: Elector,
    scenario: &str,
    leases: &Leases,
    guarded: bool,
    together: Option<std::time::Duration>,
) -> anyhow::Result<()> {
    let names = table::names(elector);
    table::add(world, names, scenario, &leases.namespace, guarded, together).await?;
    ensure!(
        guarded || together.is_some(),
        "two leaders were to be seen without the guard, and were not"
    );
    Ok(())
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}
