//! A number for each outcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::OutboundOutcome;

/// Attempts by outcome. As JSON an object of those that occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts([u64; OutboundOutcome::ALL.len()]);

impl OutcomeCounts {
    pub fn add(&mut self, outcome: OutboundOutcome) {
        self.0[outcome.index()] += 1;
    }

    pub const fn of(&self, outcome: OutboundOutcome) -> u64 {
        self.0[outcome.index()]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Outcomes that occurred, the most frequent first.
    pub fn most_frequent(&self) -> Vec<(OutboundOutcome, u64)> {
        let counts = OutboundOutcome::ALL.map(|outcome| (outcome, self.of(outcome)));
        let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

impl Serialize for OutcomeCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.most_frequent())
    }
}

impl<'de> Deserialize<'de> for OutcomeCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut counts = Self::default();
        for (outcome, count) in BTreeMap::<OutboundOutcome, u64>::deserialize(deserializer)? {
            counts.0[outcome.index()] = count;
        }
        Ok(counts)
    }
}
