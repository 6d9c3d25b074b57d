//! Loops that last as long as the process does. One that ends all the same, by a panic for example, would leave a replica
//! that is ready and serves a policy or a certificate that nobody renews: so it ends the process, in order, to be started
//! anew.

use std::{
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::mpsc, task::JoinHandle};

/// What spawns them. Once it is dropped they may end.
#[derive(Debug)]
pub(super) struct LastingLoops(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Asks for the shutdown, as a signal does.
    signal: mpsc::Sender<()>,
    one_ended: AtomicBool,
}

impl LastingLoops {
    /// The first loop to end sends one unit by `signal`.
    pub(super) fn new(signal: mpsc::Sender<()>) -> Self {
        Self(Arc::new(Inner {
            signal,
            one_ended: AtomicBool::new(false),
        }))
    }

    /// Runs a loop, under a name for the log.
    pub(super) fn spawn<T>(
        &self,
        name: &'static str,
        lasting: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<()> {
        let guard = Guard {
            name,
            inner: Arc::downgrade(&self.0),
        };
        tokio::spawn(async move {
            // Dropped when the loop returns and when it panics.
            let _guard = guard;
            drop(lasting.await);
        })
    }

    /// Whether one has ended.
    pub(super) fn has_one_ended(&self) -> bool {
        self.0.one_ended.load(Ordering::Relaxed)
    }
}

struct Guard {
    name: &'static str,
    inner: Weak<Inner>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let name = self.name;
        tracing::error!(
            name,
            "what should go on for as long as the process has ended: shutting down, to be started anew"
        );
        // A second one would be taken for somebody who cannot wait. A full channel has signals enough.
        if !inner.one_ended.swap(true, Ordering::Relaxed) {
            let _ = inner.signal.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;
    use crate::server::{
        Readiness, Shutdown,
        shutdown::{self, conduct},
    };

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_or_panics_shuts_the_process_down_as_a_signal_does() {
        let returns: fn() = || {};
        let panics: fn() = || panic!("a bug");
        for end in [returns, panics] {
            let (signal, signals) = mpsc::channel(2);
            let loops = LastingLoops::new(signal);
            let shutdown = Shutdown::new();
            let readiness = Readiness::waiting_for([shutdown::CHECK]);
            readiness.set(shutdown::CHECK, Ok(()));
            let going_on = loops.spawn("another", pending::<()>());
            assert!(!loops.has_one_ended());
            let ending = loops.spawn("the one", async move { end() });
            let ended = conduct(
                signals,
                Duration::ZERO,
                &shutdown,
                &readiness,
                shutdown.draining(),
            );
            // The clock stands still while anything happens: an hour is over once nothing does.
            tokio::time::timeout(Duration::from_secs(3600), ended)
                .await
                .expect("nothing asked for the shutdown")
                .unwrap();
            assert!(loops.has_one_ended());
            let (is_ready, report) = readiness.report();
            assert!(!is_ready, "{report}");
            let _ = ending.await;
            going_on.abort();
        }
    }

    #[tokio::test]
    async fn another_that_ends_is_no_second_signal() {
        let (signal, mut signals) = mpsc::channel(2);
        let loops = LastingLoops::new(signal);
        for name in ["one", "other"] {
            loops.spawn(name, async {}).await.unwrap();
        }
        drop(loops);
        assert_eq!(signals.recv().await, Some(()));
        assert_eq!(signals.recv().await, None);
    }

    #[tokio::test]
    async fn at_the_end_of_the_process_they_may_end() {
        let (signal, mut signals) = mpsc::channel(2);
        let loops = LastingLoops::new(signal);
        let going_on = loops.spawn("one", pending::<()>());
        drop(loops);
        going_on.abort();
        assert!(going_on.await.unwrap_err().is_cancelled());
        assert_eq!(signals.recv().await, None);
    }
}
