//! The alerts: valid, about what is served, each firing in its case and silent otherwise, each with its runbook.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    expressions::{Sample, grouping, missing, of_the_api_server, samples, selectors},
    metrics::seasoned,
    promtool, repository,
};

/// The groups of the PrometheusRule, as promtool takes them.
fn groups() -> Value {
    let manifest =
        fs::read_to_string(repository("manifests/components/monitoring/prometheus-rule.yaml")).unwrap();
    let manifest: Value = serde_saphyr::from_str(&manifest).unwrap();
    assert_eq!(manifest["kind"], "PrometheusRule");
    manifest["spec"].clone()
}

fn rules() -> Vec<Value> {
    let groups = groups();
    let groups = groups["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn text<'a>(rule: &'a Value, pointer: &str) -> &'a str {
    rule.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer} is missing in {rule}"))
}

fn names() -> BTreeSet<String> {
    rules()
        .iter()
        .map(|rule| text(rule, "/alert").to_owned())
        .collect()
}

/// What a Leasehold serves that has seen a bit of everything, and what an API server does.
async fn served() -> Vec<Sample> {
    let mut served = samples(&seasoned().await.metrics("text/plain").await);
    served.extend(of_the_api_server());
    served
}

#[test]
fn promtool_takes_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.json");
    fs::write(&file, groups().to_string()).unwrap();
    let arguments = ["check", "rules", "--lint=all", "--lint-fatal"].map(std::ffi::OsStr::new);
    let output = promtool::run(arguments.into_iter().chain([file.as_os_str()]), "");
    let said = promtool::said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("{} rules found", rules().len())), "{said}");
}

#[tokio::test]
async fn every_alert_asks_for_what_is_served() {
    let served = served().await;
    for rule in rules() {
        let (alert, expression) = (text(&rule, "/alert"), text(&rule, "/expr"));
        assert!(!selectors(expression).is_empty(), "{alert} asks for nothing");
        assert_eq!(missing(expression, &served), Vec::<String>::new(), "{alert}");
        // What the text for people names must have survived the expression.
        let description = text(&rule, "/annotations/description");
        let grouped = grouping(expression);
        for label in description.split("$labels.").skip(1) {
            let label = label
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap();
            let kept = if expression.contains(" by (") {
                grouped.contains(label)
            } else {
                label == "pod"
                    || served
                        .iter()
                        .any(|sample| expression.contains(&sample.name) && sample.labels.contains_key(label))
            };
            assert!(kept, "{alert}: {{{{ $labels.{label} }}}} will be empty");
        }
    }
}

#[test]
fn every_alert_has_a_severity_and_a_runbook_and_every_runbook_an_alert() {
    for rule in rules() {
        let alert = text(&rule, "/alert");
        assert!(
            ["critical", "warning", "info"].contains(&text(&rule, "/labels/severity")),
            "{alert}"
        );
        let page = text(&rule, "/annotations/runbook_url");
        assert_eq!(page, format!("docs/runbooks/{alert}.md"));
        let page = fs::read_to_string(repository(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(page.starts_with(&format!("# {alert}\n")), "{alert}: {page}");
        for part in ["\n## Look\n", "\n1. ", "\n## Do\n\n- "] {
            assert!(page.contains(part), "{alert} has no {part:?}");
        }
        for link in page.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            assert!(
                repository("docs/runbooks").join(target).exists(),
                "{alert} links to {target}"
            );
        }
    }
    let pages = fs::read_dir(repository("docs/runbooks")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<_> = pages
        .map(|page| page.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(pages, names());
}

/// Series in place of those that a healthy pair of replicas has. `tests/data/alerts.yaml` says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    #[serde(default)]
    series: Vec<Change>,
    at: u32,
    fires: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    metric: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    of: String,
    values: String,
}

/// Two replicas and an API server at rest, as far as the alerts look, and what a case changes of that.
fn input(served: &[Sample], case: &Case) -> Vec<Value> {
    let expressions: Vec<_> = rules()
        .iter()
        .map(|rule| text(rule, "/expr").to_owned())
        .collect();
    let asked: BTreeSet<_> = expressions
        .iter()
        .flat_map(|expression| selectors(expression))
        .map(|selector| selector.name)
        .collect();
    let mut input = Vec::new();
    for pod in ["leasehold-0", "leasehold-1"] {
        for sample in served.iter().filter(|sample| asked.contains(&sample.name)) {
            let value = match sample.name.as_str() {
                // It was left out by the API server, which begins with the first.
                name if name.starts_with("apiserver_") => continue,
                // 90 days after the beginning of time, where these tests begin.
                "leasehold_certificate_not_after_timestamp_seconds" => 7_776_000.0,
                _ => sample.value,
            };
            input.push((pod.to_owned(), sample.of_pod(pod), format!("{value}x90")));
        }
    }
    let api_server = |name: &str, labels: &[(&str, &str)]| {
        let target = [("job", "apiserver"), ("instance", "api")];
        Sample::new(name, &[labels, &target].concat(), 0.0)
    };
    input.push(("api".to_owned(), api_server("up", &[]), "1x90".to_owned()));
    let bypassed = of_the_api_server().remove(0);
    let labels: Vec<_> = bypassed
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    input.push((
        "api".to_owned(),
        api_server(&bypassed.name, &labels),
        String::new(),
    ));

    for change in &case.series {
        let mut changed = 0;
        for (of, sample, values) in &mut input {
            let same = |(label, value): (&String, &String)| {
                // One resourceVersion is replaced by another.
                label == "resource_version" || sample.labels.get(label) == Some(value)
            };
            let meant = change.of.is_empty() || *of == change.of;
            if sample.name == change.metric && meant && change.labels.iter().all(same) {
                sample.labels.extend(change.labels.clone());
                values.clone_from(&change.values);
                changed += 1;
            }
        }
        assert!(changed > 0, "{}: nothing is served as {change:?}", case.what);
    }
    input
        .into_iter()
        .filter(|(_, _, values)| !values.is_empty())
        .map(|(_, sample, values)| json!({"series": sample.series(), "values": values}))
        .collect()
}

#[tokio::test]
async fn each_alert_fires_in_its_case_and_no_other_does() {
    let served = served().await;
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("../data/alerts.yaml")).unwrap();
    let tests: Vec<_> = cases
        .iter()
        .map(|case| {
            let fires: Vec<_> = case
                .fires
                .iter()
                .map(|alert| json!({"labels": format!("{{alertname={alert:?}}}"), "value": 1}))
                .collect();
            json!({
                "name": case.what,
                "interval": "1m",
                "input_series": input(&served, case),
                "promql_expr_test": [{
                    "expr": "group by (alertname) (ALERTS{alertstate=\"firing\"})",
                    "eval_time": format!("{}m", case.at),
                    "exp_samples": fires,
                }],
            })
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.json"), groups().to_string()).unwrap();
    let file = folder.path().join("tests.json");
    let tests = json!({"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": tests});
    fs::write(&file, tests.to_string()).unwrap();
    let output = promtool::run(
        ["test", "rules"]
            .map(std::ffi::OsStr::new)
            .into_iter()
            .chain([file.as_os_str()]),
        "",
    );
    assert!(output.status.success(), "{}", promtool::said(&output));

    let shown: BTreeSet<_> = cases.iter().flat_map(|case| case.fires.clone()).collect();
    assert_eq!(shown, names(), "each alert has a case");
}
