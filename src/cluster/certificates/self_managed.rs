//! The loop of one replica: serve what stands in the Secret, say so, and, if elected, take the next step.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Client;
use tokio::sync::{oneshot, watch};

use super::{
    Settings,
    api::{ApiError, Objects},
    election::{Attempt, Election},
    issue::{self, IssueError},
    rotation::{
        AuthorityFacts, Contents, LeafFacts, Observed, Part, Reason, Report, Step, WebhookBundle, next_step,
    },
    secret::{StoredSecret, authorities, bundle},
    warning::Warning,
};
use crate::{
    metrics::{
        Metrics,
        certificates::{Repair, StepLabel, StepResult},
    },
    server::{CertificateResolver, Readiness, reload::CERTIFICATE_CHECK},
};

/// Most steps before the loop looks at everything else again; a whole rotation takes six.
const MAX_STEPS: usize = 12;

/// Attempts to write a report that others' writes came before.
const REPORT_ATTEMPTS: usize = 5;

/// Whether a certificate is served yet, for whoever must not accept connections before.
#[derive(Clone, Debug)]
pub struct Served(watch::Receiver<bool>);

impl Served {
    /// Waits for the first certificate.
    pub async fn first(mut self) {
        if self.0.wait_for(|served| *served).await.is_err() {
            // Should the loop end, so does the process.
            std::future::pending::<()>().await;
        }
    }
}

/// The loop of one replica.
pub struct SelfManaged {
    objects: Objects,
    settings: Settings,
    dns_names: Vec<String>,
    resolver: Arc<CertificateResolver>,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    election: Election,
    next_campaign: Instant,
    /// What is served: as a report.
    serving: Option<Report>,
    served: watch::Sender<bool>,
    published: Seen<Option<Vec<WebhookBundle>>>,
    issued: Seen<Part<LeafFacts>>,
    /// What went wrong at the last look, so that it is logged once.
    trouble: Option<String>,
    told: Option<Step>,
    /// That nobody can be elected.
    election_warning: Warning,
    /// That a rotation is asked for that is none.
    request_warning: Warning,
}

/// Something with the instant from which on it was seen unchanged.
#[derive(Debug)]
struct Seen<T> {
    seen: Option<(T, Instant)>,
}

impl<T: PartialEq> Seen<T> {
    fn look(&mut self, value: T, at: Instant) -> Duration {
        match &self.seen {
            Some((seen, since)) if *seen == value => at.saturating_duration_since(*since),
            _ => {
                self.seen = Some((value, at));
                Duration::ZERO
            }
        }
    }
}

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl PollError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(ApiError::Conflict { .. }))
    }
}

impl SelfManaged {
    /// The loop, and how to learn of its first certificate. Nothing is asked for yet.
    pub fn new(
        client: Client,
        settings: Settings,
        resolver: Arc<CertificateResolver>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> (Self, Served) {
        let (served, receiver) = watch::channel(false);
        // No two processes have one identity, not even in one pod after another.
        let suffix = RandomState::new().build_hasher().finish();
        let identity = format!("{}_{suffix:016x}", settings.replica);
        let this = Self {
            objects: Objects::new(client, &settings),
            dns_names: settings.dns_names(),
            resolver,
            metrics,
            readiness,
            election: Election::new(identity, settings.lease_duration),
            next_campaign: Instant::now(),
            serving: None,
            served,
            published: Seen { seen: None },
            issued: Seen { seen: None },
            trouble: None,
            told: None,
            election_warning: Warning::default(),
            request_warning: Warning::default(),
            settings,
        };
        (this, Served(receiver))
    }

    /// Runs until `stop` resolves, which must not be before the server has stopped; then leaves the Lease free and
    /// takes back the report.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let pause = self.look().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut stop => break,
            }
        }
        self.leave().await;
    }

    /// Looks once, and does what there is to do; gives how long until the next look.
    async fn look(&mut self) -> Duration {
        let looked = self.serve_and_step().await;
        self.metrics
            .certificates
            .polled(looked.as_ref().err().is_none_or(PollError::is_conflict));
        let mut pause = self.settings.poll_interval;
        match looked {
            Ok(wait) => {
                pause = pause.min(wait);
                if self.trouble.take().is_some() {
                    tracing::info!("certificates: the API server is back");
                }
            }
            // The next look finds what the other wrote.
            Err(error) if error.is_conflict() => {
                tracing::debug!(%error, "certificates: another writer was faster");
            }
            Err(error) => {
                let error = error.to_string();
                if self.trouble.as_ref() != Some(&error) {
                    tracing::error!(error, "certificates cannot be looked after, trying on");
                }
                self.trouble = Some(error);
            }
        }
        self.tell_readiness();
        pause.min(self.next_campaign.saturating_duration_since(Instant::now()))
    }

    async fn serve_and_step(&mut self) -> Result<Duration, PollError> {
        if Instant::now() >= self.next_campaign {
            // A failure here is no reason not to serve a new leaf.
            let campaigned = self.campaign().await;
            if !self.is_elected() {
                self.metrics.certificates.stands_at(None, 0);
                self.told = None;
            }
            if let Err(error) = campaigned
                && !matches!(error, ApiError::Conflict { .. })
            {
                self.follow().await?;
                return Err(error.into());
            }
        }
        for _ in 0..MAX_STEPS {
            if !self.is_elected() {
                self.follow().await?;
                return Ok(self.settings.poll_interval);
            }
            // Before the Secret: see the invariant of `rotation`.
            let configuration = self.objects.configuration().await?;
            let secret = self.follow().await?;
            if let Some(wait) = self.step(configuration, secret).await? {
                return Ok(wait);
            }
        }
        Ok(self.settings.poll_interval)
    }

    fn is_elected(&self) -> bool {
        self.election.is_elected(Instant::now())
    }

    async fn campaign(&mut self) -> Result<(), ApiError> {
        self.next_campaign = Instant::now() + self.election.interval();
        let was_elected = self.is_elected();
        let before = Instant::now();
        let lease = self.objects.lease().await?;
        let now = self.objects.now();
        let attempt = self.election.attempt(lease.as_ref(), before, Instant::now(), now);
        let stuck = match &attempt {
            Attempt::Stuck(stuck) => Some(format!("Lease {}: {stuck}", self.settings.secret)),
            _ => None,
        };
        if let Some(warning) = self.election_warning.news(stuck) {
            tracing::warn!("certificates: {warning}");
        }
        let written = match attempt {
            Attempt::None | Attempt::Stuck(_) => return Ok(()),
            Attempt::Create(lease) => self.objects.create_lease(&lease).await?,
            Attempt::Update(lease) => self.objects.update_lease(&lease).await?,
        };
        self.election.stored(&written, before, Instant::now());
        if !was_elected {
            // What was seen while another wrote may have changed and changed back.
            self.published = Seen { seen: None };
            self.issued = Seen { seen: None };
            tracing::info!("certificates: this replica is elected to write");
        }
        Ok(())
    }

    /// Reads the Secret, serves its leaf if it is another, and reports what is served.
    async fn follow(&mut self) -> Result<Option<StoredSecret>, ApiError> {
        for _ in 0..REPORT_ATTEMPTS {
            let Some(secret) = self.objects.secret().await? else {
                return Ok(None);
            };
            let contents = secret.contents(&self.dns_names);
            if let Part::Good(authority) = &contents.authority {
                let not_after = authority.validity.not_after;
                self.metrics.certificates.authority_expires(not_after);
            }
            let offered = match &contents.leaf {
                Part::Good(leaf) => Some(Report {
                    serial: leaf.serial.clone(),
                    not_after: leaf.validity.not_after,
                }),
                Part::Absent | Part::Broken(_) => None,
            };
            let reported = contents.reports.get(&self.settings.replica);
            let report = if reported.is_none() {
                // Nobody knows of this replica: it makes itself known by what it serves, or is about to serve.
                self.serving.clone().or(offered)
            } else {
                if let Some(offered) = offered
                    && self.serving.as_ref() != Some(&offered)
                {
                    self.serve(&secret, offered);
                }
                self.serving.clone().filter(|serving| reported != Some(serving))
            };
            let Some(report) = report else {
                return Ok(Some(secret));
            };
            let now = self.objects.now();
            let reporting = secret.with_report(&self.settings.replica, Some(report), now);
            match self.objects.write_secret(&reporting).await {
                // Look again: what is reported for the first time is served now.
                Ok(_) | Err(ApiError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // Others write as fast. What is served and reported is safe, if late.
        Err(ApiError::Conflict {
            what: "the certificates' Secret",
        })
    }

    fn serve(&mut self, secret: &StoredSecret, offered: Report) {
        // Good leaves make certificates.
        let Some(certificate) = secret.certificate() else {
            return;
        };
        self.resolver.replace(certificate);
        self.metrics.server.certificate_expires(offered.not_after);
        tracing::info!(serial = offered.serial, not_after = %offered.not_after, "certificates: a new leaf is served");
        self.serving = Some(offered);
        self.served.send_replace(true);
        self.tell_readiness();
    }

    /// Takes the next step. None: and there may be another at once.
    async fn step(
        &mut self,
        configuration: Option<ValidatingWebhookConfiguration>,
        secret: Option<StoredSecret>,
    ) -> Result<Option<Duration>, PollError> {
        let seen_at = Instant::now();
        let webhooks = configuration.as_ref().map(bundles);
        let contents = secret.as_ref().map(|secret| secret.contents(&self.dns_names));
        let unknown = secret.as_ref().and_then(|secret| secret.request().err());
        let unknown = unknown.map(|unknown| format!("Secret {}: {unknown}", self.settings.secret));
        if let Some(warning) = self.request_warning.news(unknown) {
            tracing::warn!("certificates: {warning}");
        }
        let leaf = contents
            .as_ref()
            .map_or(Part::Absent, |contents| contents.leaf.clone());
        let observed = Observed {
            published_for: self.published.look(webhooks.clone(), seen_at),
            issued_for: self.issued.look(leaf, seen_at),
            webhooks,
            secret: contents,
        };
        let now = self.objects.now();
        let step = next_step(&observed, now, &self.settings.lives);
        let label = self.tell(&step, &observed);
        let poll = self.settings.poll_interval;
        let written = match &step {
            Step::WaitForApiServers { remaining } => return Ok(Some(*remaining)),
            Step::WaitForReplicas { .. } => {
                let remaining = self
                    .settings
                    .lives
                    .publish_wait
                    .saturating_sub(observed.issued_for);
                return Ok(Some(if remaining.is_zero() {
                    poll
                } else {
                    remaining.min(poll)
                }));
            }
            Step::Idle { .. } => return Ok(Some(poll)),
            Step::Publish { .. } => {
                self.publish(configuration.as_ref(), observed.secret.as_ref())
                    .await
            }
            Step::NewAuthority { .. }
            | Step::KeepTrusted { .. }
            | Step::IssueLeaf { .. }
            | Step::Retire { .. } => self.change(&step, secret, observed.secret.as_ref(), now).await,
        };
        let result = match &written {
            Ok(()) => StepResult::Done,
            Err(error) if error.is_conflict() => StepResult::Conflict,
            Err(_) => StepResult::Failed,
        };
        self.metrics.certificates.stepped(label, result);
        written?;
        Ok(None)
    }

    async fn publish(
        &mut self,
        configuration: Option<&ValidatingWebhookConfiguration>,
        contents: Option<&Contents>,
    ) -> Result<(), PollError> {
        let (Some(configuration), Some(contents)) = (configuration, contents) else {
            return Ok(());
        };
        let Part::Good(authority) = &contents.authority else {
            return Ok(());
        };
        let pem = bundle(std::iter::once(authority).chain(&contents.retiring));
        Ok(self.objects.publish(configuration, &pem).await?)
    }

    async fn change(
        &mut self,
        step: &Step,
        secret: Option<StoredSecret>,
        contents: Option<&Contents>,
        now: Timestamp,
    ) -> Result<(), PollError> {
        let secret = secret.unwrap_or_else(StoredSecret::new);
        let lives = &self.settings.lives;
        let changed = match step {
            Step::NewAuthority { retiring, .. } => {
                secret.with_authority(&issue::authority(now, lives.authority)?, retiring)
            }
            Step::IssueLeaf { .. } => {
                let authority: Option<&AuthorityFacts> =
                    contents.and_then(|contents| match &contents.authority {
                        Part::Good(authority) => Some(authority),
                        Part::Absent | Part::Broken(_) => None,
                    });
                let (Some(authority), Some(key)) = (authority, secret.authority_key()) else {
                    return Ok(());
                };
                secret.with_leaf(&issue::leaf(authority, key, &self.dns_names, now, lives.leaf)?)
            }
            Step::KeepTrusted { retiring, .. } => secret.with_retiring(retiring),
            Step::Retire { keep } => secret.with_retiring(keep),
            _ => return Ok(()),
        };
        self.objects.write_secret(&changed).await?;
        Ok(())
    }

    /// Says what comes next, once.
    fn tell(&mut self, step: &Step, observed: &Observed) -> StepLabel {
        let news = self.told.as_ref().is_none_or(|told| !same_kind(told, step));
        let metrics = &self.metrics.certificates;
        let mut behind_count = 0;
        let label = match step {
            Step::NewAuthority { reason, retiring } => {
                // No Secret, and CAs that are trusted: it was lost.
                let lost = *reason == Reason::Absent && !retiring.is_empty();
                if lost || reason.is_repair() {
                    metrics.repaired(Repair::Authority);
                    tracing::warn!(%reason, "certificates: the CA in the Secret is made anew");
                } else {
                    tracing::info!(%reason, "certificates: a CA is made");
                }
                StepLabel::NewAuthority
            }
            Step::KeepTrusted { repair, .. } => {
                if *repair {
                    metrics.repaired(Repair::Authority);
                }
                tracing::warn!(
                    "certificates: caBundle has a CA that the Secret does not know; it stays trusted until every replica is known to serve by another"
                );
                StepLabel::KeepTrusted
            }
            Step::Publish { repair } => {
                if *repair {
                    metrics.repaired(Repair::Bundle);
                    tracing::warn!(
                        "certificates: a caBundle lacked the serving CA or was broken: it is patched"
                    );
                } else {
                    tracing::info!("certificates: caBundle is patched");
                }
                StepLabel::Publish
            }
            Step::WaitForApiServers { remaining } => {
                if news {
                    tracing::info!(
                        ?remaining,
                        "certificates: waiting for the API servers to use caBundle"
                    );
                }
                StepLabel::WaitForApiServers
            }
            Step::IssueLeaf { reason } => {
                let lost = *reason == Reason::Absent && self.serving.is_some();
                if lost || reason.is_repair() {
                    metrics.repaired(Repair::Leaf);
                    tracing::warn!(%reason, "certificates: the leaf in the Secret is made anew");
                } else {
                    tracing::info!(%reason, "certificates: a leaf is issued");
                }
                StepLabel::IssueLeaf
            }
            Step::WaitForReplicas { behind } => {
                behind_count = behind.len();
                if news {
                    tracing::info!(
                        ?behind,
                        "certificates: waiting for every replica to serve the new leaf"
                    );
                }
                StepLabel::WaitForReplicas
            }
            Step::Retire { .. } => {
                tracing::info!("certificates: the old CA is dropped");
                StepLabel::Retire
            }
            Step::Idle { until } => {
                if news {
                    tracing::info!(next_renewal = %until, "certificates: all is well");
                    if observed.webhooks.is_none() {
                        let configuration = &self.settings.configuration;
                        tracing::warn!(
                            "--webhook-configuration {configuration}: there is no such ValidatingWebhookConfiguration, so that no API server calls; apply the manifests"
                        );
                    }
                }
                StepLabel::Idle
            }
        };
        metrics.stands_at(Some(label), behind_count);
        self.told = Some(step.clone());
        label
    }

    fn tell_readiness(&self) {
        let trouble = self
            .trouble
            .as_ref()
            .map(|trouble| format!("; {trouble}"))
            .unwrap_or_default();
        let Some(Report { not_after, .. }) = &self.serving else {
            let why = format!("there is none yet in Secret {}{trouble}", self.settings.secret);
            return self.readiness.set(CERTIFICATE_CHECK, Err(why));
        };
        if *not_after <= self.objects.now() {
            let why = format!("expired at {not_after}{trouble}");
            self.readiness.set(CERTIFICATE_CHECK, Err(why));
        } else if trouble.is_empty() {
            self.readiness.set(CERTIFICATE_CHECK, Ok(()));
        } else {
            let detail = format!("the last good one stays, it expires at {not_after}{trouble}");
            self.readiness.pass_with_detail(CERTIFICATE_CHECK, detail);
        }
    }

    /// Best effort: who is killed instead leaves a Lease that expires, and a report that holds up nothing but the end
    /// of a CA that is not used any more.
    async fn leave(&mut self) {
        if let Ok(Some(lease)) = self.objects.lease().await
            && let Some(free) = self.election.release(&lease)
        {
            let _ = self.objects.update_lease(&free).await;
        }
        for _ in 0..REPORT_ATTEMPTS {
            let Ok(Some(secret)) = self.objects.secret().await else {
                return;
            };
            let now = self.objects.now();
            let without = secret.with_report(&self.settings.replica, None, now);
            match self.objects.write_secret(&without).await {
                Err(ApiError::Conflict { .. }) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

fn same_kind(one: &Step, other: &Step) -> bool {
    match (one, other) {
        (Step::WaitForApiServers { .. }, Step::WaitForApiServers { .. }) => true,
        (one, other) => one == other,
    }
}

fn bundles(configuration: &ValidatingWebhookConfiguration) -> Vec<WebhookBundle> {
    configuration
        .webhooks
        .iter()
        .flatten()
        .map(|webhook| match &webhook.client_config.ca_bundle {
            None => WebhookBundle::default(),
            Some(k8s_openapi::ByteString(pem)) if pem.is_empty() => WebhookBundle::default(),
            Some(k8s_openapi::ByteString(pem)) => {
                let (authorities, whole) = authorities(pem);
                WebhookBundle {
                    authorities,
                    broken: !whole,
                }
            }
        })
        .collect()
}
