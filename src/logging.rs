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
    filter::{ParseError, filter_fn},
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

/// What `--log-level` takes: a level, or directives as in `RUST_LOG`, such as `info,kube=debug`.
///
/// # Errors
/// When it is neither.
pub fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
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

    /// Puts other directives in force.
    ///
    /// # Errors
    /// When they are not a level and not directives; what was in force stays.
    pub fn change(&self, directives: &str) -> Result<(), ParseError> {
        let filter = parse_filter(directives)?;
        // As above: then nobody logs.
        let _ = self.filter.reload(filter);
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
