//! The Grafana dashboard: about what is served, and laid out so that nothing covers anything.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    expressions::{TARGET_LABELS, grouping, missing, of_the_api_server, samples, selectors},
    metrics::seasoned,
    promtool, repository,
};

fn dashboard() -> Value {
    let text = fs::read_to_string(repository("manifests/components/monitoring/dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().unwrap().clone()
}

/// Title, legend and expression of every query, with Grafana's variables replaced.
fn queries() -> Vec<(String, String, String)> {
    let mut queries = Vec::new();
    for panel in panels() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$__range", "6h");
            assert!(!expression.contains('$'), "{expression}");
            queries.push((
                panel["title"].as_str().unwrap().to_owned(),
                target["legendFormat"].as_str().unwrap().to_owned(),
                expression,
            ));
        }
    }
    queries
}

#[tokio::test]
async fn every_panel_asks_for_what_is_served() {
    let mut served = samples(&seasoned().await.metrics("text/plain").await);
    served.extend(of_the_api_server());
    for (title, legend, expression) in queries() {
        assert!(!selectors(&expression).is_empty(), "{title} asks for nothing");
        assert_eq!(missing(&expression, &served), Vec::<String>::new(), "{title}");
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap().trim();
            let kept = if expression.contains(" by (") {
                grouping(&expression).contains(label)
            } else {
                TARGET_LABELS.contains(&label)
                    || served
                        .iter()
                        .any(|sample| expression.contains(&sample.name) && sample.labels.contains_key(label))
            };
            assert!(kept, "{title}: the legend's {label} will be empty");
        }
    }
}

#[tokio::test]
async fn whatever_is_served_is_shown_or_left_out_on_purpose() {
    let served = samples(&seasoned().await.metrics("text/plain").await);
    let shown: BTreeSet<_> = queries()
        .iter()
        .flat_map(|(_, _, expression)| selectors(expression))
        .map(|selector| selector.name)
        .collect();
    // How it came about is of more interest than when; the parts of a histogram go by its buckets.
    let left_out = [
        "leasehold_accept_errors_total",
        "leasehold_audit_log_queued_bytes",
        "leasehold_certificate_reloads_total",
        "leasehold_connections_total",
        "leasehold_dry_run_reviews_total",
        "leasehold_events_series",
        "leasehold_memory_skipped_total",
        "leasehold_policy_active",
        "leasehold_policy_last_successful_load_timestamp_seconds",
        // One, or else an alert tells.
        "leasehold_policy_watch_up",
        "leasehold_registration_watch_up",
        "leasehold_start_timestamp_seconds",
        // Every dashboard of processes shows these.
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
        "process_virtual_memory_bytes",
    ];
    let unseen: BTreeSet<_> = served
        .iter()
        .map(|sample| sample.name.as_str())
        .filter(|name| {
            let histogram = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
            let by_buckets = histogram.is_some_and(|name| shown.contains(&format!("{name}_bucket")));
            !shown.contains(*name) && !by_buckets
        })
        .collect();
    assert_eq!(unseen, BTreeSet::from(left_out));
}

#[test]
fn promtool_reads_every_expression() {
    // As rules: what is no valid expression is no valid rule.
    let rules: Vec<_> = queries()
        .into_iter()
        .enumerate()
        .map(|(number, (_, _, expression))| serde_json::json!({"record": format!("panel:{number}"), "expr": expression}))
        .collect();
    let count = rules.len();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.json");
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, groups.to_string()).unwrap();
    let output = promtool::run(
        ["check", "rules"]
            .map(std::ffi::OsStr::new)
            .into_iter()
            .chain([file.as_os_str()]),
        "",
    );
    let said = promtool::said(&output);
    assert!(
        output.status.success() && said.contains(&format!("{count} rules found")),
        "{said}"
    );
}

#[test]
fn panels_have_names_and_explanations_and_none_covers_another() {
    let mut ids = BTreeSet::new();
    let mut covered = BTreeSet::new();
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(covered.insert((x, y)), "{title} covers another");
            }
        }
        if panel["type"] != "row" {
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard()["templating"]["list"].as_array().unwrap().clone();
    assert!(variables.iter().any(|variable| variable["name"] == "datasource"));
}
