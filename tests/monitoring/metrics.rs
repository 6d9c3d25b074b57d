//! The metrics, as Prometheus reads them.

use crate::{expressions::samples, promtool, serving::Serving};

const TAKEOVER_EARLY: &str = include_str!("../data/reviews/takeover-early.json");
const TAKEOVER_AFTER_EXPIRY: &str = include_str!("../data/reviews/takeover-after-expiry.json");
const RENEW: &str = include_str!("../data/reviews/renew.json");

/// A server that has seen a bit of everything, so that series with labels from outside are there too.
pub(crate) async fn seasoned() -> Serving {
    let serving = Serving::start().await;
    assert!(!serving.review(TAKEOVER_EARLY).await);
    assert!(serving.review(TAKEOVER_AFTER_EXPIRY).await);
    assert!(serving.review(RENEW).await);
    serving
}

#[tokio::test]
async fn promtool_has_nothing_to_say_against_them() {
    let fresh = Serving::start().await.metrics("*/*").await;
    let seasoned = seasoned().await.metrics("*/*").await;
    assert!(
        seasoned.contains("leasehold_lease_violations_total{lease_namespace="),
        "{seasoned}"
    );
    for text in [fresh, seasoned] {
        let output = promtool::run(["check", "metrics"], &text);
        let said = promtool::said(&output);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
}

#[test]
fn promtool_would_say_so() {
    let bad = "# HELP leasehold_wait_milliseconds Waits\n# TYPE leasehold_wait_milliseconds counter\nleasehold_wait_milliseconds 1\n";
    let output = promtool::run(["check", "metrics"], bad);
    let said = promtool::said(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("_total") && said.contains("seconds"), "{said}");
}

#[tokio::test]
async fn both_formats_hold_the_same_samples_and_every_family_is_there_before_anything_happened() {
    let serving = Serving::start().await;
    let openmetrics = serving.metrics("application/openmetrics-text").await;
    let text = serving.metrics("text/plain").await;
    assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
    let (openmetrics, text) = (samples(&openmetrics), samples(&text));
    let names = |samples: &[crate::expressions::Sample]| -> Vec<String> {
        samples.iter().map(crate::expressions::Sample::series).collect()
    };
    assert_eq!(names(&openmetrics), names(&text));
    let families = |wanted: &str| text.iter().filter(|sample| sample.name == wanted).count();
    for (family, series) in [
        ("leasehold_violations_total", 15 * 5),
        ("leasehold_reviews_total", 9 * 4 * 3),
        ("leasehold_phase_duration_seconds_count", 3),
        ("leasehold_writer_clock_skew_seconds_count", 2),
        ("leasehold_holder_changes_total", 6),
        ("leasehold_policy_mode", 3),
        ("leasehold_certificate_not_after_timestamp_seconds", 1),
        ("leasehold_lease_violations_total", 5),
        ("leasehold_holder_clock_skew_seconds", 1),
        ("leasehold_ready", 1),
    ] {
        assert_eq!(families(family), series, "{family}");
    }
}
