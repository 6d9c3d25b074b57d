//! Where the story is told: lines that scroll, and on a terminal a picture below them that is redrawn in place.

use std::io::{self, IsTerminal as _, Write};

/// Columns that every line keeps to.
pub const WIDTH: usize = 79;

/// Rows that a terminal needs for the picture and some lines above it.
const ROWS: u16 = 24;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const ERASE_DOWN: &str = "\x1b[J";

/// How to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Redraw the picture in place, which a terminal of 80 columns and 24 rows can show.
    pub live: bool,
    /// Use colours.
    pub colour: bool,
}

impl Manner {
    /// What suits standard output. Colours follow `NO_COLOR` and `CLICOLOR_FORCE`.
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let wide_enough = || {
            terminal_size::terminal_size_of(io::stdout())
                .is_some_and(|(width, height)| usize::from(width.0) > WIDTH && height.0 >= ROWS)
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            live: stdout.is_terminal() && !dumb && wide_enough(),
            colour: anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
        }
    }
}

/// Prints lines, and keeps the picture below them.
pub struct Screen<W: Write> {
    out: W,
    manner: Manner,
    picture: Vec<String>,
    cursor_hidden: bool,
}

impl<W: Write> Screen<W> {
    /// A screen on `out`.
    pub fn new(out: W, manner: Manner) -> Self {
        Self {
            out,
            manner,
            picture: Vec::new(),
            cursor_hidden: false,
        }
    }

    /// Whether a picture is drawn while it grows.
    pub fn is_live(&self) -> bool {
        self.manner.live
    }

    /// Prints lines above the picture.
    ///
    /// # Errors
    /// Those of the output.
    pub fn print<I: IntoIterator<Item = String>>(&mut self, lines: I) -> io::Result<()> {
        let mut text = self.erase();
        for line in lines {
            self.push(&mut text, &line);
        }
        for line in &self.picture {
            self.push(&mut text, line);
        }
        self.write(&text)
    }

    /// Shows a picture, or the same one grown; in place, so only on a terminal.
    ///
    /// # Errors
    /// Those of the output.
    pub fn show(&mut self, picture: Vec<String>) -> io::Result<()> {
        if !self.manner.live || picture == self.picture {
            return Ok(());
        }
        let mut text = self.erase();
        for line in &picture {
            self.push(&mut text, line);
        }
        if !self.cursor_hidden {
            self.cursor_hidden = true;
            text.insert_str(0, HIDE_CURSOR);
        }
        self.picture = picture;
        self.write(&text)
    }

    /// Leaves the last picture where it is, for good.
    ///
    /// # Errors
    /// Those of the output.
    pub fn settle(&mut self, picture: Vec<String>) -> io::Result<()> {
        let mut text = self.erase();
        for line in &picture {
            self.push(&mut text, line);
        }
        self.picture.clear();
        if std::mem::take(&mut self.cursor_hidden) {
            text.push_str(SHOW_CURSOR);
        }
        self.write(&text)
    }

    /// The output, for a test to read.
    #[cfg(test)]
    pub fn output(&self) -> &W {
        &self.out
    }

    fn erase(&self) -> String {
        match self.picture.len() {
            0 => String::new(),
            height => format!("\x1b[{height}F{ERASE_DOWN}"),
        }
    }

    fn push(&self, text: &mut String, line: &str) {
        if self.manner.colour {
            text.push_str(line);
        } else {
            text.push_str(&anstream::adapter::strip_str(line).to_string());
        }
        text.push('\n');
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.cursor_hidden {
            // Nothing can be done about a terminal that is gone.
            let _ = self.write(SHOW_CURSOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn text<W: Write + AsRef<[u8]>>(screen: &Screen<W>) -> String {
        String::from_utf8(screen.output().as_ref().to_vec()).unwrap()
    }

    #[test]
    fn a_pipe_gets_lines_without_escapes_and_only_the_last_picture() {
        let mut screen = Screen::new(
            Vec::new(),
            Manner {
                live: false,
                colour: false,
            },
        );
        screen.show(lines(&["p1"])).unwrap();
        screen.print(lines(&["\x1b[31mred\x1b[0m"])).unwrap();
        screen.settle(lines(&["p2"])).unwrap();
        assert_eq!(text(&screen), "red\np2\n");
    }

    #[test]
    fn a_terminal_gets_the_picture_redrawn_below_the_lines() {
        let mut screen = Screen::new(
            Vec::new(),
            Manner {
                live: true,
                colour: true,
            },
        );
        screen.show(lines(&["p1", "q1"])).unwrap();
        screen.print(lines(&["line"])).unwrap();
        screen.settle(lines(&["p2", "q2"])).unwrap();
        let expected = "\x1b[?25lp1\nq1\n\x1b[2F\x1b[Jline\np1\nq1\n\x1b[2F\x1b[Jp2\nq2\n\x1b[?25h";
        assert_eq!(text(&screen), expected);
    }

    #[test]
    fn the_cursor_comes_back_when_the_story_breaks_off() {
        let mut out = Vec::new();
        let mut screen = Screen::new(
            &mut out,
            Manner {
                live: true,
                colour: false,
            },
        );
        screen.show(lines(&["p"])).unwrap();
        drop(screen);
        assert!(String::from_utf8(out).unwrap().ends_with(SHOW_CURSOR));
    }
}
