//! The JSON documents of a file: one, or several in a row, as JSON lines are.

use serde_json::value::RawValue;

/// What editors and shells of Windows put in front of a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Every JSON document in the bytes of a file, with the line on which it begins (from 1), or why it cannot be read.
///
/// After one that cannot be read, the next line counts that begins with `{`: in JSON lines a bad line costs only itself,
/// and of an indented document that is cut off or wrong somewhere, no line is taken for a document of its own.
pub(super) struct Documents<'a> {
    bytes: &'a [u8],
    /// Where to read on, and the line that this is on.
    start: usize,
    line: usize,
}

impl<'a> Documents<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            start: 0,
            line: 1,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn skip(&mut self, count: usize) {
        let skipped = self.rest().iter().take(count);
        self.line += skipped.filter(|byte| **byte == b'\n').count();
        self.start += count;
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let mark = rest
                .get(blank..)
                .is_some_and(|rest| rest.starts_with(BYTE_ORDER_MARK));
            if blank == 0 && !mark {
                return;
            }
            self.skip(blank + if mark { BYTE_ORDER_MARK.len() } else { 0 });
        }
    }

    /// Goes to the next line on which a document may begin, or to the end.
    fn skip_bad_document(&mut self) {
        let rest = self.rest();
        let next = rest.iter().enumerate().find_map(|(index, byte)| {
            let line = rest.get(index + 1..).filter(|_| *byte == b'\n')?;
            let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
            line.starts_with(b"{").then_some(index + 1)
        });
        self.skip(next.unwrap_or(rest.len()));
    }

    /// What is wrong, with its place in the file: serde's own is one in the document.
    fn problem(&self, error: &serde_json::Error) -> String {
        if error.is_eof() {
            return "the document that begins here is cut off".to_owned();
        }
        let text = error.to_string();
        let problem = text
            .rfind(" at line ")
            .and_then(|end| text.get(..end))
            .unwrap_or(&text);
        let before = self.bytes.get(..self.start).unwrap_or_default();
        let on_its_line = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        let column = error.column() + if error.line() > 1 { 0 } else { on_its_line };
        format!(
            "{problem} at line {} column {column}",
            self.line + error.line().saturating_sub(1)
        )
    }
}

impl<'a> Iterator for Documents<'a> {
    type Item = (usize, Result<&'a str, String>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.start == 0
            && [b"\xff\xfe", b"\xfe\xff"]
                .iter()
                .any(|mark| self.bytes.starts_with(*mark))
        {
            self.skip(self.bytes.len());
            return Some((1, Err("the file is UTF-16; write it as UTF-8".to_owned())));
        }
        self.skip_blanks();
        let line = self.line;
        let mut documents = serde_json::Deserializer::from_slice(self.rest()).into_iter::<&RawValue>();
        match documents.next()? {
            Ok(document) => {
                self.skip(documents.byte_offset());
                Some((line, Ok(document.get())))
            }
            Err(error) => {
                let mut problem = self.problem(&error);
                self.skip_bad_document();
                if !self.rest().is_empty() && self.line > line + 1 {
                    problem = format!("{problem}; read on at line {}", self.line);
                }
                Some((line, Err(problem)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents of a file, each with its line, and the beginning of what is said of those that cannot be read.
    fn read(file: impl AsRef<[u8]>) -> Vec<(usize, Result<String, String>)> {
        Documents::of(file.as_ref())
            .map(|(line, document)| (line, document.map(str::to_owned)))
            .collect()
    }

    #[track_caller]
    fn assert_read(file: impl AsRef<[u8]>, expected: &[(usize, Result<&str, &str>)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(line, document)| (*line, document.map(str::to_owned).map_err(str::to_owned)))
            .collect();
        assert_eq!(
            read(&file),
            expected,
            "{}",
            String::from_utf8_lossy(file.as_ref())
        );
    }

    const CUT_OFF: &str = "the document that begins here is cut off";

    #[test]
    fn documents_follow_each_other_in_any_way() {
        assert_read("", &[]);
        assert_read(" \n\n", &[]);
        assert_read(
            "{}{\"a\": 1}\n\n[2]",
            &[(1, Ok("{}")), (1, Ok("{\"a\": 1}")), (3, Ok("[2]"))],
        );
        assert_read(
            "{\n  \"a\": {}\n}\n{}\n",
            &[(1, Ok("{\n  \"a\": {}\n}")), (4, Ok("{}"))],
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_document() {
        assert_read("\u{feff}{}", &[(1, Ok("{}"))]);
        assert_read("\u{feff}\n{}\n\u{feff}{}\n", &[(2, Ok("{}")), (3, Ok("{}"))]);
        assert_read("\u{feff}", &[]);
        assert_read(
            b"\xff\xfe{\0}\0\n\0{\0}\0",
            &[(1, Err("the file is UTF-16; write it as UTF-8"))],
        );
    }

    #[test]
    fn an_indented_document_that_is_cut_off_is_told_of_once() {
        let whole =
            serde_json::json!({"kind": "K", "request": {"object": {"spec": [1, {"a": {}}]}, "n": null}});
        let whole = serde_json::to_string_pretty(&whole).unwrap();
        for length in 1..whole.len() {
            let cut = whole.get(..length).unwrap();
            assert_read(cut, &[(1, Err(CUT_OFF))]);
        }
    }

    #[test]
    fn an_indented_document_that_is_wrong_costs_only_itself() {
        let wrong = "{\n  \"a\": {\n    \"b\": oops\n  },\n  \"c\": {}\n}\n";
        let told = "expected value at line 3 column 10";
        assert_read(wrong, &[(1, Err(told))]);
        assert_read(
            format!("{{}} \n{wrong}{{}}\n"),
            &[
                (1, Ok("{}")),
                (2, Err("expected value at line 4 column 10; read on at line 8")),
                (8, Ok("{}")),
            ],
        );
    }

    #[test]
    fn no_line_after_a_bad_one_is_lost() {
        assert_read(
            "{\"a\":\n{\"b\":1}\n{\"c\":\n{\"d\":1}",
            &[
                (1, Err("expected `,` or `}` at line 3 column 1")),
                (2, Ok("{\"b\":1}")),
                (3, Err(CUT_OFF)),
                (4, Ok("{\"d\":1}")),
            ],
        );
        assert_read(
            "{} oops\n{\"a\":1}",
            &[
                (1, Ok("{}")),
                (1, Err("expected value at line 1 column 4")),
                (2, Ok("{\"a\":1}")),
            ],
        );
        assert_read(
            "oops\noops\n{}",
            &[
                (1, Err("expected value at line 1 column 1; read on at line 3")),
                (3, Ok("{}")),
            ],
        );
    }
}
