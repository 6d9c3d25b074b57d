//! Mistakes in a policy document, and the words in which they are told.

use std::fmt;

use super::{lines::Lines, overrides::Contradiction};

/// Why a policy document was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}{}", Place(*.position, .field.as_deref()), Suggestion(.suggestion.as_deref()))]
pub struct PolicyError {
    /// Line and column of the mistake, from 1, where it has a place.
    pub position: Option<(u64, u64)>,
    /// The field in which the mistake is, where it is in one: `rules.clock-skewed.action`, or `override 2, mode`.
    pub field: Option<Box<str>>,
    /// What is wrong.
    pub problem: Box<str>,
    /// The known name that the unknown one was probably meant to be.
    pub suggestion: Option<Box<str>>,
}

struct Place<'a>(Option<(u64, u64)>, Option<&'a str>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((line, column)) => write!(formatter, "line {line}, column {column}")?,
            None => return Ok(()),
        }
        match self.1 {
            Some(field) => write!(formatter, ", {field}: "),
            None => formatter.write_str(": "),
        }
    }
}

struct Suggestion<'a>(Option<&'a str>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(formatter, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

impl PolicyError {
    pub(super) fn too_long(length: usize, longest: usize) -> Self {
        Self {
            position: None,
            field: None,
            problem: format!(
                "the document is {length} bytes long, over the {longest} that a ConfigMap holds"
            )
            .into(),
            suggestion: None,
        }
    }

    pub(super) fn of_overrides(contradiction: Contradiction, document: &str) -> Self {
        let Contradiction { index, rule, problem } = contradiction;
        Self::of_field(&format!("overrides/{index}/rules/{rule}"), problem, document)
    }

    /// What is wrong with the value at this path, where the parser itself has nothing against it.
    pub(super) fn of_field(path: &str, problem: String, document: &str) -> Self {
        let lines = Lines::of(document).unwrap_or_default();
        Self {
            position: lines.position(path),
            field: Some(readable(path).into()),
            problem: problem.into(),
            suggestion: None,
        }
    }

    pub(super) fn from_yaml(error: &serde_saphyr::Error, document: &str) -> Self {
        let position = error
            .location()
            .map(|location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        // The place stands in front of the message, where editors look for it.
        let problem = text
            .rfind(" at line ")
            .and_then(|end| text.get(..end))
            .unwrap_or(&text);
        // A document that is no YAML has no fields yet.
        let field = Lines::of(document)
            .ok()
            .zip(position)
            .and_then(|(lines, position)| {
                let path = if problem.starts_with("unknown field") {
                    lines.holder_of_key_at(position)
                } else {
                    lines
                        .value_at(position)
                        .or_else(|| lines.holder_of_key_at(position))
                };
                path.filter(|path| !path.is_empty())
                    .map(|path| readable(path).into())
            });
        Self {
            position,
            field,
            problem: in_plain_words(problem).into(),
            suggestion: suggestion(problem),
        }
    }
}

/// A path as people read it: `rules.clock-skewed.action`, and `override 2, match.names` for what stands in
/// `overrides/1/match/names/0`.
fn readable(path: &str) -> String {
    let mut segments = path.split('/').peekable();
    let mut text = String::new();
    while let Some(segment) = segments.next() {
        let index = segments.peek().and_then(|next| next.parse::<usize>().ok());
        if segment == "overrides"
            && let Some(index) = index
        {
            segments.next();
            text = format!("override {}", index.saturating_add(1));
            if segments.peek().is_some() {
                text.push_str(", ");
            }
            continue;
        }
        // Which item of a list is plain from line and column.
        if segment.parse::<usize>().is_ok() {
            continue;
        }
        if !text.is_empty() && !text.ends_with(", ") {
            text.push('.');
        }
        text.push_str(segment);
    }
    text
}

/// A message of the parser's, made for programmers, as whoever writes a policy would say it.
fn in_plain_words(problem: &str) -> String {
    if problem.contains("alias") {
        return "a * in front is YAML's mark of an alias, and there is none of that name; put a pattern that begins \
                with * in quotes, as in \"*-legacy\""
            .to_owned();
    }
    if problem.starts_with("unknown variant `v1`") || problem.starts_with("unknown variant `ConfigMap`") {
        return format!(
            "{}; of a ConfigMap, the policy is only what stands in its data, under policy.yaml",
            problem.replace("unknown variant", "unknown value")
        );
    }
    let problem = match problem {
        "expected sequence start" => "expected a list, as in [a, b] or lines that begin with -",
        "expected mapping start" | "expected mapping" => {
            "expected fields, as in {name: value} or lines of name: value"
        }
        "externally tagged enum expected scalar or mapping" => "expected one word",
        "expected string scalar" => "expected plain text, as in 5s or \"some-name\"",
        "invalid boolean" => "expected true or false",
        other if other.starts_with("cannot deserialize null into") => {
            "the value is missing; give one, or leave the field out"
        }
        other if other.starts_with("multiple YAML documents") => {
            "another document begins here, and a policy is one alone: leave out the line of --- and what is not the policy"
        }
        other => other,
    };
    problem
        // A library's advice to programmers.
        .trim_end_matches(", set DuplicateKeyPolicy in Options if acceptable")
        .replace("duplicate mapping key: ", "duplicate field: ")
        .replace("unknown variant `~`", "the value is missing")
        .replace("unknown variant `null`", "the value is missing")
        .replace("invalid type: unit value", "the value is missing")
        .replace("unknown variant", "unknown value")
        .replace("quoted scalar", "quoted text")
        .replace("tabs disallowed within this context", "a tab; indent with spaces")
}

/// The expected name nearest to the unknown one in a message of serde's making, if one is near.
fn suggestion(problem: &str) -> Option<Box<str>> {
    let rest = problem
        .strip_prefix("unknown field `")
        .or_else(|| problem.strip_prefix("unknown variant `"))?;
    let (unknown, rest) = rest.split_once('`')?;
    let (_, expected) = rest.split_once("expected ")?;
    let names = expected
        .trim_start_matches("one of ")
        .split(", ")
        .map(|name| name.trim_matches('`'));
    names
        .map(|name| (distance(&unknown.to_lowercase(), &name.to_lowercase()), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name.into())
}

/// The number of characters to insert, remove or replace to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (above, expected) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *expected);
            diagonal = *above;
            left = replaced.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "mistake_tests.rs"]
mod tests;
