//! The clock that the store and the electors are given.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A wall clock that stands on the runtime's monotonic clock, so that it never jumps, and stands still with a
/// paused test runtime.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_time: Timestamp,
    ahead: SignedDuration,
}

impl Clock {
    /// A clock that reads `time` now.
    pub fn starting_at(time: Timestamp) -> Self {
        Self {
            origin: Instant::now(),
            origin_time: time,
            ahead: SignedDuration::ZERO,
        }
    }

    /// The same clock, wrong by `ahead`: what a machine with a badly set clock reads.
    #[must_use]
    pub fn wrong_by(self, ahead: SignedDuration) -> Self {
        Self {
            ahead: self.ahead.saturating_add(ahead),
            ..self
        }
    }

    /// The time of day, as this clock has it.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.origin.elapsed()).unwrap_or(SignedDuration::MAX);
        self.origin_time
            .saturating_add(passed.saturating_add(self.ahead))
            .unwrap_or(Timestamp::MAX)
    }

    /// The same in microseconds, the precision of a Lease's `MicroTime`
    /// (`apimachinery/pkg/apis/meta/v1/micro_time.go`).
    pub fn now_micros(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_runtimes_clock_and_keeps_its_error() {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let fast = clock.wrong_by(SignedDuration::from_hours(1));
        tokio::time::advance(Duration::from_millis(2500)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:02.5Z");
        assert_eq!(fast.now().to_string(), "2026-01-01T01:00:02.5Z");
    }
}
