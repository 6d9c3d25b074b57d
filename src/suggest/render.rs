//! Overrides as text of a policy, each under a comment that says why it is there.

use std::{collections::BTreeSet, fmt::Write};

use jiff::Timestamp;

use super::{Entry, NotExcused, Occurrences, Widening, Writer, cost::cost};
use crate::policy::{MOST_OVERRIDES, MOST_PATTERNS};

/// The width of comments and lists.
const WIDTH: usize = 100;

/// How many writers a comment names.
const WRITERS: usize = 3;

/// How many leases a comment names for one rule.
const LEASES: usize = 20;

/// The overrides as items of a list in lines of their own, each line this many blanks in.
pub(super) fn block(entries: &[Entry], indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in entries {
        lines.extend(comments(entry, indent));
        lines.push(format!("{:indent$}- match:", ""));
        lines.extend(list("namespaces", &entry.namespaces, indent + 4));
        if !entry.names.is_empty() {
            lines.extend(list("names", &entry.names, indent + 4));
        }
        lines.push(format!("{:indent$}  rules: {}", "", entry.easing));
    }
    lines
}

/// One override between braces, for a list between brackets.
pub(super) fn flow(entry: &Entry) -> String {
    let quoted = |patterns: &[String]| {
        let patterns: Vec<_> = patterns.iter().map(|it| format!("\"{it}\"")).collect();
        patterns.join(", ")
    };
    let mut criteria = format!("namespaces: [{}]", quoted(&entry.namespaces));
    if !entry.names.is_empty() {
        let _ = write!(criteria, ", names: [{}]", quoted(&entry.names));
    }
    format!("{{match: {{{criteria}}}, rules: {}}}", entry.easing)
}

/// One override as JSON.
pub(super) fn json(entry: &Entry) -> String {
    let mut criteria = serde_json::json!({"namespaces": entry.namespaces});
    if !entry.names.is_empty()
        && let Some(criteria) = criteria.as_object_mut()
    {
        criteria.insert("names".to_owned(), entry.names.clone().into());
    }
    serde_json::json!({"match": criteria, "rules": entry.easing}).to_string()
}

/// A list of patterns, broken into lines where it is long. Each is quoted: `true`, `1e3` and `*-a` are names and patterns.
fn list(field: &str, patterns: &[String], indent: usize) -> Vec<String> {
    let quoted: Vec<_> = patterns.iter().map(|it| format!("\"{it}\"")).collect();
    let one_line = format!("{:indent$}{field}: [{}]", "", quoted.join(", "));
    if one_line.len() <= WIDTH {
        return vec![one_line];
    }
    let mut lines = vec![format!("{:indent$}{field}:", "")];
    lines.extend(quoted.iter().map(|it| format!("{:indent$}  - {it}", "")));
    lines
}

/// Why an override is there: rule, how often, since when, by whom, what it costs, and how it is wider.
pub(super) fn comments(entry: &Entry, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let leases = leases(entry.leases, entry.more_leases);
    let writes = number(entry.seen.count, "write");
    let mut say = |text: String| lines.extend(comment(&text, indent));
    say(format!(
        "{}: {writes} to {leases}{}.",
        entry.easing.rule(),
        period(&entry.seen)
    ));
    say(format!("By {}.", writers(&entry.seen)));
    say(format!("Cost: {}", cost(entry.easing)));
    if let Some(wider) = wider(entry) {
        say(wider);
    }
    lines
}

fn wider(entry: &Entry) -> Option<String> {
    let room = format!("a policy has room for {MOST_OVERRIDES} overrides with {MOST_PATTERNS} patterns");
    match entry.widening {
        Widening::None => None,
        Widening::NamePatterns => {
            let patterns = entry.names.iter().filter(|name| name.contains('*')).count();
            let (stand, they) = if patterns == 1 {
                ("stands", "it matches")
            } else {
                ("stand", "they match")
            };
            Some(format!(
                "Wider than what was seen: {} {stand} for ten names or more each, and {they} others of that shape.",
                number(patterns, "pattern")
            ))
        }
        Widening::Namespaces => Some(format!(
            "Wider than what was seen: every lease of {}; {room}.",
            if entry.namespaces.len() == 1 {
                "the namespace"
            } else {
                "these namespaces"
            }
        )),
        Widening::NamespacePatterns => Some(format!(
            "Wider than what was seen: every lease of every namespace that a pattern matches; {room}."
        )),
        Widening::Everywhere => Some(format!(
            "Wider than what was seen: every lease of the cluster; {room}."
        )),
    }
}

/// How the comments begin that list what is not excused.
const NOT_EXCUSED: &str = "# Not excused: what follows is provably an attack or a bug, and stays refused.";

/// Whether a text has such comments, and they name every lease that would be named now.
pub(super) fn lists(text: &str, all: &[NotExcused]) -> bool {
    // A comment may be broken into lines; each after the first begins with more blanks.
    let mut comments: Vec<String> = Vec::new();
    let mut within = false;
    for line in text.lines() {
        within = line == NOT_EXCUSED || within && line.starts_with('#');
        match (line.strip_prefix("#   "), comments.last_mut()) {
            (Some(rest), Some(comment)) if within => {
                comment.push(' ');
                comment.push_str(rest);
            }
            _ if within => comments.push(line.trim_start_matches("# ").to_owned()),
            _ => {}
        }
    }
    let mut listed = BTreeSet::new();
    let mut rule = "";
    for (what, _) in comments.iter().filter_map(|comment| comment.split_once(": ")) {
        match what.strip_prefix("- ") {
            Some(lease) => drop(listed.insert((rule, lease))),
            None => rule = what,
        }
    }
    all.chunk_by(|one, next| one.rule == next.rule)
        .flat_map(|of_rule| of_rule.iter().take(LEASES))
        .all(|one| listed.contains(&(one.rule.as_str(), one.lease().as_str())))
}

/// What is not excused, as comments; empty where that is nothing.
pub(super) fn not_excused(all: &[NotExcused]) -> Vec<String> {
    let mut lines = Vec::new();
    if all.is_empty() {
        return lines;
    }
    lines.push(NOT_EXCUSED.to_owned());
    lines.extend(comment(
        "No correct elector needs it. Find out who writes it; leasehold explain RULE says what to do. To excuse it all the \
         same: leasehold policy suggest --include RULE.",
        0,
    ));
    let mut of_rule = None;
    let mut named = 0;
    for one in all {
        if of_rule != Some(one.rule) {
            of_rule = Some(one.rule);
            named = 0;
            let same = all.iter().filter(|other| other.rule == one.rule);
            let writes: u64 = same.clone().map(|other| other.seen.count).sum();
            let more = same.clone().any(|other| other.name.is_none());
            let (writes, leases) = (number(writes, "write"), leases(same.count(), more));
            lines.extend(comment(&format!("{}: {writes} to {leases}.", one.rule), 0));
        }
        named += 1;
        if named <= LEASES {
            let (writes, period) = (number(one.seen.count, "write"), period(&one.seen));
            let by = writers(&one.seen);
            lines.extend(comment(
                &format!("- {}: {writes}{period}, by {by}.", one.lease()),
                0,
            ));
        } else if named == LEASES + 1 {
            lines.extend(comment("- and more leases, which --output json lists.", 0));
        }
    }
    lines
}

/// A comment, broken into lines.
fn comment(text: &str, indent: usize) -> Vec<String> {
    let first = format!("{:indent$}# ", "");
    let next = format!("{:indent$}#   ", "");
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&first)
        .subsequent_indent(&next)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    textwrap::wrap(text, options)
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect()
}

fn number(count: impl TryInto<u64>, what: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

fn leases(count: usize, more: bool) -> String {
    let leases = number(count, "lease");
    if more { format!("{leases} or more") } else { leases }
}

fn period(seen: &Occurrences) -> String {
    // To the second, as the API server's own stamps are.
    let second = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
    match (seen.first_seen.map(second), seen.last_seen.map(second)) {
        (Some(first), Some(last)) if first == last => format!(", {first}"),
        (Some(first), Some(last)) => format!(", {first} to {last}"),
        _ => String::new(),
    }
}

fn writers(seen: &Occurrences) -> String {
    let mut named: Vec<String> = seen.writers.iter().take(WRITERS).map(writer).collect();
    if seen.writers.len() > WRITERS || seen.more_writers {
        let more = if seen.more_writers {
            "more".to_owned()
        } else {
            format!("{} more", seen.writers.len() - WRITERS)
        };
        named.push(format!("and {more}"));
    }
    named.join("; ")
}

fn writer(writer: &Writer) -> String {
    let mut text = if writer.user.is_empty() {
        "an unknown user".to_owned()
    } else {
        plain(&writer.user)
    };
    for (what, name) in [("pod", &writer.pod), ("field manager", &writer.field_manager)] {
        if let Some(name) = name {
            let _ = write!(text, ", {what} {}", plain(name));
        }
    }
    text
}

/// A name that a client may have chosen, so that it cannot leave its comment: escaped, and quoted where it holds more than
/// names of Kubernetes do.
fn plain(name: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.' | ':' | '/' | '@');
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.escape_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_comment() {
        assert_eq!(
            plain("system:serviceaccount:shop:payments"),
            "system:serviceaccount:shop:payments"
        );
        for name in [
            "a\nmode: off",
            "a\r b",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{feff}",
            "\u{0}",
            "#",
            "\"",
            "",
        ] {
            let plain = plain(name);
            assert!(plain.starts_with('"') && plain.ends_with('"'), "{plain}");
            assert!(
                plain.chars().all(|it| it == ' ' || it.is_ascii_graphic()),
                "{plain}"
            );
        }
    }
}
