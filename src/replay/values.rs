//! JSON values out of a log's lines: one a line, several on one, one over many.

use std::io;

use serde_json::Value;

use crate::log_lines::{Input, InputLine, LONGEST_LINE};

/// A reader of JSON values.
pub(super) struct Values<'a> {
    input: Input<'a>,
    /// A value that began on an earlier line.
    open: Vec<u8>,
    opened_on: u64,
    nesting: Nesting,
}

/// What the next piece of a log is.
pub(super) enum Piece {
    /// JSON that was found, and what stood in front of it on its line.
    Found { values: Vec<Value>, prefix: Prefix },
    /// A line without JSON, or whose JSON is broken.
    Broken { line: u64, is_long: bool },
}

/// What stands on a line before its JSON, as log collectors and exports put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    Nothing,
    /// One word or more: a time, a host's name, a container's stream.
    Words,
}

impl<'a> Values<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        Self {
            input,
            open: Vec::new(),
            opened_on: 0,
            nesting: Nesting::default(),
        }
    }

    /// The next piece; `None` at the end of the log. Lines without the word `leases` that are whole by themselves are
    /// passed over.
    ///
    /// # Errors
    /// The reader's.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let Some((number, line)) = self.input.next_line()? else {
                if self.open.is_empty() {
                    return Ok(None);
                }
                self.open.clear();
                return Ok(Some(Piece::Broken {
                    line: self.opened_on,
                    is_long: false,
                }));
            };
            let text = match line {
                InputLine::Text(text) => text,
                InputLine::TooLong => {
                    self.open.clear();
                    return Ok(Some(Piece::Broken {
                        line: number,
                        is_long: true,
                    }));
                }
            };
            if !self.open.is_empty() {
                self.open.push(b'\n');
                self.open.extend_from_slice(text);
                self.nesting.read(text);
                if self.open.len() > LONGEST_LINE {
                    self.open.clear();
                    return Ok(Some(Piece::Broken {
                        line: self.opened_on,
                        is_long: true,
                    }));
                }
                if self.nesting.is_closed() {
                    let whole = std::mem::take(&mut self.open);
                    return Ok(Some(found(&whole, Prefix::Nothing, self.opened_on)));
                }
                continue;
            }
            let Some(start) = text.iter().position(|byte| matches!(byte, b'{' | b'[')) else {
                if text.is_empty() {
                    continue;
                }
                return Ok(Some(Piece::Broken {
                    line: number,
                    is_long: false,
                }));
            };
            let (before, json) = text.split_at(start);
            let mut nesting = Nesting::default();
            nesting.read(json);
            if nesting.is_open() && goes_on(json) {
                self.open.extend_from_slice(json);
                self.opened_on = number;
                self.nesting = nesting;
                continue;
            }
            if !contains(json, b"leases") {
                continue;
            }
            let prefix = if before.is_empty() {
                Prefix::Nothing
            } else {
                Prefix::Words
            };
            return Ok(Some(found(json, prefix, number)));
        }
    }
}

/// Whether a value that its line does not close is meant to go on: written over many lines, it breaks off behind a bracket,
/// or between the items of a list. What a log collector cut ends anywhere, and must not take the lines after it along.
fn goes_on(json: &[u8]) -> bool {
    const LONGEST_OPENING: usize = 256;
    match json.last() {
        Some(b'{' | b'[') => json.len() <= LONGEST_OPENING,
        Some(b',') => json.first() == Some(&b'[') || json.len() <= LONGEST_OPENING,
        _ => false,
    }
}

fn found(json: &[u8], prefix: Prefix, line: u64) -> Piece {
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(json).into_iter().collect();
    match values {
        Ok(values) => Piece::Found { values, prefix },
        Err(_) => Piece::Broken { line, is_long: false },
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// How many brackets are open, outside of strings.
#[derive(Clone, Copy, Debug, Default)]
struct Nesting {
    depth: i64,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn read(&mut self, text: &[u8]) {
        for byte in text {
            match (self.in_string, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_string = false,
                (true, _) => {}
                (false, b'"') => self.in_string = true,
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => self.depth -= 1,
                (false, _) => {}
            }
        }
    }

    fn is_open(self) -> bool {
        self.depth > 0 && !self.in_string
    }

    fn is_closed(self) -> bool {
        self.depth <= 0
    }
}
