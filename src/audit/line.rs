//! One audit record as a line that nobody can forge another line with, or a terminal's colours, by a name of their own.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// How much of a name or a reason a record keeps, in bytes of UTF-8. A pod's name has at most 253 and a UUID 36; the API
/// server bounds neither an identity nor a user's name, and a few of a megabyte would drive all other records out of the
/// queue.
const LONGEST: usize = 1024;

/// One line of JSON, without its newline: ASCII control characters escaped as JSON demands, and so is what a terminal may
/// take for a command, a line break or a change of direction.
///
/// # Errors
/// What the record's own serialization fails with: a time or a number that JSON cannot hold.
pub fn to_line(record: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = Vec::with_capacity(1024);
    record.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Escaping))?;
    Ok(line)
}

/// Serializes as much of a text as a record keeps, with `…` after what was cut.
pub(super) fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if text.len() <= LONGEST {
        return serializer.serialize_str(text);
    }
    let kept = text
        .char_indices()
        .map(|(start, character)| start + character.len_utf8())
        .take_while(|end| *end <= LONGEST)
        .last();
    let kept = kept.and_then(|end| text.get(..end)).unwrap_or_default();
    serializer.collect_str(&format_args!("{kept}…"))
}

/// The same of a text that may be absent.
pub(super) fn cut_option<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => cut(text, serializer),
        None => serializer.serialize_none(),
    }
}

/// The compact form, with more escapes.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, character)) = rest
            .char_indices()
            .find(|(_, character)| is_treacherous(*character))
        {
            let (plain, after) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = after.split_at(character.len_utf8()).1;
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Whether a character that JSON leaves as it is changes what is shown around it: DEL and the control characters of
/// ISO 8859-1, line and paragraph separators, marks that hide or change the direction of text (Unicode 16, `Bidi_Control`
/// and the default ignorables of the same blocks). All are of the basic plane.
fn is_treacherous(character: char) -> bool {
    matches!(
        character,
        '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    struct Named<'a> {
        #[serde(serialize_with = "cut_option")]
        name: Option<&'a str>,
    }

    fn line(name: &str) -> String {
        String::from_utf8(to_line(&Named { name: Some(name) }).unwrap()).unwrap()
    }

    #[test]
    fn a_name_stays_on_its_line_and_says_what_it_is() {
        for (name, expected) in [
            ("web-0", r#"{"name":"web-0"}"#),
            ("é\u{1f600}", "{\"name\":\"é\u{1f600}\"}"),
            ("a\nb\u{1b}[31m", r#"{"name":"a\nb\u001b[31m"}"#),
            ("a\u{9b}31m\u{7f}", r#"{"name":"a\u009b31m\u007f"}"#),
            ("a\u{2028}\u{202e}b\u{2066}", r#"{"name":"a\u2028\u202eb\u2066"}"#),
            ("\u{200d}\u{feff}\"", r#"{"name":"\u200d\ufeff\""}"#),
        ] {
            assert_eq!(line(name), expected, "{name:?}");
            let read: Value = serde_json::from_str(&line(name)).unwrap();
            assert_eq!(read, json!({"name": name}), "read as it was written");
        }
    }

    #[test]
    fn a_long_name_is_cut_where_a_letter_begins() {
        let longest = "a".repeat(LONGEST);
        assert_eq!(line(&longest), format!(r#"{{"name":"{longest}"}}"#));
        let read: Value = serde_json::from_str(&line(&"€".repeat(LONGEST))).unwrap();
        assert_eq!(read["name"], format!("{}…", "€".repeat(LONGEST / 3)));
    }
}
