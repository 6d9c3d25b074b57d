//! Watches the policy ConfigMap and puts each good policy into force, within a moment of its being written.
//!
//! One ConfigMap is watched, by a field selector on its name, so that RBAC may grant `list` and `watch` on that
//! name alone (the API server takes the name from the selector: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
//!
//! The loop never ends and never spins. Any error starts over with a list, after a pause that grows: so a recovery
//! is always seen, and what is in force is always what the ConfigMap says once the API server answers again.

use std::{convert::Infallible, error::Error, time::Duration};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::sync::watch;

use crate::{
    events::{self, EventQueue, Occurrence, Regarding},
    metrics::policy::PolicyMetrics,
    policy::ActivePolicy,
};

use super::{
    NamespacedName, POLICY_KEY, PolicyStatus,
    policy_source::{Decision, Observation, PolicySource},
};

/// How long the API server keeps one watch open before it is renewed from where it stood.
///
/// A connection whose other end vanished is noticed only when this has passed (and kube's margin of 5 s), so it
/// bounds how long a policy edit can go unseen then. A renewal is one request.
pub(super) const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest pause between attempts while the API server does not answer. kube's own pauses begin at 0.8 s and would
/// grow to 30 s; for one small list that is longer than kindness to the server asks for.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A channel that carries how the policy stands, from [`watch_policy`] to readiness: `borrow()` it for the detail,
/// await `wait_for(PolicyStatus::is_loaded)` for the first policy.
pub fn policy_status(name: &NamespacedName) -> (watch::Sender<PolicyStatus>, watch::Receiver<PolicyStatus>) {
    watch::channel(PolicyStatus::new(name.clone()))
}

/// Watches the ConfigMap for ever, and puts each good policy into force in `active`.
///
/// Until a first one was loaded, whatever `active` began with is in force, and the status says that none was
/// loaded. A document that is refused, a missing ConfigMap or key and an API server that does not answer leave the
/// policy in force alone; status, metrics and log say so.
///
/// Drop the future to stop.
pub async fn watch_policy(
    client: Client,
    name: NamespacedName,
    active: ActivePolicy,
    metrics: PolicyMetrics,
    status: watch::Sender<PolicyStatus>,
    events: EventQueue,
) -> Infallible {
    let api: Api<ConfigMap> = Api::namespaced(client, name.namespace());
    let selection = watcher::Config::default()
        .fields(&format!("metadata.name={}", name.name()))
        .timeout(u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX));
    let mut watch = PolicyWatch {
        config_map: regarding(&name),
        events,
        source: PolicySource::new(name),
        active,
        metrics,
        status,
    };
    let mut backoff = DefaultBackoff::default();
    loop {
        let events = watcher(api.clone(), selection.clone());
        let reason = watch.follow(events, &mut backoff).await;
        watch.take_in(Observation::Unreachable { reason: &reason });
        let pause = backoff.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
    }
}

/// The state machine with what its decisions act on.
struct PolicyWatch {
    /// The ConfigMap, for Events on it.
    config_map: Regarding,
    events: EventQueue,
    source: PolicySource,
    active: ActivePolicy,
    metrics: PolicyMetrics,
    status: watch::Sender<PolicyStatus>,
}

impl PolicyWatch {
    /// Takes in all that `events` tells, until it tells an error; returns why it stopped, for people.
    async fn follow(
        &mut self,
        events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>,
        backoff: &mut DefaultBackoff,
    ) -> String {
        let mut events = std::pin::pin!(events);
        let mut listed = false;
        loop {
            let event = match events.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return in_one_line(&error),
                None => return "the watch ended".to_owned(),
            };
            match event {
                // Told before the list is asked for: no sign of life yet.
                Event::Init => {
                    listed = false;
                    continue;
                }
                Event::InitApply(config_map) | Event::Apply(config_map) => {
                    listed = true;
                    self.take_in_present(&config_map);
                }
                Event::InitDone if listed => {}
                Event::InitDone | Event::Delete(_) => self.take_in(Observation::Absent),
            }
            backoff.reset();
        }
    }

    fn take_in_present(&mut self, config_map: &ConfigMap) {
        self.config_map.uid.clone_from(&config_map.metadata.uid);
        let resource_version = config_map
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default();
        let document = config_map
            .data
            .as_ref()
            .and_then(|data| data.get(POLICY_KEY))
            .map(String::as_str);
        self.take_in(Observation::Present {
            resource_version,
            document,
        });
    }

    fn take_in(&mut self, observation: Observation<'_>) {
        match observation {
            Observation::Unreachable { .. } => self.metrics.watch_failed(),
            Observation::Present { .. } | Observation::Absent => self.metrics.watching(),
        }
        let decision = self.source.observe(observation);
        let status = self.source.status();
        let in_force = status.resource_version().unwrap_or_default();
        match decision {
            Decision::Load(policy) => {
                self.metrics
                    .loaded(in_force, policy.document().mode, Timestamp::now());
                self.active.replace(*policy);
                tracing::info!(%status, "policy loaded");
            }
            Decision::Refuse(_) => {
                self.metrics.refused();
                tracing::error!(%status, "policy refused");
                self.events.report(|| Occurrence {
                    regarding: self.config_map.clone(),
                    reason: "PolicyRefused".into(),
                    action: "Load",
                    note: events::cut(status.to_string()),
                    told_apart_by_note: true,
                    at: Timestamp::now(),
                });
            }
            Decision::Miss => {
                self.metrics.missing();
                tracing::error!(%status, "policy missing");
            }
            Decision::Lose => tracing::warn!(%status, "policy watch lost"),
            Decision::Regain => tracing::info!(%status, "policy watch is back"),
            Decision::Ignore => {}
        }
        if status.is_healthy() {
            self.metrics.stands_at(in_force);
        }
        self.status.send_replace(status.clone());
    }
}

fn regarding(name: &NamespacedName) -> Regarding {
    Regarding {
        api_version: "v1",
        kind: "ConfigMap",
        namespace: name.namespace().to_owned(),
        name: name.name().to_owned(),
        uid: None,
    }
}

/// An error with its causes, each said once: kube's errors name their cause in part.
pub(super) fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::stream;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::{metrics::Metrics, policy::Policy};

    fn mk_config_map(resource_version: &str, document: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                resource_version: Some(resource_version.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(POLICY_KEY.to_owned(), document.to_owned())])),
            ..ConfigMap::default()
        }
    }

    struct Fixture {
        watch: PolicyWatch,
        status: watch::Receiver<PolicyStatus>,
        metrics: Metrics,
    }

    impl Fixture {
        fn new() -> Self {
            let name: NamespacedName = "system/policy".parse().unwrap();
            let (sender, status) = policy_status(&name);
            let metrics = Metrics::new();
            let watch = PolicyWatch {
                config_map: regarding(&name),
                events: EventQueue::disabled(),
                source: PolicySource::new(name),
                active: ActivePolicy::new(Policy::default()),
                metrics: metrics.policy.clone(),
                status: sender,
            };
            Self {
                watch,
                status,
                metrics,
            }
        }

        /// Plays `events` and then the end of the stream, which counts as losing the API server.
        async fn follow(&mut self, events: Vec<Event<ConfigMap>>) -> PolicyStatus {
            let events = stream::iter(events.into_iter().map(Ok));
            let reason = self.watch.follow(events, &mut DefaultBackoff::default()).await;
            assert_eq!(reason, "the watch ended");
            self.status.borrow().clone()
        }

        fn assert_metric(&self, line: &str) {
            let text = self.metrics.encode().unwrap();
            assert!(text.lines().any(|each| each == line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_listed_policy_is_put_into_force() {
        let mut fixture = Fixture::new();
        let before = fixture.watch.active.load();
        let status = fixture
            .follow(vec![
                Event::Init,
                Event::InitApply(mk_config_map("5", "")),
                Event::InitDone,
            ])
            .await;
        assert!(status.is_loaded() && status.is_healthy(), "{status}");
        assert!(
            !std::sync::Arc::ptr_eq(&before, &fixture.watch.active.load()),
            "swapped in"
        );
        fixture.assert_metric("leasehold_policy_loads_total{result=\"loaded\"} 1");
        fixture.assert_metric("leasehold_policy_active{resource_version=\"5\"} 1");
        fixture.assert_metric("leasehold_policy_watch_up 1");
    }

    #[tokio::test]
    async fn an_empty_list_means_that_the_config_map_is_absent() {
        let mut fixture = Fixture::new();
        let status = fixture.follow(vec![Event::Init, Event::InitDone]).await;
        assert!(!status.is_loaded(), "{status}");
        assert!(status.to_string().contains("does not exist"), "{status}");
        fixture.assert_metric("leasehold_policy_loads_total{result=\"missing\"} 1");
    }

    #[tokio::test]
    async fn a_config_map_that_is_gone_after_a_new_list_is_absent_without_a_delete_event() {
        let mut fixture = Fixture::new();
        let status = fixture
            .follow(vec![
                Event::Init,
                Event::InitApply(mk_config_map("5", "")),
                Event::InitDone,
                Event::Init,
                Event::InitDone,
            ])
            .await;
        assert!(status.is_loaded() && !status.is_healthy(), "{status}");
    }

    #[tokio::test]
    async fn a_refused_or_deleted_policy_leaves_the_last_good_one_in_force() {
        let mut fixture = Fixture::new();
        fixture
            .follow(vec![
                Event::Init,
                Event::InitApply(mk_config_map("5", "")),
                Event::InitDone,
            ])
            .await;
        let good = fixture.watch.active.load();
        let status = fixture
            .follow(vec![Event::Apply(mk_config_map("6", "mode: nonsense"))])
            .await;
        assert!(status.is_loaded() && !status.is_healthy(), "{status}");
        fixture.assert_metric("leasehold_policy_last_load_successful 0");
        fixture.assert_metric("leasehold_policy_active{resource_version=\"5\"} 1");
        fixture
            .follow(vec![Event::Delete(mk_config_map("6", "mode: nonsense"))])
            .await;
        fixture.assert_metric("leasehold_policy_loads_total{result=\"missing\"} 1");
        assert!(
            std::sync::Arc::ptr_eq(&good, &fixture.watch.active.load()),
            "nothing was swapped in"
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes_each_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("middle: {0}")]
        struct Middle(#[source] std::io::Error);
        let error = Outer(Middle(std::io::Error::other("inner")));
        assert_eq!(in_one_line(&error), "outer: middle: inner");
    }
}
