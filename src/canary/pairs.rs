//! Pairs of canaries whose result is not complete, and the results.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::delivery::CanaryDelivery;
use super::judgement::HeaderJudgement;
use super::outcome::{CanaryOutcome, Comparison};
use super::token::{CanaryDirection, CanaryToken, MAX_AGE, PairId};
use crate::addr::Family;
use crate::label::labels;
use crate::time::Timestamp;

/// Pairs that are kept; beyond it the oldest is given up as unknown.
const MAX_PAIRS: usize = 256;
/// Pairs that are saved with all that is known of them, up to some 40 KB each.
const MAX_SAVED: usize = 64;
/// Pairs that are saved as ended.
const MAX_SAVED_ENDED: usize = 4096;

labels! {
    /// Where a filter stands that marked a message.
    pub enum MarkedWhere {
        /// The message had the mark when it passed the gateway.
        BeforeGateway = "before_gateway",
        /// It was added later.
        BehindGateway = "behind_gateway",
        /// The message was not seen at the gateway.
        Unknown = "unknown",
    }
}

/// What is known of one message of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairHalf {
    pub delivery: Option<CanaryDelivery>,
    /// Its header section when it passed the gateway.
    pub passed: Option<HeaderJudgement>,
    /// When it was received, and its header section then.
    pub received: Option<(Timestamp, HeaderJudgement)>,
}

impl PairHalf {
    /// Whether no later report can change the outcome.
    pub fn is_settled(&self) -> bool {
        self.settled().is_some()
    }

    /// Whether the message was sent and accepted.
    pub fn is_accepted(&self) -> bool {
        self.delivery.as_ref().is_some_and(CanaryDelivery::is_accepted)
    }

    /// The outcome, as soon as no later report can change it.
    fn settled(&self) -> Option<CanaryOutcome> {
        match (&self.received, &self.delivery) {
            (Some((_, judgement)), _) => Some(judgement.outcome()),
            // A message may be accepted although the reply to it was lost.
            (None, Some(delivery)) => {
                delivery.outcome().filter(|_| delivery.code.is_some() || self.passed.is_none())
            }
            (None, None) => None,
        }
    }

    /// The outcome when the time for reports is over. A message is lost if it is known to have been sent.
    pub fn outcome(&self) -> CanaryOutcome {
        self.settled().unwrap_or(match (&self.delivery, &self.passed) {
            (None, None) => CanaryOutcome::Unknown,
            _ => CanaryOutcome::Lost,
        })
    }

    /// Where the filter stands that marked the received message.
    pub fn marked_where(&self) -> Option<MarkedWhere> {
        let (_, received) = self.received.as_ref()?;
        if received.marks.is_empty() {
            return None;
        }
        Some(match &self.passed {
            None => MarkedWhere::Unknown,
            Some(passed) if passed.outcome() >= received.outcome() => MarkedWhere::BeforeGateway,
            Some(_) => MarkedWhere::BehindGateway,
        })
    }
}

/// Two messages that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPair {
    pub id: PairId,
    pub direction: CanaryDirection,
    pub sent: Timestamp,
    pub ipv4: PairHalf,
    pub ipv6: PairHalf,
}

impl CanaryPair {
    pub fn new(id: PairId, direction: CanaryDirection, sent: Timestamp) -> Self {
        Self { id, direction, sent, ipv4: PairHalf::default(), ipv6: PairHalf::default() }
    }

    pub const fn token(&self, family: Family) -> CanaryToken {
        CanaryToken { pair: self.id, family, direction: self.direction, sent: self.sent }
    }

    pub const fn half(&self, family: Family) -> &PairHalf {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub const fn half_mut(&mut self, family: Family) -> &mut PairHalf {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }

    /// Compares what is known, as if the time for reports were over.
    pub fn comparison(&self) -> Comparison {
        Comparison::of(self.ipv4.outcome(), self.ipv6.outcome())
    }

    /// Compares the replies to the messages only: two that were accepted are equal, whatever becomes of them.
    pub fn comparison_of_deliveries(&self) -> Comparison {
        let outcome = |half: &PairHalf| match &half.delivery {
            None => CanaryOutcome::Unknown,
            Some(delivery) => delivery.outcome().unwrap_or(CanaryOutcome::Clean),
        };
        Comparison::of(outcome(&self.ipv4), outcome(&self.ipv6))
    }

    fn is_settled(&self) -> bool {
        self.ipv4.is_settled() && self.ipv6.is_settled()
    }
}

/// A pair whose result does not change any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairResult {
    pub pair: CanaryPair,
    pub at: Timestamp,
}

/// Pairs that wait for reports.
#[derive(Debug)]
pub struct CanaryPairs {
    /// Time for reports, from the sending on.
    timeout: Duration,
    open: BTreeMap<PairId, CanaryPair>,
    /// Nobody could report before this time, that of the restart.
    resumed_at: Timestamp,
    /// Ended in the time in which a canary is valid, so that a repeated report opens no new pair.
    ended: BTreeMap<PairId, Timestamp>,
}

impl CanaryPairs {
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            open: BTreeMap::new(),
            resumed_at: Timestamp::default(),
            ended: BTreeMap::new(),
        }
    }

    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// A message was sent, or could not be.
    pub fn on_delivery(
        &mut self,
        token: CanaryToken,
        delivery: CanaryDelivery,
        now: Timestamp,
    ) -> Option<PairResult> {
        self.update(token, now, |half| half.delivery = Some(delivery))
    }

    /// A message passed the gateway.
    pub fn on_passed(
        &mut self,
        token: CanaryToken,
        judgement: HeaderJudgement,
        now: Timestamp,
    ) -> Option<PairResult> {
        self.update(token, now, |half| {
            half.passed.get_or_insert(judgement);
        })
    }

    /// A message was received. The first report of a message counts.
    pub fn on_received(
        &mut self,
        token: CanaryToken,
        judgement: HeaderJudgement,
        received: Timestamp,
        now: Timestamp,
    ) -> Option<PairResult> {
        self.update(token, now, |half| {
            half.received.get_or_insert((received, judgement));
        })
    }

    fn update(
        &mut self,
        token: CanaryToken,
        now: Timestamp,
        change: impl FnOnce(&mut PairHalf),
    ) -> Option<PairResult> {
        if self.ended.contains_key(&token.pair) {
            return None;
        }
        let pair = self.open.entry(token.pair);
        let pair = pair.or_insert_with(|| CanaryPair::new(token.pair, token.direction, token.sent));
        change(pair.half_mut(token.family));
        let id = pair.is_settled().then_some(token.pair)?;
        self.end(id, now)
    }

    /// The pairs whose time is over.
    pub fn expire(&mut self, now: Timestamp) -> Vec<PairResult> {
        self.ended.retain(|_, sent| now - *sent <= MAX_AGE);
        let mut over: Vec<(Timestamp, PairId)> = self
            .open
            .values()
            .filter(|pair| {
                let waiting_since = pair.sent.max(self.resumed_at);
                now - waiting_since > self.timeout || now - pair.sent > MAX_AGE
            })
            .map(|pair| (pair.sent, pair.id))
            .collect();
        over.sort();
        if over.is_empty() && self.open.len() > MAX_PAIRS {
            over.extend(self.open.values().map(|pair| (pair.sent, pair.id)).min());
        }
        over.into_iter().filter_map(|(_, id)| self.end(id, now)).collect()
    }

    fn end(&mut self, id: PairId, now: Timestamp) -> Option<PairResult> {
        let pair = self.open.remove(&id)?;
        self.ended.insert(id, pair.sent);
        Some(PairResult { pair, at: now })
    }

    /// The latest pairs that wait for reports, and the latest that ended, with the time at which they were sent.
    pub fn saved(&self) -> (Vec<CanaryPair>, Vec<(PairId, Timestamp)>) {
        let mut open: Vec<_> = self.open.values().collect();
        open.sort_by_key(|pair| Reverse(pair.sent));
        let mut ended: Vec<_> = self.ended.iter().map(|(id, sent)| (*id, *sent)).collect();
        ended.sort_by_key(|(_, sent)| Reverse(*sent));
        ended.truncate(MAX_SAVED_ENDED);
        (open.into_iter().take(MAX_SAVED).cloned().collect(), ended)
    }

    /// Goes on at `now` from what an earlier process saved. The time for reports begins again: while the gateway did not run,
    /// nobody could report, and a message must not be lost for that.
    pub fn restore(
        &mut self,
        open: Vec<CanaryPair>,
        ended: Vec<(PairId, Timestamp)>,
        now: Timestamp,
    ) {
        self.resumed_at = now;
        self.ended.extend(ended.into_iter().take(MAX_SAVED_ENDED));
        for pair in open.into_iter().take(MAX_SAVED) {
            if !self.ended.contains_key(&pair.id) {
                self.open.insert(pair.id, pair);
            }
        }
    }

    /// Gives up the pairs of a direction.
    pub fn forget(&mut self, direction: CanaryDirection) {
        self.open.retain(|_, pair| pair.direction != direction);
    }

    pub fn is_open(&self, id: PairId) -> bool {
        self.open.contains_key(&id)
    }

    /// The pairs that wait for reports.
    pub fn open(&self) -> impl Iterator<Item = &CanaryPair> {
        self.open.values()
    }
}
