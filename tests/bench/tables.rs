//! What the relay's benchmark reports: the sections of its table, its targets and its JSON file.

use std::fmt::Write as _;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Plan;
use crate::mail::PARALLEL;
use crate::proxies::Peer;
use crate::report::{self, Row, Section, row};
use crate::results::{Bound, Results, Target};
use crate::timing::STREAMS;

const SECTIONS: [Section; 7] = [
    (
        "2 kB messages, one a session",
        "message_per_session",
        &[
            row("CPU s per 10,000 messages", "cpu_s_per_10000_messages", 3),
            row("sessions per second", "sessions_per_s", 0),
        ],
    ),
    (
        "2 kB messages, many a session",
        "many_per_session",
        &[
            row("CPU s per 10,000 messages", "cpu_s_per_10000_messages", 3),
            row("messages per second", "messages_per_s", 0),
        ],
    ),
    (
        "sessions one after another, each with one message of 2 kB",
        "latency",
        &[
            row("time per session, p50, µs", "p50_us", 0),
            row("added to direct, p50, µs", "added_p50_us", 0),
            row("time per session, p99, µs", "p99_us", 0),
            row("added to direct, p99, µs", "added_p99_us", 0),
        ],
    ),
    ("20 MB messages", "large_messages", &BULK),
    ("opaque bytes after STARTTLS, to the server", "opaque_up", &BULK),
    ("opaque bytes after STARTTLS, to the client", "opaque_down", &BULK),
    (
        "idle sessions after EHLO",
        "idle_sessions",
        &[
            row("resident KiB per session", "rss_kib_per_session", 2),
            row("proportional KiB per session", "pss_kib_per_session", 2),
        ],
    ),
];

const BULK: [Row; 3] = [
    row("throughput, GB per second", "gb_per_s", 3),
    row("CPU s per GB", "cpu_s_per_gb", 3),
    row("of it spliced, percent", "spliced_percent", 0),
];

const TARGETS: [Target; 8] = [
    Target {
        what: "CPU of inspected 2 kB messages, one a session",
        measure: "message_per_session",
        figure: "cpu_s_per_10000_messages",
        bound: Bound::TimesAtMost(1.0),
    },
    Target {
        what: "CPU of inspected 2 kB messages, many a session",
        measure: "many_per_session",
        figure: "cpu_s_per_10000_messages",
        bound: Bound::TimesAtMost(1.0),
    },
    Target {
        what: "CPU of inspected 20 MB messages",
        measure: "large_messages",
        figure: "cpu_s_per_gb",
        bound: Bound::TimesAtMost(1.0),
    },
    Target {
        what: "throughput of opaque bytes to the server",
        measure: "opaque_up",
        figure: "gb_per_s",
        bound: Bound::TimesAtLeast(1.5),
    },
    Target {
        what: "throughput of opaque bytes to the client",
        measure: "opaque_down",
        figure: "gb_per_s",
        bound: Bound::TimesAtLeast(1.5),
    },
    Target {
        what: "CPU of opaque bytes to the server",
        measure: "opaque_up",
        figure: "cpu_s_per_gb",
        bound: Bound::TimesAtMost(0.7),
    },
    Target {
        what: "CPU of opaque bytes to the client",
        measure: "opaque_down",
        figure: "cpu_s_per_gb",
        bound: Bound::TimesAtMost(0.7),
    },
    Target {
        what: "resident memory of an idle session",
        measure: "idle_sessions",
        figure: "rss_kib_per_session",
        bound: Bound::Most(12.0),
    },
];

/// CPU of signed messages with a rule on DKIM, as a multiple of that without.
const VERIFYING_AT_MOST: f64 = 1.6;

fn verifying_reached(results: &Results) -> Option<f64> {
    let (with, without) = (Peer::GatepostVerifying, Peer::Gatepost);
    results.ratio("signed_messages", with, without, "cpu_s_per_gb")
}

/// Every figure's median and every target.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = report::medians(results, &SECTIONS)?;
    let title = "what gatepost is to reach, in haproxy's";
    writeln!(text, "\n{title:50}{:20}{:14}with haproxy+splice", "bound", "reached")?;
    for target in &TARGETS {
        let (bound, verdict) = (target.bound_text(), target.verdict(results, &[Peer::Haproxy]));
        let other = match (target.bound, target.reached(results, &[Peer::HaproxySplicing])) {
            (Bound::TimesAtMost(_) | Bound::TimesAtLeast(_), Some(ratio)) => {
                format!("{ratio:.2} ×")
            }
            _ => String::new(),
        };
        let line = format!("  {:48}{bound:20}{verdict:14}{other}", target.what);
        writeln!(text, "{}", line.trim_end())?;
    }
    let verdict = match verifying_reached(results) {
        Some(reached) if reached <= VERIFYING_AT_MOST => format!("met: {reached:.2}"),
        Some(reached) => format!("MISSED: {reached:.2}"),
        None => "not measured".to_owned(),
    };
    let bound = format!("at most {VERIFYING_AT_MOST:.2} ×");
    writeln!(text, "\nwith a rule on DKIM, in gatepost's without")?;
    writeln!(text, "  {:48}{bound:20}{verdict}", "CPU of signed 20 MB messages")?;
    Ok(text)
}

/// The whole run: machine, settings, medians, targets and every raw figure.
pub(crate) fn json(results: &Results, plan: &Plan, machine: &Value, complete: bool) -> Value {
    let targets = TARGETS.iter().map(|target| {
        let (kind, bound) = match target.bound {
            Bound::TimesAtMost(bound) => ("at_most_times_haproxy", bound),
            Bound::TimesAtLeast(bound) => ("at_least_times_haproxy", bound),
            Bound::Most(bound) => ("at_most", bound),
        };
        let reached = target.reached(results, &[Peer::Haproxy]);
        json!({
            "what": target.what,
            "measure": target.measure,
            "figure": target.figure,
            kind: bound,
            "reached": reached,
            "reached_with_haproxy_splicing": target.reached(results, &[Peer::HaproxySplicing]),
            "met": reached.map(|reached| target.met(reached)),
        })
    });
    json!({
        "benchmark": "relay",
        "complete": complete,
        "finished": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "machine": machine,
        "load_after": report::load(),
        "settings": {
            "quick": plan.quick,
            "family": plan.family.name(),
            "threads": plan.threads,
            "rounds": plan.rounds,
            "idle_rounds": plan.idle_rounds,
            "messages_one_a_session": plan.short_messages,
            "messages_many_a_session": plan.long_messages,
            "parallel_sessions": PARALLEL,
            "latency_sessions": plan.latency_sessions,
            "bulk_streams": STREAMS,
            "large_messages_per_stream": plan.large_messages,
            "opaque_bytes": plan.opaque_bytes,
            "idle_sessions": plan.idle_sessions,
        },
        "medians": report::medians_json(results, &SECTIONS),
        "targets": targets.collect::<Vec<_>>(),
        "dkim": {
            "what": "CPU of signed 20 MB messages with a rule on DKIM",
            "at_most_times_without": VERIFYING_AT_MOST,
            "reached": verifying_reached(results),
        },
        "raw": results.json(),
    })
}
