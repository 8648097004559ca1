//! A histogram of durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The content of a [`Histogram`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Durations {
    /// The sum of all, in seconds.
    pub sum: f64,
    /// The number of all.
    pub count: u64,
    /// The number in each bucket alone, with its upper bound in seconds, infinite for the last.
    pub buckets: Vec<(f64, u64)>,
}

/// Upper bounds in seconds and in microseconds: from a HEAD that a store answers to a blob that is
/// pushed over a slow connection.
const BOUNDS: [(f64, u64); 14] = [
    (0.001, 1_000),
    (0.005, 5_000),
    (0.01, 10_000),
    (0.025, 25_000),
    (0.05, 50_000),
    (0.1, 100_000),
    (0.25, 250_000),
    (0.5, 500_000),
    (1.0, 1_000_000),
    (2.5, 2_500_000),
    (10.0, 10_000_000),
    (60.0, 60_000_000),
    (300.0, 300_000_000),
    (1800.0, 1_800_000_000),
];

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            micros: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(_, bound)| *bound < micros);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The current content.
    pub(crate) fn read(&self) -> Durations {
        let bounds = BOUNDS
            .iter()
            .map(|(bound, _)| *bound)
            .chain([f64::INFINITY]);
        let counts = self
            .buckets
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Summed over the same reads, so that the last cumulative bucket is the count.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        Durations {
            sum,
            count,
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_longer_to_the_last() {
        let histogram = Histogram::new();
        for micros in [0, 1_000, 1_001, 1_800_000_000, 1_800_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let read = histogram.read();
        let filled: Vec<_> = read
            .buckets
            .iter()
            .filter(|(_, count)| *count > 0)
            .copied()
            .collect();
        assert_eq!(
            filled,
            [(0.001, 2), (0.005, 1), (1800.0, 1), (f64::INFINITY, 1)]
        );
        assert_eq!(read.count, 5);
        assert!((read.sum - 3_600.002_002).abs() < 1e-6, "{}", read.sum);
    }

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (seconds, micros) in BOUNDS {
            assert_eq!(
                Duration::from_secs_f64(seconds),
                Duration::from_micros(micros)
            );
        }
    }
}
