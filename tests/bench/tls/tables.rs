//! What the TLS benchmark reports: the sections of its table, its targets and its JSON file.

use std::fmt::Write as _;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Plan;
use crate::measures::PARALLEL;
use crate::proxies::Peer;
use crate::report::{self, Row, Section, row};
use crate::results::{Bound, Results, Target};
use crate::timing::STREAMS;

const SECTIONS: [Section; 6] = [
    ("full handshake, one message of 2 kB", "full_handshake", &SESSIONS),
    ("resumed handshake, one message of 2 kB", "resumed", &SESSIONS),
    ("such sessions one after another, full handshake", "latency", &TIMES),
    ("such sessions one after another, resumed", "latency_resumed", &TIMES),
    (
        "20 MB messages",
        "large_messages",
        &[row("throughput, GB per second", "gb_per_s", 3), row("CPU s per GB", "cpu_s_per_gb", 3)],
    ),
    (
        "idle sessions after TLS and EHLO",
        "idle_sessions",
        &[
            row("resident KiB per session", "rss_kib_per_session", 2),
            row("proportional KiB per session", "pss_kib_per_session", 2),
        ],
    ),
];

const SESSIONS: [Row; 2] = [
    row("CPU µs per session", "cpu_us_per_session", 0),
    row("sessions per second", "sessions_per_s", 0),
];

const TIMES: [Row; 4] = [
    row("time per session, p50, µs", "p50_us", 0),
    row("added to direct, p50, µs", "added_p50_us", 0),
    row("time per session, p99, µs", "p99_us", 0),
    row("added to direct, p99, µs", "added_p99_us", 0),
];

const OTHERS: &[Peer] = &[Peer::Haproxy, Peer::Nginx, Peer::Stunnel];

/// Each with the proxies whose best figure is the base of its multiple.
const TARGETS: [(Target, &[Peer]); 5] = [
    (
        Target {
            what: "CPU of a session, full handshake",
            measure: "full_handshake",
            figure: "cpu_us_per_session",
            bound: Bound::TimesAtMost(0.9),
        },
        OTHERS,
    ),
    (
        Target {
            what: "CPU of a session, resumed",
            measure: "resumed",
            figure: "cpu_us_per_session",
            bound: Bound::TimesAtMost(0.9),
        },
        OTHERS,
    ),
    (
        Target {
            what: "throughput of 20 MB messages",
            measure: "large_messages",
            figure: "gb_per_s",
            bound: Bound::TimesAtLeast(1.0),
        },
        OTHERS,
    ),
    (
        Target {
            what: "CPU of 20 MB messages",
            measure: "large_messages",
            figure: "cpu_s_per_gb",
            bound: Bound::TimesAtMost(1.0),
        },
        OTHERS,
    ),
    (
        Target {
            what: "resident memory of an idle session",
            measure: "idle_sessions",
            figure: "rss_kib_per_session",
            bound: Bound::TimesAtMost(0.7),
        },
        &[Peer::Haproxy],
    ),
];

/// Every figure's median and every target.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = report::medians(results, &SECTIONS)?;
    writeln!(text, "\n{:42}{:20}{:18}of", "what gatepost is to reach", "bound", "reached")?;
    for (target, bases) in &TARGETS {
        let (bound, verdict) = (target.bound_text(), target.verdict(results, bases));
        let base = if bases.len() == 1 { bases[0].name() } else { "the best of the others" };
        writeln!(text, "  {:40}{bound:20}{verdict:18}{base}", target.what)?;
    }
    text.push_str(
        "haproxy: TLS from the first byte, so two round trips fewer; nginx: no upstream before RCPT;\n\
         stunnel: waits 200 ms in each session, a fifth of the sessions, a thread for each\n",
    );
    Ok(text)
}

/// The whole run: machine, settings, medians, targets and every raw figure.
pub(crate) fn json(results: &Results, plan: &Plan, machine: &Value, complete: bool) -> Value {
    let targets = TARGETS.iter().map(|(target, bases)| {
        let reached = target.reached(results, bases);
        json!({
            "what": target.what,
            "measure": target.measure,
            "figure": target.figure,
            "bound": target.bound_text(),
            "best_of": bases.iter().map(|peer| peer.name()).collect::<Vec<_>>(),
            "reached": reached,
            "met": reached.map(|reached| target.met(reached)),
        })
    });
    json!({
        "benchmark": "tls",
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
            "sessions": plan.sessions,
            "parallel_clients": PARALLEL,
            "latency_sessions": plan.latency_sessions,
            "bulk_streams": STREAMS,
            "large_messages_per_stream": plan.large_messages,
            "idle_sessions": plan.idle_sessions,
        },
        "medians": report::medians_json(results, &SECTIONS),
        "targets": targets.collect::<Vec<_>>(),
        "raw": results.json(),
    })
}
