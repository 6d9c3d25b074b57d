//! A roll-out: each replica is told to end while the API server keeps asking.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use anyhow::{Context, ensure};

use crate::{
    Test, guard,
    harness::{leases::Leases, network::Network, schedule::Phase, until, world::World},
    renewals::early_takeover,
    test,
};

/// Attackers at once: enough that each replica has several connections, as the API server's client does HTTP/1.1 to a
/// Service.
const ATTACKERS: usize = 4;

/// Attempts that each step of the roll-out must see, before and after.
const ATTEMPTS: u32 = 40;

/// The test of this file.
pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(5),
        "roll_out::no_review_is_lost",
        no_review_is_lost,
    )]
}

/// Takeovers that come too early, one after the other, until told to stop.
#[derive(Debug, Default)]
struct Attack {
    stopped: AtomicBool,
    attempts: AtomicU32,
}

impl Attack {
    async fn go_on(&self, leases: Leases) -> anyhow::Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let code = early_takeover(&leases).await?;
            ensure!(code == 403, "a takeover that came too early was answered {code}");
            self.attempts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for some more attempts.
    async fn see_more(&self) -> anyhow::Result<()> {
        let enough = self.attempts.load(Ordering::Relaxed) + ATTEMPTS;
        until("more attempts", || async {
            Ok((self.attempts.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await
    }
}

async fn no_review_is_lost(world: &'static World) -> anyhow::Result<()> {
    let guard = world.guard().await?;
    if world.network == Network::Loopback {
        // There is one replica, so that somebody must wait for it: that it ends well is all that can be shown.
        let [replica] = guard.replicas() else {
            anyhow::bail!("expected one replica")
        };
        let status = replica.terminate().await?;
        ensure!(status.success(), "ended with {status}");
        replica.start().await?;
        return guard.wait_until_asked(world).await;
    }

    let failed_open = guard.fail_open_count(world).await?;
    let attack = Arc::new(Attack::default());
    let mut attackers = tokio::task::JoinSet::new();
    for number in 0..ATTACKERS {
        let leases = world.leases(&format!("roll-out-{number}")).await?;
        let attack = Arc::clone(&attack);
        attackers.spawn(async move { attack.go_on(leases).await });
    }
    let rolled = guard::roll_out(world, guard, async || attack.see_more().await).await;
    attack.stopped.store(true, Ordering::Relaxed);
    while let Some(attacker) = attackers.join_next().await {
        attacker?.context("during a roll-out")?;
    }
    rolled?;
    ensure!(
        guard.fail_open_count(world).await? == failed_open,
        "the API server gave up on a review"
    );
    Ok(())
}
