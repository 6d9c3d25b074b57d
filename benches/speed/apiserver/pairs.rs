//! Durations of the same write in several namespaces, round by round.

use std::time::Duration;

/// Into how many parts a run is divided, to see how much a ratio differs from one to the next.
pub(super) const PARTS: usize = 5;

/// What each namespace's writes took, in seconds: one list for each namespace, one entry for each round.
pub(super) struct Series(Vec<Vec<f64>>);

impl Series {
    /// An empty one for this many namespaces.
    pub(super) fn of(namespaces: usize) -> Self {
        Self(vec![Vec::new(); namespaces])
    }

    /// Adds what the next write in a namespace took.
    pub(super) fn note(&mut self, namespace: usize, took: Duration) {
        self.0[namespace].push(took.as_secs_f64());
    }

    pub(super) fn rounds(&self) -> usize {
        self.0[0].len()
    }

    pub(super) fn median(&self, namespace: usize) -> f64 {
        median(&self.0[namespace])
    }

    /// How many times as long as in the first namespace: over the whole run, and the least and the most of its parts.
    pub(super) fn ratio(&self, namespace: usize) -> (f64, f64, f64) {
        let part = (self.rounds() / PARTS).max(1);
        let ratios = self.0[namespace]
            .chunks_exact(part)
            .zip(self.0[0].chunks_exact(part))
            .map(|(own, nothing)| median(own) / median(nothing));
        let (least, most) = ratios.fold((f64::INFINITY, 0.0_f64), |(least, most), ratio| {
            (least.min(ratio), most.max(ratio))
        });
        (self.median(namespace) / self.median(0), least, most)
    }
}

/// The median; zero of nothing.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
