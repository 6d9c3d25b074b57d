//! Watches the configuration, tells what is wrong with it, and repairs it where it may.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use rustls::pki_types::{ServerName, UnixTime};
use serde_json::json;
use tokio::sync::watch;

use super::{
    Expected, Problem, ProblemKind,
    problem::compare,
    repair::{anew, can_be_mended, repaired},
    trust,
    vigil::{News, Pace, Vigil},
};
use crate::{
    cluster::{
        in_one_line,
        policy_watch::{LONGEST_PAUSE, WATCH_TIMEOUT},
    },
    events::{self, EventQueue, Occurrence, Regarding},
    metrics::registration::RegistrationMetrics,
    server::{CertificateResolver, Readiness, Shutdown},
};

/// What the detail in `/readyz?verbose` is called.
pub const REGISTRATION_CHECK: &str = "registration";

/// How often what was last seen is looked at: the configuration may stand still while the certificate or the clock does
/// not. Two looks tell a problem, so it is noticed within two of these.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time for which a replica that has not seen the registration yet is not ready: an API server answers within
/// a fraction of it, and one that does not, though it lets other things be read, must keep no replica from serving.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Longest wait for one answer to a repair.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(5);

/// Under this name the API server notes what is repaired here.
const MANAGER: &str = "leasehold-registration";

/// Which registration, and what may be done about it.
#[derive(Debug)]
pub struct Registration {
    /// The name of the ValidatingWebhookConfiguration.
    pub name: String,
    /// What it should be.
    pub expected: Expected,
    /// What is served.
    pub resolver: Arc<CertificateResolver>,
    /// Whether somebody else sees to `caBundle`: the loop of self-managed certificates.
    pub bundle_is_kept: bool,
    /// Whether the operator said that it may be repaired.
    pub repair: bool,
    /// Once this is leaving, nothing is repaired: whoever ends this replica may be removing the registration next, and
    /// whoever replaces it repairs in its place.
    pub shutdown: Shutdown,
}

/// What was last seen.
#[derive(Clone, Debug, Default)]
struct Sight {
    /// None: nothing yet. None within: it is not there.
    configuration: Option<Option<Arc<ValidatingWebhookConfiguration>>>,
    unreachable: Option<String>,
}

/// Watches the registration for ever. A replica is not ready before it has looked once, found the registration or been
/// told why it cannot; after that, whatever is found never makes it unready: one that is not asked does no harm, and one
/// that is unready could not be asked again once the registration is repaired.
///
/// Drop the future to stop.
pub async fn watch_registration(
    client: Client,
    registration: Registration,
    metrics: RegistrationMetrics,
    readiness: Readiness,
    events: EventQueue,
) -> Infallible {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let (sender, mut receiver) = watch::channel(Sight::default());
    let following = follow(api.clone(), registration.name.clone(), sender, metrics.clone());
    let mut guard = Guard {
        server_name: registration.expected.server_name(),
        registration,
        api,
        metrics,
        readiness,
        events,
        uid: None,
        vigil: Vigil::default(),
        pace: Pace::default(),
        good_bundle: None,
        last_seen: Vec::new(),
        watch_is_lost: false,
    };
    let looking = async {
        let first = receiver.wait_for(|sight| sight.unreachable.is_some() || sight.configuration.is_some());
        let _ = tokio::time::timeout(FIRST_LOOK, first).await;
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let sight = receiver.borrow().clone();
            guard.look(sight).await;
        }
    };
    tokio::select! {
        never = following => never,
        never = looking => never,
    }
}

/// Keeps `sender` at what the API server has.
async fn follow(
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
    sender: watch::Sender<Sight>,
    metrics: RegistrationMetrics,
) -> Infallible {
    let selection = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX));
    let see = |seen: Option<ValidatingWebhookConfiguration>| {
        sender.send_replace(Sight {
            configuration: Some(seen.map(Arc::new)),
            unreachable: None,
        });
    };
    let mut backoff = DefaultBackoff::default();
    loop {
        let mut events = std::pin::pin!(watcher(api.clone(), selection.clone()));
        let mut listed = false;
        let reason = loop {
            match events.next().await {
                Some(Ok(Event::Init)) => {
                    // Told before the list is asked for: no sign of life yet.
                    listed = false;
                    continue;
                }
                Some(Ok(Event::InitApply(seen) | Event::Apply(seen))) => {
                    listed = true;
                    see(Some(seen));
                }
                Some(Ok(Event::InitDone)) if listed => {}
                Some(Ok(Event::InitDone | Event::Delete(_))) => see(None),
                Some(Err(error)) => break in_one_line(&error),
                None => break "the watch ended".to_owned(),
            }
            backoff.reset();
        };
        metrics.watch_failed();
        sender.send_modify(|sight| sight.unreachable = Some(reason));
        let pause = backoff.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
    }
}

/// Looks, tells, and repairs.
struct Guard {
    registration: Registration,
    server_name: Option<ServerName<'static>>,
    api: Api<ValidatingWebhookConfiguration>,
    metrics: RegistrationMetrics,
    readiness: Readiness,
    events: EventQueue,
    /// `metadata.uid` of the configuration that was last seen.
    uid: Option<String>,
    vigil: Vigil,
    pace: Pace,
    /// The last `caBundle` that verified what is served.
    good_bundle: Option<Vec<u8>>,
    /// The webhooks that were there when the configuration was last seen.
    last_seen: Vec<String>,
    watch_is_lost: bool,
}

impl Guard {
    async fn look(&mut self, sight: Sight) {
        self.metrics
            .watching(sight.unreachable.is_none() && sight.configuration.is_some());
        self.tell_watch(sight.unreachable.as_deref());
        if let Some(configuration) = &sight.configuration {
            let problems = self.problems(configuration.as_deref());
            let news = self.vigil.look(problems);
            self.metrics
                .stands(self.vigil.told().collect::<Vec<_>>().into_iter());
            self.tell(&news);
        }
        self.tell_readiness(&sight);
        let may_repair = self.registration.repair && !self.registration.shutdown.is_leaving();
        // By what was seen a while ago nothing is repaired.
        if let (true, None, Some(configuration)) = (may_repair, sight.unreachable, sight.configuration) {
            self.repair(configuration.as_deref()).await;
        }
    }

    fn problems(&mut self, configuration: Option<&ValidatingWebhookConfiguration>) -> Vec<Problem> {
        let expected = &self.registration.expected;
        let mut problems = compare(expected, configuration);
        let Some(configuration) = configuration else {
            return problems;
        };
        self.uid.clone_from(&configuration.metadata.uid);
        let webhooks = configuration.webhooks.iter().flatten();
        self.last_seen = webhooks.clone().map(|webhook| webhook.name.clone()).collect();
        // Before there is a certificate, none can be trusted.
        let (Some(chain), Some(name)) = (self.registration.resolver.chain(), &self.server_name) else {
            return problems;
        };
        let ours = expected.webhooks(|name| self.last_seen.iter().any(|it| it == name));
        for webhook in webhooks.filter(|webhook| ours.iter().any(|it| it.name == webhook.name)) {
            let bundle = webhook.client_config.ca_bundle.as_ref();
            let bundle = bundle.map(|bundle| bundle.0.as_slice()).unwrap_or_default();
            match trust::verify(bundle, &chain, name, UnixTime::now()) {
                Ok(()) => self.good_bundle = Some(bundle.to_vec()),
                Err(distrust) => problems.push(Problem {
                    kind: ProblemKind::CaBundle,
                    webhook: webhook.name.clone(),
                    detail: distrust.to_string(),
                }),
            }
        }
        problems
    }

    /// Says once that it cannot be watched, and once that it can again.
    fn tell_watch(&mut self, unreachable: Option<&str>) {
        let configuration = &self.registration.name;
        match unreachable {
            Some(reason) if !self.watch_is_lost => {
                tracing::warn!(configuration, reason, "registration watch lost, trying on");
            }
            None if self.watch_is_lost => tracing::info!(configuration, "registration watch is back"),
            _ => {}
        }
        self.watch_is_lost = unreachable.is_some();
    }

    fn tell(&self, news: &News) {
        let configuration = &self.registration.name;
        for problem in &news.begun {
            tracing::error!(
                configuration,
                problem = problem.kind.as_str(),
                "the registration is not as the manifests say: {problem}; apply them again"
            );
        }
        for problem in &news.begun {
            self.events.report(|| Occurrence {
                regarding: Regarding {
                    api_version: "admissionregistration.k8s.io/v1",
                    kind: "ValidatingWebhookConfiguration",
                    namespace: String::new(),
                    name: configuration.clone(),
                    uid: self.uid.clone(),
                },
                reason: "RegistrationDrifted".into(),
                action: "Watch",
                note: events::cut(format!("not as the manifests say: {problem}; apply them again")),
                told_apart_by_note: true,
                at: Timestamp::now(),
            });
        }
        for problem in &news.ended {
            tracing::info!(
                configuration,
                problem = problem.kind.as_str(),
                webhook = problem.webhook,
                "the registration is as the manifests say again"
            );
        }
    }

    fn tell_readiness(&self, sight: &Sight) {
        let name = &self.registration.name;
        let mut details: Vec<String> = self.vigil.told().map(ToString::to_string).collect();
        if !details.is_empty() {
            details.insert(
                0,
                format!(
                    "ValidatingWebhookConfiguration {name} is not as the manifests say, apply them again"
                ),
            );
        }
        if let Some(reason) = &sight.unreachable {
            details.push(format!("it cannot be watched, trying on: {reason}"));
        } else if sight.configuration.is_none() {
            details.push("not looked at yet".to_owned());
        }
        if details.is_empty() {
            self.readiness.set(REGISTRATION_CHECK, Ok(()));
        } else {
            self.readiness
                .pass_with_detail(REGISTRATION_CHECK, details.join("; "));
        }
    }

    async fn repair(&mut self, configuration: Option<&ValidatingWebhookConfiguration>) {
        let problems: Vec<Problem> = self
            .vigil
            .told()
            .filter(|problem| problem.kind != ProblemKind::CaBundle || self.may_mend_bundle())
            .filter(|problem| can_be_mended(&self.registration.expected, problem))
            .cloned()
            .collect();
        if problems.is_empty() || !self.pace.may(Instant::now()) {
            return;
        }
        let name = &self.registration.name;
        let outcome = tokio::time::timeout(REPAIR_TIMEOUT, self.write(configuration, &problems)).await;
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(_) => Some("no answer came".to_owned()),
        };
        self.metrics.repaired(failure.is_none());
        match failure {
            None => {
                tracing::warn!(
                    configuration = name,
                    problems = problems.len(),
                    "the registration was repaired, as --repair-registration says"
                );
            }
            Some(reason) => tracing::error!(
                configuration = name,
                reason,
                "the registration cannot be repaired; trying on, ever more slowly"
            ),
        }
    }

    fn may_mend_bundle(&self) -> bool {
        self.good_bundle.is_some() && !self.registration.bundle_is_kept
    }

    async fn write(
        &self,
        configuration: Option<&ValidatingWebhookConfiguration>,
        problems: &[Problem],
    ) -> Result<(), String> {
        let Registration { name, expected, .. } = &self.registration;
        let bundle = self.good_bundle.as_deref();
        let told = |error: kube::Error| in_one_line(&error);
        match configuration {
            None => {
                let anew = anew(expected, name, &self.last_seen, bundle)?;
                let by = PatchParams::apply(MANAGER).force();
                self.api
                    .patch(name, &by, &Patch::Apply(&anew))
                    .await
                    .map_err(told)?;
            }
            Some(configuration) => {
                let mended = repaired(expected, configuration, problems, bundle);
                // As it was read, or not at all.
                let patch = json!({
                    "metadata": {"resourceVersion": configuration.metadata.resource_version},
                    "webhooks": mended.webhooks,
                });
                let by = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                self.api
                    .patch(name, &by, &Patch::Merge(&patch))
                    .await
                    .map_err(told)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
