use http::{Request, Response};
use kube::client::Body;

use super::*;
use crate::metrics::Metrics;

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
    let registration = Registration {
        name: "guard".to_owned(),
        expected: Expected::from_manifests("leasehold-system", &[]).unwrap(),
        resolver: Arc::new(CertificateResolver::empty()),
        bundle_is_kept: false,
        repair: false,
    };
    let watching = watch_registration(
        client,
        registration,
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
    let none = || async {
        let list = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfigurationList",
            "metadata": {"resourceVersion": "7"}, "items": [],
        });
        Ok(Response::new(Body::from(list.to_string().into_bytes())))
    };
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
