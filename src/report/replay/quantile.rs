//! Quantiles of durations in fixed room: counts of classes that are 3 % wide.

use std::time::Duration;

/// Classes of each power of two.
const CLASSES: usize = 32;
const BITS: u32 = CLASSES.ilog2();

/// 15 KiB, however many durations it has seen.
#[derive(Clone, Debug)]
pub(super) struct Quantiles {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { counts: vec![0; CLASSES * (65 - BITS as usize)], total: 0 }
    }
}

impl Quantiles {
    pub(super) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(class(nanos)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The duration that `percent` of all do not exceed, to 3 %; `None` without any.
    pub(super) fn at(&self, percent: u64) -> Option<Duration> {
        let rank = (self.total.saturating_mul(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(highest(class)))
    }
}

/// The leading bits of `nanos`, and how many follow.
fn class(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    (shift as usize) * CLASSES + usize::try_from(nanos >> shift).unwrap_or(usize::MAX)
}

/// The largest of its class.
fn highest(class: usize) -> u64 {
    let shift = (class / CLASSES).saturating_sub(1);
    let first = ((class - shift * CLASSES) as u64) << shift;
    first | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_narrow() {
        for bit in 0..64 {
            for nanos in [1 << bit, (1u64 << bit).saturating_sub(1), (1 << bit) | (1 << (bit / 2))]
            {
                let highest = highest(class(nanos));
                assert!(highest >= nanos && highest - nanos <= nanos / 32, "{nanos}: {highest}");
            }
        }
        assert_eq!(highest(class(u64::MAX)), u64::MAX);
        Quantiles::default().add(Duration::MAX);
    }

    #[test]
    fn nearest_rank() {
        let mut quantiles = Quantiles::default();
        assert_eq!(quantiles.at(50), None);
        (1..=20).for_each(|nanos| quantiles.add(Duration::from_nanos(nanos)));
        assert_eq!(quantiles.at(50), Some(Duration::from_nanos(10)));
        assert_eq!(quantiles.at(95), Some(Duration::from_nanos(19)));
        let mut one = Quantiles::default();
        one.add(Duration::from_nanos(7));
        assert_eq!((one.at(50), one.at(95)), (one.at(1), Some(Duration::from_nanos(7))));
    }
}
