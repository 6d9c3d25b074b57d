//! An API server that is killed and an etcd that stands still: Leasehold judges on by the policy it has, asks again at
//! its leisure, and takes up what was edited as soon as there is somebody to tell it.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    Test,
    guard::{Guard, Replica},
    harness::{schedule::Phase, until, world::World},
    process::processor_seconds,
    reviews::{EARLY, Reviewer},
    table, test,
};

/// How long nothing happens, for comparison.
const PEACE: Duration = Duration::from_secs(15);

/// How long etcd stands still.
const STANDSTILL: Duration = Duration::from_secs(30);

/// Failed attempts to reach the dead API server that each replica must have made: the pauses between them grow, and
/// this shows it.
const ATTEMPTS: f64 = 4.0;

/// Between two reviews.
const PAUSE: Duration = Duration::from_millis(100);

/// Other than the built-in policy and the deployed one: a takeover that comes too early passes.
const LENIENT: &str = "\
apiVersion: leasehold.dev/v1alpha1
kind: LeasePolicy
rules:
  takeover-before-expiry: {action: warn}
";

pub(crate) fn tests() -> Vec<Test> {
    vec![test(
        Phase::Alone(3),
        "outage::verdicts_go_on_and_watches_resume",
        verdicts_go_on_and_watches_resume,
    )]
}

/// What a replica used and tried so far.
#[derive(Clone, Copy, Debug)]
struct Effort {
    processor_seconds: f64,
    attempts: f64,
}

impl Effort {
    async fn of(replica: &Replica) -> anyhow::Result<Self> {
        let metrics = replica.metrics().await?;
        let failed = metrics.sum("leasehold_certificates_polls_total", &[("result", "failed")]);
        Ok(Self {
            processor_seconds: processor_seconds(replica).await?,
            attempts: failed + watch_errors(replica).await?,
        })
    }
}

async fn watch_errors(replica: &Replica) -> anyhow::Result<f64> {
    Ok(replica
        .metrics()
        .await?
        .sum("leasehold_policy_watch_errors_total", &[]))
}

/// A stretch of time, of all replicas.
#[derive(Clone, Debug)]
struct Stretch {
    seconds: f64,
    reviews: u64,
    efforts: Vec<Effort>,
}

impl Stretch {
    fn told(&self) -> String {
        let each = self.efforts.iter().map(|effort| {
            let share = 100.0 * effort.processor_seconds / self.seconds;
            format!("{} failed attempts, {share:.1} % of a processor", effort.attempts)
        });
        format!(
            "{:.0} s: {} verdicts; {}",
            self.seconds,
            self.reviews,
            each.collect::<Vec<_>>().join(" and ")
        )
    }
}

struct Audience<'a> {
    guard: &'a Guard,
    reviewers: Vec<Reviewer>,
}

impl Audience<'_> {
    /// Has every replica judge the early takeover until `during` is over; each time it must be `allowed`, or not.
    async fn judge(
        &self,
        allowed: bool,
        during: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Stretch> {
        let mut before = Vec::new();
        for replica in self.guard.replicas() {
            before.push(Effort::of(replica).await?);
        }
        let started = Instant::now();
        let mut reviews = 0;
        // New ones each time: what is asked when `during` ends is given up.
        let mut connections = Vec::new();
        for reviewer in &self.reviewers {
            connections.push(reviewer.connect().await?);
        }
        let judging = async {
            loop {
                for (number, connection) in connections.iter_mut().enumerate() {
                    let answer = connection.review(EARLY).await;
                    let is_allowed = answer.and_then(|answer| answer.is_allowed());
                    let is_allowed = is_allowed.with_context(|| format!("replica {number}"))?;
                    ensure!(
                        is_allowed == allowed,
                        "replica {number} does not judge by the last policy"
                    );
                    reviews += 1;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            judged = judging => judged?,
            over = during => over?,
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut efforts = Vec::new();
        for (replica, before) in self.guard.replicas().iter().zip(before) {
            let after = Effort::of(replica).await?;
            efforts.push(Effort {
                processor_seconds: after.processor_seconds - before.processor_seconds,
                attempts: after.attempts - before.attempts,
            });
        }
        Ok(Stretch {
            seconds,
            reviews,
            efforts,
        })
    }
}

/// Waits until every replica has looked at the certificates' Secret again, and follows the registration.
async fn secret_and_registration_are_followed(guard: &Guard) -> anyhow::Result<()> {
    for replica in guard.replicas() {
        let looks = async || {
            let metrics = replica.metrics().await?;
            let looks = metrics.sum("leasehold_certificates_polls_total", &[("result", "ok")]);
            anyhow::Ok((looks, metrics.sum("leasehold_registration_watch_up", &[])))
        };
        let (before, _) = looks().await?;
        until(
            "the Secret to be read and the registration to be watched again",
            || async {
                let (after, watched) = looks().await?;
                Ok((after > before && watched > 0.0).then_some(()))
            },
        )
        .await?;
    }
    Ok(())
}

async fn verdicts_go_on_and_watches_resume(world: &'static World) -> anyhow::Result<()> {
    let guard = crate::guard(world).await?;
    let plane = world.plane().await?;
    let admin = world.admin().await?;
    guard.set_policy(&admin, LENIENT).await?;
    let reviewers = Reviewer::all(world).await?;
    let audience = Audience { guard, reviewers };
    let sleep = async |duration| {
        tokio::time::sleep(duration).await;
        anyhow::Ok(())
    };
    let peace = audience.judge(true, sleep(PEACE)).await?;

    let mut enough = Vec::new();
    for replica in guard.replicas() {
        enough.push(watch_errors(replica).await? + ATTEMPTS);
    }
    plane.kill_api_server().await?;
    let dead = async {
        for (replica, enough) in guard.replicas().iter().zip(enough) {
            until("attempts to reach the API server", || async {
                Ok((watch_errors(replica).await? >= enough).then_some(()))
            })
            .await?;
        }
        Ok(())
    };
    let killed = audience.judge(true, dead).await?;
    // Verdicts go on while it comes up, too; then the edit is taken up by every replica.
    audience.judge(true, plane.restart_api_server()).await?;
    guard
        .set_policy(&admin, guard.deployed_policy())
        .await
        .context("after the API server's return")?;
    audience
        .judge(false, guard.wait_until_asked(world))
        .await
        .context("after the API server's return")?;
    audience
        .judge(false, secret_and_registration_are_followed(guard))
        .await
        .context("after the API server's return")?;

    plane.etcd().signal("STOP").await?;
    let stopped = audience.judge(false, sleep(STANDSTILL)).await;
    plane.etcd().signal("CONT").await?;
    let stopped = stopped?;
    until("etcd to be back", || async {
        Ok((admin.get("/readyz").await?.code == 200).then_some(()))
    })
    .await?;
    guard
        .set_policy(&admin, LENIENT)
        .await
        .context("after etcd's return")?;
    audience
        .judge(true, secret_and_registration_are_followed(guard))
        .await
        .context("after etcd's return")?;
    guard.set_policy(&admin, guard.deployed_policy()).await?;
    audience.judge(false, guard.wait_until_asked(world)).await?;

    table::add(
        "4. API server killed, etcd stopped",
        format!(
            "API server killed until {ATTEMPTS} failed attempts, and started; etcd stopped for {} s; the policy edited \
             before and after each",
            STANDSTILL.as_secs()
        ),
        format!(
            "every verdict by the last policy, every edit taken up, Secret and registration followed again after each; in peace {}; killed {}; stopped {}",
            peace.told(),
            killed.told(),
            stopped.told()
        ),
    );
    ensure!(
        peace.reviews > 0 && killed.reviews > 0 && stopped.reviews > 0,
        "nobody judged"
    );
    let idle = peace
        .efforts
        .iter()
        .map(|effort| effort.processor_seconds / peace.seconds);
    let idle = idle.fold(0.0, f64::max);
    for stretch in [&killed, &stopped] {
        for effort in &stretch.efforts {
            // The shortest pause between attempts is 0.8 s, and there are two things to ask for. Whoever spins makes
            // thousands, or takes a processor; slowness of the machine makes both fewer.
            ensure!(
                effort.attempts <= 2.0 + 3.0 * stretch.seconds,
                "a busy loop: {stretch:?}"
            );
            ensure!(
                effort.processor_seconds <= (idle + 0.1) * stretch.seconds,
                "a busy loop: {stretch:?}, in peace: {peace:?}"
            );
        }
    }
    Ok(())
}
