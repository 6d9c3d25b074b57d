//! Where in the text of a policy its overrides stand.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Location, Spanned};

/// Where overrides can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// In lines of their own at this offset, each item this many blanks in; the field's name has to come first, or not.
    Block {
        at: usize,
        indent: usize,
        with_key: bool,
    },
    /// Between brackets: before the one that closes at `close`, after the last item that ends at `last`.
    Flow {
        last: usize,
        close: usize,
        /// Whether a comma has to come first.
        comma: bool,
        with_key: bool,
        /// How far the line with the closing bracket is indented.
        indent: usize,
    },
}

/// Why there is no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoSpot(&'static str);

/// The fields of a document, in their order.
struct Fields(Vec<(Spanned<String>, Spanned<Shape>)>);

/// Whether a value is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Something,
}

impl Spot {
    /// Finds where overrides can be added to this text, which is a policy.
    pub(super) fn of(document: &str) -> Result<Self, NoSpot> {
        let unknown = NoSpot("its places cannot be told");
        let root: Spanned<Fields> = serde_saphyr::from_str(document).map_err(|_| unknown)?;
        let Fields(fields) = &root.value;
        let start = offset(&root.referenced).unwrap_or_default();
        let in_brackets = document.get(start..).is_some_and(|text| text.starts_with('{'));
        let Some(index) = fields.iter().position(|(name, _)| name.value == "overrides") else {
            return if in_brackets {
                Self::before_bracket(document, start, true)
            } else {
                let indent = match fields.first() {
                    Some((name, _)) => column(document, offset(&name.referenced).ok_or(unknown)?),
                    None => 0,
                };
                Ok(Self::Block {
                    at: end_of_content(document, 0, document.len()),
                    indent,
                    with_key: true,
                })
            };
        };
        let (name, value) = fields.get(index).ok_or(unknown)?;
        let key = offset(&name.referenced).ok_or(unknown)?;
        let next = fields
            .get(index + 1)
            .map(|(name, _)| offset(&name.referenced).ok_or(unknown))
            .transpose()?;
        let text = document.get(key..).ok_or(unknown)?;
        let colon = text.find(':').ok_or(unknown)?;
        let quotes = |it: char| matches!(it, '"' | '\'') || it.is_ascii_whitespace();
        if text
            .get(..colon)
            .is_none_or(|name| name.trim_matches(quotes) != "overrides")
        {
            return Err(NoSpot(
                "the field overrides has a mark in front, or a name that is written in an unusual way",
            ));
        }
        let after = key + colon + 1;
        if value.value == Shape::Nothing {
            let line = document
                .get(after..)
                .and_then(|text| text.lines().next())
                .unwrap_or_default();
            let line_is_empty = line.trim_start().is_empty() || line.trim_start().starts_with('#');
            return if line_is_empty && !in_brackets {
                Ok(Self::Block {
                    at: after + line.len(),
                    indent: column(document, key) + 2,
                    with_key: false,
                })
            } else {
                Err(NoSpot("overrides has the value null"))
            };
        }
        let begin = skip_blanks_and_comments(document, after);
        match document.get(begin..).and_then(|text| text.chars().next()) {
            Some('[') => Self::before_bracket(document, begin, false),
            Some('-') if !in_brackets => Ok(Self::Block {
                at: end_of_content(document, begin, next.unwrap_or(document.len())),
                indent: column(document, begin),
                with_key: false,
            }),
            _ => Err(NoSpot(
                "overrides is an alias, or has an anchor or a tag in front",
            )),
        }
    }

    /// The place in front of the bracket that closes the one at this offset.
    fn before_bracket(document: &str, open: usize, with_key: bool) -> Result<Self, NoSpot> {
        let Closed { last, close, before } =
            closed(document, open).ok_or(NoSpot("the end of its brackets cannot be told"))?;
        let line = document
            .get(..close)
            .and_then(|text| text.rfind('\n'))
            .map_or(0, |end| end + 1);
        let indent = document
            .get(line..)
            .map_or(0, |text| text.len() - text.trim_start_matches(' ').len());
        Ok(Self::Flow {
            last,
            close,
            comma: !matches!(before, ',' | '[' | '{'),
            with_key,
            indent,
        })
    }
}

fn offset(location: &Location) -> Option<usize> {
    usize::try_from(location.span().byte_offset()?).ok()
}

/// How many characters stand before this offset on its line.
fn column(document: &str, offset: usize) -> usize {
    let before = document.get(..offset).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    // A byte order mark takes no column.
    before
        .get(line..)
        .unwrap_or_default()
        .trim_start_matches('\u{feff}')
        .chars()
        .count()
}

/// The end of the last line between these offsets that holds more than a comment or the end of the document: before the
/// line break.
fn end_of_content(document: &str, from: usize, to: usize) -> usize {
    let mut end = from;
    let mut start = from;
    for line in document.get(from..to).unwrap_or_default().split_inclusive('\n') {
        let text = line.trim();
        if !(text.is_empty() || text.starts_with('#') || text == "..." || text == "\u{feff}") {
            end = start + line.trim_end_matches(['\n', '\r']).len();
        }
        start += line.len();
    }
    if from == 0 && document.get(end..).is_some_and(|rest| !rest.contains("...")) {
        // Behind comments at the end, which may be about what stands above them.
        return document.trim_end_matches(['\n', '\r']).len();
    }
    end
}

fn skip_blanks_and_comments(document: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        let rest = document.get(at..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start().len();
        at += blanks;
        let rest = rest.get(blanks..).unwrap_or_default();
        if !rest.starts_with('#') {
            return at;
        }
        at += rest.find('\n').unwrap_or(rest.len());
    }
}

/// Where brackets close.
struct Closed {
    /// The end of what stands last between them.
    last: usize,
    /// The closing bracket.
    close: usize,
    /// The last character between them that is no blank; the opening bracket if there is none.
    before: char,
}

/// Goes along brackets, quotes and comments to the bracket that closes the one at `open`.
fn closed(document: &str, open: usize) -> Option<Closed> {
    let mut depth = 0_usize;
    let (mut before, mut last) = (' ', open);
    // What the character in front was, blanks included.
    let mut previous = ' ';
    let mut characters = document.get(open..)?.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        let at = open + index;
        match character {
            '#' if previous.is_whitespace() => {
                while characters.next_if(|(_, it)| *it != '\n').is_some() {}
                previous = ' ';
                continue;
            }
            '"' | '\'' if previous.is_whitespace() || matches!(previous, '[' | '{' | ',' | ':') => {
                // In single quotes, two of them stand for one; that ends and begins one anew, which comes to the same.
                while let Some((_, it)) = characters.next_if(|(_, it)| *it != character) {
                    if it == '\\' && character == '"' {
                        characters.next();
                    }
                }
                let (end, _) = characters.next()?;
                (before, last, previous) = (character, open + end + 1, '[');
                continue;
            }
            '[' | '{' => depth += 1,
            ']' | '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(Closed {
                        last,
                        close: at,
                        before,
                    });
                }
            }
            _ => {}
        }
        if !character.is_whitespace() {
            (before, last) = (character, at + character.len_utf8());
        }
        previous = character;
    }
    None
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("fields")
            }
            fn visit_unit<E>(self) -> Result<Fields, E> {
                Ok(Fields(Vec::new()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut mapping: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = mapping.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let something = Option::<de::IgnoredAny>::deserialize(deserializer)?;
        Ok(something.map_or(Self::Nothing, |_| Self::Something))
    }
}
