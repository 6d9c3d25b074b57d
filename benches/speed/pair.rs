//! Two ways of doing the same, measured in turn within one run, so that a ratio holds when the machine's speed
//! drifts.

use std::time::{Duration, Instant};

/// What two ways cost, round by round.
pub(crate) struct Pair {
    rounds: Vec<(Duration, Duration)>,
}

/// Runs `ours` and `theirs` in turn, each `repeats` times a round, after one round that does not count.
pub(crate) fn measure(rounds: usize, repeats: u32, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> Pair {
    let timed = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..repeats {
            work();
        }
        start.elapsed() / repeats
    };
    let rounds = (0..=rounds)
        .map(|_| (timed(&mut ours), timed(&mut theirs)))
        .skip(1)
        .collect();
    Pair { rounds }
}

impl Pair {
    /// The median of our way.
    pub(crate) fn ours(&self) -> Duration {
        median(self.rounds.iter().map(|(ours, _)| *ours).collect())
    }

    /// The median of the other way.
    pub(crate) fn theirs(&self) -> Duration {
        median(self.rounds.iter().map(|(_, theirs)| *theirs).collect())
    }

    /// The median of the rounds' ratios: how many times longer the other way takes.
    pub(crate) fn times_faster(&self) -> f64 {
        let mut ratios: Vec<_> = self
            .rounds
            .iter()
            .map(|(ours, theirs)| theirs.as_secs_f64() / ours.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
