//! Writes Events (`events.k8s.io/v1`).
//!
//! One task, one write at a time. While the API server does not answer, occurrences are taken in and counted; what
//! is written when, [`SeriesBook`] decides.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::policy_watch::in_one_line;
use crate::{
    events::{EventWrite, Key, Next, Occurrence, SeriesBook, Told, WriteOutcome},
    metrics::events::EventMetrics,
};

/// `reportingController` of each Event: what `kubectl describe` shows as "From".
const CONTROLLER: &str = "leasehold";

/// How long one write may take. The API server gives up on a request of its own accord only after a minute.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Events on what belongs to no namespace are (`metav1.NamespaceDefault`; the API server takes no other but
/// kube-system: `k8s.io/kubernetes/pkg/apis/core/validation/events.go`).
const CLUSTER_EVENTS: &str = "default";

/// Longest name of the object at the beginning of an Event's name, which is limited to 253 bytes.
const LONGEST_PREFIX: usize = 200;

/// Most bytes of `reportingInstance` (`k8s.io/kubernetes/pkg/apis/core/validation/events.go`).
const LONGEST_INSTANCE: usize = 128;

/// Least time between two log lines about failures.
const LOG_PAUSE: Duration = Duration::from_secs(30);

/// What was written of what, and what came of it.
struct Attempt {
    key: Box<Key>,
    told: Told,
    outcome: WriteOutcome,
    /// What went wrong, for people.
    error: Option<String>,
}

type Writing = BoxFuture<'static, Attempt>;

/// Writes Events for what occurs, until `closing` is cancelled or nobody can report any more; then what is left.
///
/// Errors are counted, and logged now and then; nothing else hangs on them.
pub async fn publish_events(
    client: Client,
    mut occurrences: mpsc::Receiver<Occurrence>,
    metrics: EventMetrics,
    closing: CancellationToken,
) {
    let publisher = Publisher {
        client,
        instance: instance(),
    };
    let mut book = SeriesBook::new(Instant::now());
    let mut writing: Option<Writing> = None;
    let mut trouble = Trouble::default();
    let mut open = true;
    loop {
        let mut wait = None;
        if writing.is_none() {
            match book.next(Instant::now()) {
                Next::Write(key, write) => writing = Some(publisher.write(key, write, &metrics)),
                Next::WaitUntil(then) => wait = Some(then),
                Next::Nothing if !open => return,
                Next::Nothing => {}
            }
        }
        metrics.keeps(book.len());
        tokio::select! {
            occurrence = occurrences.recv(), if open => match occurrence {
                Some(occurrence) => {
                    if !book.take_in(occurrence, Instant::now()) {
                        metrics.dropped_too_many();
                    }
                }
                None => {
                    open = false;
                    book.close();
                }
            },
            () = closing.cancelled(), if open => {
                // What is in the queue is still to be had, and then it ends.
                occurrences.close();
            }
            attempt = or_never(writing.as_mut()) => {
                writing = None;
                let now = Instant::now();
                trouble.note(&attempt, now);
                let lost = book.written(&attempt.key, attempt.told, attempt.outcome, now);
                metrics.dropped_refused(lost);
            }
            () = or_never(wait.map(|then| Box::pin(tokio::time::sleep_until(then.into())))) => {}
        }
    }
}

/// A future that may not be there.
async fn or_never<T>(future: Option<impl Future<Output = T> + Unpin>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What the log was told of failures.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
}

impl Trouble {
    /// Tells of a failure now and then, and once that it is over.
    fn note(&mut self, attempt: &Attempt, now: Instant) {
        match &attempt.error {
            Some(error) if self.told.is_none_or(|told| now >= told + LOG_PAUSE) => {
                tracing::warn!(
                    error,
                    "Events cannot be written; leasehold_events_write_errors_total counts on"
                );
                self.told = Some(now);
            }
            Some(_) => {}
            None if self.told.take().is_some() => tracing::info!("Events can be written again"),
            None => {}
        }
    }
}

/// The pod's name, by which the replicas are told apart.
fn instance() -> String {
    // The kubelet sets it to the pod's name.
    let mut name = std::env::var("HOSTNAME").unwrap_or_default();
    if name.is_empty() || name.len() > LONGEST_INSTANCE {
        CONTROLLER.clone_into(&mut name);
    }
    name
}

#[derive(Clone)]
struct Publisher {
    client: Client,
    instance: String,
}

impl Publisher {
    fn write(&self, key: Box<Key>, write: EventWrite, metrics: &EventMetrics) -> Writing {
        let (publisher, metrics) = (self.clone(), metrics.clone());
        async move {
            let (told, is_update, result) = match write {
                EventWrite::Create { first, told } => {
                    let result = tokio::time::timeout(WRITE_TIMEOUT, publisher.create(&first, told)).await;
                    (told, false, result)
                }
                EventWrite::Update {
                    namespace,
                    name,
                    told,
                } => {
                    let update = publisher.update(&namespace, name, told);
                    (told, true, tokio::time::timeout(WRITE_TIMEOUT, update).await)
                }
            };
            let (outcome, error) = match result {
                Ok(Ok(name)) => {
                    if is_update {
                        metrics.updated();
                    } else {
                        metrics.created();
                    }
                    (WriteOutcome::Written(name), None)
                }
                Ok(Err(error)) => match outcome(&error, is_update) {
                    WriteOutcome::Gone => (WriteOutcome::Gone, None),
                    outcome => (outcome, Some(in_one_line(&error))),
                },
                Err(_) => (
                    WriteOutcome::Failed,
                    Some(format!("no answer in {} s", WRITE_TIMEOUT.as_secs())),
                ),
            };
            if error.is_some() {
                metrics.write_failed();
            }
            Attempt {
                key,
                told,
                outcome,
                error,
            }
        }
        .boxed()
    }

    async fn create(&self, first: &Occurrence, told: Told) -> kube::Result<String> {
        let event = event(first, told, &self.instance);
        let name = event.metadata.name.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(self.client.clone(), place(&first.regarding.namespace));
        match api.create(&PostParams::default(), &event).await {
            // An attempt that got no answer had succeeded.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(name),
            created => created.map(|_| name),
        }
    }

    async fn update(&self, namespace: &str, name: String, told: Told) -> kube::Result<String> {
        let api = Api::<Event>::namespaced(self.client.clone(), place(namespace));
        // All else of an Event is immutable.
        let patch = Patch::Merge(json!({"series": series(told)}));
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .map(|_| name)
    }
}

/// Where the Event on an object of that namespace is.
fn place(namespace: &str) -> &str {
    if namespace.is_empty() {
        CLUSTER_EVENTS
    } else {
        namespace
    }
}

fn outcome(error: &kube::Error, is_update: bool) -> WriteOutcome {
    match error {
        kube::Error::Api(status) if is_update && status.code == 404 => WriteOutcome::Gone,
        // The namespace is gone or going, or RBAC or an admission webhook says no: to each object its own answer.
        kube::Error::Api(status)
            if (400..500).contains(&status.code) && status.code != 401 && status.code != 429 =>
        {
            WriteOutcome::Refused
        }
        _ => WriteOutcome::Failed,
    }
}

fn series(told: Told) -> EventSeries {
    EventSeries {
        count: i32::try_from(told.count).unwrap_or(i32::MAX),
        last_observed_time: MicroTime(told.last),
    }
}

fn event(first: &Occurrence, told: Told, instance: &str) -> Event {
    let regarding = &first.regarding;
    let mut hasher = DefaultHasher::new();
    (
        regarding,
        &first.reason,
        first.action,
        &first.note,
        first.at,
        instance,
    )
        .hash(&mut hasher);
    let mut end = regarding.name.len().min(LONGEST_PREFIX);
    while !regarding.name.is_char_boundary(end) {
        end -= 1;
    }
    let prefix = regarding.name.get(..end).unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            // The same for a second attempt at the same, so that it cannot be there twice.
            name: Some(format!(
                "{}.{:016x}",
                prefix.trim_end_matches(['.', '-']),
                hasher.finish()
            )),
            namespace: Some(place(&regarding.namespace).to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(first.at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some("Warning".to_owned()),
        reason: Some(first.reason.clone().into_owned()),
        action: Some(first.action.to_owned()),
        note: Some(first.note.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(regarding.api_version.to_owned()),
            kind: Some(regarding.kind.to_owned()),
            namespace: Some(regarding.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(regarding.name.clone()),
            uid: regarding.uid.clone(),
            ..ObjectReference::default()
        }),
        // A count of one is no series.
        series: (told.count > 1).then(|| series(told)),
        ..Event::default()
    }
}
