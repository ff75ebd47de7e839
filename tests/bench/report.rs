//! The table on standard output and the JSON file.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::mail::PARALLEL;
use crate::measures::STREAMS;
use crate::proxies::Peer;
use crate::results::{Bound, Results, TARGETS};
use crate::{Plan, net::Family};

/// Widths: a label, the direct path's figures without a ratio and four cells make 99 columns.
const LABEL: usize = 30;
const DIRECT: usize = 9;
const CELL: usize = 15;

#[derive(Clone, Copy)]
struct Row {
    label: &'static str,
    figure: &'static str,
    decimals: usize,
}

const fn row(label: &'static str, figure: &'static str, decimals: usize) -> Row {
    Row { label, figure, decimals }
}

/// Sections of the table: title, measure, rows.
const SECTIONS: [(&str, &str, &[Row]); 7] = [
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

/// Every figure's median, with its ratio to HAProxy's in brackets, and every target.
pub(crate) fn table(results: &Results) -> Result<String> {
    let mut text = String::new();
    write!(text, "{:LABEL$}", "median (times haproxy's)")?;
    for peer in Peer::ALL {
        write!(text, "{:>width$}", peer.name(), width = width(peer))?;
    }
    writeln!(text)?;
    for (title, measure, rows) in SECTIONS {
        writeln!(text, "{title}")?;
        for row in rows {
            write!(text, "  {:width$}", row.label, width = LABEL - 2)?;
            for peer in Peer::ALL {
                let cell = cell(results, measure, peer, row);
                write!(text, "{cell:>width$}", width = width(peer))?;
            }
            writeln!(text)?;
        }
    }
    let title = "what gatepost is to reach, in haproxy's";
    writeln!(text, "\n{title:50}{:20}{:14}with haproxy+splice", "bound", "reached")?;
    for target in &TARGETS {
        let bound = match target.bound {
            Bound::TimesAtMost(bound) => format!("at most {bound:.2} ×"),
            Bound::TimesAtLeast(bound) => format!("at least {bound:.2} ×"),
            Bound::Most(bound) => format!("at most {bound:.2} KiB"),
        };
        let verdict = match target.reached(results, Peer::Haproxy) {
            Some(reached) if target.met(reached) => format!("met: {reached:.2}"),
            Some(reached) => format!("MISSED: {reached:.2}"),
            None => "not measured".to_owned(),
        };
        let other = match (target.bound, target.reached(results, Peer::HaproxySplicing)) {
            (Bound::TimesAtMost(_) | Bound::TimesAtLeast(_), Some(ratio)) => {
                format!("{ratio:.2} ×")
            }
            _ => String::new(),
        };
        let line = format!("  {:48}{bound:20}{verdict:14}{other}", target.what);
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(text)
}

fn width(peer: Peer) -> usize {
    if peer == Peer::Direct { DIRECT } else { CELL }
}

fn cell(results: &Results, measure: &str, peer: Peer, row: &Row) -> String {
    let no_proxy = peer == Peer::Direct && row.figure.starts_with("cpu");
    let value = results.median(measure, peer, row.figure).filter(|_| !no_proxy);
    let Some(value) = value else {
        return "-".to_owned();
    };
    let decimals = row.decimals;
    let bare = peer == Peer::Direct || row.figure == "spliced_percent";
    match results.ratio(measure, peer, Peer::Haproxy, row.figure) {
        Some(ratio) if !bare => format!("{value:.decimals$} ({ratio:.2})"),
        _ => format!("{value:.decimals$}"),
    }
}

/// The whole run: machine, settings, medians, targets and every raw figure.
pub(crate) fn json(results: &Results, plan: &Plan, machine: &Value, complete: bool) -> Value {
    let mut medians = Map::new();
    for (_, measure, rows) in SECTIONS {
        let mut by_figure = Map::new();
        for row in rows {
            let mut by_peer = Map::new();
            for peer in Peer::ALL {
                let value = results.median(measure, peer, row.figure);
                let ratio = results.ratio(measure, peer, Peer::Haproxy, row.figure);
                let entry = json!({ "median": value, "times_haproxy": ratio });
                by_peer.insert(peer.name().to_owned(), entry);
            }
            by_figure.insert(row.figure.to_owned(), Value::Object(by_peer));
        }
        medians.insert(measure.to_owned(), Value::Object(by_figure));
    }
    let targets = TARGETS.iter().map(|target| {
        let (kind, bound) = match target.bound {
            Bound::TimesAtMost(bound) => ("at_most_times_haproxy", bound),
            Bound::TimesAtLeast(bound) => ("at_least_times_haproxy", bound),
            Bound::Most(bound) => ("at_most", bound),
        };
        let reached = target.reached(results, Peer::Haproxy);
        json!({
            "what": target.what,
            "measure": target.measure,
            "figure": target.figure,
            kind: bound,
            "reached": reached,
            "reached_with_haproxy_splicing": target.reached(results, Peer::HaproxySplicing),
            "met": reached.map(|reached| target.met(reached)),
        })
    });
    json!({
        "benchmark": "relay",
        "complete": complete,
        "finished": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "machine": machine,
        "load_after": load(),
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
        "medians": medians,
        "targets": targets.collect::<Vec<_>>(),
        "raw": results.json(),
    })
}

/// The environment of the run.
pub(crate) fn machine() -> Result<Value> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut programs = Map::new();
    for peer in Peer::ALL {
        programs.insert(peer.name().to_owned(), json!(peer.version()?));
    }
    programs.insert("postfix".to_owned(), json!(first_line("postconf", &["-dh", "mail_version"])));
    Ok(json!({
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
        "cpu": field(&read("/proc/cpuinfo")?, "model name"),
        "cpus": available_parallelism()?.get(),
        "memory": field(&read("/proc/meminfo")?, "MemTotal"),
        "load_before": load(),
        "programs": programs,
        "commit": first_line("git", &["describe", "--always", "--dirty"]),
    }))
}

/// A program's first line of output; none where it is missing, since these facts are optional.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// The line above the table: the programs and the machine.
pub(crate) fn heading(plan: &Plan, machine: &Value) -> String {
    let family = if plan.family == Family::Ipv6 { "IPv6" } else { "IPv4" };
    let fact = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let load = machine["load_before"].as_f64().unwrap_or(f64::NAN);
    let mut text = format!(
        "{family}, {} threads each, {} rounds; Linux {}, {} × {}, load {load:.2} before\n",
        plan.threads,
        plan.rounds,
        fact("kernel"),
        machine["cpus"],
        fact("cpu"),
    );
    if load > 0.5 {
        text.push_str("others use this machine now: trust the ratios more than the figures\n");
    }
    text
}
