//! Captured traffic, by address family and direction, and losses of the capture.
//!
//! Three separate losses (rule 18 of ARCHITECTURE.md): packets that the kernel could not deliver
//! ([`Metrics::add_capture_drops`]), bytes missing after reassembly ([`FlowObserver::on_stream_counts`]), and losses of
//! parser synchronisation (`parser_desyncs_total`, counted by events).

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::{Family, Side};
use crate::stream::{FlowOutcome, StreamCounters};
use crate::time::Timestamp;
use crate::traffic::fallback::{Fallback, FallbackReason};
use crate::traffic::{ConnectionResponse, Evidence, FlowObserver, FlowSummary, MailDirection};
use crate::wire::IcmpKind;

/// Values of the label `reason` of missing bytes: not captured, truncated by a snap length, not waited for, missing at
/// the end of the flow.
const GAP_REASONS: [&str; 4] = ["not_captured", "truncated", "given_up", "flow_ended"];

/// The handles of the series of one family and direction, in arrays by the `index()` of their label.
struct PathSeries {
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

impl PathSeries {
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

/// The handles of all traffic series.
pub(super) struct TrafficSeries {
    /// By family, then by [`MailDirection::index`].
    paths: [[PathSeries; MailDirection::ALL.len()]; Family::ALL.len()],
    /// By [`MailDirection::index`], then by [`FallbackReason::index`].
    ipv6_fallbacks: [[IntCounter; FallbackReason::ALL.len()]; MailDirection::ALL.len()],
    ipv6_fallback_delay: [Histogram; MailDirection::ALL.len()],
    /// In the order of [`GAP_REASONS`].
    gap_bytes: [IntCounter; GAP_REASONS.len()],
    capture_up: IntGauge,
    dropped_syns: IntCounter,
    dropped_others: IntCounter,
    flows_evicted: IntCounter,
    /// By family.
    last_accepted: [IntGauge; Family::ALL.len()],
    last_under_tls: [IntGauge; Family::ALL.len()],
    /// By family, then by [`ConnectionResponse::index`].
    destinations: [[IntGauge; ConnectionResponse::ALL.len()]; Family::ALL.len()],
}

impl TrafficSeries {
    /// Creates every series, at zero.
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        let paths = |family| -> Result<_, MetricsError> {
            Ok([
                PathSeries::resolve(families, family, MailDirection::Inbound)?,
                PathSeries::resolve(families, family, MailDirection::Outbound)?,
            ])
        };
        let ipv6_fallbacks = |direction: MailDirection| {
            array(FallbackReason::ALL.iter().map(|why| {
                let labels = [direction.as_str(), why.as_str()];
                families.ipv6_fallbacks.get_metric_with_label_values(&labels)
            }))
        };
        let destinations = |family: Family| {
            array(ConnectionResponse::ALL.iter().map(|state| {
                let labels = [family.as_str(), state.as_str()];
                families.destinations.get_metric_with_label_values(&labels)
            }))
        };
        let dropped = |kind| families.capture_dropped.get_metric_with_label_values(&[kind]);
        Ok(Self {
            paths: [paths(Family::Ipv4)?, paths(Family::Ipv6)?],
            ipv6_fallbacks: [
                ipv6_fallbacks(MailDirection::Inbound)?,
                ipv6_fallbacks(MailDirection::Outbound)?,
            ],
            ipv6_fallback_delay: array(MailDirection::ALL.iter().map(|direction| {
                families.ipv6_fallback_delay.get_metric_with_label_values(&[direction.as_str()])
            }))?,
            gap_bytes: array(
                GAP_REASONS
                    .iter()
                    .map(|reason| families.gap_bytes.get_metric_with_label_values(&[reason])),
            )?,
            capture_up: families.capture_up.clone(),
            dropped_syns: dropped("syn")?,
            dropped_others: dropped("other")?,
            flows_evicted: families.flows_evicted.clone(),
            last_under_tls: array(Family::ALL.iter().map(|family| {
                families.last_under_tls.get_metric_with_label_values(&[family.as_str()])
            }))?,
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
        let path = &self.traffic.paths[passed.family() as usize][passed.direction.index()];
        path.connections[flow.outcome.index()].inc();
        for (histogram, time) in [(&path.handshake, flow.handshake), (&path.rtt, flow.rtt)] {
            if let Some(time) = time {
                histogram.observe(time.as_secs_f64());
            }
        }
        path.syn_retransmits.inc_by(passed.syn_retransmits());
        path.data_segments.inc_by(flow.data_segments.iter().sum());
        path.retransmitted.inc_by(flow.retransmits.iter().sum());
        if let Some(side) = flow.reset_by {
            path.resets[side.index()].inc();
        }
        for (counter, errors) in path.icmp.iter().zip(flow.icmp_kinds) {
            counter.inc_by(errors);
        }
        path.black_holes.inc_by(u64::from(flow.black_hole));
        path.gaps.inc_by(flow.gaps);
    }

    fn on_fallback(&self, fallback: &Fallback) {
        let direction = fallback.direction.index();
        self.traffic.ipv6_fallbacks[direction][fallback.why.index()].inc();
        if fallback.why != FallbackReason::Race {
            self.traffic.ipv6_fallback_delay[direction].observe(fallback.after.as_secs_f64());
        }
    }

    fn on_stream_counts(&self, before: &StreamCounters, now: &StreamCounters) {
        // In the order of `GAP_REASONS`.
        let bytes = |counts: &StreamCounters| {
            [
                counts.bytes_not_captured,
                counts.bytes_truncated,
                counts.bytes_given_up,
                counts.bytes_unfinished,
            ]
        };
        let more = bytes(now).into_iter().zip(bytes(before));
        for (counter, (now, before)) in self.traffic.gap_bytes.iter().zip(more) {
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

    /// Client SYNs and other packets that the source could not deliver since the last call.
    pub fn add_capture_drops(&self, syns: u64, others: u64) {
        self.traffic.dropped_syns.inc_by(syns);
        self.traffic.dropped_others.inc_by(others);
    }

    /// Time of the last accepted message from outside in watched traffic, in whole seconds.
    pub fn last_accepted(&self, family: Family) -> Option<Timestamp> {
        time(&self.traffic.last_accepted[family as usize])
    }

    /// The same of the last session under TLS that shows that mail arrives.
    pub fn last_under_tls(&self, family: Family) -> Option<Timestamp> {
        time(&self.traffic.last_under_tls[family as usize])
    }

    /// Evidence for the receive and return paths.
    pub fn set_evidence(&self, evidence: &Evidence<'_>) {
        for family in Family::ALL {
            let receive = evidence.receive.of(family);
            set_time(&self.traffic.last_accepted[family as usize], receive.last_accepted);
            set_time(&self.traffic.last_under_tls[family as usize], receive.last_under_tls);
            let responses = evidence.return_path.of(family);
            for state in ConnectionResponse::ALL {
                let count = i64::try_from(*responses.of(state)).unwrap_or(i64::MAX);
                self.traffic.destinations[family as usize][state.index()].set(count);
            }
        }
    }
}

/// Of a gauge in seconds of Unix time; 0 is never.
fn time(gauge: &IntGauge) -> Option<Timestamp> {
    let seconds = u64::try_from(gauge.get()).ok()?;
    (seconds > 0).then(|| Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000)))
}

fn set_time(gauge: &IntGauge, at: Option<Timestamp>) {
    let seconds = at.unwrap_or_default().as_nanos() / 1_000_000_000;
    gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
}
