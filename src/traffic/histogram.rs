//! Quantiles of durations in little memory: counts in exponential buckets.

use std::ops::AddAssign;
use std::time::Duration;

const BUCKETS: usize = 99;

/// Lower bounds in nanoseconds, from 10 µs to more than 500 s, each a fifth above the one before. The first bucket also
/// counts shorter durations.
const LOWER_BOUNDS: [u64; BUCKETS] = {
    let mut bounds = [10_000; BUCKETS];
    let mut bucket = 1;
    while bucket < BUCKETS {
        bounds[bucket] = bounds[bucket - 1] * 6 / 5;
        bucket += 1;
    }
    bounds
};

/// 404 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationHistogram {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl DurationHistogram {
    pub fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = LOWER_BOUNDS.partition_point(|bound| *bound <= nanos).saturating_sub(1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    pub fn count(&self) -> u64 {
        u64::from(self.total)
    }

    /// The duration that `percent` of all do not exceed, within 10 % for durations from 10 µs to 500 s; `None` if empty.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let rank = (self.count() * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        // About the geometric mean of the bucket's bounds.
        LOWER_BOUNDS.get(bucket).map(|bound| Duration::from_nanos(bound * 12 / 11))
    }
}

impl AddAssign<&Self> for DurationHistogram {
    fn add_assign(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.total = self.total.saturating_add(other.total);
    }
}
