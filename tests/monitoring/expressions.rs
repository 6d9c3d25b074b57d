//! PromQL as far as it names series: enough to hold expressions to what is served. Whether one is valid is promtool's
//! to say.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn new(name: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            name: name.to_owned(),
            labels: labels.collect(),
            value,
        }
    }

    /// The same, scraped from that pod.
    pub(crate) fn of_pod(&self, pod: &str) -> Self {
        let mut sample = self.clone();
        for (name, value) in TARGET_LABELS.into_iter().zip([
            "leasehold-system",
            pod,
            "leasehold",
            "admin",
            "leasehold-system/leasehold",
            pod,
        ]) {
            sample.labels.insert(name.to_owned(), value.to_owned());
        }
        sample
    }

    /// As PromQL writes a series.
    pub(crate) fn series(&self) -> String {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// What the Prometheus operator adds to each sample of a PodMonitor.
pub(crate) const TARGET_LABELS: [&str; 6] = ["namespace", "pod", "container", "endpoint", "job", "instance"];

/// Reads an exposition.
pub(crate) fn samples(text: &str) -> Vec<Sample> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            // No value in these tests has a quote or a comma.
            let labels = labels.strip_suffix('}').unwrap().split(',');
            let labels = labels.filter(|pair| !pair.is_empty()).map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                (name.to_owned(), value.trim_matches('"').to_owned())
            });
            Sample {
                name: name.to_owned(),
                labels: labels.collect(),
                value: value.parse().unwrap(),
            }
        })
        .collect()
}

/// One selector of an expression: a metric and its matchers (label, operator, value).
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    matchers: Vec<(String, String, String)>,
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Every selector in an expression: of Leasehold's metrics, and of the API server's.
pub(crate) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..]
            .find(|character| !is_name(character))
            .map_or(rest.len(), |length| start + length);
        let name = &rest[start..end];
        rest = &rest[end..];
        let ours = ["leasehold_", "apiserver_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !ours {
            // A word inside quotes is no metric of ours either.
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').unwrap();
            rest = after;
            for matcher in inside.split(',') {
                let at = matcher.find(|character| !is_name(character)).unwrap();
                let (label, matcher) = matcher.split_at(at);
                let (operator, value) = matcher.split_once('"').unwrap();
                let value = value.strip_suffix('"').unwrap();
                matchers.push((label.to_owned(), operator.to_owned(), value.to_owned()));
            }
        }
        found.push(Selector {
            name: name.to_owned(),
            matchers,
        });
    }
    found
}

/// The labels by which an expression groups or joins.
pub(crate) fn grouping(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for keyword in [" by (", " on ("] {
        for part in expression.split(keyword).skip(1) {
            let (inside, _) = part.split_once(')').unwrap();
            labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

/// What an expression names and the samples do not have; empty where all is well.
pub(crate) fn missing(expression: &str, served: &[Sample]) -> Vec<String> {
    let mut missing = Vec::new();
    let mut labels: BTreeSet<&str> = BTreeSet::new();
    for selector in selectors(expression) {
        let named: Vec<_> = served
            .iter()
            .filter(|sample| sample.name == selector.name)
            .collect();
        labels.extend(
            named
                .iter()
                .flat_map(|sample| sample.labels.keys())
                .map(String::as_str),
        );
        if named.is_empty() {
            missing.push(format!("metric {}", selector.name));
        }
        for (label, operator, value) in &selector.matchers {
            let values: BTreeSet<_> = named
                .iter()
                .filter_map(|sample| sample.labels.get(label))
                .collect();
            let known = match operator.as_str() {
                "=" => values.contains(value),
                // Alternatives are each to be there; other patterns are not looked into.
                "=~" if !value.contains(['[', '(']) => value
                    .split('|')
                    .all(|each| values.iter().any(|have| *have == each)),
                _ => !values.is_empty(),
            };
            if !known {
                missing.push(format!("{}{{{label}{operator}\"{value}\"}}", selector.name));
            }
        }
    }
    for label in grouping(expression) {
        if !labels.contains(label.as_str()) && !TARGET_LABELS.contains(&label.as_str()) {
            missing.push(format!("label {label} of {expression}"));
        }
    }
    missing
}

/// What is served by the API server, of what the expressions ask for: `tests/apiserver` holds these to a real one.
pub(crate) fn of_the_api_server() -> Vec<Sample> {
    let webhook = ("name", "leases.leasehold.dev");
    vec![
        Sample::new(
            "apiserver_admission_webhook_fail_open_count",
            &[webhook, ("type", "validating")],
            0.0,
        ),
        Sample::new(
            "apiserver_admission_webhook_admission_duration_seconds_bucket",
            &[
                webhook,
                ("type", "validating"),
                ("operation", "UPDATE"),
                ("le", "1"),
            ],
            0.0,
        ),
    ]
}

#[test]
fn what_an_expression_names_is_found_in_it() {
    let expression =
        "sum by (rule) (increase(leasehold_a_total{x=\"1\",y=~\"b|c\"}[5m])) > 0 and on (job, z) leasehold_b";
    let served = |labels: &[(&str, &str)]| {
        vec![
            Sample::new(
                "leasehold_a_total",
                &[labels, &[("x", "1"), ("y", "b")]].concat(),
                0.0,
            ),
            Sample::new(
                "leasehold_a_total",
                &[labels, &[("x", "2"), ("y", "c")]].concat(),
                0.0,
            ),
        ]
    };
    assert_eq!(
        missing(expression, &served(&[("rule", "r")])),
        ["metric leasehold_b", "label z of ".to_owned().as_str()].map(|text| if text.starts_with("label") {
            format!("{text}{expression}")
        } else {
            text.to_owned()
        })
    );
    let wrong = expression.replace("b|c", "b|d").replace("x=\"1\"", "x=\"3\"");
    let said = missing(&wrong, &served(&[])).join(" ");
    for part in [
        "leasehold_a_total{x=\"3\"}",
        "leasehold_a_total{y=~\"b|d\"}",
        "label rule",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
