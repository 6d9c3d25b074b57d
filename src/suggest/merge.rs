//! Adding overrides to the text of a policy, of which every byte stays.

use super::{
    Entry, NotExcused,
    place::{NoSpot, Spot},
    render,
};
use crate::policy::{LeasePolicy, Policy, PolicyError};

/// Why overrides cannot be added to a policy's text.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is no place for them that can be told.
    #[error(
        "overrides cannot be added to the text: {0}; write overrides as a plain list (overrides: and below it lines that begin \
         with -), or take the line out"
    )]
    NoPlace(String),
    /// They were added, and the policy then says something else than it should.
    #[error(
        "overrides cannot be added to the text safely: with them it would say something else; write overrides as a plain list \
         (overrides: and below it lines that begin with -), the last field of the document"
    )]
    Unsafe,
    /// The policy with them is refused.
    #[error("with the overrides added the policy would be refused: {0}")]
    Refused(PolicyError),
}

impl From<NoSpot> for MergeError {
    fn from(no_spot: NoSpot) -> Self {
        Self::NoPlace(no_spot.to_string())
    }
}

/// The text with the overrides below those that it has, and with what is not excused in comments at its end, unless it lists
/// that already. What comes of it says what `policy` says, and the overrides.
pub(super) fn merge(
    document: &str,
    policy: &Policy,
    entries: &[Entry],
    not_excused: &[NotExcused],
) -> Result<(String, Policy), MergeError> {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(document).is_ok();
    let newline = if document.contains("\r\n") { "\r\n" } else { "\n" };
    let mut text = document.to_owned();
    if !entries.is_empty() {
        // From the end, so that offsets before it stay.
        match Spot::of(document)? {
            Spot::Block { at, indent, with_key } => {
                let mut lines = Vec::new();
                let items = if with_key {
                    lines.push(format!("{:indent$}overrides:", ""));
                    indent + 2
                } else {
                    indent
                };
                lines.extend(render::block(entries, items));
                let mut addition = lines.join(newline);
                if at > 0 {
                    addition.insert_str(0, newline);
                }
                if document
                    .get(at..)
                    .is_none_or(|rest| !rest.starts_with(['\n', '\r']))
                {
                    addition.push_str(newline);
                }
                text.insert_str(at, &addition);
            }
            Spot::Flow {
                last,
                close,
                comma,
                with_key,
                indent,
            } => {
                let addition = if is_json {
                    let items: Vec<_> = entries.iter().map(render::json).collect();
                    let items = items.join(", ");
                    if with_key {
                        format!("\"overrides\": [{items}]")
                    } else {
                        items
                    }
                } else {
                    lines_between_brackets(entries, with_key, indent, newline)
                };
                text.insert_str(close, &addition);
                if comma {
                    text.insert_str(last, if is_json && last == close { ", " } else { "," });
                }
            }
        }
    }
    // A policy keeps the list that it has; one that lacks a lease is followed by another.
    let comments = render::not_excused(not_excused);
    if !is_json && !comments.is_empty() && !render::lists(document, not_excused) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(newline);
        }
        text = format!("{text}{newline}{}{newline}", comments.join(newline));
    }
    let merged = Policy::parse(&text).map_err(MergeError::Refused)?;
    if says(&merged, policy, entries) {
        Ok((text, merged))
    } else {
        Err(MergeError::Unsafe)
    }
}

/// Items of a list between brackets, with comments, each on a line of its own.
fn lines_between_brackets(entries: &[Entry], with_key: bool, indent: usize, newline: &str) -> String {
    let items = indent + 4;
    let mut lines = vec![String::new()];
    if with_key {
        lines.push(format!("{:width$}overrides: [", "", width = indent + 2));
    }
    for (index, entry) in entries.iter().enumerate() {
        lines.extend(render::comments(entry, items));
        let comma = if index + 1 < entries.len() { "," } else { "" };
        lines.push(format!("{:items$}{}{comma}", "", render::flow(entry)));
    }
    if with_key {
        lines.push(format!("{:width$}]", "", width = indent + 2));
    }
    // A closing bracket must not stand where a field would.
    lines.push(format!("{:indent$}", ""));
    lines.join(newline)
}

/// Whether a policy says what another one says, and these overrides.
fn says(merged: &Policy, policy: &Policy, entries: &[Entry]) -> bool {
    let mut expected: LeasePolicy = policy.document().clone();
    let added = Policy::parse(&format!("overrides:\n{}\n", render::block(entries, 2).join("\n")));
    if !entries.is_empty() {
        let Ok(added) = added else {
            return false;
        };
        expected.overrides.extend(added.document().overrides.clone());
    }
    *merged.document() == expected
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
