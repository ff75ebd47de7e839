//! The logs in `tests/mail_log/` and the events that they lead to.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gatepost::postfix::mail_log::{LogZone, MailLogCounts, MailLogEvent, MailLogParser};
use gatepost::time::Timestamp;

/// 2026-12-31T00:00:00Z: the logs have no year.
const REFERENCE: Timestamp = Timestamp::from_nanos(1_798_675_200_000_000_000);

fn parser() -> MailLogParser {
    MailLogParser::new(LogZone::utc(), REFERENCE)
}

type Read = fn(&mut MailLogParser, &[u8], &mut Vec<MailLogEvent>);

fn parse(log: &[u8], read: Read) -> (Vec<MailLogEvent>, MailLogCounts) {
    let (mut parser, mut events) = (parser(), Vec::new());
    read(&mut parser, log, &mut events);
    parser.finish(&mut events);
    (events, parser.counts())
}

fn logs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mail_log");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    assert!(logs.len() > 1, "{logs:?}");
    logs
}

/// One line for each event.
fn show(events: &[MailLogEvent]) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            MailLogEvent::Attempt(attempt) => {
                let (at, outcome, address) = (attempt.at, attempt.outcome, attempt.address);
                let host = attempt.host.as_ref().map_or("-".to_owned(), ToString::to_string);
                let domain = attempt.domain.as_ref().map_or("-".to_owned(), ToString::to_string);
                let id = attempt.queue_id.as_deref().unwrap_or("-");
                let delays = attempt.delays.map_or("-".to_owned(), |delays| {
                    format!("{:?}/{:?}", delays.connection, delays.transmission)
                });
                let reply = attempt.reply.as_deref().unwrap_or("-");
                writeln!(text, "{at} {outcome} {host} {address} {domain} {id} {delays} {reply}")
            }
            MailLogEvent::Delivery(delivery) => {
                let (at, status, id) = (delivery.at, delivery.status, &delivery.queue_id);
                let domain = delivery.domain.as_ref().map_or("-".to_owned(), ToString::to_string);
                let relay = delivery.relay.map_or("-".to_owned(), |relay| relay.to_string());
                let dsn = delivery.dsn.map_or("-".to_owned(), |dsn| dsn.to_string());
                let outcome = delivery.outcome.map_or("-".to_owned(), |o| o.to_string());
                let reused = if delivery.is_reused { " reused" } else { "" };
                writeln!(
                    text,
                    "{at} delivery {id} {domain} {relay} {status} {dsn} {outcome}{reused}"
                )
            }
        }
        .unwrap();
    }
    text
}

#[test]
fn logs_are_understood() {
    for path in logs() {
        let (events, counts) = parse(&fs::read(&path).unwrap(), MailLogParser::on_bytes);
        assert_eq!(counts.not_understood, 0, "{}", path.display());
        let (found, expected) = (show(&events), path.with_extension("events"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        assert_eq!(found, expected, "{}; UPDATE_EXPECT=1 writes it", path.display());
    }
}

/// The stamp of a traditional line in RFC 3339, as rsyslog writes it by default since Debian 12, and the rest of the line.
fn in_rfc_3339(line: &str) -> Option<(String, &str)> {
    let day: u32 = line.get(4..6)?.trim_start().parse().ok()?;
    let month =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            .iter()
            .position(|name| line.starts_with(name))?;
    let stamp = format!("2026-{:02}-{day:02}T{}", month + 1, line.get(7..15)?);
    Some((stamp, line.get(16..)?))
}

#[test]
fn every_form_of_a_log_has_the_same_events() {
    for path in logs() {
        let log = fs::read_to_string(&path).unwrap();
        let (expected, counts) = parse(log.as_bytes(), MailLogParser::on_bytes);
        let (mut rfc_3339, mut export) = (String::new(), Vec::new());
        for line in log.lines() {
            let (stamp, rest) = in_rfc_3339(line).unwrap_or_else(|| panic!("{line}"));
            writeln!(rfc_3339, "{stamp}.000000+00:00 {rest}").unwrap();
            let at: Timestamp = serde_json::from_value(format!("{stamp}Z").into()).unwrap();
            let (host, rest) = rest.split_once(' ').unwrap();
            let (program, rest) = rest.split_once('[').unwrap();
            let (pid, message) = rest.split_once("]: ").unwrap();
            let micros = at.as_nanos() / 1000;
            let fields = format!(
                "__CURSOR=s=1\n__REALTIME_TIMESTAMP={micros}\n_HOSTNAME={host}\nSYSLOG_IDENTIFIER={program}\n\
                 SYSLOG_PID={pid}\nMESSAGE\n"
            );
            export.extend_from_slice(fields.as_bytes());
            export.extend_from_slice(&(message.len() as u64).to_le_bytes());
            export.extend_from_slice(message.as_bytes());
            export.extend_from_slice(b"\n\n");
        }
        for (form, found) in [
            ("RFC 3339", parse(rfc_3339.as_bytes(), MailLogParser::on_bytes)),
            ("journal", parse(&export, MailLogParser::on_journal)),
        ] {
            assert_eq!(show(&found.0), show(&expected), "{form} {}", path.display());
            assert_eq!(found.1, counts);
        }
    }
}

#[test]
fn a_log_in_pieces_has_the_same_events() {
    for path in logs() {
        let log = fs::read(&path).unwrap();
        let expected = parse(&log, MailLogParser::on_bytes);
        for size in [1, 7, 100, 4096] {
            let (mut parser, mut events) = (parser(), Vec::new());
            log.chunks(size).for_each(|piece| parser.on_bytes(piece, &mut events));
            parser.finish(&mut events);
            assert_eq!((events, parser.counts()), expected, "{size} {}", path.display());
        }
    }
}

#[test]
fn a_line_that_is_logged_twice_is_no_second_attempt() {
    let attempts = |log: &str| {
        let (mut events, _) = parse(log.as_bytes(), MailLogParser::on_bytes);
        events.retain(|event| matches!(event, MailLogEvent::Attempt(_)));
        show(&events)
    };
    for path in logs() {
        let log = fs::read_to_string(&path).unwrap();
        let twice: String = log.split_inclusive('\n').flat_map(|line| [line, line]).collect();
        assert_eq!(attempts(&twice), attempts(&log), "{}", path.display());
    }
}

#[test]
fn no_local_part_is_kept() {
    for path in logs() {
        let log = fs::read(&path).unwrap();
        let (events, _) = parse(&log, MailLogParser::on_bytes);
        let shown = show(&events);
        for local in ["alice", "bob", "carol", "unknown@", "full@"] {
            assert!(!shown.contains(local), "{local} {}", path.display());
        }
    }
}
