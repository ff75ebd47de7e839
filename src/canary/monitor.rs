//! The results of all pairs of a site, and what they say at present.

use std::time::Duration;

use super::delivery::CanaryDelivery;
use super::judgement::HeaderJudgement;
use super::marks::Mark;
use super::outcome::{CanaryOutcome, Comparison};
use super::pairs::{CanaryPair, CanaryPairs, MarkedWhere, PairResult};
use super::saved::{SavedCanaries, SavedPairs};
use super::token::{CanaryDirection, CanaryToken, MAX_CLOCK_SKEW, PairId};
use crate::addr::Family;
use crate::time::Timestamp;

/// Collects reports and keeps the latest result of each direction.
#[derive(Debug)]
pub struct CanaryMonitor {
    pairs: CanaryPairs,
    /// By [`CanaryDirection::index`].
    latest: [Option<PairResult>; CanaryDirection::ALL.len()],
    /// Age beyond which a result no longer counts.
    max_age: Duration,
}

/// The result of the latest pair of a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryStatus {
    pub direction: CanaryDirection,
    /// Unknown without a result, and with one that is too old.
    pub comparison: Comparison,
    /// When the latest pair was complete; `None` before the first.
    pub at: Option<Timestamp>,
    pub ipv4: CanaryOutcome,
    pub ipv6: CanaryOutcome,
    /// The first mark of the message that was treated worse, and where the filter stands.
    pub mark: Option<(Mark, MarkedWhere)>,
    /// Pairs that wait for reports.
    pub waiting: usize,
}

impl CanaryMonitor {
    pub fn new(timeout: Duration, max_age: Duration) -> Self {
        Self { pairs: CanaryPairs::new(timeout), latest: [None, None], max_age }
    }

    /// Replaces the time for reports, and the age beyond which a result no longer counts.
    pub const fn set_times(&mut self, timeout: Duration, max_age: Duration) {
        self.pairs.set_timeout(timeout);
        self.max_age = max_age;
    }

    /// Drops the results and pairs of a direction: they are about another mailbox.
    pub fn forget(&mut self, direction: CanaryDirection) {
        if let Some(latest) = self.latest.get_mut(direction.index()) {
            *latest = None;
        }
        self.pairs.forget(direction);
    }

    /// Adds its part of the state that is saved.
    pub fn save(&self, saved: &mut SavedCanaries) {
        for direction in CanaryDirection::ALL {
            let latest = self.latest.get(direction.index()).cloned().flatten();
            saved.direction_mut(direction).latest = latest;
        }
        let (open, ended) = self.pairs.saved();
        saved.pairs = SavedPairs { open, ended };
    }

    /// Goes on from a saved state. Pairs and results from the future are dropped: the clock was wrong then, and a result would hide
    /// the newer ones.
    pub fn restore(&mut self, saved: SavedCanaries, now: Timestamp) {
        let is_past = |sent: Timestamp| sent <= now + MAX_CLOCK_SKEW;
        let SavedPairs { mut open, mut ended } = saved.pairs;
        open.retain(|pair| is_past(pair.sent));
        ended.retain(|(_, sent)| is_past(*sent));
        self.pairs.restore(open, ended, now);
        for result in [saved.inbound.latest, saved.outbound.latest].into_iter().flatten() {
            if is_past(result.pair.sent) && is_past(result.at) {
                self.keep(Some(result));
            }
        }
    }

    /// Returns the result, if the delivery completes the pair.
    pub fn on_delivery(
        &mut self,
        token: CanaryToken,
        delivery: CanaryDelivery,
        now: Timestamp,
    ) -> Option<PairResult> {
        let result = self.pairs.on_delivery(token, delivery, now);
        self.keep(result)
    }

    /// Likewise, for a message that passed the gateway.
    pub fn on_passed(
        &mut self,
        token: CanaryToken,
        judgement: HeaderJudgement,
        now: Timestamp,
    ) -> Option<PairResult> {
        let result = self.pairs.on_passed(token, judgement, now);
        self.keep(result)
    }

    /// Likewise, for a message that arrived.
    pub fn on_received(
        &mut self,
        token: CanaryToken,
        judgement: HeaderJudgement,
        received: Timestamp,
        now: Timestamp,
    ) -> Option<PairResult> {
        let result = self.pairs.on_received(token, judgement, received, now);
        self.keep(result)
    }

    /// The results of pairs whose time for reports is over.
    pub fn expire(&mut self, now: Timestamp) -> Vec<PairResult> {
        let results = self.pairs.expire(now);
        for result in &results {
            self.keep(Some(result.clone()));
        }
        results
    }

    /// An older pair that ends later changes nothing.
    fn keep(&mut self, result: Option<PairResult>) -> Option<PairResult> {
        let new = result?;
        if let Some(latest) = self.latest.get_mut(new.pair.direction.index())
            && latest.as_ref().is_none_or(|old| old.pair.sent <= new.pair.sent)
        {
            *latest = Some(new.clone());
        }
        Some(new)
    }

    /// The pairs of a direction that wait for reports.
    pub fn waiting(&self, direction: CanaryDirection) -> Vec<PairId> {
        let of_direction = self.pairs.open().filter(|pair| pair.direction == direction);
        of_direction.map(|pair| pair.id).collect()
    }

    pub fn status(&self, direction: CanaryDirection, now: Timestamp) -> CanaryStatus {
        let latest = self.latest.get(direction.index()).and_then(Option::as_ref);
        let pair = latest.map(|result| &result.pair);
        let is_current = latest.is_some_and(|result| now - result.at <= self.max_age);
        let comparison = pair.filter(|_| is_current).map(CanaryPair::comparison);
        let comparison = comparison.unwrap_or(Comparison::Unknown);
        let worse = match comparison {
            Comparison::Ipv6Worse => Some(Family::Ipv6),
            Comparison::Ipv4Worse => Some(Family::Ipv4),
            Comparison::Equal | Comparison::Unknown => None,
        };
        let mark = worse.zip(pair).and_then(|(family, pair)| {
            let half = pair.half(family);
            let (_, judgement) = half.received.as_ref()?;
            Some((judgement.marks.first()?.clone(), half.marked_where()?))
        });
        let outcome =
            |family| pair.map_or(CanaryOutcome::Unknown, |pair| pair.half(family).outcome());
        CanaryStatus {
            direction,
            comparison,
            at: latest.map(|result| result.at),
            ipv4: outcome(Family::Ipv4),
            ipv6: outcome(Family::Ipv6),
            mark,
            waiting: self.pairs.open().filter(|pair| pair.direction == direction).count(),
        }
    }
}

impl CanaryStatus {
    pub const fn outcome(&self, family: Family) -> CanaryOutcome {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Whether mail of `family` is accepted and then filtered away, while the other family's is not. A refusal is not meant:
    /// its sender learns of it, and the closed door of a family causes one itself.
    pub fn is_filtered(&self, family: Family) -> bool {
        let is_worse = match family {
            Family::Ipv4 => self.comparison == Comparison::Ipv4Worse,
            Family::Ipv6 => self.comparison == Comparison::Ipv6Worse,
        };
        is_worse && matches!(self.outcome(family), CanaryOutcome::MarkedSpam | CanaryOutcome::Lost)
    }

    /// Such as `by rspamd (X-Spam: Yes), behind the gateway`.
    pub fn marked_by(&self) -> Option<String> {
        let (mark, place) = self.mark.as_ref()?;
        let place = match place {
            MarkedWhere::BeforeGateway => ", before the gateway",
            MarkedWhere::BehindGateway => ", behind the gateway",
            MarkedWhere::Unknown => "",
        };
        let field = match mark.field.as_str() {
            "" => mark.value.clone(),
            field => format!("{field}: {}", mark.value),
        };
        Some(format!("by {} ({field}){place}", mark.by))
    }
}
