//! The one place that names metric families: names, labels, help texts, buckets.

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

use super::MetricsError;

const PREFIX: &str = "gatepost";

/// Seconds. From a reply of a host next door to the longest of RFC 5321's time-outs; 30, 60, 300 and 600 are where
/// usual time-outs lie.
const PHASE_BUCKETS: [f64; 13] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Seconds. From 1 on these are where a SYN is sent again (RFC 6298 §5: after 1 s, then twice as long each time).
const HANDSHAKE_BUCKETS: [f64; 12] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0];
/// Seconds.
const RTT_BUCKETS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Seconds. Up to the deadlines of lookups; 30 is where a session gives one up.
const WAIT_BUCKETS: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 30.0];
/// Seconds. 30 is where Postfix gives an address up, 127 where Linux does.
const FALL_BACK_BUCKETS: [f64; 9] = [0.3, 1.0, 3.0, 10.0, 31.0, 63.0, 130.0, 300.0, 600.0];

/// Seconds. From what is known to the longest deadline.
const LOOKUP_BUCKETS: [f64; 8] = [0.000_01, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0];

/// The families as registered. Only [`super::Metrics::new`] needs them; counting goes by the handles of their series.
pub(super) struct Families {
    pub(super) sessions_total: IntCounterVec,
    pub(super) sessions: IntGaugeVec,
    pub(super) commands: IntCounterVec,
    pub(super) replies: IntCounterVec,
    pub(super) messages: IntCounterVec,
    pub(super) message_bytes: IntCounterVec,
    pub(super) relayed_bytes: IntCounterVec,
    pub(super) phase_duration: HistogramVec,
    pub(super) refusals: IntCounterVec,
    pub(super) upstream_attempts: IntCounterVec,
    pub(super) starttls: IntCounterVec,
    pub(super) anomalies: IntCounterVec,
    pub(super) parser_desyncs: IntCounterVec,
    pub(super) connections: IntCounterVec,
    pub(super) handshake: HistogramVec,
    pub(super) rtt: HistogramVec,
    pub(super) syn_retransmits: IntCounterVec,
    pub(super) data_segments: IntCounterVec,
    pub(super) retransmitted: IntCounterVec,
    pub(super) resets: IntCounterVec,
    pub(super) icmp: IntCounterVec,
    pub(super) black_holes: IntCounterVec,
    pub(super) gaps: IntCounterVec,
    pub(super) fall_backs: IntCounterVec,
    pub(super) fall_back_delay: HistogramVec,
    pub(super) gap_octets: IntCounterVec,
    pub(super) capture_up: IntGauge,
    pub(super) capture_dropped: IntCounterVec,
    pub(super) flows_evicted: IntCounter,
    pub(super) last_accepted: IntGaugeVec,
    pub(super) destinations: IntGaugeVec,
    pub(super) policy_verdicts: IntCounterVec,
    pub(super) policy_facts: IntCounterVec,
    pub(super) policy_wait: HistogramVec,
    pub(super) door_state: IntGaugeVec,
    pub(super) door_changes: IntCounterVec,
    pub(super) door_refused: IntCounterVec,
    pub(super) door_proof_age: GaugeVec,
    pub(super) lookups: IntCounterVec,
    pub(super) lookup_answers: IntCounterVec,
    pub(super) lookup_duration: HistogramVec,
    pub(super) lookups_renewed: IntCounterVec,
    pub(super) lookups_taken_over: IntCounterVec,
    pub(super) lookups_under_way: IntGauge,
    pub(super) cache_entries: IntGauge,
    pub(super) cache_octets: IntGauge,
    pub(super) store_up: IntGauge,
    pub(super) config_reloads: IntCounterVec,
    pub(super) config_refused: IntGauge,
    pub(super) log_lines_dropped: IntCounter,
    pub(super) record_omitted_octets: IntCounter,
    pub(super) sessions_limit: IntGauge,
    pub(super) upstreams: IntGaugeVec,
    pub(super) ready: IntGauge,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let to = Registrar(registry);
        to.gauges("build_info", "Always 1; the label tells the version.", &["version"])?
            .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?
            .set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            sessions_total: to.counters(
                "sessions_total",
                "Sessions that ended, by how. `family` is the client's here and everywhere but in upstream attempts.",
                &["family", "outcome"],
            )?,
            sessions: to.gauges("sessions_open", "Sessions open now.", &["family"])?,
            commands: to.counters(
                "commands_total",
                "Commands from clients, before STARTTLS.",
                &["family", "verb"],
            )?,
            replies: to.counters(
                "replies_total",
                "Complete replies to clients, by who wrote them.",
                &["family", "source", "class", "code"],
            )?,
            messages: to.counters(
                "messages_total",
                "Messages by the class of the reply to their end of data; 2xx is accepted.",
                &["family", "class"],
            )?,
            message_bytes: to.counters(
                "message_bytes_total",
                "Octets of the messages that upstream accepted.",
                &["family"],
            )?,
            relayed_bytes: to.counters(
                "relayed_bytes_total",
                "Octets relayed, also those after STARTTLS.",
                &["family", "direction"],
            )?,
            phase_duration: to.histograms(
                "phase_duration_seconds",
                "How long the phases of a session took.",
                &PHASE_BUCKETS,
                &["family", "phase"],
            )?,
            refusals: to.counters(
                "refusals_total",
                "What the gateway itself refused, by reason.",
                &["family", "reason"],
            )?,
            upstream_attempts: to.counters(
                "upstream_attempts_total",
                "Connection attempts to upstreams; `family` is the upstream's.",
                &["family", "outcome"],
            )?,
            starttls: to.counters(
                "starttls_total",
                "STARTTLS commands by what became of them.",
                &["family", "outcome"],
            )?,
            anomalies: to.counters(
                "anomalies_total",
                "Things that a clean session does not contain.",
                &["family", "anomaly"],
            )?,
            parser_desyncs: to.counters(
                "parser_desyncs_total",
                "Dialogues in captured traffic that could not be followed for a while, by why.",
                &["family", "cause"],
            )?,
            connections: to.counters(
                "tcp_connections_total",
                "Connections seen in captured traffic, when they are over, by what became of them. `direction` is out from our side to others.",
                &["family", "direction", "outcome"],
            )?,
            handshake: to.histograms(
                "tcp_handshake_seconds",
                "From a client's first SYN to the end of the handshake; buckets from 1 on are where SYNs are sent again.",
                &HANDSHAKE_BUCKETS,
                &["family", "direction"],
            )?,
            rtt: to.histograms(
                "tcp_rtt_seconds",
                "Smoothed round-trip time of a connection at its end, where the kernel told it.",
                &RTT_BUCKETS,
                &["family", "direction"],
            )?,
            syn_retransmits: to.counters(
                "tcp_syn_retransmits_total",
                "SYNs that clients had to send again.",
                &["family", "direction"],
            )?,
            data_segments: to.counters(
                "tcp_data_segments_total",
                "Segments with data, of both sides.",
                &["family", "direction"],
            )?,
            retransmitted: to.counters(
                "tcp_retransmitted_segments_total",
                "Segments with data that brought nothing new, of both sides.",
                &["family", "direction"],
            )?,
            resets: to.counters(
                "tcp_resets_total",
                "Established connections that ended by RST, by who sent it.",
                &["family", "direction", "side"],
            )?,
            icmp: to.counters(
                "icmp_errors_total",
                "ICMP and ICMPv6 errors about connections.",
                &["family", "direction", "type"],
            )?,
            black_holes: to.counters(
                "tcp_pmtu_black_holes_total",
                "Connections on which large segments were lost again and again: a path MTU black hole is suspected.",
                &["family", "direction"],
            )?,
            gaps: to.counters(
                "reassembly_gaps_total",
                "Holes in what captured connections said.",
                &["family", "direction"],
            )?,
            fall_backs: to.counters(
                "fall_backs_total",
                "Clients that left IPv6 for IPv4, by why; a race is no failure.",
                &["direction", "why"],
            )?,
            fall_back_delay: to.histograms(
                "fall_back_delay_seconds",
                "From the failed attempt over IPv6 to the attempt over IPv4, races left out.",
                &FALL_BACK_BUCKETS,
                &["direction"],
            )?,
            gap_octets: to.counters(
                "reassembly_gap_octets_total",
                "Octets that captured connections said and that were not heard, by why.",
                &["cause"],
            )?,
            capture_up: to.gauge(
                "capture_up",
                "1 while packets are captured (`[watch]`); 0 also where that is not asked for.",
            )?,
            capture_dropped: to.counters(
                "capture_dropped_total",
                "What the kernel saw and could not deliver: SYNs of clients (openings), other packets.",
                &["what"],
            )?,
            flows_evicted: to.counter(
                "flows_evicted_total",
                "Captured connections given up because there were too many at once.",
            )?,
            last_accepted: to.gauges(
                "receive_path_last_accepted_timestamp_seconds",
                "When a session from outside last ended in which our server took a message; 0 is never.",
                &["family"],
            )?,
            destinations: to.gauges(
                "return_path_destinations",
                "Other servers that were called from our side, by what they did last.",
                &["family", "state"],
            )?,
            policy_verdicts: to.counters(
                "policy_verdicts_total",
                "Sessions in which a policy rule of the configuration in force fired, by what it did; in shadow, would have done.",
                &["family", "rule", "action", "mode"],
            )?,
            policy_facts: to.counters(
                "policy_facts_total",
                "Sessions in which a verdict rested on a fact, by its state and who answered.",
                &["family", "fact", "state", "source"],
            )?,
            policy_wait: to.histograms(
                "policy_wait_seconds",
                "How long clients waited for verdicts, all in all in a session; sessions that did not wait are left out.",
                &WAIT_BUCKETS,
                &["family"],
            )?,
            door_state: to.gauges(
                "door_state",
                "1 for the state that the door of a family is in; all 0 where nothing guards it.",
                &["family", "state"],
            )?,
            door_changes: to.counters(
                "door_changes_total",
                "How often a door went into a state.",
                &["family", "to"],
            )?,
            door_refused: to.counters(
                "door_refused_total",
                "New sessions that a closed door refused: at the SYN in the kernel, or with 421 by SMTP.",
                &["family", "how"],
            )?,
            door_proof_age: to.register(GaugeVec::new(
                opts(
                    "door_proof_age_seconds",
                    "How long ago mail or a probe from outside last came through; -1 is never, 0 where nothing guards it.",
                ),
                &["family"],
            )?)?,
            lookups: to.counters(
                "lookups_total",
                "Lookups for the policy, by how they were answered; joined is by another's that was under way.",
                &["kind", "how"],
            )?,
            lookup_answers: to.counters(
                "lookup_answers_total",
                "Lookups for the policy, by what the answer comes to.",
                &["kind", "answer"],
            )?,
            lookup_duration: to.histograms(
                "lookup_duration_seconds",
                "How long the policy waited for a lookup.",
                &LOOKUP_BUCKETS,
                &["kind"],
            )?,
            lookups_renewed: to.counters(
                "lookups_renewed_total",
                "Answers that were asked for anew shortly before their end, while they still served.",
                &["kind"],
            )?,
            lookups_taken_over: to.counters(
                "lookups_taken_over_total",
                "Answers that another gateway had shared.",
                &["kind"],
            )?,
            lookups_under_way: to.gauge("lookups_under_way", "Lookups whose answer is awaited.")?,
            cache_entries: to.gauge("reach_cache_entries", "Answers kept in memory.")?,
            cache_octets: to.gauge(
                "reach_cache_octets",
                "Octets that the answers kept in memory count for, against `lookup.cache_size`.",
            )?,
            store_up: to.gauge(
                "reach_store_up",
                "1 while the store that gateways share (`lookup.redis`) answers; 0 also without one.",
            )?,
            config_reloads: to.counters(
                "config_reloads_total",
                "Configuration reloads (SIGHUP); after a failed one the old configuration stays.",
                &["result"],
            )?,
            config_refused: to.gauge(
                "config_refused",
                "1 while the configuration that was read last is refused and an older one is in force.",
            )?,
            log_lines_dropped: to.counter(
                "log_lines_dropped_total",
                "Log lines lost because the log took them too slowly or not at all.",
            )?,
            record_omitted_octets: to.counter(
                "record_omitted_octets_total",
                "Octets that `gatepost record` did not get because it was too slow.",
            )?,
            sessions_limit: to.gauge(
                "sessions_limit",
                "Sessions that may be open at once: `limits.sessions` of the configuration in force.",
            )?,
            upstreams: to.gauges(
                "upstreams",
                "Configured upstreams by how they answered last; one that was not tried yet counts as up.",
                &["family", "state"],
            )?,
            ready: to.gauge("ready", "1 while `/readyz` says ready.")?,
        })
    }
}

/// Makes families and registers them.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, MetricsError> {
        let opts = HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, MetricsError> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}
