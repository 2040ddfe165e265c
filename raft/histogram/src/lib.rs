//! Stands in for the crate of this name, of which openraft calls three types, to save memory.
//!
//! openraft counts the sizes of its batches. The published crate keeps, for that, tables of every bucket width it
//! supports, of which openraft uses one: 26 MB of a daemon that otherwise needs 15 MB (measured with malloc probes on
//! version 0.2.3). Matriarch shows none of these counts. This one has a bucket per power of two, which is exact enough
//! for the log line that openraft can print, and is chosen by `[patch]` in the workspace's `Cargo.toml`. When openraft
//! drops the dependency or the tables become small, delete this folder and that line; nothing else mentions it.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for zero and one for each power of two of a `u64`.
const BUCKETS: usize = 65;

/// How often values of each magnitude were recorded. The parameter is the slot label of the published crate, which
/// openraft leaves at `()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: [u64; BUCKETS],
    label: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Histogram<T> {
        Histogram {
            buckets: [0; BUCKETS],
            label: PhantomData,
        }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = u64::BITS - value.leading_zeros();
        if let Some(held) = self.buckets.get_mut(bucket as usize) {
            *held = held.saturating_add(count);
        }
    }

    /// Number of samples and the largest value of the bucket in which each percentile lies.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self
            .buckets
            .iter()
            .fold(0_u64, |sum, held| sum.saturating_add(*held));
        let at = |permille: u64| self.at(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    fn at(&self, samples: u64, permille: u64) -> u64 {
        let wanted = u128::from(samples) * u128::from(permille);
        let mut seen = 0_u128;
        for (bucket, held) in self.buckets.iter().enumerate() {
            seen += u128::from(*held);
            if *held > 0 && seen * 1000 >= wanted {
                return u64::MAX.checked_shr(u64::BITS - bucket as u32).unwrap_or(0);
            }
        }
        0
    }
}

/// A few percentiles, in the unit that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "n={} p50={} p90={} p99={} p99.9={}",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// The lines that the published crate draws as bars: one histogram a line.
#[derive(Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more line.
    #[must_use]
    #[allow(clippy::should_implement_trait, clippy::needless_pass_by_value)]
    pub fn add(mut self, name: &str, histogram: Histogram) -> AsciiChart {
        self.lines.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines
            .iter()
            .try_for_each(|(name, stats)| writeln!(to, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_end_of_its_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        histogram.record_n(0, 5);
        histogram.record_n(6, 94);
        histogram.record(u64::MAX);
        let stats = histogram.percentile_stats();
        assert_eq!(
            (stats.samples, stats.p1, stats.p50, stats.p99_9),
            (100, 0, 7, u64::MAX)
        );
    }
}
