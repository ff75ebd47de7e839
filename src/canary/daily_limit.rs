//! The limit of pairs in 24 hours.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Times that are kept, which is also the highest limit.
pub(super) const MAX_TIMES: usize = 10_000;

/// When pairs were sent in the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DailyLimit {
    /// Sorted.
    sent: VecDeque<Timestamp>,
}

impl DailyLimit {
    /// As saved. A time after `now`, from before the clock was set back, counts as `now`: otherwise it would count for as long as
    /// the clock was wrong.
    pub fn restored(sent: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Self {
        let mut sent: Vec<_> = sent.into_iter().map(|at| at.min(now)).collect();
        sent.sort_unstable();
        let surplus = sent.len().saturating_sub(MAX_TIMES);
        Self { sent: sent.into_iter().skip(surplus).collect() }
    }

    /// Whether another pair may be sent now; then it counts.
    pub fn admit(&mut self, per_day: usize, now: Timestamp) -> bool {
        self.sent.retain(|at| now - *at < DAY);
        let is_free = self.sent.len() < per_day.min(MAX_TIMES);
        if is_free {
            self.sent.push_back(now);
        }
        is_free
    }

    /// When the latest pair was sent, if that is known.
    pub fn last(&self) -> Option<Timestamp> {
        self.sent.back().copied()
    }

    pub fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.sent.iter().copied()
    }
}
