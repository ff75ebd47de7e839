//! Counts of what passed in a time, of one family and direction.

use std::ops::AddAssign;

use super::fallback::{Fallback, FallbackReason};
use super::flow_summary::{FlowSummary, MessageCounts, StarttlsState};
use super::histogram::DurationHistogram;
use crate::addr::Side;
use crate::stream::FlowOutcome;
use crate::wire::IcmpKind;

/// What passed. Connections count when they are over. Some 1.2 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// By [`FlowOutcome::index`].
    pub outcomes: [u64; FlowOutcome::ALL.len()],
    pub handshakes: DurationHistogram,
    pub syn_retransmits: u64,
    /// Of both sides.
    pub data_segments: u64,
    /// Those of them that brought nothing new.
    pub retransmitted: u64,
    /// By [`Side::index`]: whose RST ended an established connection.
    pub resets: [u64; Side::ALL.len()],
    /// By [`IcmpKind::index`].
    pub icmp: [u64; IcmpKind::LABELS.len()],
    pub black_holes: u64,
    /// Connections on which either side said something of SMTP.
    pub sessions: u64,
    pub messages: MessageCounts,
    /// 2xx, 3xx, 4xx, 5xx.
    pub replies: [u64; 4],
    /// Sessions by [`StarttlsState::index`].
    pub tls: [u64; StarttlsState::ALL.len()],
    /// By [`FallbackReason::index`]; a race is none, see [`Self::fell_back`].
    pub fall_backs: [u64; FallbackReason::ALL.len()],
    /// From the first attempt over IPv6 to that over IPv4, races left out.
    pub fall_back_delays: DurationHistogram,
}

impl FlowCounts {
    pub(super) fn passed(&mut self, passed: &FlowSummary<'_>) {
        let flow = passed.flow;
        add_at(&mut self.outcomes, flow.outcome.index(), 1);
        if let Some(handshake) = flow.handshake {
            self.handshakes.add(handshake);
        }
        self.syn_retransmits += passed.syn_retransmits();
        self.data_segments += flow.data_segments.iter().sum::<u64>();
        self.retransmitted += flow.retransmits.iter().sum::<u64>();
        if let Some(side) = flow.reset_by {
            add_at(&mut self.resets, side.index(), 1);
        }
        add(&mut self.icmp, &flow.icmp_kinds);
        self.black_holes += u64::from(flow.black_hole);
        self.messages += &passed.messages;
        add(&mut self.replies, &passed.replies);
        if passed.spoke {
            self.sessions += 1;
            add_at(&mut self.tls, passed.tls.index(), 1);
        }
    }

    pub(super) fn fall_back(&mut self, told: &Fallback) {
        add_at(&mut self.fall_backs, told.why.index(), 1);
        if told.why != FallbackReason::Race {
            self.fall_back_delays.add(told.after);
        }
    }

    /// Connections of any outcome.
    pub fn connections(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    pub fn outcome(&self, outcome: FlowOutcome) -> u64 {
        self.outcomes.get(outcome.index()).copied().unwrap_or_default()
    }

    /// Clients that left IPv6 because it failed.
    pub fn fell_back(&self) -> u64 {
        let races = self.fall_backs.get(FallbackReason::Race.index()).copied().unwrap_or_default();
        self.fall_backs.iter().sum::<u64>() - races
    }
}

impl AddAssign<&Self> for FlowCounts {
    fn add_assign(&mut self, other: &Self) {
        add(&mut self.outcomes, &other.outcomes);
        self.handshakes += &other.handshakes;
        self.syn_retransmits += other.syn_retransmits;
        self.data_segments += other.data_segments;
        self.retransmitted += other.retransmitted;
        add(&mut self.resets, &other.resets);
        add(&mut self.icmp, &other.icmp);
        self.black_holes += other.black_holes;
        self.sessions += other.sessions;
        self.messages += &other.messages;
        add(&mut self.replies, &other.replies);
        add(&mut self.tls, &other.tls);
        add(&mut self.fall_backs, &other.fall_backs);
        self.fall_back_delays += &other.fall_back_delays;
    }
}

impl AddAssign<&Self> for MessageCounts {
    fn add_assign(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.tempfailed += other.tempfailed;
        self.rejected += other.rejected;
    }
}

fn add<const N: usize>(counts: &mut [u64; N], more: &[u64; N]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}

fn add_at<const N: usize>(counts: &mut [u64; N], index: usize, more: u64) {
    if let Some(count) = counts.get_mut(index) {
        *count += more;
    }
}
