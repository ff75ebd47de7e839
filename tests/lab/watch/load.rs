//! smtp-source at full speed: a source counts each packet that it cannot deliver, so that seen + lost = sent.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::thread;

use crate::harness::tests;
use crate::support::watcher::{Source, WatchOutput, Watcher};
use crate::support::{Family, Lab, Process, port, until};
use nix::sys::signal::Signal;
use serde_json::Value;

tests![
    Alone:
        sessions_at_full_speed_are_seen_or_counted_as_lost_ebpf,
        sessions_at_full_speed_are_seen_or_counted_as_lost_pcap,
        a_starved_source_counts_its_losses_ebpf,
        a_starved_source_counts_its_losses_pcap,
        a_reader_that_does_not_read_delays_neither_capture_nor_metrics
];

/// Of each family, one message each.
const SESSIONS: u64 = 4_000;
/// Open at once.
const PARALLEL: u64 = 50;
const OCTETS: u64 = 4_000;

/// The client kernel's counters.
#[derive(Clone, Copy, Debug)]
struct Sent {
    connections: u64,
    /// Initial ones and retransmissions.
    syns: u64,
}

impl Sent {
    /// Since the client's namespace exists.
    fn by(lab: &Lab) -> Self {
        let counters = lab.client.run(["nstat", "-asz", "TcpActiveOpens", "TcpExtTCPSynRetrans"]);
        let value = |name: &str| {
            let line = counters.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("{name} in {counters:?}"))
        };
        let connections = value("TcpActiveOpens");
        Self { connections, syns: connections + value("TcpExtTCPSynRetrans") }
    }
}

fn sessions_at_full_speed_are_seen_or_counted_as_lost_ebpf() {
    sessions_at_full_speed(Source::Ebpf);
}

fn sessions_at_full_speed_are_seen_or_counted_as_lost_pcap() {
    sessions_at_full_speed(Source::Pcap);
}

fn sessions_at_full_speed(source: Source) {
    let lab = Lab::new();
    source.require(&lab);
    let _sinks = sinks(&lab);
    let before = Sent::by(&lab);
    let watcher = Watcher::start(&lab, &lab.server, source, &["gateway"], &[]);
    let both = Family::ALL.map(|family| smtp_source(&lab, family, PARALLEL, SESSIONS));
    both.into_iter().for_each(finished);
    watcher.wait_until_quiet();
    let output = watcher.finish();
    settle(source, &output, before, Sent::by(&lab));
}

fn a_starved_source_counts_its_losses_ebpf() {
    starved(Source::Ebpf);
}

fn a_starved_source_counts_its_losses_pcap() {
    starved(Source::Pcap);
}

/// The reader is stopped during half of the load, and its kernel buffer is tiny. The client has few ports, so that ports are
/// reused before the watcher has seen the end of the previous connection.
fn starved(source: Source) {
    let lab = Lab::new();
    source.require(&lab);
    let _sinks = sinks(&lab);
    lab.client.run(["sysctl", "-w", "net.ipv4.ip_local_port_range=20000 24999"]);
    let before = Sent::by(&lab);
    let starved = ["--buffer", "64K"];
    let watcher = Watcher::start(&lab, &lab.server, source, &["gateway"], &starved);
    watcher.signal(Signal::SIGSTOP);
    finished(smtp_source(&lab, Family::Ipv6, PARALLEL, SESSIONS));
    watcher.signal(Signal::SIGCONT);
    finished(smtp_source(&lab, Family::Ipv4, PARALLEL, SESSIONS));
    watcher.wait_until_quiet();
    let output = watcher.finish();
    settle(source, &output, before, Sent::by(&lab));
    let (_, packets) = output.lost();
    assert!(packets > 0, "{source:?} lost nothing although it was stopped");
    // Every connection was answered, and those whose answer was lost prove nothing.
    let wrong: Vec<&Value> = output
        .sessions()
        .into_iter()
        .filter(|session| {
            let tcp = &session["tcp"];
            ["unanswered", "unreachable", "refused"].iter().any(|one| tcp["outcome"] == *one)
                || tcp["black_hole"] == true
        })
        .collect();
    assert!(wrong.is_empty(), "{source:?}: {} sessions, such as {}", wrong.len(), wrong[0]);
    let unknown =
        output.sessions().iter().filter(|session| session["tcp"]["outcome"] == "unknown").count();
    eprintln!("{source:?}: {unknown} sessions with an unknown outcome");
}

/// The lines that the pipe and the queue cannot take are counted, and the metrics have their sessions meanwhile.
fn a_reader_that_does_not_read_delays_neither_capture_nor_metrics() {
    let lab = Lab::new();
    Source::Ebpf.require(&lab);
    let _sinks = sinks(&lab);
    let (watcher, mut unread) =
        Watcher::start_unread(&lab, &lab.server, Source::Ebpf, &["gateway"]);
    Family::ALL
        .into_iter()
        .for_each(|family| finished(smtp_source(&lab, family, PARALLEL, SESSIONS)));
    until("all sessions in the metrics", || {
        let sessions = watcher.metrics().sum("gatepost_tcp_connections_total", &[]);
        (sessions == (2 * SESSIONS) as f64).then_some(())
    });
    let reader = thread::spawn(move || {
        let mut text = String::new();
        unread.read_to_string(&mut text).map(|_| text)
    });
    watcher.signal(Signal::SIGTERM);
    let output = WatchOutput::parse(&reader.join().unwrap().unwrap());
    let printed = output.sessions().len() as u64;
    let dropped = output.only("lost")["lines"].as_u64().unwrap();
    eprintln!("{printed} sessions printed, {dropped} dropped");
    assert!(dropped > 0, "the queue took all {printed} lines");
    assert_eq!(printed + dropped, 2 * SESSIONS);
    assert!(watcher.log().contains("standard output is read too slowly"), "{}", watcher.log());
}

/// Each SYN is in a session or counted as lost; hence each session is seen or lost.
#[track_caller]
fn settle(source: Source, output: &WatchOutput, before: Sent, after: Sent) {
    let connections = after.connections - before.connections;
    assert_eq!(connections, 2 * SESSIONS, "connections that smtp-source opened");
    let sent = after.syns - before.syns;

    let sessions = output.sessions();
    // A port may serve again at once where the server closed first, but not at the same time.
    let begun = |session: &&Value| format!("{} {}", session["client"], session["start"]);
    let begun: BTreeSet<String> = sessions.iter().map(begun).collect();
    assert_eq!(begun.len(), sessions.len(), "{source:?}: a session reported twice");
    let syns = |session: &&Value| session["tcp"]["syns"].as_u64().expect("syns");
    let (opened, joined): (Vec<_>, Vec<_>) = sessions.iter().partition(|s| syns(s) > 0);
    let seen: u64 = opened.iter().map(syns).sum();
    let (openings, packets) = output.lost();
    eprintln!(
        "{source:?}: {connections} connections, {sent} SYNs sent; {} sessions seen to open and {} joined later; \
         lost: {openings} openings, {packets} other packets",
        opened.len(),
        joined.len(),
    );
    assert_eq!(seen + openings, sent, "{source:?}: SYNs seen and lost, SYNs sent");
    assert!(joined.len() as u64 <= openings, "{source:?}: joined later, and no opening lost");
}

/// smtp-sink for both families.
pub(super) fn sinks(lab: &Lab) -> [Process; 2] {
    Family::ALL.map(|family| {
        let at = lab.server_socket(family, port::SMTP);
        let to = format!("inet:[{}]:{}", at.ip(), at.port());
        let sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &to, "4096"]);
        lab.server.wait_for_listener(at);
        sink
    })
}

/// Sends messages over connections of their own, `parallel` at a time.
pub(super) fn smtp_source(lab: &Lab, family: Family, parallel: u64, sessions: u64) -> Process {
    let to = format!("inet:[{}]:{}", lab.server_ip(family), port::SMTP);
    let (parallel, sessions, octets) =
        (parallel.to_string(), sessions.to_string(), OCTETS.to_string());
    lab.client.spawn(["smtp-source", "-s", &parallel, "-m", &sessions, "-l", &octets, &to])
}

#[track_caller]
fn finished(mut smtp_source: Process) {
    let status = smtp_source.wait();
    assert!(status.success(), "smtp-source: {status}\n{}", smtp_source.log());
}
