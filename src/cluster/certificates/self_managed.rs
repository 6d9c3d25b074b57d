//! The loop of one replica: serve what stands in the Secret, say so, and, if elected, take the next step.

mod follow;
mod tell;

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
    rotation::{AuthorityFacts, Contents, LeafFacts, Observed, Part, Step, WebhookBundle, next_step},
    secret::{StoredSecret, authorities, bundle},
    warning::Warning,
};
use crate::{
    metrics::{Metrics, certificates::StepResult},
    server::{CertificateResolver, Readiness},
};

/// Most steps before the loop looks at everything else again; a whole rotation takes six.
const MAX_STEPS: usize = 12;

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
    /// What is served.
    serving: Option<LeafFacts>,
    /// Whether the Secret, when it was last read, had another CA than that of what is served.
    another_authority: bool,
    /// The version of the configuration that was last read to know what the API servers trust.
    known: Seen<Option<Option<String>>>,
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
    /// That what is offered is not served yet.
    leaf_warning: Warning,
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
            another_authority: false,
            known: Seen { seen: None },
            served,
            published: Seen { seen: None },
            issued: Seen { seen: None },
            trouble: None,
            told: None,
            election_warning: Warning::default(),
            request_warning: Warning::default(),
            leaf_warning: Warning::default(),
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
