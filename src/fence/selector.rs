//! Which objects are fenced, by their labels.

use std::str::FromStr;

use serde::Serialize;

use super::names::is_subdomain;

/// A label selector, as `kubectl --selector` takes it: requirements with commas between them, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement, in the words of the API (`LabelSelectorRequirement`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requirement {
    key: String,
    operator: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// Why a selector was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectorError {
    /// No key, or one that no label has.
    #[error(
        "{0:?} is no label's key: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends, and maybe a \
         DNS name and a slash before them"
    )]
    Key(String),
    /// A value that no label has.
    #[error(
        "{0:?} is no label's value: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends, or nothing"
    )]
    Value(String),
    /// The set-based form.
    #[error(
        "{0:?}: in and notin are not read here; write KEY=VALUE, KEY!=VALUE, KEY or !KEY, with commas between them"
    )]
    Set(String),
}

impl Selector {
    /// The requirements, in the order in which they were given.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.contains(['(', ')']) {
            return Err(SelectorError::Set(text.to_owned()));
        }
        let requirements: Result<Vec<_>, _> = text.split(',').map(|part| requirement(part.trim())).collect();
        Ok(Self {
            requirements: requirements?,
        })
    }
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let (key, operator, value) = if let Some((key, value)) = text.split_once("!=") {
        (key, "NotIn", Some(value))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, "In", Some(value))
    } else if let Some(key) = text.strip_prefix('!') {
        (key, "DoesNotExist", None)
    } else {
        (text, "Exists", None)
    };
    let key = key.trim();
    let name = match key.split_once('/') {
        Some((prefix, name)) if is_subdomain(prefix) => name,
        Some(_) => "",
        None => key,
    };
    if name.is_empty() || !is_value(name) {
        return Err(SelectorError::Key(key.to_owned()));
    }
    let values = value.map(|value| value.trim().to_owned());
    if let Some(value) = values.iter().find(|value| !is_value(value)) {
        return Err(SelectorError::Value(value.clone()));
    }
    Ok(Requirement {
        key: key.to_owned(),
        operator,
        values: values.into_iter().collect(),
    })
}

/// Whether a text is a label's value (`k8s.io/apimachinery/pkg/util/validation`: `IsValidLabelValue`).
fn is_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && end(text.bytes().next()) && end(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_kubectls() {
        let selector: Selector = "app=payments, tier!=test,example.com/fenced,!draft,empty="
            .parse()
            .unwrap();
        assert_eq!(
            serde_json::to_value(selector.requirements()).unwrap(),
            serde_json::json!([
                {"key": "app", "operator": "In", "values": ["payments"]},
                {"key": "tier", "operator": "NotIn", "values": ["test"]},
                {"key": "example.com/fenced", "operator": "Exists"},
                {"key": "draft", "operator": "DoesNotExist"},
                {"key": "empty", "operator": "In", "values": [""]},
            ])
        );
        assert_eq!("app==a".parse::<Selector>(), "app=a".parse());
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_part_that_is_wrong() {
        for (text, expected) in [
            ("", "\"\" is no label's key"),
            ("app=a,", "\"\" is no label's key"),
            ("=a", "\"\" is no label's key"),
            ("a b=c", "\"a b\" is no label's key"),
            ("Example.com/app=a", "is no label's key"),
            ("app=\"a\"", "\"\\\"a\\\"\" is no label's value"),
            ("app=-a", "is no label's value"),
            ("app in (a, b)", "in and notin are not read here"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
