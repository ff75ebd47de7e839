//! The one place that defines metric families: names, labels, help texts, buckets. Those of a checked domain, which are in no
//! gateway's own metrics, are in `domain_check/families.rs`.
//!
//! Base units (`_bytes`, `_seconds`); counters end in `_total`. One label name for one idea: `reason`, `result`, `state`,
//! `outcome`, `direction`. No label holds an address, a domain or other client data (rule 17 of ARCHITECTURE.md).

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use super::MetricsError;

const PREFIX: &str = "gatepost";

/// Seconds. From a local reply to the longest timeout of RFC 5321 §4.5.3.2; 30, 60, 300 and 600 are common timeouts.
const PHASE_BUCKETS: [f64; 13] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Seconds. 30 is the connect timeout of Postfix.
const DELIVERY_BUCKETS: [f64; 6] = [0.1, 0.3, 1.0, 3.0, 10.0, 31.0];
/// Seconds. From 1 on: the times of SYN retransmissions (RFC 6298 §5: after 1 s, then doubled).
const HANDSHAKE_BUCKETS: [f64; 12] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0];
/// Seconds.
const RTT_BUCKETS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Seconds. Up to the lookup deadlines; a session waits 30 s at most.
const WAIT_BUCKETS: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 30.0];
/// Seconds. 30 is the connect timeout of Postfix, 127 that of Linux.
const FALLBACK_BUCKETS: [f64; 9] = [0.3, 1.0, 3.0, 10.0, 31.0, 63.0, 130.0, 300.0, 600.0];
/// Seconds. From a cache hit to the longest deadline.
const LOOKUP_BUCKETS: [f64; 8] = [0.000_01, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0];

/// The registered families. Only [`super::Metrics::new`] uses them; counting goes through the resolved series.
pub(super) struct Families {
    pub(super) sessions_total: IntCounterVec,
    pub(super) sessions: IntGaugeVec,
    pub(super) listener_sessions: IntCounterVec,
    pub(super) listener_messages: IntCounterVec,
    pub(super) commands: IntCounterVec,
    pub(super) replies: IntCounterVec,
    pub(super) messages: IntCounterVec,
    pub(super) message_bytes: IntCounterVec,
    pub(super) relayed_bytes: IntCounterVec,
    pub(super) phase_duration: HistogramVec,
    pub(super) refusals: IntCounterVec,
    pub(super) upstream_attempts: IntCounterVec,
    pub(super) accept_errors: IntCounter,
    pub(super) starttls: IntCounterVec,
    pub(super) tls_handshakes: IntCounterVec,
    pub(super) starttls_hidden_sessions: IntCounterVec,
    pub(super) starttls_hidden_clients: IntCounterVec,
    pub(super) upstream_tls: IntCounterVec,
    pub(super) session_tls: IntCounterVec,
    pub(super) tls_certificates: IntGaugeVec,
    pub(super) tls_refused: IntGauge,
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
    pub(super) ipv6_fallbacks: IntCounterVec,
    pub(super) ipv6_fallback_delay: HistogramVec,
    pub(super) gap_bytes: IntCounterVec,
    pub(super) capture_up: IntGauge,
    pub(super) capture_dropped: IntCounterVec,
    pub(super) flows_evicted: IntCounter,
    pub(super) last_accepted: IntGaugeVec,
    pub(super) last_under_tls: IntGaugeVec,
    pub(super) destinations: IntGaugeVec,
    pub(super) policy_verdicts: IntCounterVec,
    pub(super) policy_facts: IntCounterVec,
    pub(super) policy_wait: HistogramVec,
    pub(super) policy_questions: IntCounterVec,
    pub(super) policy_answer: Histogram,
    pub(super) policy_connections: IntGauge,
    pub(super) policy_closed: IntCounterVec,
    pub(super) outbound_attempts: IntCounterVec,
    pub(super) outbound_connection: HistogramVec,
    pub(super) outbound_transmission: HistogramVec,
    pub(super) outbound_hosts: IntGaugeVec,
    pub(super) outbound_answers: IntCounterVec,
    pub(super) outbound_retries: IntCounterVec,
    pub(super) outbound_messages_to_return: IntGauge,
    pub(super) outbound_log_up: IntGauge,
    pub(super) outbound_log_lines: IntCounterVec,
    pub(super) door_state: IntGaugeVec,
    pub(super) door_changes: IntCounterVec,
    pub(super) door_refused: IntCounterVec,
    pub(super) door_proof_age: GaugeVec,
    pub(super) door_enforced: IntGaugeVec,
    pub(super) mail_missing: IntGaugeVec,
    pub(super) vantage_up: IntGauge,
    pub(super) canary_messages: IntCounterVec,
    pub(super) canary_parity: IntGaugeVec,
    pub(super) intercept_installed: IntGaugeVec,
    pub(super) intercept_repairs: IntCounter,
    pub(super) intercept_bypassed: IntCounterVec,
    pub(super) intercept_lost: IntCounterVec,
    pub(super) lookups: IntCounterVec,
    pub(super) lookup_answers: IntCounterVec,
    pub(super) lookup_duration: HistogramVec,
    pub(super) lookups_refreshed: IntCounterVec,
    pub(super) lookups_shared: IntCounterVec,
    pub(super) lookups_in_flight: IntGauge,
    pub(super) cache_entries: IntGauge,
    pub(super) cache_bytes: IntGauge,
    pub(super) cache_damaged: IntCounter,
    pub(super) redis_up: IntGauge,
    pub(super) config_reloads: IntCounterVec,
    pub(super) config_refused: IntGauge,
    pub(super) log_lines_dropped: IntCounter,
    pub(super) record_omitted_bytes: IntCounter,
    pub(super) sessions_limit: IntGauge,
    pub(super) upstreams: IntGaugeVec,
    pub(super) upstream_names: IntGaugeVec,
    pub(super) ready: IntGauge,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let to = Registrar(registry);
        to.gauges(
            "build_info",
            "Always 1; the label `version` is the gateway's version.",
            &["version"],
        )?
        .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?
        .set(1);
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            sessions_total: to.counters(
                "sessions_total",
                "Finished sessions, by outcome. `family` is the client's, except in upstream metrics.",
                &["family", "outcome"],
            )?,
            sessions: to.gauges("sessions_open", "Open sessions.", &["family"])?,
            listener_sessions: to.counters(
                "listener_sessions_total",
                "Finished sessions of each listener, by the gateway's verdict.",
                &["listener", "family", "action"],
            )?,
            listener_messages: to.counters(
                "listener_messages_total",
                "Messages that the upstream of each listener accepted, in transactions that the gateway can see.",
                &["listener", "family"],
            )?,
            commands: to.counters(
                "commands_total",
                "Client commands before STARTTLS, by verb.",
                &["family", "verb"],
            )?,
            replies: to.counters(
                "replies_total",
                "Complete replies to clients, by source (upstream or gateway), class and code.",
                &["family", "source", "class", "code"],
            )?,
            messages: to.counters(
                "messages_total",
                "Completely transferred messages, by the class of the reply to the end of data; 2xx is accepted.",
                &["family", "class"],
            )?,
            message_bytes: to.counters(
                "message_bytes_total",
                "Bytes of messages accepted by the upstream.",
                &["family"],
            )?,
            relayed_bytes: to.counters(
                "relayed_bytes_total",
                "Relayed bytes, including those after STARTTLS.",
                &["family", "direction"],
            )?,
            phase_duration: to.histograms(
                "phase_duration_seconds",
                "Duration of the phases of a session.",
                &PHASE_BUCKETS,
                &["family", "phase"],
            )?,
            refusals: to.counters(
                "refusals_total",
                "Refusals by the gateway itself, by reason.",
                &["family", "reason"],
            )?,
            accept_errors: to.counter(
                "accept_errors_total",
                "Connections that could not be accepted at once for lack of file descriptors or memory.",
            )?,
            upstream_attempts: to.counters(
                "upstream_attempts_total",
                "Connection attempts to upstreams, by outcome; `family` is the upstream's, for a Unix socket the client's.",
                &["family", "outcome"],
            )?,
            starttls: to.counters(
                "starttls_total",
                "STARTTLS commands, by outcome.",
                &["family", "outcome"],
            )?,
            tls_handshakes: to.counters(
                "tls_handshakes_total",
                "Handshakes of the gateway's own TLS with clients, by version and result.",
                &["family", "tls_version", "result"],
            )?,
            starttls_hidden_sessions: to.counters(
                "starttls_hidden_sessions_total",
                "Sessions without an offer of STARTTLS because handshakes of the client failed again and again.",
                &["family"],
            )?,
            starttls_hidden_clients: to.counters(
                "starttls_hidden_clients_total",
                "Clients (IPv4 addresses, IPv6 /64s) from which STARTTLS began to be hidden for an hour.",
                &["family"],
            )?,
            upstream_tls: to.counters(
                "upstream_tls_handshakes_total",
                "Sessions in which the gateway was to use TLS with the upstream, by result.",
                &["family", "result"],
            )?,
            session_tls: to.counters(
                "session_tls_total",
                "Sessions that ended, by how far STARTTLS came.",
                &["family", "tls"],
            )?,
            tls_certificates: to.gauges(
                "tls_certificate_not_after_timestamp_seconds",
                "End of validity of a certificate in use; `name` is the first name in it.",
                &["certificate", "name"],
            )?,
            tls_refused: to.gauge(
                "tls_reload_refused",
                "1 while a changed certificate or key does not fit and the old one stays in use.",
            )?,
            anomalies: to.counters(
                "anomalies_total",
                "Protocol violations and suspicious input, by kind.",
                &["family", "anomaly"],
            )?,
            parser_desyncs: to.counters(
                "parser_desyncs_total",
                "Losses of parser synchronisation in captured sessions, by reason.",
                &["family", "reason"],
            )?,
            connections: to.counters(
                "tcp_connections_total",
                "Finished TCP connections in captured traffic, by outcome. `direction` is `in` to our servers or `out` from our side.",
                &["family", "direction", "outcome"],
            )?,
            handshake: to.histograms(
                "tcp_handshake_seconds",
                "Time from a client's first SYN to the end of the handshake; buckets from 1 on match SYN retransmissions.",
                &HANDSHAKE_BUCKETS,
                &["family", "direction"],
            )?,
            rtt: to.histograms(
                "tcp_rtt_seconds",
                "Smoothed round-trip time at the end of a connection, from the kernel (eBPF only).",
                &RTT_BUCKETS,
                &["family", "direction"],
            )?,
            syn_retransmits: to.counters(
                "tcp_syn_retransmits_total",
                "SYNs retransmitted by clients.",
                &["family", "direction"],
            )?,
            data_segments: to.counters(
                "tcp_data_segments_total",
                "TCP segments with data, from both sides.",
                &["family", "direction"],
            )?,
            retransmitted: to.counters(
                "tcp_retransmitted_segments_total",
                "TCP segments without new data, from both sides.",
                &["family", "direction"],
            )?,
            resets: to.counters(
                "tcp_resets_total",
                "Established connections that ended with a RST, by its sender.",
                &["family", "direction", "side"],
            )?,
            icmp: to.counters(
                "icmp_errors_total",
                "ICMP and ICMPv6 errors about captured connections, by type.",
                &["family", "direction", "type"],
            )?,
            black_holes: to.counters(
                "tcp_pmtu_black_holes_total",
                "Connections that repeatedly lost large segments: suspected path MTU black holes.",
                &["family", "direction"],
            )?,
            gaps: to.counters(
                "reassembly_gaps_total",
                "Gaps in the reassembled data of captured connections.",
                &["family", "direction"],
            )?,
            ipv6_fallbacks: to.counters(
                "ipv6_fallbacks_total",
                "Clients that fell back from IPv6 to IPv4, by reason; `race` is no failure.",
                &["direction", "reason"],
            )?,
            ipv6_fallback_delay: to.histograms(
                "ipv6_fallback_delay_seconds",
                "Time from the failed IPv6 attempt to the IPv4 attempt, without races.",
                &FALLBACK_BUCKETS,
                &["direction"],
            )?,
            gap_bytes: to.counters(
                "reassembly_gap_bytes_total",
                "Bytes missing from captured connections, by reason.",
                &["reason"],
            )?,
            capture_up: to.gauge(
                "capture_up",
                "1 while packets are captured (`[watch]`), otherwise 0, also without `[watch]`.",
            )?,
            capture_dropped: to.counters(
                "capture_dropped_total",
                "Captured packets that the kernel could not deliver: client SYNs (syn) or others.",
                &["kind"],
            )?,
            flows_evicted: to.counter(
                "flows_evicted_total",
                "Captured connections evicted because too many were tracked at once.",
            )?,
            last_accepted: to.gauges(
                "receive_path_last_accepted_timestamp_seconds",
                "End of the last captured session from outside with an accepted message, in Unix time; 0 is never.",
                &["family"],
            )?,
            last_under_tls: to.gauges(
                "receive_path_last_under_tls_timestamp_seconds",
                "End of the last captured session from outside that completed under TLS, in Unix time; 0 is never.",
                &["family"],
            )?,
            destinations: to.gauges(
                "return_path_destinations",
                "Remote servers that our side connected to, by last response.",
                &["family", "state"],
            )?,
            policy_verdicts: to.counters(
                "policy_verdicts_total",
                "Sessions in which a rule of the active policy matched, by action; in shadow mode the action is not enforced.",
                &["family", "rule", "action", "mode"],
            )?,
            policy_facts: to.counters(
                "policy_facts_total",
                "Sessions whose verdict depends on a fact, by its state and source.",
                &["family", "fact", "state", "source"],
            )?,
            policy_wait: to.histograms(
                "policy_wait_seconds",
                "Total time a client waited for verdicts in a session; sessions without a wait are not counted.",
                &WAIT_BUCKETS,
                &["family"],
            )?,
            policy_questions: to.counters(
                "policy_questions_total",
                "Questions of Postfix to the policy service, by the action in the reply.",
                &["action"],
            )?,
            policy_answer: to.histogram(
                "policy_answer_seconds",
                "Time from a question of Postfix to the reply.",
                &LOOKUP_BUCKETS,
            )?,
            policy_connections: to
                .gauge("policy_connections", "Open connections of Postfix to the policy service.")?,
            policy_closed: to.counters(
                "policy_connections_closed_total",
                "Connections to the policy service that the gateway closed, by cause.",
                &["reason"],
            )?,
            outbound_attempts: to.counters(
                "outbound_attempts_total",
                "Attempts of our MTA to deliver mail to an address of another host, by outcome, from its mail log.",
                &["family", "outcome"],
            )?,
            outbound_connection: to.histograms(
                "outbound_connection_seconds",
                "Of deliveries by our MTA: DNS lookup, connection, greeting, EHLO and TLS.",
                &DELIVERY_BUCKETS,
                &["family"],
            )?,
            outbound_transmission: to.histograms(
                "outbound_transmission_seconds",
                "Of deliveries by our MTA: from MAIL to the reply to the message.",
                &DELIVERY_BUCKETS,
                &["family"],
            )?,
            outbound_hosts: to.gauges(
                "outbound_hosts",
                "Hosts that our MTA tried: known, those whose IPv6 is avoided, and what became of the last attempt over IPv6.",
                &["state"],
            )?,
            outbound_answers: to.counters(
                "outbound_answers_total",
                "AAAA records about which Postfix asked: kept, kept for one message that tries an avoided address, or omitted.",
                &["answer"],
            )?,
            outbound_retries: to.counters(
                "outbound_retries_total",
                "Messages refused over IPv6 whose retry was requested (postqueue -i), by result.",
                &["result"],
            )?,
            outbound_messages_to_return: to.gauge(
                "outbound_messages_to_return",
                "Messages refused over IPv6 again and again, which `gatepost postfix expire` returns to their senders.",
            )?,
            outbound_log_up: to.gauge(
                "outbound_log_up",
                "1 while the mail log is read, 0 while it cannot be, -1 without `mail_log` in [outbound].",
            )?,
            outbound_log_lines: to.counters(
                "outbound_log_lines_total",
                "Lines of smtp(8) in the mail log; those not understood are in no other metric.",
                &["kind"],
            )?,
            door_state: to.gauges(
                "door_state",
                "1 for the current state of a family's door, 0 for the others; all 0 without a door.",
                &["family", "state"],
            )?,
            door_changes: to.counters(
                "door_changes_total",
                "Door changes, by new state.",
                &["family", "state"],
            )?,
            door_refused: to.counters(
                "door_refused_total",
                "Sessions refused by a closed door, by method: syn (in the kernel) or smtp (reply 421).",
                &["family", "method"],
            )?,
            door_proof_age: to.float_gauges("door_proof_age_seconds", "Age of the last mail or probe from outside; -1 is never, 0 without a door.", &["family"])?,
            door_enforced: to.gauges(
                "door_enforced",
                "1 if the state of the door is enforced, 0 if a closed door refuses nothing because mail is not intercepted, \
                 -1 without a door.",
                &["family"],
            )?,
            mail_missing: to.gauges(
                "mail_missing",
                "1 while mail of a family is missing: fewer sessions deliver mail than its usual share, else 0.",
                &["family"],
            )?,
            vantage_up: to.gauge(
                "vantage_up",
                "1 if the vantage answered the latest request, 0 if not, -1 without [vantage].",
            )?,
            canary_messages: to.counters(
                "canary_messages_total",
                "Canaries whose pair is complete or whose time is over, by what became of them.",
                &["family", "direction", "outcome"],
            )?,
            canary_parity: to.gauges(
                "canary_ipv6_parity",
                "1 if the canary over IPv6 of the latest pair was treated no worse than that over IPv4, 0 if worse, -1 if unknown.",
                &["direction"],
            )?,
            intercept_installed: to.gauges(
                "intercept_installed",
                "1 while mail is intercepted, 0 while it goes to the servers directly, -1 without [intercept].",
                &["family"],
            )?,
            intercept_repairs: to.counter(
                "intercept_repairs_total",
                "Repairs of the interception after others removed or changed its rules or routes.",
            )?,
            intercept_bypassed: to.counters(
                "intercept_bypassed_packets_total",
                "Packets of mail that went to the servers directly because the gateway was not listening.",
                &["family"],
            )?,
            intercept_lost: to.counters(
                "intercept_lost_syns_total",
                "New connections that were intercepted and did not reach the gateway's listener, such as those that a firewall drops.",
                &["family"],
            )?,
            lookups: to.counters(
                "lookups_total",
                "Lookups for the policy, by result; coalesced ones share another session's lookup.",
                &["kind", "result"],
            )?,
            lookup_answers: to.counters(
                "lookup_answers_total",
                "Lookups for the policy, by answer.",
                &["kind", "answer"],
            )?,
            lookup_duration: to.histograms(
                "lookup_duration_seconds",
                "Time the policy waited for a lookup, cache hits included.",
                &LOOKUP_BUCKETS,
                &["kind"],
            )?,
            lookups_refreshed: to.counters(
                "lookups_refreshed_total",
                "Cached answers refreshed in the background before they expire.",
                &["kind"],
            )?,
            lookups_shared: to.counters(
                "lookups_shared_total",
                "Answers taken from Redis, where another gateway stored them.",
                &["kind"],
            )?,
            lookups_in_flight: to.gauge("lookups_in_flight", "Lookups without an answer yet.")?,
            cache_entries: to.gauge("lookup_cache_entries", "Answers cached in memory.")?,
            cache_bytes: to.gauge(
                "lookup_cache_bytes",
                "Size of the answers cached in memory; the limit is `lookup.cache_size`.",
            )?,
            cache_damaged: to.counter(
                "lookup_cache_damaged_total",
                "Answers and other state in `lookup.cache_file` that did not match their checksum and were dropped at the start.",
            )?,
            redis_up: to.gauge(
                "lookup_redis_up",
                "1 while the shared Redis cache (`lookup.redis`) responds, otherwise 0, also without one.",
            )?,
            config_reloads: to.counters(
                "config_reloads_total",
                "Configuration reloads (SIGHUP), by result; a failed one leaves the previous configuration active.",
                &["result"],
            )?,
            config_refused: to.gauge(
                "config_refused",
                "1 while the configuration read last has errors and an older one is active.",
            )?,
            log_lines_dropped: to.counter(
                "log_lines_dropped_total",
                "Log lines lost because the log was written too slowly or not at all.",
            )?,
            record_omitted_bytes: to.counter(
                "record_omitted_bytes_total",
                "Bytes missing from recordings because `gatepost record` was too slow.",
            )?,
            sessions_limit: to.gauge(
                "sessions_limit",
                "Maximum number of open sessions (`limits.sessions`).",
            )?,
            upstreams: to.gauges(
                "upstreams",
                "Configured upstreams, by last result; one that was never tried counts as up, a Unix socket for both families.",
                &["family", "state"],
            )?,
            upstream_names: to.gauges(
                "upstream_names",
                "Host names of upstreams: resolved by the last lookup, with addresses of an earlier one (stale), or without any.",
                &["state"],
            )?,
            ready: to.gauge("ready", "1 while `/readyz` reports ready.")?,
        })
    }
}

/// Creates and registers families.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

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

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, MetricsError> {
        self.register(GaugeVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        let opts = HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
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
