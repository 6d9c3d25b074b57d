//! The log: to standard error, for people on a terminal and as JSON lines elsewhere. Its level can be changed while the
//! process runs ([`LogLevel`]).
//!
//! **Invariant:** no object, no body and no secret is ever logged, at whatever level. That holds for panics, too: their
//! message may quote what was being read. And it holds for libraries, whose lines
//! pass by target and level only.

use std::{
    fmt as text,
    io::{self, IsTerminal},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{LevelFilter, ParseError, filter_fn},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// Where kube logs the whole of an answer that it cannot read, a Secret's too (`kube-client/src/client/mod.rs`). The
/// error comes back to the caller, who tells it.
const TELLS_BODIES: &str = "kube_client::client";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why what shall be logged was refused.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nothing.
    #[error("nothing is given; give {LEVELS}, or directives such as info,hyper=debug")]
    Empty,
    /// A word by itself: as a directive it would mean *trace of that library, and nothing of anything else*.
    #[error("{0:?} is no level; give {LEVELS}, or directives such as info,hyper=debug")]
    NoLevel(String),
    /// Directives that cannot be read.
    #[error("{0}; give {LEVELS}, or directives such as info,hyper=debug")]
    Directives(#[from] ParseError),
}

/// What there is to choose from.
const LEVELS: &str = "off, error, warn, info, debug or trace";

/// What `--log-level` takes: a level, or directives as in `RUST_LOG`, such as `info,kube=debug`.
///
/// # Errors
/// [`FilterError`] when it is neither.
pub fn parse_filter(text: &str) -> Result<EnvFilter, FilterError> {
    let mut empty = true;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        empty = false;
        if !part.contains(['=', '[', ']']) && part.parse::<LevelFilter>().is_err() {
            return Err(FilterError::NoLevel(part.to_owned()));
        }
    }
    if empty {
        return Err(FilterError::Empty);
    }
    Ok(EnvFilter::builder().parse(text)?)
}

/// Whether a line may be logged, whatever the level: a library's `trace` shows what passes through it, so it is out.
fn may_log(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target == "leasehold" || target.starts_with("leasehold::");
    ours || (*metadata.level() <= Level::DEBUG && target != TELLS_BODIES)
}

/// What is logged, to be looked at and changed while the process runs. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct LogLevel {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// A level that can be changed, and the layer that heeds it.
    pub fn new(filter: EnvFilter) -> (Self, reload::Layer<EnvFilter, Registry>) {
        let (layer, filter) = reload::Layer::new(filter);
        (Self { filter }, layer)
    }

    /// The directives in force, such as `info` or `info,kube=debug`.
    pub fn directives(&self) -> String {
        // It can only be gone with the log itself.
        self.filter
            .with_current(ToString::to_string)
            .unwrap_or_else(|_| "off".to_owned())
    }

    /// Puts other directives in force, and says so in the log: before if what was in force lets that be seen, else
    /// afterwards.
    ///
    /// # Errors
    /// When they are not a level and not directives; what was in force stays.
    pub fn change(&self, directives: &str) -> Result<(), FilterError> {
        let filter = parse_filter(directives)?;
        let (before, now) = (self.directives(), filter.to_string());
        let tell = || tracing::warn!(before, now, "log level changed");
        let seen = tracing::enabled!(Level::WARN);
        if seen {
            tell();
        }
        // As above: then nobody logs.
        let _ = self.filter.reload(filter);
        if !seen {
            tell();
        }
        Ok(())
    }
}

impl text::Debug for LogLevel {
    fn fmt(&self, formatter: &mut text::Formatter<'_>) -> text::Result {
        write!(formatter, "LogLevel({})", self.directives())
    }
}

/// Begins to log, with panics going to the log as well. The first call in a process wins.
pub fn init(filter: EnvFilter, format: LogFormat) -> LogLevel {
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let (level, layer) = LogLevel::new(filter);
    let registry = tracing_subscriber::registry()
        .with(layer)
        .with(filter_fn(may_log));
    let result = if json {
        registry
            .with(fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .try_init()
    } else {
        registry
            .with(
                fmt::layer()
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr),
            )
            .try_init()
    };
    if result.is_ok() {
        log_panics();
    }
    level
}

/// Where a panic was, and not what it said.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            place,
            "panic: a bug in leasehold (its message is withheld, it may quote a review)"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_levels() {
        for (text, told) in [
            (
                "loud",
                "\"loud\" is no level; give off, error, warn, info, debug or trace",
            ),
            ("info,hyper", "\"hyper\" is no level"),
            ("", "nothing is given; give off"),
            (" , ", "nothing is given; give off"),
            ("hyper=loud", "give off, error, warn, info, debug or trace"),
            ("a=b=c", "give off"),
        ] {
            let message = parse_filter(text).map(drop).unwrap_err().to_string();
            assert!(message.contains(told), "{text:?}: {message}");
        }
        for text in [
            "off",
            "WARN",
            "info,hyper=debug",
            "leasehold::server=trace",
            "[span]=debug",
            "info,",
        ] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
    }
}
