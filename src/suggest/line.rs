//! One line of a log: what Leasehold's audit log says there, or why it says nothing.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{Cause, Denial, Skip, Writer};
use crate::{
    policy::{Name, Namespace, Pattern, RuleName, Subject},
    verdict::Decision,
};

/// How a record of the audit log begins, as Leasehold writes it.
const RECORD: &[u8] = b"{\"record\":\"";

/// How often a record may be wrapped in another program's JSON. Container runtimes and shippers do it once each.
const MOST_WRAPPINGS: u8 = 2;

/// What one line, or a part of it, says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A violation that denies, or would deny in mode enforce.
    Denial(Box<Denial>),
    /// A record that asks for nothing: a warning, a note, a change of holder, broken glass.
    NothingDenied,
    /// Nothing that can be judged.
    Skipped(Skip),
}

/// A record as any version of Leasehold may have written it: what this version does not know is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    record: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    rule: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    decision: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pod: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    field_manager: Option<Cow<'a, str>>,
    // Only whether they are there: a number that a later version may write costs no line.
    #[serde(default)]
    old_transitions: Option<IgnoredAny>,
    #[serde(default)]
    new_transitions: Option<IgnoredAny>,
    #[serde(borrow, default)]
    evidence: Option<Evidence<'a>>,
}

#[derive(Deserialize)]
struct Evidence<'a> {
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

/// Reads one line. There may be another program's text in front of a record (`[pod/…] {…}`), several records on one line,
/// and a record wrapped in the JSON of a container runtime or a log shipper.
pub fn read(line: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    read_into(&mut lines, line, MOST_WRAPPINGS);
    lines
}

fn read_into(lines: &mut Vec<Line>, line: &[u8], wrappings: u8) {
    let mut starts = occurrences(line, RECORD).peekable();
    let Some(&first) = starts.peek() else {
        return read_object(lines, line, wrappings);
    };
    if looks_like_ours(line.get(..first).unwrap_or_default()) {
        lines.push(Line::Skipped(Skip::CutOff));
    }
    while let Some(start) = starts.next() {
        // A line that was torn is written anew, whole, by Leasehold: what follows may be the same record.
        let end = starts.peek().copied().unwrap_or(line.len());
        let part = line.get(start..end).unwrap_or_default();
        let mut documents = serde_json::Deserializer::from_slice(part).into_iter::<&RawValue>();
        match documents.next() {
            Some(Ok(document)) => {
                lines.push(of_object(document.get()).unwrap_or(Line::Skipped(Skip::Foreign)));
                if looks_like_ours(part.get(documents.byte_offset()..).unwrap_or_default()) {
                    lines.push(Line::Skipped(Skip::CutOff));
                }
            }
            Some(Err(error)) => lines.push(Line::Skipped(unreadable(part, &error, end < line.len()))),
            None => lines.push(Line::Skipped(Skip::CutOff)),
        }
    }
}

/// Reads a line that does not have a record as Leasehold writes it: with its fields in another order, with blanks between
/// them, wrapped, cut; or another program's line.
fn read_object(lines: &mut Vec<Line>, line: &[u8], wrappings: u8) {
    let start = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
    let object = line.get(start..).unwrap_or_default();
    let mut documents = serde_json::Deserializer::from_slice(object).into_iter::<&RawValue>();
    match documents.next() {
        Some(Ok(document)) => {
            let document = document.get();
            let wrapped = || unwrapped(document).filter(|_| wrappings > 0);
            if let Some(read) = of_object(document) {
                lines.push(read);
            } else if let Some(inner) = wrapped() {
                read_into(lines, inner.as_bytes(), wrappings - 1);
            } else {
                lines.push(Line::Skipped(without_object(line)));
            }
        }
        Some(Err(error)) if looks_like_ours(object) => {
            lines.push(Line::Skipped(unreadable(object, &error, false)));
        }
        _ => lines.push(Line::Skipped(without_object(line))),
    }
}

/// What a part of a line is that begins as a record and is none.
fn unreadable(part: &[u8], error: &serde_json::Error, more_follows: bool) -> Skip {
    if std::str::from_utf8(part).is_err() {
        Skip::NotUtf8
    } else if error.is_eof() || more_follows {
        Skip::CutOff
    } else {
        Skip::Damaged
    }
}

/// What a text without a readable object is.
fn without_object(text: &[u8]) -> Skip {
    if looks_like_ours(text) {
        Skip::CutOff
    } else if std::str::from_utf8(text).is_err() {
        Skip::NotUtf8
    } else {
        Skip::Foreign
    }
}

/// Names of fields that go together only in our records.
const FIELDS: [&[u8]; 9] = [
    b"\"change\":\"",
    b"\"purpose\":\"",
    b"\"verdict\":\"",
    b"\"rule\":\"",
    b"\"decision\":\"",
    b"\"fieldManager\":\"",
    b"\"oldHolder\":\"",
    b"\"newHolder\":\"",
    b"\"dryRun\":",
];

/// How each of our records ends.
const ENDS: [&[u8]; 2] = [b"\"dryRun\":false}", b"\"dryRun\":true}"];

/// Whether this is a part of a record rather than another program's text.
fn looks_like_ours(text: &[u8]) -> bool {
    find(text, RECORD).is_some()
        || ENDS.iter().any(|end| text.trim_ascii_end().ends_with(end))
        || FIELDS.iter().filter(|field| find(text, field).is_some()).count() > 1
}

fn find(text: &[u8], sought: &'static [u8]) -> Option<usize> {
    occurrences(text, sought).next()
}

fn occurrences<'a>(text: &'a [u8], sought: &'static [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = text.windows(sought.len()).enumerate();
    windows.filter_map(move |(index, window)| (window == sought).then_some(index))
}

/// The text in which a container runtime or a log shipper keeps the line, if it looks like an object.
fn unwrapped(document: &str) -> Option<String> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(document).ok()?;
    ["log", "message", "msg"].into_iter().find_map(|field| {
        let text: String = serde_json::from_str(fields.get(field)?.get()).ok()?;
        text.contains("record").then_some(text)
    })
}

/// What one object says; `None` if it is no record of ours.
fn of_object(document: &str) -> Option<Line> {
    let record = match serde_json::from_str::<Record<'_>>(document) {
        Ok(record) => record,
        // A field of ours holds what it never held.
        Err(_) if looks_like_ours(document.as_bytes()) => return Some(Line::Skipped(Skip::Damaged)),
        Err(_) => return None,
    };
    match &*record.record {
        "violation" => Some(of_violation(&record)),
        "holderChange" | "breakGlass" => Some(Line::NothingDenied),
        // Other programs may have a field `record`, too; a record of ours names the review's uid.
        _ => record.uid.is_some().then_some(Line::Skipped(Skip::UnknownRecord)),
    }
}

fn of_violation(record: &Record<'_>) -> Line {
    let (Some(rule), Some(decision), Some(namespace), Some(name)) =
        (&record.rule, &record.decision, &record.namespace, &record.name)
    else {
        return Line::Skipped(Skip::Damaged);
    };
    match Decision::ALL.into_iter().find(|known| known.as_str() == decision) {
        Some(Decision::Denied | Decision::WouldBeDenied) => {}
        Some(Decision::Warned | Decision::WouldBeWarned | Decision::Audited) => return Line::NothingDenied,
        None => return Line::Skipped(Skip::UnknownDecision),
    }
    let Some(rule) = RuleName::find(rule) else {
        return Line::Skipped(Skip::UnknownRule);
    };
    if !is_plain::<Namespace>(namespace) || !is_plain::<Name>(name) {
        return Line::Skipped(Skip::NoLease);
    }
    Line::Denial(Box::new(Denial {
        rule,
        namespace: namespace.to_string(),
        name: name.to_string(),
        cause: cause(rule, record),
        time: record
            .time
            .as_ref()
            .and_then(|time| time.parse::<Timestamp>().ok()),
        uid: record.uid.as_deref().unwrap_or_default().to_owned(),
        writer: Writer::new(
            record.user.as_deref(),
            record.pod.as_deref(),
            record.field_manager.as_deref(),
        ),
    }))
}

/// Whether a name could be one, and is none that a policy would read as a pattern.
fn is_plain<S: Subject>(name: &str) -> bool {
    !name.contains('*') && Pattern::<S>::new(name).is_ok()
}

/// What a denial rests on, as far as a milder setting than the rule's action can answer it.
fn cause(rule: RuleName, record: &Record<'_>) -> Cause {
    let evidence = record
        .evidence
        .as_ref()
        .and_then(|evidence| evidence.kind.as_deref());
    match rule.as_str() {
        "takeover-before-expiry" if evidence == Some("claimed") => Cause::Claimed,
        "transition-not-counted" if record.old_transitions.is_none() && record.new_transitions.is_none() => {
            Cause::Untracked
        }
        "duration-out-of-bounds" => record
            .message
            .as_deref()
            .and_then(duration)
            .unwrap_or(Cause::Other),
        _ => Cause::Other,
    }
}

/// The duration that a message of `duration-out-of-bounds` names. What stands in front of it is the holder, quoted: a
/// text that a client chose, of which nothing is believed.
fn duration(message: &str) -> Option<Cause> {
    let said = after_quoted(message)?.strip_prefix(" sets a duration of ")?;
    let (seconds, said) = said.split_once(" s on lease ")?;
    let seconds: u32 = seconds.parse().ok()?;
    // A lease of no seconds is free to all: no bound answers that.
    (seconds > 0 && said.contains(", ")).then_some(Cause::Duration(seconds))
}

/// What follows a text in quotes, in which `\` escapes, and the mark of one that was shortened.
fn after_quoted(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('"')?.char_indices();
    while let Some((index, character)) = rest.next() {
        match character {
            '\\' => drop(rest.next()),
            '"' => {
                let after = text.get(index + 2..)?;
                return Some(after.strip_prefix('…').unwrap_or(after));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
