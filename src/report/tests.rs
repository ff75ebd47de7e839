//! Snapshots of log lines; no client data changes their structure.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::{
    Anomaly, Endpoint, Outcome, RecipientRecord, ShadowRecord, SmtpFacts, TcpFacts, TlsState,
    TransactionRecord, VerdictRecord,
};
use crate::policy::PolicyAction;
use crate::policy::facts::ClientCertificate;
use crate::smtp::{EnhancedCode, Verb};

fn endpoint(address: &str) -> Endpoint {
    address.parse::<std::net::SocketAddr>().unwrap().into()
}

fn recipient(address: &str, code: u16, enhanced: Option<EnhancedCode>) -> RecipientRecord {
    RecipientRecord { address: address.to_owned(), code: Some(code), enhanced }
}

fn transaction(from: &str, to: Vec<RecipientRecord>, code: Option<u16>) -> TransactionRecord {
    TransactionRecord {
        mail_from: from.to_owned(),
        mail_code: Some(250),
        rcpt_total: to.len() as u64,
        rcpt_to: to,
        data_code: code,
        bytes: if code.is_some() { 1234 } else { 0 },
        chunking: false,
        queue_id: None,
        progress: None,
    }
}

/// One message, accepted.
fn ordinary() -> SessionRecord {
    let message = transaction("a@a.example", vec![recipient("b@b.example", 250, None)], Some(250));
    SessionRecord {
        start: Timestamp::from_nanos(1_767_323_045_678_901_234),
        duration: Duration::from_millis(420),
        family: Family::Ipv6,
        client: endpoint("[2001:db8::1]:40000"),
        server: endpoint("[2001:db8:1::25]:25"),
        listener: Some("mx".into()),
        upstream: Some(endpoint("[2001:db8:2::25]:25")),
        upstream_name: None,
        upstream_error: None,
        upstream_tls: None,
        outcome: Outcome::Quit,
        tcp: TcpFacts { client_bytes: 1400, server_bytes: 300, ..TcpFacts::default() },
        smtp: SmtpFacts {
            greeting: Some(220),
            helo: Some("a.example".to_owned()),
            esmtp: true,
            transactions: vec![message],
            transactions_total: 1,
            commands: BTreeMap::from([(Verb::Ehlo, 1), (Verb::Mail, 1)]),
            replies: BTreeMap::from([(220, 1), (250, 4)]),
            ..SmtpFacts::default()
        },
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

fn with(change: impl FnOnce(&mut SessionRecord)) -> SessionRecord {
    let mut record = ordinary();
    change(&mut record);
    record
}

#[test]
fn session_lines() {
    let several = with(|r| {
        let unknown = Some(EnhancedCode::new(5, 1, 1));
        let to_two =
            vec![recipient("b@b.example", 250, None), recipient("nobody@b.example", 550, unknown)];
        r.smtp.transactions = vec![
            transaction("a@a.example", to_two, Some(250)),
            transaction("", vec![recipient("c@b.example", 250, None)], Some(452)),
            TransactionRecord {
                mail_code: Some(552),
                ..transaction("big@a.example", vec![], None)
            },
        ];
        r.smtp.transactions_total = 3;
    });
    let refused = with(|r| {
        let ours = Some(EnhancedCode::new(5, 7, 1));
        let to = vec![recipient("b@b.example", 550, ours)];
        r.smtp.transactions = vec![transaction("a@a.example", to, None)];
        r.smtp.anomalies = vec![Anomaly::Pregreet, Anomaly::UnknownCommand];
        r.outcome = Outcome::Refused;
        r.verdict.action = PolicyAction::Reject;
        r.verdict.rule = Some("no \"mail\" from there".to_owned());
    });
    let unavailable = with(|r| {
        r.family = Family::Ipv4;
        r.client = endpoint("192.0.2.1:40000");
        r.upstream = None;
        r.smtp = SmtpFacts::default();
        r.outcome = Outcome::UpstreamUnavailable;
    });
    let encrypted = with(|r| {
        r.smtp.transactions.clear();
        r.smtp.transactions_total = 0;
        r.smtp.tls = TlsState::Started;
        (r.outcome, r.tcp.closed_by) = (Outcome::TlsCompleted, Some(crate::addr::Side::Client));
    });
    let certified = with(|r| {
        r.smtp.tls = TlsState::Established;
        r.smtp.client_certificate = Some(certificate(&["mx.partner.example", "a b\"=c"]));
    });
    let without_starttls = with(|r| r.smtp.starttls_hidden = true);
    let many = with(|r| {
        let to: Vec<_> =
            (0..12).map(|i| recipient(&format!("user{i}@b.example"), 250, None)).collect();
        r.smtp.transactions[0].rcpt_to = to;
        r.smtp.transactions[0].rcpt_total = 5000;
        r.smtp.auth = true;
    });
    let in_shadow = with(|r| {
        let shadow = |rule: &str, action, reason: Option<&str>| ShadowRecord {
            rule: rule.to_owned(),
            action,
            reason: reason.map(str::to_owned),
        };
        r.verdict.shadow = vec![
            shadow(
                "senders can be \"answered\"",
                PolicyAction::Reject,
                Some("return_path.no_response"),
            ),
            shadow("all", PolicyAction::Tag, None),
        ];
    });
    let hostile = with(|r| {
        r.smtp.greeting = Some(554);
        r.smtp.helo = Some("x code=250\r\n2026-01-02T03:04:05Z session \u{1b}[2J".to_owned());
        r.smtp.transactions[0].mail_from = "\"a> b\"@a.example\u{202e}".to_owned();
        r.smtp.transactions[0].rcpt_to[0].address = "b".repeat(400);
    });
    let lines: String = [
        ("certified", certified),
        ("without STARTTLS", without_starttls),
        ("ordinary", ordinary()),
        ("in shadow", in_shadow),
        ("several transactions", several),
        ("refused by a rule", refused),
        ("no upstream", unavailable),
        ("encrypted", encrypted),
        ("many recipients", many),
        ("hostile", hostile),
    ]
    .iter()
    .map(|(name, record)| format!("{name}:\n{}\n", text::session(record)))
    .collect();
    insta::assert_snapshot!(lines);
}

#[test]
fn json_session_line() {
    let line = json::session(&ordinary());
    assert!(line.starts_with(r#"{"type":"session","start":"#), "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    // Exactly the record's own form and the type.
    let mut expected = serde_json::to_value(ordinary()).unwrap();
    expected["type"] = "session".into();
    assert_eq!(value, expected);
    insta::assert_snapshot!(line);
}

#[test]
fn notices() {
    let at = Timestamp::from_nanos(1_767_323_045_678_901_234);
    let ready = "ready: listening on [::1]:2525";
    let broken = "cannot read \"a\\b\"\nline 2";
    let lines = [
        text::notice(at, LogLevel::Info, ready),
        text::notice(at, LogLevel::Error, broken),
        json::notice(at, LogLevel::Info, ready),
        json::notice(at, LogLevel::Error, broken),
    ];
    insta::assert_snapshot!(lines.concat());
}

/// The largest record within the engine's limits, with strings of the longest command line.
#[test]
fn the_largest_record_makes_a_bounded_line() {
    let record = with(|r| {
        let long = "\u{1}".repeat(2000);
        r.smtp.helo = Some(long.clone());
        let to = vec![recipient(&long, 250, None); 1000];
        let message = TransactionRecord { rcpt_total: 70_000, ..transaction(&long, to, Some(250)) };
        // Only the shown ones are complete; all 100 would take 200 MB.
        r.smtp.transactions = vec![message.clone(); 10];
        let empty = TransactionRecord { rcpt_to: vec![], ..message };
        r.smtp.transactions.resize(100, empty);
        r.smtp.transactions_total = 100_000;
    });
    let line = text::session(&record);
    assert!(line.len() < 48 * 1024, "text: {} bytes", line.len());
    let line = json::session(&record);
    assert!(line.len() <= 1 << 20, "json: {} bytes", line.len());
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["smtp"]["transactions_total"], 100_000);
    assert_eq!(value["smtp"]["transactions"][0]["rcpt_total"], 70_000);
}

/// Any characters, and pieces that look like the syntax of a line.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        1 => (0u32..0x100).prop_map(|c| char::from_u32(c).unwrap().to_string()),
        1 => prop::sample::select(vec![
            " code=250", "\r\n", "> to=<", "\"", "\\", "\\\"", "\u{2028}", "\u{85}", "\u{fffd}", "…",
            "-", "=", " rule=\"", "{\"type\":\"session\"}", "long long long long long long long",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn certificate(names: &[&str]) -> ClientCertificate {
    ClientCertificate {
        sha256: "1a".repeat(32),
        public_key_sha256: "2b".repeat(32),
        common_name: None,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        verified: true,
    }
}

fn hostile_record() -> impl Strategy<Value = SessionRecord> {
    let code = || prop::option::of(any::<u16>());
    let to = (hostile(), code()).prop_map(|(address, code)| RecipientRecord {
        address,
        code,
        enhanced: None,
    });
    let message = (hostile(), prop::collection::vec(to, 0..14), code(), code(), any::<u64>())
        .prop_map(|(from, to, mail_code, data_code, bytes)| TransactionRecord {
            mail_code,
            bytes,
            ..transaction(&from, to, data_code)
        });
    (
        prop::option::of(hostile()),
        prop::collection::vec(message, 0..13),
        prop::option::of(hostile()),
        (any::<u64>(), hostile()),
    )
        .prop_map(|(helo, transactions, rule, (nanos, name))| {
            with(|r| {
                r.smtp.client_certificate = Some(certificate(&[&name, "x"]));
                r.start = Timestamp::from_nanos(nanos);
                r.smtp.helo = helo;
                r.smtp.transactions_total = transactions.len() as u64;
                r.smtp.transactions = transactions;
                r.verdict.rule = rule;
            })
        })
}

/// The line's keys, without the quoted rule.
fn keys(line: &str) -> Vec<&str> {
    let line = line.split_once(" rule=\"").map_or(line, |(before, _)| before);
    let fields = line.trim_end().split(char::is_whitespace).skip(2);
    fields.map(|field| field.split_once('=').map_or(field, |(key, _)| key)).collect()
}

/// The same record from a harmless client.
fn harmless(mut record: SessionRecord) -> SessionRecord {
    record.smtp.helo = record.smtp.helo.map(|_| "x".to_owned());
    record.smtp.client_certificate = Some(certificate(&["x"]));
    for transaction in &mut record.smtp.transactions {
        transaction.mail_from = "x".to_owned();
        for to in &mut transaction.rcpt_to {
            to.address = "x".to_owned();
        }
    }
    record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_record_is_one_line(record in hostile_record()) {
        for line in [text::session(&record), json::session(&record)] {
            let body = line.strip_suffix('\n').unwrap();
            let bad = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
            prop_assert!(!body.contains(bad), "{body:?}");
        }
    }

    #[test]
    fn no_client_injects_a_field(record in hostile_record()) {
        let line = text::session(&record);
        let expected = text::session(&harmless(record));
        prop_assert_eq!(keys(&line), keys(&expected));
    }

    #[test]
    fn json_keeps_client_data(record in hostile_record()) {
        let value: serde_json::Value = serde_json::from_str(&json::session(&record)).unwrap();
        let helo = value["smtp"]["helo"].as_str();
        prop_assert_eq!(helo, record.smtp.helo.as_deref());
        let transactions = value["smtp"]["transactions"].as_array().unwrap();
        for (json, transaction) in transactions.iter().zip(&record.smtp.transactions) {
            prop_assert_eq!(json["mail_from"].as_str(), Some(transaction.mail_from.as_str()));
        }
    }

    #[test]
    fn any_notice_is_one_line(message in hostile()) {
        for line in [
            text::notice(Timestamp::default(), LogLevel::Warn, &message),
            json::notice(Timestamp::default(), LogLevel::Warn, &message),
        ] {
            let body = line.strip_suffix('\n').unwrap();
            prop_assert!(!body.contains(char::is_control), "{body:?}");
        }
    }
}

/// An output that blocks until the test releases it.
struct Blocked {
    entered: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
    out: mpsc::Sender<Vec<u8>>,
}

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        // Does not block once the test has dropped its end.
        let _ = self.go_on.recv();
        let _ = self.out.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_output_loses_lines_and_blocks_no_session() {
    let (entered, is_blocked) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let (out, written) = mpsc::channel();
    let sink = Sink::new(Box::new(Blocked { entered, go_on: wait, out }), None);
    let lost = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lost);
    let on_lost = Box::new(move |n| {
        counter.fetch_add(n, Ordering::Relaxed);
    });
    let log =
        SessionLog::with(LogFormat::Text, sink, LineQueue::new(10, 1 << 20), on_lost).unwrap();

    log.session(&ordinary());
    is_blocked.recv().unwrap();
    // The writer has one line, nine fit the queue, the others are lost; no call waits.
    for _ in 0..100 {
        log.session(&ordinary());
    }
    assert_eq!(lost.load(Ordering::Relaxed), 91);
    assert!(!log.flush(Duration::ZERO));

    drop(go_on);
    drop(log);
    let written: Vec<u8> = written.iter().flatten().collect();
    let written = String::from_utf8(written).unwrap();
    assert_eq!(written.matches(" session family=ipv6 ").count(), 10);
    let last = written.lines().last().unwrap();
    assert!(
        last.ends_with(" warn 91 log lines lost: the log was written too slowly or not at all"),
        "{last}"
    );
}

/// A temporary folder, removed at the end, also after a failure.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gatepost-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_rotated_file_is_reopened_and_dropping_flushes() {
    let folder = TempFolder::new("rotate");
    let file = folder.0.join("gatepost.log");
    let rotated = folder.0.join("gatepost.log.1");
    let settings = LogSettings { format: LogFormat::Json, file: Some(file.clone()) };
    let log = SessionLog::start(&settings, Box::new(|_| {})).unwrap();
    log.notice(LogLevel::Info, "before");
    assert!(log.flush(Duration::from_secs(60)));
    fs::rename(&file, &rotated).unwrap();
    log.notice(LogLevel::Info, "still the old file");
    assert!(log.flush(Duration::from_secs(60)));
    log.reopen();
    log.notice(LogLevel::Info, "after");
    drop(log);

    let messages = |path| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let values = text.lines().map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["type"], "notice");
            value["message"].as_str().unwrap().to_owned()
        });
        values.collect()
    };
    assert_eq!(messages(&rotated), ["before", "still the old file"]);
    assert_eq!(messages(&file), ["after"]);
}

#[test]
fn a_file_that_cannot_be_reopened_stays_open() {
    let folder = TempFolder::new("reopen");
    let inner = folder.0.join("inner");
    fs::create_dir(&inner).unwrap();
    let file = inner.join("gatepost.log");
    let settings = LogSettings { format: LogFormat::Text, file: Some(file) };
    let log = SessionLog::start(&settings, Box::new(|_| {})).unwrap();
    // The path does not exist any more; the open file was only moved.
    let moved = folder.0.join("moved");
    fs::rename(&inner, &moved).unwrap();
    log.reopen();
    log.session(&ordinary());
    drop(log);
    let text = fs::read_to_string(moved.join("gatepost.log")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(" error cannot open the log file "), "{text}");
    assert!(lines[1].contains(" session "), "{text}");
}

#[test]
fn the_open_error_names_the_remedy() {
    let settings =
        LogSettings { format: LogFormat::Text, file: Some("/nonexistent/gatepost.log".into()) };
    let Err(e) = SessionLog::start(&settings, Box::new(|_| {})) else {
        panic!("opened {settings:?}");
    };
    insta::assert_snapshot!(e);
}
