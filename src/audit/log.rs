//! Where audit records go: a bounded queue to one writer thread, so that a slow disk never delays a verdict.
//!
//! Invariants: [`AuditLog::record`] waits for no I/O. A line is written whole or counted as dropped; after an error
//! a fragment of it may stand in the file, on a line of its own, before the whole. Lines keep their order.

use std::{
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::metrics::audit_log::AuditLogMetrics;

use super::destination::{AuditLogTarget, Destination, OpenError};

/// Most bytes that wait in the queue; as many again may be in the writer's hands.
///
/// A record is some 600 bytes, so this holds some 7,000: more than a minute of a hundred verdicts a second that are
/// each worth a record. It is bounded in bytes because identities, which records name, are as long as their writers
/// like.
const QUEUE_BYTES: usize = 4 << 20;

/// What an emptied buffer may keep of its memory.
const KEPT_BYTES: usize = 64 << 10;

/// Pause after a failed write before the next attempt. Meanwhile lines wait in the queue.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Pause after a write that succeeded. Lines that come meanwhile go out together: a write, and waking the writer for it,
/// costs several times what a verdict does. A line that comes after a quiet moment is written at once.
const GATHER_PAUSE: Duration = Duration::from_millis(10);

/// Least time between two log lines about the same trouble.
const LOG_PAUSE: Duration = Duration::from_secs(30);

/// A handle to the audit log; cheap to clone.
#[derive(Clone, Default)]
pub struct AuditLog {
    queue: Option<Arc<Queue>>,
}

impl AuditLog {
    /// An audit log that keeps nothing.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Opens `target` and starts the writer thread.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn open(target: &AuditLogTarget, metrics: AuditLogMetrics) -> Result<Self, OpenError> {
        Self::start(target.destination()?, metrics, QUEUE_BYTES, RETRY_PAUSE)
    }

    fn start(
        destination: Box<dyn Destination>,
        metrics: AuditLogMetrics,
        capacity: usize,
        retry_pause: Duration,
    ) -> Result<Self, OpenError> {
        let queue = Arc::new(Queue {
            metrics,
            capacity,
            retry_pause,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Writer {
            queue: queue.clone(),
            destination,
            trouble: Trouble::default(),
        };
        let thread = std::thread::Builder::new().name("audit-log".to_owned());
        thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;
        Ok(Self { queue: Some(queue) })
    }

    /// Whether records are kept at all, so that a caller need not write one in vain.
    pub fn is_enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues one JSON line (without its newline). Never blocks: a full queue drops the line and counts it.
    pub fn record(&self, mut line: Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        line.push(b'\n');
        queue.push(&line);
    }

    /// Writes what is queued and ends the writer, waiting for it no longer than `limit`. Lines recorded from now on
    /// are dropped, and counted. Returns whether all that was recorded before is written.
    #[must_use]
    pub fn close(&self, limit: Duration) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.close(limit))
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.queue.is_some() { "open" } else { "disabled" };
        f.debug_tuple("AuditLog").field(&state).finish()
    }
}

/// What recorders and the writer share. The lock is held to copy a line or swap a buffer, never during I/O.
struct Queue {
    metrics: AuditLogMetrics,
    capacity: usize,
    retry_pause: Duration,
    state: Mutex<State>,
    /// Signals any change of the state.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, each with its newline.
    lines: Vec<u8>,
    closing: bool,
    /// Set by the writer as its last act: whether it wrote all that it took.
    finished: Option<bool>,
    trouble: Trouble,
}

impl Queue {
    /// A panic of another thread leaves nothing half done here: each change is one assignment or one append.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.closing {
            drop(state);
            self.metrics.dropped_closed(1);
        } else if state.lines.len() + line.len() > self.capacity {
            let tell = state.trouble.tell(Instant::now());
            drop(state);
            self.metrics.dropped_queue_full();
            if tell {
                tracing::error!(
                    queue_bytes = self.capacity,
                    "audit log queue is full, records are dropped and counted: its file or pipe is too slow or stuck"
                );
            }
        } else {
            let writer_may_wait = state.lines.is_empty();
            state.lines.extend_from_slice(line);
            self.metrics.queued(state.lines.len());
            drop(state);
            // A system call: with lines in the queue the writer is awake, or was told already.
            if writer_may_wait {
                self.changed.notify_all();
            }
        }
    }

    /// Waits for lines and swaps them for `emptied`; nothing once closing and all taken.
    fn take(&self, mut emptied: Vec<u8>) -> Option<Vec<u8>> {
        emptied.clear();
        emptied.shrink_to(KEPT_BYTES);
        let state = self.lock();
        let idle = |state: &mut State| state.lines.is_empty() && !state.closing;
        let mut state = self
            .changed
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.lines.is_empty() {
            return None;
        }
        self.metrics.queued(0);
        Some(std::mem::replace(&mut state.lines, emptied))
    }

    /// Waits before another attempt; returns at once, and false, when there is to be none because of closing.
    fn may_retry(&self) -> bool {
        self.pause(self.retry_pause)
    }

    /// Waits; returns at once, and false, when closing.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let wait = self
            .changed
            .wait_timeout_while(state, pause, |state| !state.closing);
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }

    fn finish(&self, wrote_all: bool) {
        self.lock().finished = Some(wrote_all);
        self.changed.notify_all();
    }

    fn close(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.closing = true;
        self.changed.notify_all();
        let wait = self
            .changed
            .wait_timeout_while(state, limit, |state| state.finished.is_none());
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        state.finished.unwrap_or(false)
    }
}

/// The writer thread.
struct Writer {
    queue: Arc<Queue>,
    destination: Box<dyn Destination>,
    trouble: Trouble,
}

impl Writer {
    fn run(mut self) {
        let mut buffer = Vec::new();
        let mut wrote_all = true;
        while let Some(batch) = self.queue.take(buffer) {
            let left = self.write(&batch);
            wrote_all &= left == 0;
            self.queue.metrics.written(count_lines(&batch) - left);
            self.queue.metrics.dropped_closed(left);
            buffer = batch;
            self.queue.pause(GATHER_PAUSE);
        }
        self.queue.finish(wrote_all);
    }

    /// Writes a batch, trying until it is written or the log is closing; returns how many lines are left.
    fn write(&mut self, batch: &[u8]) -> u64 {
        let mut written = 0;
        loop {
            let Err(error) = self.attempt(batch, &mut written) else {
                if self.trouble.end() {
                    tracing::info!("audit log is being written again");
                }
                return 0;
            };
            self.queue.metrics.write_failed();
            if self.trouble.tell(Instant::now()) {
                let destination = &self.destination;
                tracing::error!(%destination, %error, "audit log cannot be written, trying on; records wait in the queue");
            }
            self.destination.reopen();
            // The line that was torn is written anew, whole.
            written = batch[..written]
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |newline| newline + 1);
            if !self.queue.may_retry() {
                return count_lines(&batch[written..]);
            }
        }
    }

    fn attempt(&mut self, batch: &[u8], written: &mut usize) -> io::Result<()> {
        self.destination.prepare()?;
        while *written < batch.len() {
            match self.destination.write(&batch[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn count_lines(batch: &[u8]) -> u64 {
    batch.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Remembers whether and when a trouble was last told of, so that the log is not flooded.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
}

impl Trouble {
    /// The trouble shows itself: whether to tell of it.
    fn tell(&mut self, now: Instant) -> bool {
        let tell = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= LOG_PAUSE);
        if tell {
            self.told = Some(now);
        }
        tell
    }

    /// All is well: whether that is news.
    fn end(&mut self) -> bool {
        self.told.take().is_some()
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
