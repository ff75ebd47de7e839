//! Quantiles of durations in little room: counts in classes that are a fifth wide.

use std::ops::AddAssign;
use std::time::Duration;

/// From 10 µs by fifths to more than 500 s.
const CLASSES: usize = 99;

/// Where classes begin, in nanoseconds; the first takes what is below, too.
const FROM: [u64; CLASSES] = {
    let mut from = [10_000; CLASSES];
    let mut class = 1;
    while class < CLASSES {
        from[class] = from[class - 1] * 6 / 5;
        class += 1;
    }
    from
};

/// How many durations lay where. 404 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationHistogram {
    counts: [u32; CLASSES],
    total: u32,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: [0; CLASSES], total: 0 }
    }
}

impl DurationHistogram {
    pub fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let class = FROM.partition_point(|from| *from <= nanos).saturating_sub(1);
        if let Some(count) = self.counts.get_mut(class) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
        }
    }

    pub fn count(&self) -> u64 {
        u64::from(self.total)
    }

    /// The duration that `percent` of all do not exceed, to 10 %, for durations from 10 µs to 500 s; `None` without any.
    pub fn at(&self, percent: u8) -> Option<Duration> {
        let rank = (self.count() * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        // As far, by ratio, from where the class begins as from where it ends.
        FROM.get(class).map(|from| Duration::from_nanos(from * 12 / 11))
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
