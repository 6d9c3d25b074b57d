//! The log: to standard error, for people on a terminal and as JSON lines elsewhere.
//!
//! **Invariant:** no object, no body and no secret is ever logged. That holds for panics, too: their message
//! may quote what was being read.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Begins to log, with panics going to the log as well. The first call in a process wins.
pub fn init(filter: EnvFilter, format: LogFormat) {
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
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
