//! The metrics match the session records.

use serde_json::Value;

use super::expected::Failed;
use crate::support::Family;
use crate::support::watcher::{Metrics, WatchOutput};

/// The outcomes of a connection.
const OUTCOMES: [&str; 6] =
    ["established", "refused", "unanswered", "unreachable", "reset", "midstream"];

/// The only ICMP error in this traffic.
const TOO_BIG: &str = "type=\"packet_too_big\"";

/// Checks the counters of connections in one direction, `in` or `out`, against all session records. There is no traffic in
/// the other direction.
pub(crate) fn check(metrics: &Metrics, output: &WatchOutput, direction: &str, failed: &mut Failed) {
    let way = format!("direction=\"{direction}\"");
    for family in Family::ALL {
        let of_family = family.to_string();
        let records: Vec<&Value> =
            output.of_type("session").filter(|s| s["family"] == of_family.as_str()).collect();
        let label = family.label();
        let mut equal = |name: &str, labels: &[&str], wanted: u64| {
            let labels: Vec<&str> =
                [label.as_str(), &way].into_iter().chain(labels.iter().copied()).collect();
            let found = metrics.sum(&format!("gatepost_{name}"), &labels);
            failed.unless(found == wanted as f64, || {
                format!("{name} {labels:?}: {found}, records have {wanted}")
            });
        };
        for outcome in OUTCOMES {
            let wanted = records.iter().filter(|r| r["tcp"]["outcome"] == outcome).count();
            let label = format!("outcome=\"{outcome}\"");
            equal("tcp_connections_total", &[&label], wanted as u64);
        }
        let sum = |field: &str| -> u64 {
            records.iter().map(|record| record["tcp"][field].as_u64().unwrap_or_default()).sum()
        };
        let handshakes = records.iter().filter(|r| !r["tcp"]["handshake_s"].is_null()).count();
        equal("tcp_handshake_seconds_count", &[], handshakes as u64);
        let opened = records.iter().filter(|r| r["tcp"]["syns"] != 0).count();
        equal("tcp_syn_retransmits_total", &[], sum("syns") - opened as u64);
        equal("tcp_retransmitted_segments_total", &[], sum("retransmits"));
        equal("icmp_errors_total", &[TOO_BIG], sum("icmp_errors"));
        equal("icmp_errors_total", &[], sum("icmp_errors"));
        let holes = records.iter().filter(|r| r["tcp"]["black_hole"] == true).count();
        equal("tcp_pmtu_black_holes_total", &[], holes as u64);
        equal("reassembly_gaps_total", &[], sum("gaps"));
    }
    let mut whys: Vec<&str> =
        output.of_type("fallback").filter_map(|f| f["why"].as_str()).collect();
    whys.sort_unstable();
    whys.dedup();
    for why in whys {
        let wanted = output.of_type("fallback").filter(|f| f["why"] == why).count();
        let labels = [way.as_str(), &format!("reason=\"{why}\"")];
        let found = metrics.sum("gatepost_ipv6_fallbacks_total", &labels);
        failed
            .unless(found == wanted as f64, || format!("fall-backs {why}: {found}, not {wanted}"));
    }
    for what in ["capture_dropped_total", "reassembly_gap_bytes_total", "parser_desyncs_total"] {
        let found = metrics.sum(&format!("gatepost_{what}"), &[]);
        failed.unless(found == 0.0, || format!("{what}: {found}"));
    }
}
