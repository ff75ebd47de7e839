//! What captured traffic shows, by address family and direction, and what was lost on the way to it.
//!
//! Three different losses: what the kernel could not deliver ([`Metrics::add_capture_drops`]), what reassembly lacks
//! ([`FlowObserver::on_stream_counts`]), and dialogues that could not be followed (`parser_desyncs_total`, by their events).

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::{Family, Side};
use crate::stream::{FlowOutcome, StreamCounters};
use crate::time::Timestamp;
use crate::traffic::fallback::{Fallback, FallbackReason};
use crate::traffic::{Evidence, FlowObserver, FlowSummary, MailDirection, ServerResponse};
use crate::wire::IcmpKind;

/// Values of the label `cause`.
const CAUSES: [&str; 4] = ["not_captured", "cut", "given_up", "unfinished"];

/// The handles of one family's and direction's series, in arrays by the `index()` of their label.
struct Way {
    connections: [IntCounter; FlowOutcome::ALL.len()],
    handshake: Histogram,
    rtt: Histogram,
    syn_retransmits: IntCounter,
    data_segments: IntCounter,
    retransmitted: IntCounter,
    resets: [IntCounter; Side::ALL.len()],
    icmp: [IntCounter; IcmpKind::LABELS.len()],
    black_holes: IntCounter,
    gaps: IntCounter,
}

impl Way {
    fn resolve(
        families: &Families,
        family: Family,
        direction: MailDirection,
    ) -> Result<Self, MetricsError> {
        let labels = [family.as_str(), direction.as_str()];
        macro_rules! each {
            ($vec:ident, $values:expr) => {
                array($values.map(|value| {
                    let labels = [labels[0], labels[1], value];
                    families.$vec.get_metric_with_label_values(&labels)
                }))?
            };
        }
        Ok(Self {
            connections: each!(connections, FlowOutcome::ALL.iter().map(|known| known.as_str())),
            handshake: families.handshake.get_metric_with_label_values(&labels)?,
            rtt: families.rtt.get_metric_with_label_values(&labels)?,
            syn_retransmits: families.syn_retransmits.get_metric_with_label_values(&labels)?,
            data_segments: families.data_segments.get_metric_with_label_values(&labels)?,
            retransmitted: families.retransmitted.get_metric_with_label_values(&labels)?,
            resets: each!(resets, Side::ALL.iter().map(|side| side.as_str())),
            icmp: each!(icmp, IcmpKind::LABELS.iter().copied()),
            black_holes: families.black_holes.get_metric_with_label_values(&labels)?,
            gaps: families.gaps.get_metric_with_label_values(&labels)?,
        })
    }
}

/// The handles of all of it.
pub(super) struct Traffic {
    /// By family, then by [`MailDirection::index`].
    ways: [[Way; MailDirection::ALL.len()]; Family::ALL.len()],
    /// By [`MailDirection::index`], then by [`FallbackReason::index`].
    fall_backs: [[IntCounter; FallbackReason::ALL.len()]; MailDirection::ALL.len()],
    fall_back_delay: [Histogram; MailDirection::ALL.len()],
    /// In the order of [`CAUSES`].
    gap_octets: [IntCounter; CAUSES.len()],
    capture_up: IntGauge,
    dropped_openings: IntCounter,
    dropped_packets: IntCounter,
    flows_evicted: IntCounter,
    /// By family.
    last_accepted: [IntGauge; Family::ALL.len()],
    /// By family, then by [`ServerResponse::index`].
    destinations: [[IntGauge; ServerResponse::ALL.len()]; Family::ALL.len()],
}

impl Traffic {
    /// Makes every series, at zero.
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        let ways = |family| -> Result<_, MetricsError> {
            Ok([
                Way::resolve(families, family, MailDirection::Inbound)?,
                Way::resolve(families, family, MailDirection::Outbound)?,
            ])
        };
        let fall_backs = |direction: MailDirection| {
            array(FallbackReason::ALL.iter().map(|why| {
                let labels = [direction.as_str(), why.as_str()];
                families.fall_backs.get_metric_with_label_values(&labels)
            }))
        };
        let destinations = |family: Family| {
            array(ServerResponse::ALL.iter().map(|state| {
                let labels = [family.as_str(), state.as_str()];
                families.destinations.get_metric_with_label_values(&labels)
            }))
        };
        let dropped = |what| families.capture_dropped.get_metric_with_label_values(&[what]);
        Ok(Self {
            ways: [ways(Family::Ipv4)?, ways(Family::Ipv6)?],
            fall_backs: [fall_backs(MailDirection::Inbound)?, fall_backs(MailDirection::Outbound)?],
            fall_back_delay: array(MailDirection::ALL.iter().map(|direction| {
                families.fall_back_delay.get_metric_with_label_values(&[direction.as_str()])
            }))?,
            gap_octets: array(
                CAUSES
                    .iter()
                    .map(|cause| families.gap_octets.get_metric_with_label_values(&[cause])),
            )?,
            capture_up: families.capture_up.clone(),
            dropped_openings: dropped("openings")?,
            dropped_packets: dropped("packets")?,
            flows_evicted: families.flows_evicted.clone(),
            last_accepted: array(Family::ALL.iter().map(|family| {
                families.last_accepted.get_metric_with_label_values(&[family.as_str()])
            }))?,
            destinations: [destinations(Family::Ipv4)?, destinations(Family::Ipv6)?],
        })
    }
}

impl FlowObserver for Metrics {
    fn on_flow(&self, passed: &FlowSummary<'_>) {
        let flow = passed.flow;
        let way = &self.traffic.ways[passed.family() as usize][passed.direction.index()];
        way.connections[flow.outcome.index()].inc();
        for (histogram, time) in [(&way.handshake, flow.handshake), (&way.rtt, flow.rtt)] {
            if let Some(time) = time {
                histogram.observe(time.as_secs_f64());
            }
        }
        way.syn_retransmits.inc_by(passed.syn_retransmits());
        way.data_segments.inc_by(flow.data_segments.iter().sum());
        way.retransmitted.inc_by(flow.retransmits.iter().sum());
        if let Some(side) = flow.reset_by {
            way.resets[side.index()].inc();
        }
        for (counter, errors) in way.icmp.iter().zip(flow.icmp_kinds) {
            counter.inc_by(errors);
        }
        way.black_holes.inc_by(u64::from(flow.black_hole));
        way.gaps.inc_by(flow.gaps);
    }

    fn on_fallback(&self, told: &Fallback) {
        let of = told.direction.index();
        self.traffic.fall_backs[of][told.why.index()].inc();
        if told.why != FallbackReason::Race {
            self.traffic.fall_back_delay[of].observe(told.after.as_secs_f64());
        }
    }

    fn on_stream_counts(&self, before: &StreamCounters, now: &StreamCounters) {
        // In the order of `CAUSES`.
        let octets = |counts: &StreamCounters| {
            [
                counts.bytes_not_captured,
                counts.bytes_cut,
                counts.bytes_given_up,
                counts.bytes_unfinished,
            ]
        };
        let more = octets(now).into_iter().zip(octets(before));
        for (counter, (now, before)) in self.traffic.gap_octets.iter().zip(more) {
            counter.inc_by(now.saturating_sub(before));
        }
        self.traffic.flows_evicted.inc_by(now.evicted.saturating_sub(before.evicted));
    }
}

impl Metrics {
    /// Whether packets are captured now.
    pub fn set_capturing(&self, captures: bool) {
        self.traffic.capture_up.set(i64::from(captures));
    }

    /// The source could not deliver so many more SYNs of clients and other packets.
    pub fn add_capture_drops(&self, openings: u64, packets: u64) {
        self.traffic.dropped_openings.inc_by(openings);
        self.traffic.dropped_packets.inc_by(packets);
    }

    /// When watched traffic last showed a message from outside that was taken, to the second.
    pub fn last_accepted(&self, family: Family) -> Option<Timestamp> {
        let seconds = u64::try_from(self.traffic.last_accepted[family as usize].get()).ok()?;
        (seconds > 0).then(|| Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000)))
    }

    /// What is proven of the ways to us and from us.
    pub fn set_evidence(&self, evidence: &Evidence<'_>) {
        for family in Family::ALL {
            let accepted = evidence.receive.of(family).last_accepted.unwrap_or_default();
            let seconds = i64::try_from(accepted.as_nanos() / 1_000_000_000).unwrap_or(i64::MAX);
            self.traffic.last_accepted[family as usize].set(seconds);
            let responses = evidence.return_path.of(family);
            for state in ServerResponse::ALL {
                let count = i64::try_from(responses.of(state)).unwrap_or(i64::MAX);
                self.traffic.destinations[family as usize][state.index()].set(count);
            }
        }
    }
}
