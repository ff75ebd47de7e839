//! Snapshots of whole screens.

use std::net::SocketAddr;
use std::time::Duration;

use insta::assert_snapshot;

use super::*;
use crate::addr::{Networks, Side};
use crate::engine::{
    Outcome, SessionRecord, SmtpFacts, TcpFacts, TlsState, TransactionRecord, VerdictRecord,
};
use crate::policy::PolicyAction;
use crate::report::columns::width;
use crate::stream::{FlowFacts, FlowOutcome, FlowStart};
use crate::time::Timestamp;
use crate::traffic::fallback::DeliveryOutcome;
use crate::traffic::{self, FlowSummary, MessageCounts};

/// 2026-11-23T02:47:04Z
const START: u64 = 1_795_402_024_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(START + seconds * 1_000_000_000)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(client: &str, server: &str, outcome: FlowOutcome, end: u64) -> FlowFacts {
    let (client, server) = (address(client), address(server));
    let start = FlowStart { number: 1, client, server, at: at(end - 1), midstream: false };
    let established = outcome == FlowOutcome::Established;
    FlowFacts {
        start,
        end: at(end),
        outcome,
        handshake: established.then_some(Duration::from_millis(12)),
        syns: 1,
        bytes: [400, 300],
        data_segments: [8, 7],
        retransmits: [1, 0],
        gaps: 0,
        icmp_errors: 0,
        icmp_kinds: [0; 5],
        path_mtu: None,
        black_hole: false,
        closed_by: established.then_some(Side::Client),
        reset_by: None,
        rtt: None,
        evicted: false,
        incomplete: false,
    }
}

fn record(client: &str, server: &str, outcome: FlowOutcome, end: u64) -> SessionRecord {
    let established = outcome == FlowOutcome::Established;
    let client = address(client);
    let mut smtp = SmtpFacts::default();
    if established {
        smtp.greeting = Some(220);
        smtp.helo = Some("mta.sender.example".to_owned());
        smtp.tls = TlsState::Offered;
        smtp.transactions_total = 1;
        let data_code = Some(if end.is_multiple_of(7) { 554 } else { 250 });
        smtp.transactions = vec![TransactionRecord { data_code, ..TransactionRecord::default() }];
    }
    SessionRecord {
        start: at(end - 1),
        duration: Duration::from_millis(if established { 106 } else { 31_000 }),
        family: Family::of(client.ip()),
        client: client.into(),
        server: address(server).into(),
        listener: None,
        upstream: None,
        upstream_name: None,
        upstream_error: None,
        upstream_tls: None,
        outcome: if established { Outcome::Quit } else { Outcome::CaptureEnded },
        tcp: TcpFacts {
            outcome: Some(outcome),
            syns: Some(if established { 1 } else { 6 }),
            ..TcpFacts::default()
        },
        smtp,
        facts: None,
        verdict: VerdictRecord {
            action: PolicyAction::Accept,
            rule: None,
            reason: None,
            shadow: Vec::new(),
        },
        encrypted: None,
        questions: Vec::new(),
    }
}

fn busy() -> WatchView {
    let ours = ["192.0.2.25/32", "2001:db8:25::25/128"].map(|net| net.parse().unwrap());
    let mut traffic = Traffic::new(Networks::new(ours));
    let mut view = WatchView {
        capture: CaptureSource {
            source: "eBPF".to_owned(),
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        },
        uptime: Duration::from_secs(754),
        open: 5,
        losses: CaptureLosses {
            packets: 12,
            syns: 1,
            not_captured: 4096,
            ..CaptureLosses::default()
        },
        ..WatchView::default()
    };
    view.pending[1] = PendingConnections { count: 3, oldest: Duration::from_secs(31) };
    let connections = [
        ("198.51.100.7:4711", "192.0.2.25:25", FlowOutcome::Established, None),
        ("[2001:db8:1:2:3:4:5:6]:4712", "[2001:db8:25::25]:25", FlowOutcome::Established, None),
        (
            "[2001:db8:25::25]:50000",
            "[2001:db8:7::7]:25",
            FlowOutcome::Unanswered,
            Some("mx.slow.example"),
        ),
        ("192.0.2.25:50001", "203.0.113.7:25", FlowOutcome::Established, Some("mx.slow.example")),
        ("192.0.2.25:50002", "203.0.113.8:587", FlowOutcome::Refused, None),
    ];
    for n in 0..40_u64 {
        let (client, server, outcome, name) = connections[(n % 5) as usize];
        let end = 60 + n * 15;
        let flow = flow(client, server, outcome, end);
        let established = outcome == FlowOutcome::Established;
        traffic.on_flow(&FlowSummary {
            flow: &flow,
            direction: traffic.direction(flow.start.client.ip(), flow.start.server.ip()),
            name: name.map(str::to_owned),
            is_smtp: established,
            greeting: established.then_some(220),
            messages: MessageCounts {
                accepted: u64::from(established),
                ..MessageCounts::default()
            },
            replies: if established { [6, 1, 0, u64::from(n.is_multiple_of(7))] } else { [0; 4] },
            tls: if n.is_multiple_of(3) {
                traffic::StarttlsState::Completed
            } else if n.is_multiple_of(17) {
                traffic::StarttlsState::Failed
            } else {
                traffic::StarttlsState::Offered
            },
            tls_proof: false,
            outcome: if established {
                DeliveryOutcome::Accepted
            } else {
                DeliveryOutcome::Unanswered
            },
        });
        let record = record(client, server, outcome, end);
        view.latest.push(&NumberedSession {
            file: "eth0,eth1",
            number: n + 1,
            record: &record,
            policy_applied: false,
            unknown_facts: &[],
        });
    }
    view.set_traffic(&traffic);
    view
}

fn page(view: &WatchView, columns: usize, lines: usize) -> String {
    let page = frame(view, TerminalSize { columns, lines }, false);
    assert!(page.len() <= lines, "{} lines", page.len());
    for line in &page {
        assert!(width(line) <= columns, "{} columns: {line}", width(line));
    }
    page.join("\n")
}

fn empty() -> WatchView {
    let mut view = WatchView {
        capture: CaptureSource {
            source: "libpcap".to_owned(),
            interfaces: vec!["eth0".to_owned()],
        },
        ..WatchView::default()
    };
    view.set_traffic(&Traffic::new(Networks::default()));
    view
}

#[test]
fn an_empty_page() {
    for (columns, lines) in [(60, 15), (100, 30), (140, 40)] {
        assert_snapshot!(format!("empty_{columns}"), page(&empty(), columns, lines));
    }
}

#[test]
fn a_busy_page() {
    for (columns, lines) in [(60, 15), (100, 30), (100, 50), (140, 40)] {
        assert_snapshot!(format!("busy_{columns}_{lines}"), page(&busy(), columns, lines));
    }
}

#[test]
fn every_page_fits_with_hostile_text() {
    let mut view = busy();
    let hostile = "\u{1b}[2J漢字\r\n\u{202e}".repeat(20);
    view.capture.interfaces.push(hostile.clone());
    view.problems.push(hostile.clone());
    view.evidence.push(EvidenceLine { sentence: hostile.clone(), doubtful: true });
    let mut record = record("198.51.100.7:1", "192.0.2.25:25", FlowOutcome::Established, 60);
    record.smtp.helo = Some(hostile.clone());
    let told = NumberedSession {
        file: &hostile,
        number: 123_456,
        record: &record,
        policy_applied: false,
        unknown_facts: &[],
    };
    view.latest.push(&told);
    for columns in (20..160).step_by(7) {
        for lines in (5..60).step_by(5) {
            let page = page(&view, columns, lines);
            assert!(!page.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'));
        }
    }
}
