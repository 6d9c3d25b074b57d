//! What serving stands on, each with whoever keeps it up to date: the certificate, the policy, the queue of Events.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use kube::Client;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::{CertificateSource, PolicyLocation},
    lasting::LastingLoops,
};
use crate::{
    cluster::{
        self, NamespacedName, PolicyStatus,
        certificates::{SelfManaged, Served},
    },
    events::EventQueue,
    metrics::Metrics,
    policy::{ActivePolicy, Policy},
    server::{
        CertificateResolver, Readiness, certificates::PolledCertificate, policy_file::PolledPolicy,
        reload::POLICY_CHECK,
    },
};

/// Longest wait at the end for the API server to be told that this replica serves no certificate any more.
pub(super) const CERTIFICATES_CLOSE: Duration = Duration::from_secs(2);

/// Longest wait at the end for the last Events.
pub(super) const EVENTS_CLOSE: Duration = Duration::from_secs(2);

/// The certificate in use, and whoever keeps it so.
pub(super) struct CertificateInUse {
    pub(super) resolver: Arc<CertificateResolver>,
    /// To be followed, if it comes from files.
    pub(super) files: Option<PolledCertificate>,
    /// To be run, if Leasehold keeps it by itself.
    pub(super) keeper: Option<(SelfManaged, Served)>,
}

impl CertificateInUse {
    pub(super) fn begin(
        source: CertificateSource,
        client: Option<Client>,
        metrics: &Arc<Metrics>,
        readiness: &Readiness,
    ) -> anyhow::Result<Self> {
        match source {
            CertificateSource::Files(files) => {
                let files = files.load()?;
                Ok(Self {
                    resolver: files.resolver(),
                    files: Some(files),
                    keeper: None,
                })
            }
            CertificateSource::SelfManaged(settings) => {
                let resolver = Arc::new(CertificateResolver::empty());
                let client = client.context("--tls-secret needs the API server")?;
                let keeper = SelfManaged::new(
                    client,
                    *settings,
                    Arc::clone(&resolver),
                    Arc::clone(metrics),
                    readiness.clone(),
                );
                Ok(Self {
                    resolver,
                    files: None,
                    keeper: Some(keeper),
                })
            }
        }
    }
}

/// The loop that keeps self-managed certificates, while it runs.
pub(super) struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(keeper: SelfManaged, loops: &LastingLoops) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: loops.spawn("the upkeep of the certificates", keeper.run(stopped)),
        }
    }

    /// Once nothing is served any more.
    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(CERTIFICATES_CLOSE, self.task).await;
    }
}

/// The policy in force, and whoever keeps it so.
pub(super) struct PolicyInForce {
    pub(super) active: ActivePolicy,
    /// Where the policy comes from, unless it is a file.
    pub(super) config_map: Option<NamespacedName>,
    /// To be followed, if the policy comes from a file.
    pub(super) file: Option<PolledPolicy>,
    /// How the policy stands, if it comes from a ConfigMap; a file's is loaded from the start.
    pub(super) loaded: Option<watch::Receiver<PolicyStatus>>,
}

impl PolicyInForce {
    pub(super) fn begin(
        location: PolicyLocation,
        client: Option<Client>,
        events: &EventQueue,
        metrics: &Metrics,
        readiness: &Readiness,
        loops: &LastingLoops,
    ) -> anyhow::Result<Self> {
        let name = match location {
            PolicyLocation::ConfigMap(name) => name,
            PolicyLocation::File(file) => {
                let file = PolledPolicy::load(file)?;
                return Ok(Self {
                    active: file.active(),
                    config_map: None,
                    file: Some(file),
                    loaded: None,
                });
            }
        };
        let client = client.context("--policy-configmap needs the API server")?;
        // Never judged by: no review is looked at before the first policy is loaded.
        let active = ActivePolicy::new(Policy::default());
        let (sender, status) = cluster::policy_status(&name);
        let watch = cluster::watch_policy(
            client,
            name.clone(),
            active.clone(),
            metrics.policy.clone(),
            sender,
            events.clone(),
        );
        loops.spawn("the watch of the policy", watch);
        tokio::spawn(tell_policy(status.clone(), readiness.clone()));
        Ok(Self {
            active,
            config_map: Some(name),
            file: None,
            loaded: Some(status),
        })
    }
}

/// The queue of what is to be told on objects, and its writer. By default there is neither.
#[derive(Default)]
pub(super) struct Events {
    pub(super) queue: EventQueue,
    writer: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Events {
    pub(super) fn begin(client: Client, metrics: &Metrics) -> Self {
        let (queue, occurrences) = EventQueue::new(metrics.events.clone());
        let closing = CancellationToken::new();
        let writer = cluster::publish_events(client, occurrences, metrics.events.clone(), closing.clone());
        Self {
            queue,
            writer: Some((closing, tokio::spawn(writer))),
        }
    }

    /// Writes what is left, if that does not take long: an Event is worth no delay.
    pub(super) async fn close(self) {
        if let Some((closing, writer)) = self.writer {
            closing.cancel();
            let _ = tokio::time::timeout(EVENTS_CLOSE, writer).await;
        }
    }
}

/// Keeps the readiness check in step with how the policy stands.
async fn tell_policy(mut status: watch::Receiver<PolicyStatus>, readiness: Readiness) {
    loop {
        let now = status.borrow_and_update().clone();
        match (now.is_loaded(), now.is_healthy()) {
            (false, _) => readiness.set(POLICY_CHECK, Err(now.to_string())),
            (true, true) => readiness.set(POLICY_CHECK, Ok(())),
            (true, false) => readiness.pass_with_detail(POLICY_CHECK, now.to_string()),
        }
        if status.changed().await.is_err() {
            // Should the watch end, so does the process.
            return;
        }
    }
}

pub(super) async fn first_policy(status: Option<watch::Receiver<PolicyStatus>>) {
    if let Some(mut status) = status
        && status.wait_for(PolicyStatus::is_loaded).await.is_err()
    {
        // Should the watch end, so does the process.
        std::future::pending::<()>().await;
    }
}
