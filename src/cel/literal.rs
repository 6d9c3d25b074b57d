//! String literals.

use std::fmt::Write;

/// The text as a string literal of CEL, quotes included: what a user wrote, in an expression where it can mean nothing
/// but itself.
///
/// Printable ASCII stands as it is, but for the quote and the backslash; everything else is an escape, line ends and
/// look-alikes of quotes included, so that the literal is one line of ASCII and whoever reviews it sees what is in it.
/// Source of the escapes: the CEL specification's lexis (`cel-spec/doc/langdef.md`, "String and Bytes Values").
///
/// ```
/// assert_eq!(leasehold::cel::literal(r#"a"b\c"#), r#""a\"b\\c""#);
/// assert_eq!(leasehold::cel::literal("\u{e9}\n\u{1f600}"), r#""\u00e9\n\U0001f600""#);
/// ```
pub fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            ' '..='~' => literal.push(character),
            _ => {
                let code = u32::from(character);
                // Writing to a String cannot fail.
                let _ = if code <= 0xffff {
                    write!(literal, "\\u{code:04x}")
                } else {
                    write!(literal, "\\U{code:08x}")
                };
            }
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a double-quoted literal by the rules of the CEL specification, not by those of [`literal`]: every escape
    /// that it knows, and none that it does not. What follows the closing quote is the second half.
    fn read(source: &str) -> Result<(String, &str), String> {
        let mut rest = source.strip_prefix('"').ok_or("no opening quote")?;
        if rest.starts_with("\"\"") {
            return Err("that opens a triple-quoted literal".to_owned());
        }
        let mut text = String::new();
        loop {
            let mut characters = rest.chars();
            match characters.next().ok_or("no closing quote")? {
                '"' => return Ok((text, characters.as_str())),
                '\n' | '\r' => return Err("a line ends within the literal".to_owned()),
                '\\' => {
                    let escape = characters.next().ok_or("nothing after a backslash")?;
                    rest = characters.as_str();
                    let mut digits = |count: usize, radix: u32| {
                        let (digits, after) = rest.split_at_checked(count).ok_or("too few digits")?;
                        let code = u32::from_str_radix(digits, radix).map_err(|error| error.to_string())?;
                        rest = after;
                        char::from_u32(code).ok_or_else(|| format!("{code:x} is no character"))
                    };
                    text.push(match escape {
                        '\\' | '"' | '\'' | '`' | '?' => escape,
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\u{b}',
                        'x' | 'X' => digits(2, 16)?,
                        'u' => digits(4, 16)?,
                        'U' => digits(8, 16)?,
                        other => return Err(format!("\\{other} is no escape")),
                    });
                }
                character => {
                    text.push(character);
                    rest = characters.as_str();
                }
            }
        }
    }

    /// Pieces of which injections are made, among anything at all.
    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<String>(),
            any::<char>().prop_map(String::from),
            "[\"'\\\\`]{1,6}",
            "\\\\[abfnrtvxuU0-7?\"']",
            Just("\") || true || (\"".to_owned()),
            Just("\\\" + request.name + \\\"".to_owned()),
            Just("\u{2028}\u{2029}\u{feff}\u{85}\0\u{7f}\r\n".to_owned()),
            Just("\"\"\"".to_owned()),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_literal_reads_as_the_text_that_it_was_made_of_and_ends_where_it_ends(
            text in texts(),
            after in "[ -~]{0,12}",
        ) {
            let source = format!("{}+{after}", literal(&text));
            prop_assert_eq!(read(&source), Ok((text, &source[source.len() - after.len() - 1..])));
        }

        #[test]
        fn a_literal_is_one_line_of_printable_ascii(text in texts()) {
            let literal = literal(&text);
            prop_assert!(literal.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{literal}");
        }
    }

    #[test]
    fn the_empty_text_opens_no_triple_quoted_literal() {
        assert_eq!(literal(""), "\"\"");
        assert_eq!(read("\"\" + \"\""), Ok((String::new(), " + \"\"")));
    }
}
