//! The table on standard output, and what describes the run.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::net::Family;
use crate::proxies::Peer;
use crate::results::Results;

/// Widths: a label, the direct path's figures without a ratio and four cells make 99 columns.
const LABEL: usize = 30;
const DIRECT: usize = 9;
const CELL: usize = 15;

#[derive(Clone, Copy)]
pub(crate) struct Row {
    label: &'static str,
    pub(crate) figure: &'static str,
    decimals: usize,
}

pub(crate) const fn row(label: &'static str, figure: &'static str, decimals: usize) -> Row {
    Row { label, figure, decimals }
}

/// A section of the table: title, measure, rows.
pub(crate) type Section = (&'static str, &'static str, &'static [Row]);

/// Every figure's median, with its ratio to HAProxy's in brackets; sections that were not measured are left out.
pub(crate) fn medians(results: &Results, sections: &[Section]) -> Result<String> {
    let mut text = String::new();
    write!(text, "{:LABEL$}", "median (times haproxy's)")?;
    for peer in Peer::ALL {
        write!(text, "{:>width$}", peer.name(), width = width(peer))?;
    }
    writeln!(text)?;
    for (title, measure, rows) in sections {
        let was_measured = |row: &Row| {
            Peer::ALL.iter().any(|peer| results.median(measure, *peer, row.figure).is_some())
        };
        if !rows.iter().any(was_measured) {
            continue;
        }
        writeln!(text, "{title}")?;
        for row in *rows {
            write!(text, "  {:width$}", row.label, width = LABEL - 2)?;
            for peer in Peer::ALL {
                let cell = cell(results, measure, peer, row);
                write!(text, "{cell:>width$}", width = width(peer))?;
            }
            writeln!(text)?;
        }
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

/// As [`medians`], by measure, figure and path.
pub(crate) fn medians_json(results: &Results, sections: &[Section]) -> Value {
    let mut medians = Map::new();
    for (_, measure, rows) in sections {
        let mut by_figure = Map::new();
        for row in *rows {
            let mut by_peer = Map::new();
            for peer in Peer::ALL {
                let value = results.median(measure, peer, row.figure);
                let ratio = results.ratio(measure, peer, Peer::Haproxy, row.figure);
                let entry = json!({ "median": value, "times_haproxy": ratio });
                by_peer.insert(peer.name().to_owned(), entry);
            }
            by_figure.insert(row.figure.to_owned(), Value::Object(by_peer));
        }
        medians.insert((*measure).to_owned(), Value::Object(by_figure));
    }
    Value::Object(medians)
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
pub(crate) fn heading(family: Family, threads: usize, rounds: u32, machine: &Value) -> String {
    let family = if family == Family::Ipv6 { "IPv6" } else { "IPv4" };
    let fact = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let load = machine["load_before"].as_f64().unwrap_or(f64::NAN);
    let mut text = format!(
        "{family}, {threads} threads each, {rounds} rounds; Linux {}, {} × {}, load {load:.2} before\n",
        fact("kernel"),
        machine["cpus"],
        fact("cpu"),
    );
    if load > 0.5 {
        text.push_str("others use this machine now: trust the ratios more than the figures\n");
    }
    text
}
