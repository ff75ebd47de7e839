//! SYNs that `tproxy` took and that did not reach the listener, of one family. Pure functions of counters and time.

use std::time::{Duration, Instant};

/// So many SYNs in a row without an arrival raise the suspicion that all are lost.
const SUSPICIOUS: u64 = 3;
/// From so many sources, if SYNs arrived before: then a firewall may have banned some.
const SOURCES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    None,
    /// All SYNs since the start were lost, so many.
    All(u64),
    /// So many SYNs in a row since the latest arrival: certain if they came from several sources since then.
    Sources {
        syns: u64,
        age: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossDetector {
    taken: u64,
    arrived: u64,
    /// `taken` at the latest arrival.
    taken_at_arrival: u64,
    /// Since the start, or since all were lost.
    last_arrival: Option<Instant>,
    balance: LossBalance,
}

impl LossDetector {
    /// Counts since the start; returns the number of SYNs that were lost meanwhile, for the metrics.
    pub(super) fn on_counts(&mut self, taken: u64, arrived: u64, now: Instant) -> u64 {
        if arrived > self.arrived {
            self.taken_at_arrival = taken;
            self.last_arrival = Some(now);
        }
        (self.taken, self.arrived) = (taken, arrived);
        self.balance.on_counts(taken, arrived)
    }

    pub(super) fn suspicion(&self, now: Instant) -> Suspicion {
        let syns = self.taken.saturating_sub(self.taken_at_arrival);
        match self.last_arrival {
            _ if syns < SUSPICIOUS => Suspicion::None,
            None => Suspicion::All(syns),
            Some(at) => Suspicion::Sources { syns, age: now.saturating_duration_since(at) },
        }
    }

    pub(super) const fn is_certain(sources: usize) -> bool {
        sources >= SOURCES
    }

    /// The rules are new, or all was lost: a trial begins.
    pub(super) fn restart(&mut self, forget_arrivals: bool) {
        self.taken_at_arrival = self.taken;
        if forget_arrivals {
            self.last_arrival = None;
        }
    }

    pub(super) const fn has_arrival(&self) -> bool {
        self.last_arrival.is_some()
    }
}

/// Both counters are not read at the same moment, and the listener's request socket takes a repeated SYN, which then only
/// arrives. So a SYN is lost if it is missing in two readings in a row.
#[derive(Clone, Copy, Debug, Default)]
struct LossBalance {
    missing_before: i64,
    counted: i64,
}

impl LossBalance {
    fn on_counts(&mut self, taken: u64, arrived: u64) -> u64 {
        let as_signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let missing = as_signed(taken) - as_signed(arrived);
        let certain = missing.min(self.missing_before);
        let more = certain - self.counted;
        if more > 0 {
            self.counted = certain;
        } else {
            // Surplus arrivals must not hide later losses.
            self.counted = self.counted.min(missing.max(self.missing_before));
        }
        self.missing_before = missing;
        u64::try_from(more).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(readings: &[(u64, u64)]) -> u64 {
        let mut balance = LossBalance::default();
        readings.iter().map(|&(taken, arrived)| balance.on_counts(taken, arrived)).sum()
    }

    #[test]
    fn a_syn_is_lost_if_it_is_missing_twice() {
        assert_eq!(lost(&[(1, 0), (1, 1), (5, 4), (5, 5)]), 0, "read between both rules");
        assert_eq!(lost(&[(1, 0), (1, 0)]), 1);
        assert_eq!(lost(&[(3, 0), (5, 0), (5, 0), (5, 0)]), 5);
        assert_eq!(lost(&[(5, 2), (6, 3), (7, 4)]), 3, "some are lost");
        // Repeated SYNs that only arrive, then a real loss.
        assert_eq!(lost(&[(2, 4), (2, 4), (3, 4), (3, 4)]), 1);
    }

    #[test]
    fn three_syns_without_any_arrival_are_suspicious() {
        let (mut detector, now) = (LossDetector::default(), Instant::now());
        detector.on_counts(2, 0, now);
        assert_eq!(detector.suspicion(now), Suspicion::None);
        detector.on_counts(3, 0, now);
        assert_eq!(detector.suspicion(now), Suspicion::All(3));
        detector.restart(true);
        assert_eq!(detector.suspicion(now), Suspicion::None);
    }

    #[test]
    fn after_an_arrival_several_sources_are_needed() {
        let (mut detector, start) = (LossDetector::default(), Instant::now());
        detector.on_counts(1, 1, start);
        detector.on_counts(3, 1, start);
        assert_eq!(detector.suspicion(start), Suspicion::None);
        let later = start + Duration::from_secs(9);
        detector.on_counts(4, 1, later);
        let age = Duration::from_secs(9);
        assert_eq!(detector.suspicion(later), Suspicion::Sources { syns: 3, age });
        assert!(!LossDetector::is_certain(2) && LossDetector::is_certain(3));
        // Some arrive: others are banned.
        detector.on_counts(9, 2, later);
        assert_eq!(detector.suspicion(later), Suspicion::None);
    }
}
