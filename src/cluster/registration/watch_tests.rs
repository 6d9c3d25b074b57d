//! The watch against an API server that answers as it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use kube::client::Body;

use super::*;
use crate::metrics::Metrics;

fn registration(repair: bool, shutdown: Shutdown) -> Registration {
    Registration {
        name: "guard".to_owned(),
        expected: Expected::from_manifests("leasehold-system", &[]).unwrap(),
        resolver: Arc::new(CertificateResolver::empty()),
        bundle_is_kept: true,
        repair,
        shutdown,
    }
}

/// That there is no registration.
fn nothing_is_there() -> Response<Body> {
    let list = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfigurationList",
        "metadata": {"resourceVersion": "7"}, "items": [],
    });
    Response::new(Body::from(list.to_string().into_bytes()))
}

/// Runs the watch against an API server that gives these answers, if any, until `done` holds for what the readiness
/// report says; gives what the metrics then say.
async fn watch_until<F>(
    answer: impl Fn() -> F + Clone + Send + Sync + 'static,
    done: impl Fn(bool, &str) -> bool,
) -> String
where
    F: Future<Output = Result<Response<Body>, std::io::Error>> + Send + 'static,
{
    let client = Client::new(
        tower::service_fn(move |_: Request<Body>| answer()),
        "leasehold-system",
    );
    let metrics = Metrics::new();
    let readiness = Readiness::waiting_for([REGISTRATION_CHECK]);
    let watching = watch_registration(
        client,
        registration(false, Shutdown::new()),
        metrics.registration.clone(),
        readiness.clone(),
        EventQueue::disabled(),
    );
    let seen = async {
        loop {
            let (ready, report) = readiness.report();
            if done(ready, &report) {
                return;
            }
            assert!(!ready, "{report}");
            // The clock stands still but for what is waited for.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        never = watching => match never {},
        seen = tokio::time::timeout(Duration::from_secs(60), seen) => seen.unwrap(),
    }
    metrics.encode().unwrap()
}

#[tokio::test(start_paused = true)]
async fn ready_once_the_registration_was_looked_at_whatever_was_found() {
    let none = || async { Ok(nothing_is_there()) };
    let metrics = watch_until(none, |ready, _| ready).await;
    assert!(metrics.contains("leasehold_registration_watch_up 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn ready_once_it_was_told_that_the_registration_cannot_be_watched() {
    let refused = || async { Err(std::io::Error::other("nobody is there")) };
    let told = |ready: bool, report: &str| ready && report.contains("it cannot be watched, trying on: ");
    let metrics = watch_until(refused, told).await;
    for line in [
        "leasehold_registration_watch_up 0",
        "leasehold_registration_watch_errors_total 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_never_answers_keeps_no_replica_from_being_ready() {
    let never = std::future::pending;
    let told = |ready: bool, report: &str| ready && report.contains("not looked at yet");
    let metrics = watch_until(never, told).await;
    assert!(
        metrics.contains("leasehold_registration_watch_errors_total 0"),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_leaves_repairs_nothing_any_more() {
    for (leaves, repairs) in [(false, true), (true, false)] {
        let writes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writes);
        let client = Client::new(
            tower::service_fn(move |request: Request<Body>| {
                if request.method() != http::Method::GET {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let is_watch = request.uri().query().unwrap_or_default().contains("watch=true");
                async move {
                    if is_watch {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, std::io::Error>(nothing_is_there())
                }
            }),
            "leasehold-system",
        );
        let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
        if leaves {
            shutdown.leave();
        }
        let watching = watch_registration(
            client,
            registration(true, shutdown),
            metrics.registration.clone(),
            Readiness::waiting_for([REGISTRATION_CHECK]),
            EventQueue::disabled(),
        );
        // An hour of a clock that stands still while anything happens.
        let watched = tokio::time::timeout(Duration::from_secs(3600), watching).await;
        assert!(watched.is_err(), "it goes on for ever");
        let told = metrics.encode().unwrap();
        assert!(
            told.contains("leasehold_registration_problems{problem=\"configuration-missing\""),
            "{told}"
        );
        assert_eq!(writes.load(Ordering::Relaxed) > 0, repairs, "{told}");
    }
}
