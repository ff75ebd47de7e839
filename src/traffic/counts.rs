//! Counts of finished flows in a period, of one family and direction.

use std::ops::AddAssign;

use super::fallback::{DeliveryOutcome, Fallback, FallbackReason};
use super::flow_summary::{FlowSummary, MessageCounts, StarttlsState};
use super::histogram::DurationHistogram;
use crate::stream::FlowOutcome;
use crate::wire::IcmpKind;

/// Connections count when they are finished. About 1.2 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// By [`FlowOutcome::index`].
    pub outcomes: [u64; FlowOutcome::ALL.len()],
    pub handshakes: DurationHistogram,
    pub syn_retransmits: u64,
    /// Of both sides.
    pub data_segments: u64,
    /// Those without new data.
    pub retransmitted: u64,
    /// Connections that a RST ended for no reason that is seen: neither a message was decided nor the session over.
    pub broken_off: u64,
    /// By [`IcmpKind::index`].
    pub icmp: [u64; IcmpKind::LABELS.len()],
    pub black_holes: u64,
    /// Connections with at least one SMTP command or reply.
    pub sessions: u64,
    pub messages: MessageCounts,
    /// By class: 2xx, 3xx, 4xx, 5xx.
    pub replies: [u64; 4],
    /// Sessions by [`StarttlsState::index`].
    pub tls: [u64; StarttlsState::ALL.len()],
    /// By [`FallbackReason::index`]. A race is not a failure, see [`Self::fell_back`].
    pub fallbacks: [u64; FallbackReason::ALL.len()],
    /// From the start of the IPv6 attempt to that of the IPv4 attempt, without races.
    pub fallback_delays: DurationHistogram,
}

impl FlowCounts {
    pub(super) fn add_flow(&mut self, summary: &FlowSummary<'_>) {
        let flow = summary.flow;
        add_at(&mut self.outcomes, flow.outcome.index(), 1);
        if let Some(handshake) = flow.handshake {
            self.handshakes.add(handshake);
        }
        self.syn_retransmits += summary.syn_retransmits();
        self.data_segments += flow.data_segments.iter().sum::<u64>();
        self.retransmitted += flow.retransmits.iter().sum::<u64>();
        self.broken_off += u64::from(summary.outcome == DeliveryOutcome::Reset);
        add(&mut self.icmp, &flow.icmp_kinds);
        self.black_holes += u64::from(flow.black_hole);
        self.messages += &summary.messages;
        add(&mut self.replies, &summary.replies);
        if summary.is_smtp {
            self.sessions += 1;
            add_at(&mut self.tls, summary.tls.index(), 1);
        }
    }

    pub(super) fn add_fallback(&mut self, fallback: &Fallback) {
        add_at(&mut self.fallbacks, fallback.why.index(), 1);
        if fallback.why != FallbackReason::Race {
            self.fallback_delays.add(fallback.after);
        }
    }

    /// Connections of any outcome.
    pub fn connections(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    pub fn outcome(&self, outcome: FlowOutcome) -> u64 {
        self.outcomes.get(outcome.index()).copied().unwrap_or_default()
    }

    /// Clients that changed to IPv4 because IPv6 failed.
    pub fn fell_back(&self) -> u64 {
        let races = self.fallbacks.get(FallbackReason::Race.index()).copied().unwrap_or_default();
        self.fallbacks.iter().sum::<u64>() - races
    }
}

impl AddAssign<&Self> for FlowCounts {
    fn add_assign(&mut self, other: &Self) {
        add(&mut self.outcomes, &other.outcomes);
        self.handshakes += &other.handshakes;
        self.syn_retransmits += other.syn_retransmits;
        self.data_segments += other.data_segments;
        self.retransmitted += other.retransmitted;
        self.broken_off += other.broken_off;
        add(&mut self.icmp, &other.icmp);
        self.black_holes += other.black_holes;
        self.sessions += other.sessions;
        self.messages += &other.messages;
        add(&mut self.replies, &other.replies);
        add(&mut self.tls, &other.tls);
        add(&mut self.fallbacks, &other.fallbacks);
        self.fallback_delays += &other.fallback_delays;
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
