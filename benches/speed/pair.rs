//! Two ways of doing the same, measured in turn within one run, so that a ratio holds when the machine's speed
//! drifts.

use std::time::{Duration, Instant};

/// What two ways cost, round by round.
pub(crate) struct Pair {
    rounds: Vec<(Duration, Duration)>,
}

/// Runs `ours` and `theirs` in turn, each `repeats` times a round, after one round that does not count. Which of them
/// comes first changes from round to round.
pub(crate) fn measure(
    rounds: usize,
    repeats: u32,
    mut ours: impl FnMut() -> anyhow::Result<()>,
    mut theirs: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Pair> {
    let timed = |work: &mut dyn FnMut() -> anyhow::Result<()>| {
        let start = Instant::now();
        for _ in 0..repeats {
            work()?;
        }
        anyhow::Ok(start.elapsed() / repeats)
    };
    let mut measured = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let pair = if round % 2 == 0 {
            let ours = timed(&mut ours)?;
            (ours, timed(&mut theirs)?)
        } else {
            let theirs = timed(&mut theirs)?;
            (timed(&mut ours)?, theirs)
        };
        if round > 0 {
            measured.push(pair);
        }
    }
    Ok(Pair { rounds: measured })
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

/// The median; zero of nothing.
fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}
