//! Metrics in the Prometheus text format, as far as the tests need them.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the text format; comments and what does not read as a sample are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self {
            samples: text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(Sample::parse)
                .collect(),
        }
    }

    /// The sum of all series of this name whose labels include these.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Adds the samples of another scrape.
    pub(crate) fn extend(&mut self, other: Self) {
        self.samples.extend(other.samples);
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, wanted)| sample.labels.get(*label).is_some_and(|value| value == wanted))
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, rest) = match line.find('{') {
            Some(open) => {
                let close = line.rfind('}')?;
                (
                    (line.get(..open)?, line.get(open + 1..close)?),
                    line.get(close + 1..)?,
                )
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                ((name, ""), rest)
            }
        };
        let (name, labels) = series;
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            labels: parse_labels(labels),
            value,
        })
    }
}

/// `a="b",c="d"`, where a value may hold commas and escaped quotes.
fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                '"' => {
                    end = at + 1;
                    break;
                }
                other => value.push(other),
            }
        }
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        text = rest.get(end..).unwrap_or_default();
    }
    labels
}
