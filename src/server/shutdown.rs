//! Two steps to the end: *leaving*, then *draining*.
//!
//! While **leaving** the server serves on, new connections included: the rest of the cluster needs a moment
//! to learn that this replica goes. But every answer tells its client to go elsewhere for the next one
//! (`connection: close`, or GOAWAY on HTTP/2), so that connections end with an answer, where no request can
//! be under way on them.
//!
//! While **draining** nothing new is accepted, what is in flight is answered, and idle connections are
//! closed. The API server does not repeat a review that meets such a closing; the step before is what makes
//! that unlikely.

use std::{future::Future, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Readiness;

/// Tells servers to leave and to drain; clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    leaving: CancellationToken,
    draining: CancellationToken,
}

impl Shutdown {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to leave: serve on, but send clients elsewhere.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Asks to drain: accept nothing, finish what is in flight, end.
    pub fn drain(&self) {
        self.leaving.cancel();
        self.draining.cancel();
    }

    /// Whether it was asked to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Waits until it is asked to drain.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }
}

/// What the readiness check of this module is called.
pub const CHECK: &str = "shutdown";

/// Walks `shutdown` through its steps: upon the first signal not ready and leaving, `delay` later draining.
/// Returns with an error upon the second signal, and otherwise when `finished` is.
///
/// `signals` yields one unit a signal. Its sender must be kept.
///
/// # Errors
/// [`Aborted`] when a second signal came first: what `finished` waits for should be dropped.
pub async fn conduct<T>(
    mut signals: mpsc::Receiver<()>,
    delay: Duration,
    shutdown: &Shutdown,
    readiness: &Readiness,
    finished: impl Future<Output = T>,
) -> Result<T, Aborted> {
    let steps = async {
        if signals.recv().await.is_none() {
            // Nobody is left to send a signal.
            return std::future::pending().await;
        }
        readiness.set(CHECK, Err("shutting down".to_owned()));
        shutdown.leave();
        tracing::info!(
            delay_seconds = delay.as_secs_f64(),
            "shutting down: serving on for the delay, then draining; signal again to stop at once"
        );
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            Some(()) = signals.recv() => return Aborted,
        }
        tracing::info!("draining: no new connections, finishing what is in flight");
        shutdown.drain();
        match signals.recv().await {
            Some(()) => Aborted,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = finished => Ok(result),
        aborted = steps => Err(aborted),
    }
}

/// A second signal came before everything in flight was answered.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a second signal before everything in flight was answered")]
pub struct Aborted;

/// SIGTERM and SIGINT, as [`conduct`] takes them; and what sends another.
///
/// # Errors
/// When the process may not listen to signals.
pub fn signals() -> std::io::Result<(mpsc::Sender<()>, mpsc::Receiver<()>)> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Two signals matter.
    let (sender, receiver) = mpsc::channel(2);
    let sending = sender.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => {}
                Some(()) = interrupt.recv() => {}
            }
            if sending.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok((sender, receiver))
}
