//! An instance of an elector that runs, and the terms in which it believed to lead.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    electors::LEASE,
    harness::{audit::text, leases::Leases, pods::Pod, process::Process, world::World},
    programs::{Elector, Instance, LEASE_SECONDS},
};

/// An instance: its process, and what became of it.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) identity: String,
    pub(crate) process: Process,
    /// When it was killed or told to stop: what it believes after that is no longer its own doing.
    ended: Option<Instant>,
}

impl Candidate {
    /// Starts an instance that writes as the tests' ordinary writer.
    pub(crate) async fn start(
        world: &World,
        elector: Elector,
        leases: &Leases,
        identity: &str,
    ) -> anyhow::Result<Self> {
        let kubeconfig = world.plane().await?.writer_kubeconfig();
        Self::start_as(
            world,
            elector,
            Instance {
                kubeconfig: &kubeconfig,
                namespace: &leases.namespace,
                lease: LEASE,
                identity,
                seconds: LEASE_SECONDS,
                clock_ahead: 0,
            },
        )
        .await
    }

    /// Starts an instance in a pod, whose name is in its identity. Its clock is ahead by so many seconds.
    pub(crate) async fn start_in(
        world: &World,
        elector: Elector,
        namespace: &str,
        pod: &Pod,
        clock_ahead: i32,
    ) -> anyhow::Result<Self> {
        let instance = Instance {
            kubeconfig: &pod.kubeconfig,
            namespace,
            lease: LEASE,
            identity: &pod.identity,
            seconds: LEASE_SECONDS,
            clock_ahead,
        };
        let (program, arguments) = elector.command(world, instance);
        let command = pod.host(world.network, program, arguments);
        Self::start_command(world, instance, command).await
    }

    /// Starts an instance.
    pub(crate) async fn start_as(
        world: &World,
        elector: Elector,
        instance: Instance<'_>,
    ) -> anyhow::Result<Self> {
        Self::start_command(world, instance, elector.command(world, instance)).await
    }

    async fn start_command(
        world: &World,
        instance: Instance<'_>,
        (program, arguments): (PathBuf, Vec<String>),
    ) -> anyhow::Result<Self> {
        let name = format!("elector-{}-{}", instance.namespace, instance.identity);
        Ok(Self {
            identity: instance.identity.to_owned(),
            process: Process::start_talking(world.folder(), &name, &program, arguments).await?,
            ended: None,
        })
    }

    /// Waits until it believes to lead.
    pub(crate) async fn leads(&mut self) -> anyhow::Result<()> {
        self.event("started-leading", |_| true).await
    }

    /// Waits until it believes to lead no more.
    pub(crate) async fn stops_leading(&mut self) -> anyhow::Result<()> {
        self.event("stopped-leading", |_| true).await
    }

    /// Waits until it sees this leader.
    pub(crate) async fn sees(&mut self, leader: &str) -> anyhow::Result<()> {
        self.event("new-leader", |event| text(event, "/leader") == leader)
            .await
    }

    /// Waits until an attempt fails with a message that holds this text.
    pub(crate) async fn fails(&mut self, message: &str) -> anyhow::Result<()> {
        self.event("failed", |event| text(event, "/message").contains(message))
            .await
    }

    async fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let event = self
            .process
            .event(|event| text(event, "/event") == name && wanted(event));
        tokio::time::timeout(crate::harness::PATIENCE, event)
            .await
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| {
                format!(
                    "{} does not tell {name:?}; the end of its log:\n{}",
                    self.identity,
                    self.process.log_tail(20)
                )
            })?;
        Ok(())
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.ended = Some(Instant::now());
        self.process.kill().await
    }

    /// SIGTERM, upon which it gives back what it holds.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.ended = Some(Instant::now());
        let status = self.process.terminate().await?;
        // Java ends so on a signal.
        ensure!(
            status.success() || status.code() == Some(143),
            "{} ended with {status}: {}",
            self.identity,
            self.process.log_tail(10)
        );
        Ok(())
    }

    /// Whether it is in a term.
    pub(crate) fn believes_to_lead(&self) -> bool {
        let last = self.process.history().into_iter().rev().find_map(|(_, event)| {
            let event = text(&event, "/event");
            ["started-leading", "stopped-leading"]
                .contains(&event)
                .then(|| event == "started-leading")
        });
        self.ended.is_none() && last == Some(true)
    }

    /// The spans of time in which it believed to lead.
    fn terms(&self) -> Vec<(Instant, Instant)> {
        let end_of_all = self.ended.unwrap_or_else(Instant::now);
        let mut terms = Vec::new();
        let mut since = None;
        for (at, event) in self.process.history() {
            match text(&event, "/event") {
                "started-leading" => since = Some(at),
                "stopped-leading" => {
                    terms.extend(since.take().map(|since| (since, at.min(end_of_all))));
                }
                _ => {}
            }
        }
        terms.extend(since.map(|since| (since, end_of_all)));
        terms
    }
}

/// How long any two of these believed to lead at the same time; `None` if never.
pub(crate) fn two_leaders(candidates: &[&Candidate]) -> Option<Duration> {
    let mut longest = None;
    for (index, one) in candidates.iter().enumerate() {
        for other in candidates.iter().skip(index + 1) {
            for (start, end) in one.terms() {
                for (other_start, other_end) in other.terms() {
                    let together = end
                        .min(other_end)
                        .checked_duration_since(start.max(other_start))
                        .filter(|together| !together.is_zero());
                    longest = longest.max(together);
                }
            }
        }
    }
    longest
}
