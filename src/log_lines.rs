//! Lines of a log, one by one and in bounded memory.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// The longest line that is read, in bytes: 16 MiB. A record names two holders of what an API server takes at most (3 MiB for
/// a request, 1.5 MiB in etcd); this is more than any that is not made to be long, by another program's wrapping too.
pub const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// The first bytes of a gzip (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What Windows puts in front of a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a log; what is compressed by gzip is recognised and read as it was before.
pub struct Input<'a> {
    reader: Box<dyn BufRead + 'a>,
    compressed: bool,
    line: Vec<u8>,
    number: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum InputLine<'a> {
    /// What stands on it, without the end of the line.
    Text(&'a [u8]),
    /// It is over [`LONGEST_LINE`]; the next one is read all the same.
    TooLong,
}

impl<'a> Input<'a> {
    /// Reads from here.
    ///
    /// # Errors
    /// The reader's.
    pub fn new(reader: impl Read + 'a) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(64 * 1024, reader);
        let mut first = Vec::new();
        // A pipe may give its bytes one by one.
        reader.by_ref().take(GZIP.len() as u64).read_to_end(&mut first)?;
        let compressed = first == GZIP;
        let reader = BufReader::with_capacity(64 * 1024, io::Cursor::new(first).chain(reader));
        Ok(Self {
            reader: if compressed {
                Box::new(BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(reader)))
            } else {
                Box::new(reader)
            },
            compressed,
            line: Vec::new(),
            number: 0,
        })
    }

    /// The next line with its number, from 1; `None` at the end.
    ///
    /// # Errors
    /// The reader's; of a gzip that is cut or damaged, the decoder's. What was read before it counts.
    pub fn next_line(&mut self) -> io::Result<Option<(u64, InputLine<'_>)>> {
        self.line.clear();
        let limit = LONGEST_LINE as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        if read.map_err(|error| self.named(error))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LONGEST_LINE {
            self.line.clear();
            self.line.shrink_to(64 * 1024);
            self.reader.skip_until(b'\n').map_err(|error| self.named(error))?;
            return Ok(Some((self.number, InputLine::TooLong)));
        }
        let mut text = self.line.as_slice();
        if self.number == 1 {
            text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        }
        Ok(Some((self.number, InputLine::Text(text.trim_ascii()))))
    }

    /// The reader's error, which says of a gzip that it is one: the decoder's own words do not.
    fn named(&self, error: io::Error) -> io::Error {
        if self.compressed {
            io::Error::new(error.kind(), format!("its gzip is cut off or damaged: {error}"))
        } else {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// Gives its bytes one by one.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(buffer.get_mut(..length).unwrap())
        }
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let (read, error) = lines_until_error(bytes);
        assert_eq!(error, None);
        read
    }

    fn lines_until_error(bytes: &[u8]) -> (Vec<String>, Option<io::ErrorKind>) {
        let mut input = Input::new(Slow(bytes)).unwrap();
        let mut lines = Vec::new();
        loop {
            match input.next_line() {
                Ok(Some((number, InputLine::Text(text)))) => {
                    lines.push(format!("{number} {}", String::from_utf8_lossy(text)));
                }
                Ok(Some((number, InputLine::TooLong))) => lines.push(format!("{number} too long")),
                Ok(None) => return (lines, None),
                Err(error) => return (lines, Some(error.kind())),
            }
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_are_numbered_and_stripped() {
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"a"), ["1 a"]);
        assert_eq!(lines(b"\xef\xbb\xbfa\r\n\n b \n"), ["1 a", "2 ", "3 b"]);
        assert_eq!(lines(b"\x1f"), ["1 \x1f"], "half of gzip's mark");
    }

    #[test]
    fn gzips_are_recognised_in_a_row_and_told_of_when_they_are_cut() {
        let mut two = gzip(b"a\nb\n");
        two.extend(gzip(b"c\n"));
        assert_eq!(lines(&two), ["1 a", "2 b", "3 c"]);
        let text: String = (0..2000).map(|number| format!("line {number}\n")).collect();
        let whole = gzip(text.as_bytes());
        let (read, error) = lines_until_error(whole.get(..whole.len() / 2).unwrap());
        assert_eq!(error, Some(io::ErrorKind::UnexpectedEof));
        assert!(!read.is_empty() && read.len() < 2000, "{}", read.len());
        assert_eq!(read.first().unwrap(), "1 line 0");
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let mut text = vec![b'x'; LONGEST_LINE];
        text.extend(b"\nb\n");
        text.extend(vec![b'y'; LONGEST_LINE + 1]);
        text.extend(b"\nd\n");
        let mut input = Input::new(text.as_slice()).unwrap();
        let mut read = Vec::new();
        while let Some((number, line)) = input.next_line().unwrap() {
            read.push((number, matches!(line, InputLine::TooLong)));
        }
        assert_eq!(read, [(1, false), (2, false), (3, true), (4, false)]);
    }
}
