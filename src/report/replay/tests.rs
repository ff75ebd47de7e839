//! Snapshots of the reports; no record produces a line that is too wide or broken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::addr::{Family, Side};
use crate::engine::{
    Anomaly, Outcome, RecipientRecord, ShadowRecord, SmtpFacts, TcpFacts, TlsState,
    TransactionRecord, TranscriptEntry, TranscriptItem, VerdictRecord,
};
use crate::policy::PolicyAction;
use crate::report::columns::{WIDTH, width};
use crate::smtp::{EnhancedCode, Verb};
use crate::stream::FlowOutcome;
use crate::traffic::fallback::{FallbackReason, ServerMatch};
use crate::traffic::{
    AcceptedCounts, ConnectionResponse, Destination, DestinationKey, FamilyResponses,
    MailDirection, PerFamily, PerResponse, ReceivePathEvidence, ResponseCount, ReturnPathEvidence,
};

const START: u64 = 1_767_323_045_678_901_234;
const FILE: &str = "mx1.pcap";
const PORTS: &[u16] = &[25, 587, 2525];

fn record(client: &str, server: &str, started_ms: u64) -> SessionRecord {
    let end = |address: &str| address.parse::<SocketAddr>().unwrap();
    let (client, server) = (end(client), end(server));
    SessionRecord {
        start: Timestamp::from_nanos(START) + Duration::from_millis(started_ms),
        duration: Duration::from_millis(420),
        family: Family::of(client.ip()),
        client: client.into(),
        server: server.into(),
        listener: None,
        upstream: None,
        upstream_name: None,
        upstream_error: None,
        upstream_tls: None,
        outcome: Outcome::Quit,
        tcp: TcpFacts {
            outcome: Some(FlowOutcome::Established),
            handshake: Some(Duration::from_micros(1100)),
            rtt: None,
            client_bytes: 1812,
            server_bytes: 640,
            syns: Some(1),
            retransmits: Some(0),
            gaps: Some(0),
            icmp_errors: Some(0),
            path_mtu: None,
            black_hole: Some(false),
            closed_by: Some(Client),
        },
        smtp: SmtpFacts::default(),
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

/// One message, and the reply to its recipient or, for 250, to its data.
fn mail(helo: &str, code: u16, enhanced: Option<EnhancedCode>) -> SmtpFacts {
    let accepted = code == 250;
    let to = RecipientRecord { address: "b@b.example".to_owned(), code: Some(code), enhanced };
    SmtpFacts {
        greeting: Some(220),
        helo: Some(helo.to_owned()),
        esmtp: true,
        transactions: vec![TransactionRecord {
            mail_from: "a@a.example".to_owned(),
            mail_code: Some(250),
            rcpt_to: vec![to],
            rcpt_total: 1,
            data_code: accepted.then_some(250),
            bytes: if accepted { 1234 } else { 0 },
            chunking: false,
            queue_id: None,
            progress: None,
        }],
        transactions_total: 1,
        commands: BTreeMap::from([(Verb::Ehlo, 1), (Verb::Mail, 1), (Verb::Rcpt, 1)]),
        replies: BTreeMap::from([(220, 1), (250, 3), (code, 1)]),
        ..SmtpFacts::default()
    }
}

fn with(mut record: SessionRecord, change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    change(&mut record);
    record
}

fn numbered(number: u64, record: &SessionRecord) -> NumberedSession<'_> {
    NumberedSession { file: FILE, number, record, policy_applied: false, unknown_facts: &[] }
}

const A6: &str = "[2001:db8:a::1]:40000";
const A4: &str = "192.0.2.1:40000";
const MX6: &str = "[2001:db8:ff::25]:25";
const MX4: &str = "198.51.100.25:25";

/// A site with most kinds of IPv6 problems.
fn troubled() -> Vec<SessionRecord> {
    let unanswered = with(record(A6, MX6, 0), |r| {
        r.duration = Duration::from_secs(3);
        r.outcome = Outcome::UpstreamUnavailable;
        r.tcp.outcome = Some(FlowOutcome::Unanswered);
        (r.tcp.handshake, r.tcp.syns, r.tcp.closed_by) = (None, Some(3), None);
        (r.tcp.client_bytes, r.tcp.server_bytes) = (0, 0);
    });
    let retry = with(record(A4, MX4, 3200), |r| r.smtp = mail("mail.a.example", 250, None));
    let no_ptr = with(record("[2001:db8:b::1]:40000", MX6, 5000), |r| {
        r.smtp = mail("out.b.example", 550, Some(EnhancedCode::new(5, 7, 25)));
    });
    let retry_of_it = with(record("192.0.2.2:40000", MX4, 5600), |r| {
        r.smtp = mail("out.b.example", 250, None);
    });
    let black_hole = with(record("[2001:db8:c::1]:40000", MX6, 8000), |r| {
        r.duration = Duration::from_secs(242);
        r.outcome = Outcome::ClientClosed;
        r.smtp = mail("c.example", 250, None);
        r.smtp.transactions[0].data_code = None;
        (r.tcp.black_hole, r.tcp.path_mtu) = (Some(true), Some(1280));
        (r.tcp.retransmits, r.tcp.icmp_errors) = (Some(9), Some(2));
    });
    let under_tls = with(record("192.0.2.3:40000", MX4, 9000), |r| {
        r.smtp = SmtpFacts { tls: TlsState::Started, ..mail("d.example", 250, None) };
        r.smtp.transactions.clear();
        r.smtp.transactions_total = 0;
        // As a client ends TLS that does not wait for the server's close_notify.
        (r.outcome, r.tcp.outcome) = (Outcome::TlsCompleted, Some(FlowOutcome::Reset));
    });
    let tls_failed = with(under_tls.clone(), |r| {
        r.outcome = Outcome::TlsFailed;
        r.tcp.closed_by = Some(Client);
    });
    let gaps = with(record("192.0.2.4:40000", MX4, 9500), |r| {
        r.smtp = mail("e.example", 452, None);
        r.tcp.gaps = Some(3);
    });
    let anomalous = with(record("192.0.2.5:40000", "198.51.100.25:587", 9900), |r| {
        r.smtp = mail("f.example", 250, None);
        r.smtp.anomalies = vec![Anomaly::Pregreet, Anomaly::Smuggling];
        r.tcp.outcome = Some(FlowOutcome::Reset);
        r.tcp.closed_by = Some(Server);
        r.outcome = Outcome::UpstreamClosed;
    });
    vec![unanswered, retry, no_ptr, retry_of_it, black_hole, under_tls, gaps, anomalous, tls_failed]
}

fn fallback(
    from: u64,
    to: u64,
    after_ms: u64,
    why: FallbackReason,
    code: Option<u16>,
    by: ServerMatch,
) -> Fallback {
    let (at, direction) = (Timestamp::default(), MailDirection::Inbound);
    Fallback { from, to, at, direction, after: Duration::from_millis(after_ms), why, code, by }
}

fn input(packets: u64) -> InputSummary<'static> {
    let first = Timestamp::from_nanos(START);
    InputSummary {
        files: &[FILE],
        packets,
        first: Some(first),
        last: Some(first + Duration::from_millis(250_123)),
        ports: PORTS,
        evidence: None,
    }
}

fn written(report: &ReplayReport, input: &InputSummary<'_>, colour: bool) -> String {
    let mut out = Vec::new();
    report.write(input, colour, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn assert_narrow(text: &str) {
    for line in text.lines() {
        assert!(width(line) <= WIDTH, "{} columns: {line}", width(line));
    }
}

fn troubled_report() -> ReplayReport {
    let mut report = ReplayReport::new();
    for (number, record) in (1..).zip(&troubled()) {
        report.add_session(&numbered(number, record));
    }
    report.add_fallback(&fallback(
        1,
        2,
        3200,
        FallbackReason::Unanswered,
        None,
        ServerMatch::Names,
    ));
    report.add_fallback(&fallback(
        3,
        4,
        600,
        FallbackReason::Envelope,
        Some(550),
        ServerMatch::Window,
    ));
    report.add_damage("mx1.pcap ends within a packet after 81,920 bytes");
    report
}

#[test]
fn a_troubled_site() {
    let text = written(&troubled_report(), &input(214), false);
    assert_narrow(&text);
    let first_five: Vec<_> = text.lines().take(5).collect();
    assert!(first_five.concat().contains("fell back to IPv4"), "{first_five:?}");
    insta::assert_snapshot!(text);
}

#[test]
fn policy_verdicts() {
    let mut report = ReplayReport::new();
    let mut records = troubled();
    records[2].verdict = VerdictRecord {
        action: PolicyAction::Reject,
        rule: Some("no \"reverse\" name".to_owned()),
        reason: Some("2001:db8:b::1 has no PTR record".to_owned()),
        shadow: Vec::new(),
    };
    records[4].verdict = VerdictRecord {
        action: PolicyAction::Tempfail,
        rule: Some("named".to_owned()),
        reason: Some("fcrdns.no_ptr".to_owned()),
        shadow: vec![ShadowRecord {
            rule: "reachable".to_owned(),
            action: PolicyAction::Reject,
            reason: Some("return_path.no_response".to_owned()),
        }],
    };
    records[6].verdict.action = PolicyAction::Tempfail;
    for (number, record) in (1..).zip(&records) {
        let unknown: &[_] = if number == 4 { &["reverse name", "return path"] } else { &[] };
        report.add_session(&NumberedSession {
            policy_applied: true,
            unknown_facts: unknown,
            ..numbered(number, record)
        });
    }
    let text = written(&report, &input(214), false);
    assert_narrow(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn no_findings() {
    let mut report = ReplayReport::new();
    report.add_session(&numbered(
        1,
        &with(record(A6, MX6, 0), |r| r.smtp = mail("a.example", 250, None)),
    ));
    insta::assert_snapshot!(written(&report, &input(31), false));
}

#[test]
fn empty_reports() {
    let none =
        written(&ReplayReport::new(), &InputSummary { first: None, last: None, ..input(0) }, false);
    let no_smtp = written(&ReplayReport::new(), &input(1234), false);
    let mut damaged = ReplayReport::new();
    damaged.add_damage("mx1.pcap is not a capture file: it starts with \"GIF8\"");
    let damaged = written(&damaged, &input(0), false);
    insta::assert_snapshot!([none, no_smtp, damaged].join("\n"));
}

#[test]
fn long_addresses_several_files_and_days() {
    let mut report = ReplayReport::new();
    let server = "[2001:db8:1234:5678:9abc:def0:1234:25]:25";
    for (number, client, file, day) in [
        (1, "[2001:db8:1:2:3:4:5:6]:1", "a.pcap", 0),
        (2, "[2001:db8:aaaa:bbbb:1111:2222:3333:4444]:1", "a.pcap", 0),
        (3, "[2001:db8:aaaa:bbbb:5555:6666:3333:4444]:1", "a.pcap", 1),
        (4, "[2001:db8:aaaa:bbbb:5555:6666:3333:4444]:1", "b.pcap", 1),
    ] {
        let record = with(record(client, server, day * 86_400_000), |r| {
            r.smtp = mail("a.name.that.is.rather.long.a.example", 250, None);
        });
        report.add_session(&NumberedSession { file, ..numbered(number, &record) });
    }
    let input = InputSummary { files: &["a.pcap", "b.pcap"], ..input(80) };
    let text = written(&report, &input, false);
    assert_narrow(&text);
    insta::assert_snapshot!(text);
}

/// Responses of a server over one family, the last at `ms`.
fn tries(state: ConnectionResponse, ms: u64) -> Option<FamilyResponses> {
    let mut counts = PerResponse::default();
    *counts.of_mut(state) = ResponseCount { count: 1, last: Some(at(ms)) };
    Some(FamilyResponses { state, counts })
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(START) + Duration::from_millis(ms)
}

#[test]
fn evidence_section() {
    let named = |name: &str| DestinationKey::Name(name.to_owned());
    let mut destinations = vec![
        Destination {
            server: named("mx.responds.example"),
            ipv4: tries(ConnectionResponse::Answered, 9000),
            ipv6: tries(ConnectionResponse::Answered, 9000),
        },
        Destination {
            server: named("mx.without.response.over.ipv6.and.with.a.long.name.example"),
            ipv4: tries(ConnectionResponse::Answered, 8000),
            ipv6: tries(ConnectionResponse::NoResponse, 7000),
        },
        Destination {
            server: DestinationKey::Address("2001:db8::7".parse().unwrap()),
            ipv4: None,
            ipv6: tries(ConnectionResponse::BlackHole, 6000),
        },
    ];
    destinations.extend((0..30).map(|n| Destination {
        server: named(&format!("mx{n}.example\u{202e}")),
        ipv4: tries(ConnectionResponse::Answered, n),
        ipv6: None,
    }));
    let received = |accepted, last| ReceivePathEvidence {
        accepted: AcceptedCounts { total: accepted, ..AcceptedCounts::default() },
        last_accepted: last,
        under_tls: AcceptedCounts { total: 34, ..AcceptedCounts::default() },
        last_under_tls: Some(at(9400)),
        last_connection: Some(at(9500)),
    };
    let evidence = Evidence {
        at: at(10_000),
        receive: PerFamily { ipv4: received(1200, Some(at(9000))), ipv6: received(0, None) },
        return_path: ReturnPathEvidence {
            ipv4: PerResponse { answered: 32, ..PerResponse::default() },
            ipv6: PerResponse {
                answered: 1,
                no_response: 1,
                black_hole: 1,
                ..PerResponse::default()
            },
            destinations_total: destinations.len() as u64,
            forgotten: 0,
            destinations: destinations.iter().collect(),
        },
    };
    let input = InputSummary { evidence: Some(&evidence), ..input(214) };
    let text = written(&troubled_report(), &input, false);
    assert_narrow(&text);
    let (_, from) = text.split_once("EVIDENCE").unwrap();
    let (section, _) = from.split_once("\n\nFINDINGS").unwrap();
    insta::assert_snapshot!(format!("EVIDENCE{section}"));
}

#[test]
fn evidence_lists_only_the_last_of_many_destinations() {
    let destinations: Vec<Destination> = (0..4096)
        .map(|n| Destination {
            server: DestinationKey::Name(format!("mx{n}.{}example", "a.long.name.".repeat(16))),
            ipv4: tries(ConnectionResponse::Answered, n),
            ipv6: tries(ConnectionResponse::NoResponse, n),
        })
        .collect();
    let return_path = ReturnPathEvidence {
        destinations_total: destinations.len() as u64,
        destinations: destinations.iter().collect(),
        ..ReturnPathEvidence::default()
    };
    let line = json_evidence(&Evidence { at: at(0), receive: PerFamily::default(), return_path });
    assert!(line.len() < 1 << 20, "{}", line.len());
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    let listed = read["return"]["destinations"].as_array().unwrap();
    assert!((500..4096).contains(&listed.len()), "{}", listed.len());
    assert_eq!(read["return"]["destinations_total"], 4096);
}

#[test]
fn colour_only_on_request() {
    let report = troubled_report();
    let (plain, coloured) =
        (written(&report, &input(214), false), written(&report, &input(214), true));
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[31m"), "{coloured}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn many_sessions_are_bounded() {
    let mut report = ReplayReport::new();
    let failed = &troubled()[0];
    // In the order of their ends, not their starts.
    for number in (1..=13_345).rev() {
        report.add_session(&numbered(number, failed));
    }
    let text = written(&report, &input(40_000), false);
    assert!(text.contains("… and 12,345 more; --format json lists them"));
    assert!(text.contains("… and 13,325 more failed connections"));
    assert_eq!(text.lines().filter(|line| line.contains("03:04:05.678 ipv6")).count(), 1000);
    assert!(text.lines().count() < 1100);
}

#[test]
fn session_as_json() {
    let records = troubled();
    let line = json_session(&numbered(3, &records[2]));
    let head =
        r#"{"type":"session","file":"mx1.pcap","number":3,"start":"2026-01-02T03:04:10.678901Z","#;
    assert!(line.starts_with(head), "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut expected = serde_json::to_value(&records[2]).unwrap();
    expected["type"] = "session".into();
    expected["file"] = FILE.into();
    expected["number"] = 3.into();
    assert_eq!(value, expected, "exactly the record's own form");
    let failure = fallback(3, 4, 600, FallbackReason::Envelope, Some(550), ServerMatch::Window);
    let race = fallback(5, 6, 250, FallbackReason::Race, None, ServerMatch::Names);
    let damage = json_damage(FILE, "ends within a packet\nafter 81,920 bytes");
    insta::assert_snapshot!([line, json_fallback(&failure), json_fallback(&race), damage].concat());
}

#[test]
fn a_long_record_is_shortened_as_in_the_log() {
    let long = with(record(A6, MX6, 0), |r| {
        r.smtp = mail(&"\u{1}".repeat(2000), 250, None);
        let message = r.smtp.transactions[0].clone();
        let to = vec![message.rcpt_to[0].clone(); 20_000];
        r.smtp.transactions = vec![TransactionRecord { rcpt_to: to, ..message }; 3];
    });
    let line = json_session(&numbered(1, &long));
    assert!(line.len() < 1 << 20);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["number"], &value["smtp"]["transactions_total"]), (&1.into(), &1.into()));
}

fn transcript_of(session: &NumberedSession<'_>, items: &[(u64, Side, TranscriptItem)]) -> String {
    let at = |ms: &u64| session.record.start + Duration::from_millis(*ms);
    let entries = items.iter().map(|(ms, from, what)| TranscriptEntry {
        at: at(ms),
        from: *from,
        item: what.clone(),
    });
    let entries: Vec<TranscriptEntry> = entries.collect();
    let mut out = Vec::new();
    transcript(session, &entries, false, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

use Side::{Client, Server};
use TranscriptItem::{Closed, Encrypted, Gap};

fn line(text: &[u8]) -> TranscriptItem {
    TranscriptItem::Line([text, b"\r\n"].concat())
}

fn content(bytes: usize) -> TranscriptItem {
    TranscriptItem::Content(vec![b'x'; bytes])
}

#[test]
fn a_transcript() {
    let records = troubled();
    let long = [b"550 5.7.1 ".as_slice(), &[b'x'; 500]].concat();
    let text = transcript_of(
        &NumberedSession {
            policy_applied: true,
            unknown_facts: &["reverse name"],
            ..numbered(2, &records[1])
        },
        &[
            (1, Server, line(b"220 mx.b.example ESMTP")),
            (2, Client, line(b"EHLO mail.a.example\x1b[2J\xff")),
            (3, Server, line(b"250-mx.b.example")),
            (3, Server, line(b"250 AUTH PLAIN LOGIN")),
            (4, Client, line(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==")),
            (5, Server, line(b"535 5.7.8 no")),
            (6, Client, line(b"auth login")),
            (7, Server, line(b"334 VXNlcm5hbWU6")),
            (8, Client, line(b"YWxpY2U=")),
            (9, Server, line(&long)),
            (10, Client, content(12_345)),
            (11, Server, Gap(4380)),
            (12, Client, Encrypted(1)),
            (3_600_000, Client, Closed),
        ],
    );
    assert_narrow(&text);
    for secret in ["AGFsaWNl", "YWxpY2U="] {
        assert!(!text.contains(secret), "{text}");
    }
    insta::assert_snapshot!(text);
    let empty = transcript_of(&numbered(1, &records[0]), &[]);
    insta::assert_snapshot!("an_empty_transcript", empty);
}

#[test]
fn truncation_is_visible() {
    let records = troubled();
    let shown = |length| {
        let text = vec![b'x'; length];
        let text = transcript_of(&numbered(2, &records[1]), &[(1, Client, line(&text))]);
        assert_narrow(&text);
        (text.matches('x').count(), text)
    };
    let room = 5 * (WIDTH - 14);
    let (whole, text) = shown(room);
    assert!(!text.contains("truncated"), "{text}");
    let (truncated, text) = shown(room + 1);
    assert_eq!(whole, truncated);
    assert!(text.contains("… truncated; the line has 431 bytes"), "{text}");
}

fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        2 => prop::sample::select(vec![
            "\r\n", "\u{1b}[31m", "\\", "…", " ", "漢字", "long-long-long-long-long", "\u{202e}", "\u{301}",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn hostile_record() -> impl Strategy<Value = SessionRecord> {
    let outcomes = prop::sample::select(vec![
        None,
        Some(FlowOutcome::Established),
        Some(FlowOutcome::Refused),
        Some(FlowOutcome::Unanswered),
        Some(FlowOutcome::Reset),
        Some(FlowOutcome::Midstream),
    ]);
    let number = || prop::option::of(any::<u64>());
    let tcp =
        (outcomes, number(), number(), number(), prop::option::of(any::<u32>()), any::<bool>())
            .prop_map(|(outcome, retransmits, gaps, icmp_errors, mtu, black_hole)| TcpFacts {
                outcome,
                handshake: retransmits.map(Duration::from_nanos),
                rtt: gaps.map(Duration::from_nanos),
                client_bytes: gaps.unwrap_or(0),
                server_bytes: u64::MAX,
                syns: mtu,
                retransmits,
                gaps,
                icmp_errors,
                path_mtu: mtu,
                black_hole: Some(black_hole),
                closed_by: None,
            });
    let smtp = (
        prop::option::of(hostile_text()),
        prop::collection::vec(prop::option::of(any::<u16>()), 0..4),
        any::<u64>(),
        prop::sample::subsequence(Anomaly::ALL.to_vec(), 0..Anomaly::ALL.len()),
        prop::option::of(any::<u16>()),
    )
        .prop_map(|(helo, codes, total, anomalies, greeting)| SmtpFacts {
            helo,
            greeting,
            transactions_total: total.max(codes.len() as u64),
            transactions: codes
                .into_iter()
                .map(|data_code| TransactionRecord { data_code, ..TransactionRecord::default() })
                .collect(),
            replies: BTreeMap::from([(greeting.unwrap_or(250), total)]),
            anomalies,
            ..SmtpFacts::default()
        });
    let ends = (any::<IpAddr>(), any::<u16>(), any::<IpAddr>(), any::<u16>());
    let verdict = (
        prop::option::of(hostile_text()),
        prop::sample::select(vec![PolicyAction::Accept, PolicyAction::Reject]),
    );
    let times = (any::<u64>(), any::<u64>());
    (ends, times, tcp, smtp, verdict).prop_map(
        |(ends, (start, took), tcp, smtp, (text, action))| {
            let (client, client_port, server, server_port) = ends;
            SessionRecord {
                start: Timestamp::from_nanos(start),
                duration: Duration::from_nanos(took),
                family: Family::of(client),
                client: SocketAddr::new(client, client_port).into(),
                server: SocketAddr::new(server, server_port).into(),
                listener: None,
                upstream: None,
                upstream_name: None,
                upstream_error: None,
                upstream_tls: None,
                outcome: Outcome::Timeout,
                tcp,
                smtp,
                facts: None,
                verdict: VerdictRecord {
                    action,
                    rule: text.clone(),
                    reason: text,
                    shadow: Vec::new(),
                },
                encrypted: None,
                questions: Vec::new(),
            }
        },
    )
}

fn hostile_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..900),
        hostile_text().prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_report_is_too_wide(
        records in prop::collection::vec((any::<u64>(), any::<bool>(), hostile_record()), 0..12),
        name in hostile_text(),
        fallback_parts in (any::<u64>(), any::<u64>(), any::<u64>(), prop::sample::select(FallbackReason::ALL.to_vec())),
    ) {
        let mut report = ReplayReport::new();
        for (number, policy_applied, record) in &records {
            let unknown = [name.as_str()];
            let unknown = if *policy_applied { unknown.as_slice() } else { &[] };
            report.add_session(&NumberedSession { file: &name, number: *number, record, policy_applied: *policy_applied, unknown_facts: unknown });
        }
        let (from, to, after, why) = fallback_parts;
        report.add_fallback(&fallback(from, to, after, why, Some(599), ServerMatch::Window));
        report.add_damage(&name);
        let input = InputSummary { files: &[&name], ..input(u64::MAX) };
        let text = written(&report, &input, false);
        for line in text.lines() {
            prop_assert!(width(line) <= WIDTH, "{} columns: {line}", width(line));
            prop_assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }

    #[test]
    fn no_transcript_is_too_wide(
        record in hostile_record(),
        lines in prop::collection::vec((any::<u64>(), any::<bool>(), hostile_line()), 0..8),
    ) {
        let entries = lines.iter().map(|(at, from_client, line)| TranscriptEntry {
            at: Timestamp::from_nanos(*at),
            from: if *from_client { Client } else { Server },
            item: TranscriptItem::Line(line.clone()),
        });
        let mut out = Vec::new();
        let entries: Vec<TranscriptEntry> = entries.collect();
        transcript(&NumberedSession { policy_applied: true, ..numbered(u64::MAX, &record) }, &entries, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in text.lines() {
            prop_assert!(width(line) <= WIDTH, "{} columns: {line}", width(line));
            prop_assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }

    #[test]
    fn no_two_addresses_look_the_same(
        clients in prop::collection::hash_set(
            (0u16..3, 0u16..3, 0u16..400)
                .prop_map(|(a, b, c)| IpAddr::from([0x2001, 0xdb8, 0x1234 + a, 0xabcd, b + 0x1000, c + 0x1000, 0xdead, 0xbeef])),
            1..40,
        ),
    ) {
        let mut report = ReplayReport::new();
        let server = "[2001:db8:1234:5678:9abc:def0:1234:25]:25";
        for (number, client) in (1..).zip(&clients) {
            let from = SocketAddr::new(*client, 9).to_string();
            let record = with(record(&from, server, 0), |r| r.smtp = mail("mail.some.name.example", 250, None));
            report.add_session(&numbered(number, &record));
        }
        let text = written(&report, &input(9), false);
        let routes: std::collections::HashSet<_> = text
            .lines()
            .filter_map(|line| line.split_once(" ipv6 ")?.1.split_once(" → "))
            .map(|(client, _)| client)
            .collect();
        prop_assert_eq!(routes.len(), clients.len(), "{}", text);
    }
}
