//! One round of the load with one method of watching, and its cost.
//!
//! CPU time is that of the watching process from its start until it has reported every session. It excludes the kernel's work
//! on other threads: the eBPF programs, whose run time is measured in a separate round, and the copy of each packet into
//! libpcap's buffer.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;

use super::lab::watcher::{Source, WatchOutput, Watcher};
use super::lab::{Lab, until};
use super::load::{Running, send};
use super::timed;

/// The server's only link.
const LINK: &str = "gateway";
/// A capture filter equivalent to gatepost's own.
const FILTER: &str = "tcp port 25";
/// dumpcap reports its packets within half a second.
const FLUSHED: Duration = Duration::from_secs(1);

/// The method of watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    Unwatched,
    Ebpf,
    Pcap,
    /// dumpcap to /dev/null, then replay of a capture of the same load.
    DumpcapAndReplay,
}

impl Way {
    pub(crate) const ALL: [Self; 4] =
        [Self::Unwatched, Self::Ebpf, Self::Pcap, Self::DumpcapAndReplay];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unwatched => "nothing watches",
            Self::Ebpf => "watch --source ebpf",
            Self::Pcap => "watch --source pcap",
            Self::DumpcapAndReplay => "dumpcap + replay",
        }
    }
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) messages_per_s: f64,
    /// Of the watching process; dumpcap and replay together.
    pub(crate) cpu_s: f64,
    /// Of these, replay's.
    pub(crate) replay_cpu_s: f64,
    /// Sessions, messages and packets that the watcher did not see.
    pub(crate) missed_sessions: u64,
    pub(crate) missed_messages: u64,
    pub(crate) lost_packets: u64,
}

/// Runs one round of `messages` over each family.
pub(crate) fn round(
    lab: &Lab,
    receiver: &Running<'_>,
    way: Way,
    messages: u64,
    capture: &Path,
) -> Figures {
    let figures = match way {
        Way::Unwatched => unwatched(lab, messages),
        Way::Ebpf => watched(lab, Source::Ebpf, messages, |_| ()),
        Way::Pcap => watched(lab, Source::Pcap, messages, |_| ()),
        Way::DumpcapAndReplay => dumped_and_replayed(lab, messages, capture),
    };
    receiver.settle();
    figures
}

fn unwatched(lab: &Lab, messages: u64) -> Figures {
    let took = send(lab, messages);
    Figures {
        messages_per_s: rate(messages, took),
        cpu_s: 0.0,
        replay_cpu_s: 0.0,
        missed_sessions: 0,
        missed_messages: 0,
        lost_packets: 0,
    }
}

/// Calls `at_end` with the watcher before it ends.
pub(crate) fn watched(
    lab: &Lab,
    source: Source,
    messages: u64,
    at_end: impl FnOnce(&Watcher<'_>),
) -> Figures {
    let watcher = Watcher::start(lab, &lab.server, source, &[LINK], &[]);
    let before = watcher.process().cpu();
    let took = send(lab, messages);
    // Losses are reported at its end.
    watcher.wait_for_sessions(2 * messages);
    let cpu = watcher.process().cpu() - before;
    at_end(&watcher);
    let output = watcher.finish();
    let (_, lost_packets) = output.lost();
    let (sessions, accepted) = seen(&output);
    Figures {
        messages_per_s: rate(messages, took),
        cpu_s: cpu.as_secs_f64(),
        replay_cpu_s: 0.0,
        missed_sessions: (2 * messages).abs_diff(sessions),
        missed_messages: (2 * messages).abs_diff(accepted),
        lost_packets,
    }
}

fn dumped_and_replayed(lab: &Lab, messages: u64, capture: &Path) -> Figures {
    let (took, dumpcap, lost_packets) = dump(lab, messages, Path::new("/dev/null"));
    let replay = timed::run(replay(capture)).expect("replay");
    Figures {
        messages_per_s: rate(messages, took),
        cpu_s: dumpcap + replay.cpu,
        replay_cpu_s: replay.cpu,
        missed_sessions: 0,
        missed_messages: 0,
        lost_packets,
    }
}

/// The same load once in a file, complete, for replay to read.
pub(crate) fn capture(lab: &Lab, receiver: &Running<'_>, messages: u64, file: &Path) {
    let (_, _, lost) = dump(lab, messages, file);
    receiver.settle();
    assert_eq!(lost, 0, "packets that dumpcap lost; the capture must be complete");
    let output = replay(file).output().expect("replay");
    let output = WatchOutput::parse(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(seen(&output), (2 * messages, 2 * messages), "sessions and messages in the capture");
}

fn replay(file: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(["replay", "--format", "json"]).arg(file);
    command
}

/// Runs a round with dumpcap, which writes to `file`; returns the time, dumpcap's CPU seconds and its lost packets. Its buffer
/// is as large as gatepost's.
fn dump(lab: &Lab, messages: u64, file: &Path) -> (Duration, f64, u64) {
    let file = file.to_str().expect("a path in UTF-8");
    let mut dumpcap =
        lab.server.spawn(["dumpcap", "-q", "-B", "64", "-i", LINK, "-f", FILTER, "-w", file]);
    until("dumpcap to record (Debian: wireshark-common)", || {
        dumpcap.log().contains("File: ").then_some(())
    });
    let before = dumpcap.cpu();
    let took = send(lab, messages);
    thread::sleep(FLUSHED);
    let cpu = dumpcap.cpu() - before;
    dumpcap.signal(Signal::SIGINT);
    let status = dumpcap.wait();
    let log = dumpcap.log();
    assert!(status.success(), "dumpcap: {status}\n{log}");
    // `Packets received/dropped on interface 'x': 12/0 (pcap:0/...`
    let counts = log.split_once("': ").and_then(|(_, rest)| rest.split_once(" ("));
    let lost = counts.and_then(|(counts, _)| counts.split_once('/')?.1.parse().ok());
    (took, cpu.as_secs_f64(), lost.unwrap_or_else(|| panic!("dumpcap's counts in {log:?}")))
}

/// The numbers of sessions and of accepted messages.
fn seen(output: &WatchOutput) -> (u64, u64) {
    let sessions = output.sessions();
    let taken = |session: &&serde_json::Value| {
        let transactions = session["smtp"]["transactions"].as_array().into_iter().flatten();
        transactions.filter(|transaction| transaction["data_code"] == 250).count() as u64
    };
    (sessions.len() as u64, sessions.iter().map(taken).sum())
}

fn rate(messages: u64, took: Duration) -> f64 {
    2.0 * messages as f64 / took.as_secs_f64()
}

/// Run time in seconds and number of runs of a process's eBPF programs, from `/proc/PID/fdinfo`, which counts while
/// `kernel.bpf_stats_enabled` is set.
pub(crate) fn bpf_run_time(watcher: &Watcher<'_>) -> (f64, u64) {
    let folder = format!("/proc/{}/fdinfo", watcher.process().id());
    let (mut nanos, mut runs) = (0, 0);
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
        };
        nanos += field("run_time_ns:");
        runs += field("run_cnt:");
    }
    (nanos as f64 / 1e9, runs)
}
