//! What of a review cannot be read, in words for whoever made it.

use std::fmt;

use serde::Deserialize;

use super::review::Review;

/// Longest path of a field that is told, in bytes: the review's own fields are shorter, and a map's keys are the
/// client's.
const LONGEST_PATH: usize = 120;

/// Why a text is no review: it is not JSON, is cut off, or has a field of the wrong type.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    is_cut_off: bool,
    /// As in `request.object.spec.leaseTransitions`.
    field: Option<Box<str>>,
    problem: Box<str>,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_cut_off {
            formatter.write_str("it is cut off: ")?;
        }
        if let Some(field) = &self.field {
            write!(formatter, "{field}: ")?;
        }
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    /// Of the text of a review with objects that are read as `O`.
    pub(super) fn of<'a, O: Deserialize<'a>>(text: &'a str, error: &serde_json::Error) -> Self {
        Self {
            is_cut_off: error.is_eof(),
            field: error.is_data().then(|| field::<O>(text)).flatten(),
            problem: in_plain_words(&error.to_string()).into(),
        }
    }
}

/// The field whose value has the wrong type: read once more, since to keep track of it costs time, and what can be read
/// needs none.
fn field<'a, O: Deserialize<'a>>(text: &'a str) -> Option<Box<str>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = serde_path_to_error::deserialize::<_, Review<'a, O>>(&mut deserializer).err()?;
    let path = error.path().to_string();
    // "." is the whole document.
    (path != "." && path.len() <= LONGEST_PATH).then(|| path.into())
}

/// A message of serde's, made for programmers, as whoever writes JSON would say it.
fn in_plain_words(problem: &str) -> String {
    problem
        .replace(
            "expected i32",
            "expected a whole number from -2147483648 to 2147483647",
        )
        .replace("expected a sequence", "expected a list")
        .replace("expected a boolean", "expected true or false")
        .replace("invalid type: sequence", "invalid type: list")
        .replace("invalid type: map", "invalid type: object")
}
