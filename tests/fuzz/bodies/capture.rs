//! Whole captures, read as `gatepost replay` reads them, and the properties that hold for every input.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gatepost::addr::Family;
use gatepost::analyzer::{Analyzer, AnalyzerSettings, FinishedSession, Transcripts};
use gatepost::engine::{
    BareNewlines, Event, ListenerProfiles, Observe, Pregreet, Profile, SessionRecord,
};
use gatepost::lookup::PassiveDns;
use gatepost::report::replay::{
    InputSummary, NumberedSession, ReplayReport, json_damage, json_session,
    transcript as write_transcript,
};
use gatepost::source::{CaptureFile, PacketSource};
use gatepost::stream::{FlowLimits, WatchedPorts};
use gatepost::time::Timestamp;
use gatepost::wire::Packet;

/// So low that every limit is reached.
pub(crate) const LITTLE: FlowLimits = FlowLimits {
    flows: 2,
    held_per_flow: 2000,
    held: 2500,
    idle: Duration::from_secs(60),
    half_open: Duration::from_secs(10),
};

/// The file name in the output.
const FILE: &str = "a.pcap";
/// The width of text output.
const WIDTH: usize = 100;

/// The contents of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) packets: u64,
    pub(crate) sessions: u64,
    pub(crate) commands: u64,
    pub(crate) errors: u64,
    /// The highest at any time, as [`FlowLimits`] bounds them.
    pub(crate) held: usize,
    pub(crate) flows: usize,
}

/// Reads `octets` to the end, and writes the results in every output format.
pub(crate) fn read(octets: &[u8], limits: FlowLimits) -> Contents {
    let events = Arc::new(EventCounts::default());
    let mut analyzer = Analyzer::new(AnalyzerSettings {
        profiles: strict(),
        ports: WatchedPorts::default(),
        limits,
        observer: Arc::clone(&events) as _,
        transcripts: Transcripts::All,
        numbered: 0,
    });
    let mut reporter = Reporter::default();
    match CaptureFile::from_reader(Path::new(FILE), octets, octets.len() as u64) {
        Err(error) => reporter.damage(&error.to_string()),
        Ok(mut file) => {
            let mut dns = PassiveDns::with_limit(4096);
            loop {
                match file.next() {
                    Ok(None) => break,
                    Err(error) => reporter.damage(&error.to_string()),
                    Ok(Some(packet)) => {
                        reporter.totals.packet(&packet);
                        if let Some(datagram) = analyzer.packet(&packet) {
                            dns.on_datagram(&datagram);
                        }
                    }
                }
                // A packet takes 16 octets, which gzip makes of less than one.
                assert!(
                    reporter.totals.packets <= 64 * octets.len() as u64,
                    "reading does not end"
                );
                let (held, flows) = (analyzer.held(), analyzer.flows());
                let most_held = held.into_iter().fold(0, usize::max);
                assert!(most_held <= limits.held, "holds {held:?} octets of {}", limits.held);
                assert!(flows <= limits.flows, "holds {flows} flows of {}", limits.flows);
                let most = &mut reporter.contents;
                (most.held, most.flows) = (most.held.max(held[0]), most.flows.max(flows));
                reporter.sessions(&mut analyzer);
            }
            assert!(reporter.contents.errors <= 1, "an error is reported once");
        }
    }
    analyzer.finish();
    reporter.sessions(&mut analyzer);
    assert_eq!((analyzer.held(), analyzer.flows()), ([0, 0], 0), "nothing is left");
    let counts = analyzer.packet_counts();
    assert_eq!(
        (counts.packets, counts.bytes),
        (reporter.totals.packets, reporter.totals.on_the_wire)
    );
    let damaged: u64 = counts.damaged.iter().map(|(_, count)| count).sum();
    assert!(counts.segments + damaged <= counts.packets);
    let contents = reporter.end();
    let counted = [&events.opened, &events.closed, &events.records].map(|n| n.load(Relaxed));
    assert_eq!(counted, [contents.sessions; 3], "opened, closed, recorded");
    contents
}

/// A profile that rejects whatever it can.
fn strict() -> Arc<ListenerProfiles> {
    let mut profile = Profile::default();
    profile.smtp.pregreet = Pregreet::Reject;
    profile.smtp.bare_newlines = BareNewlines::Reject;
    (profile.limits.commands, profile.limits.errors) = (20, 3);
    Arc::new(ListenerProfiles::new(Vec::new(), Arc::new(profile)))
}

/// Counts the events.
#[derive(Default)]
struct EventCounts {
    opened: AtomicU64,
    closed: AtomicU64,
    records: AtomicU64,
}

impl Observe for EventCounts {
    fn event(&self, _: Family, event: Event) {
        match event {
            Event::SessionOpened => self.opened.fetch_add(1, Relaxed),
            Event::SessionClosed(_) => self.closed.fetch_add(1, Relaxed),
            _ => return,
        };
    }

    fn session(&self, _: &SessionRecord) {
        self.records.fetch_add(1, Relaxed);
    }
}

/// Totals of the packets, to check the records against.
#[derive(Default)]
struct PacketTotals {
    packets: u64,
    captured: u64,
    on_the_wire: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl PacketTotals {
    fn packet(&mut self, packet: &Packet<'_>) {
        self.packets += 1;
        self.captured += packet.bytes.len() as u64;
        self.on_the_wire += u64::from(packet.wire_len);
        self.first = Some(self.first.map_or(packet.at, |first| first.min(packet.at)));
        self.last = self.last.max(Some(packet.at));
    }

    /// Checks that a record has no more than the packets had.
    fn check(&self, record: &SessionRecord) {
        let (first, last) = (self.first.unwrap(), self.last.unwrap());
        let (tcp, span) = (&record.tcp, last.since(first));
        assert!((first..=last).contains(&record.start));
        // A flow starts with its first packet, which is not the earliest one in an unordered capture.
        assert!(record.duration <= span && tcp.handshake.is_none_or(|took| took <= span));
        for octets in [tcp.client_bytes, tcp.server_bytes] {
            assert!(octets >> 31 < self.packets, "windows are smaller");
        }
        let syns = u64::from(tcp.syns.unwrap());
        for count in [syns, tcp.retransmits.unwrap(), tcp.icmp_errors.unwrap()] {
            assert!(count <= self.packets);
        }
        assert!(tcp.gaps.unwrap() <= 4 * self.packets);

        let smtp = &record.smtp;
        let lines: u64 = smtp.commands.values().chain(smtp.replies.values()).sum();
        assert!(lines <= self.captured, "{lines} commands and replies");
        assert!(smtp.resyncs <= smtp.desyncs);
        let kinds: BTreeSet<_> = smtp.anomalies.iter().collect();
        assert_eq!(kinds.len(), smtp.anomalies.len(), "an anomaly twice");
        assert!(smtp.transactions.len() as u64 <= smtp.transactions_total);
        for transaction in &smtp.transactions {
            assert!(transaction.rcpt_to.len() as u64 <= transaction.rcpt_total);
        }
        let content: u64 = smtp.transactions.iter().map(|transaction| transaction.bytes).sum();
        assert!(content <= tcp.client_bytes, "{content} octets of content");
    }
}

#[derive(Default)]
struct Reporter {
    totals: PacketTotals,
    numbers: BTreeSet<u64>,
    report: ReplayReport,
    contents: Contents,
}

impl Reporter {
    fn damage(&mut self, message: &str) {
        self.contents.errors += 1;
        self.report.add_damage(message);
        is_a_line(&json_damage(FILE, message));
    }

    fn sessions(&mut self, analyzer: &mut Analyzer) {
        analyzer.sessions().for_each(|session| self.session(&session));
    }

    fn session(&mut self, session: &FinishedSession) {
        let FinishedSession { number, record, transcript, .. } = session;
        assert!(self.numbers.insert(*number), "session {number} twice");
        self.totals.check(record);
        self.contents.sessions += 1;
        self.contents.commands += record.smtp.commands.values().sum::<u64>();
        let numbered = NumberedSession {
            file: FILE,
            number: *number,
            record,
            policy_applied: true,
            unknown_facts: &[],
        };
        self.report.add_session(&numbered);
        let line = is_a_line(&json_session(&numbered));
        assert_eq!((&line["type"], &line["number"]), (&"session".into(), &(*number).into()));
        let mut page = Vec::new();
        write_transcript(&numbered, transcript, false, &mut page).unwrap();
        is_readable(page);
    }

    fn end(mut self) -> Contents {
        self.contents.packets = self.totals.packets;
        let last = self.numbers.last().copied().unwrap_or_default();
        assert_eq!(last, self.contents.sessions, "a number is missing");
        let summary = InputSummary {
            files: &[FILE],
            packets: self.totals.packets,
            first: self.totals.first,
            last: self.totals.last,
            ports: &WatchedPorts::DEFAULT,
            evidence: None,
        };
        let mut page = Vec::new();
        self.report.write(&summary, false, &mut page).unwrap();
        is_readable(page);
        self.contents
    }
}

/// One object on one line.
fn is_a_line(line: &str) -> serde_json::Value {
    let inside = line.strip_suffix('\n').expect("a line end");
    assert!(!inside.contains(char::is_control), "{line}");
    serde_json::from_str(inside).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// Has no control characters, and fits a terminal.
fn is_readable(page: Vec<u8>) {
    let page = String::from_utf8(page).unwrap();
    for line in page.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
}
