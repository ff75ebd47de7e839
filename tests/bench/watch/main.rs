//! The cost of watching: gatepost by eBPF and by libpcap against dumpcap with replay, and against no watcher, under one load.
//!
//! `cargo bench --bench watch` needs root, Postfix with its smtp-source and smtp-sink, dumpcap, nftables and iproute2.
//! Messages of 1 MB pass over both families, in namespaces, as fast as the receiver accepts them. The methods take turns within
//! each round, in alternating order; medians are compared. `-- --quick` checks with a small load that the benchmark itself
//! works. Every raw figure goes to `target/bench/watch.json`. A missed target is printed, and is no failure; a method that did
//! not run, or a session that was not seen, is one.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lab is that of the tests"
)]

#[path = "../../lab/support/mod.rs"]
mod lab;
mod load;
#[path = "../quick.rs"]
mod quick;
mod results;
#[allow(dead_code, reason = "the replay's benchmark uses the rest")]
#[path = "../replay/timed.rs"]
mod timed;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::json;

use lab::Lab;
use lab::watcher::Source;
use load::{Receiver, Running};
use quick::is_quick;
use results::Results;
use ways::Way;

const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

struct Plan {
    rounds: u32,
    /// Over each family, in each round.
    messages: u64,
    messages_to_postfix: u64,
}

impl Plan {
    fn from_arguments() -> Result<Self> {
        Ok(if is_quick()? {
            Self { rounds: 1, messages: 20, messages_to_postfix: 10 }
        } else {
            Self { rounds: 9, messages: 300, messages_to_postfix: 150 }
        })
    }
}

fn main() -> Result<ExitCode> {
    let plan = Plan::from_arguments()?;
    let folder = folder()?;
    ensure!(lab::is_root(), "the benchmark needs root");
    let lab = Lab::new();
    // Without all four methods the ratios mean nothing.
    for source in Source::ALL {
        source.check(&lab).map_err(Error::msg)?;
    }
    let capture = folder.join("watch.pcapng");
    let mut results = Results::default();
    let mut programs = (0.0, 0);
    for receiver in [Receiver::SmtpSink, Receiver::Postfix] {
        let (running, messages) = match receiver {
            Receiver::SmtpSink => (Running::start(&lab, receiver), plan.messages),
            Receiver::Postfix => (Running::start(&lab, receiver), plan.messages_to_postfix),
        };
        let ways: &[Way] = match receiver {
            Receiver::SmtpSink => {
                ways::capture(&lab, &running, messages, &capture);
                &Way::ALL
            }
            // The CPU time of watching does not depend on the receiver.
            Receiver::Postfix => &Way::ALL[..3],
        };
        for round in 1..=plan.rounds {
            println!("{}: round {round} of {}", receiver.name(), plan.rounds);
            // In alternating order.
            let mut turns = ways.to_vec();
            if round % 2 == 0 {
                turns.reverse();
            }
            for way in turns {
                let load = load_average();
                let figures = ways::round(&lab, &running, way, messages, &capture);
                results.add(receiver, way, round, load, figures);
            }
        }
        if receiver == Receiver::SmtpSink {
            // In a separate round, since the kernel's counting takes time too.
            let before = fs::read_to_string(BPF_STATS)?;
            fs::write(BPF_STATS, "1").context(BPF_STATS)?;
            ways::watched(&lab, Source::Ebpf, messages, |watcher| {
                programs = ways::bpf_run_time(watcher);
            });
            fs::write(BPF_STATS, before.trim()).context(BPF_STATS)?;
        }
    }
    fs::remove_file(&capture)?;

    print!("\n{}", results.table());
    let (seconds, runs) = programs;
    println!("the eBPF programs, in the kernel, one round: {seconds:.3} s in {runs} runs");
    let path = folder.join("watch.json");
    let mut figures = results.json();
    figures["bpf_programs"] = json!({ "run_time_s": seconds, "runs": runs });
    figures["messages"] = json!({
        "bytes": 1 << 20,
        "each_family_to_smtp_sink": plan.messages,
        "each_family_to_postfix": plan.messages_to_postfix,
    });
    fs::write(&path, format!("{figures:#}\n")).with_context(|| path.display().to_string())?;
    println!("every figure: {}", path.display());
    if results.missed() > 0 {
        println!("sessions or messages were not seen: {}", results.missed());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn folder() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// The load average over the last minute.
fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}
