//! Intervals between renewals, in bounded memory.

/// How many buckets there are for each doubling.
const BUCKETS_PER_DOUBLING: f64 = 16.0;

/// From a millisecond to some 12 days.
const DOUBLINGS: f64 = 30.0;

/// The shortest that is told apart, in seconds.
const SHORTEST: f64 = 0.001;

/// How often an interval was how long. The longest is exact, quantiles are right to 5 %.
#[derive(Clone, Debug, Default)]
pub struct Intervals {
    buckets: Vec<u32>,
    count: u64,
    longest: f64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a bucket's number is between 0 and 480"
)]
impl Intervals {
    /// Adds an interval, in seconds.
    pub fn add(&mut self, seconds: f64) {
        let place = (seconds.max(SHORTEST) / SHORTEST).log2().min(DOUBLINGS) * BUCKETS_PER_DOUBLING;
        let bucket = place as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.count += 1;
        self.longest = self.longest.max(seconds);
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, in seconds; `None` of none.
    pub fn longest(&self) -> Option<f64> {
        (self.count > 0).then_some(self.longest)
    }

    /// The interval than which this share of all is no longer, in seconds; `None` of none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            // The last bucket's greatest is known.
            if seen == self.count {
                return self.longest();
            }
            if seen >= wanted {
                let middle = (bucket as f64 + 0.5) / BUCKETS_PER_DOUBLING;
                return Some((SHORTEST * middle.exp2()).min(self.longest));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_twentieth_and_the_longest_exactly() {
        let mut intervals = Intervals::default();
        assert_eq!((intervals.longest(), intervals.quantile(0.5)), (None, None));
        for number in 1..=1000_u32 {
            intervals.add(f64::from(number) / 100.0);
        }
        intervals.add(123.456);
        assert_eq!((intervals.count(), intervals.longest()), (1001, Some(123.456)));
        for (share, expected) in [(0.5, 5.0), (0.99, 9.9), (0.1, 1.01)] {
            let found = intervals.quantile(share).unwrap();
            assert!(
                (found / expected - 1.0).abs() < 0.05,
                "{share}: {found} for {expected}"
            );
        }
        assert_eq!(intervals.quantile(1.0), Some(123.456));
    }

    #[test]
    fn what_is_out_of_range_is_counted_at_its_end() {
        let mut intervals = Intervals::default();
        for seconds in [0.0, -5.0, 1e12] {
            intervals.add(seconds);
        }
        assert_eq!((intervals.count(), intervals.longest()), (3, Some(1e12)));
        assert!(intervals.quantile(0.1).unwrap() < 0.002);
    }
}
