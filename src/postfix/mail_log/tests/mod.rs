//! Dialogues of smtp(8) in the log.

mod properties;

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::time::Timestamp;

fn reference() -> Timestamp {
    serde_json::from_str("\"2026-12-01T22:00:00Z\"").unwrap()
}

fn parser() -> MailLogParser {
    MailLogParser::new(LogZone::utc(), reference())
}

/// 21:00 and so many seconds.
fn at_second(second: u64) -> Timestamp {
    let start = reference().as_nanos() - 3600 * 1_000_000_000;
    Timestamp::from_nanos(start) + Duration::from_secs(second)
}

/// Lines for `Dec  1 21:00:SS mx postfix/PROGRAM[PID]: `, each given as `SS PROGRAM PID text`.
fn log(lines: &str) -> String {
    let mut log = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap();
        let (second, program, pid, text) = (part(), part(), part(), part());
        writeln!(log, "Dec  1 21:00:{second} mx postfix/{program}[{pid}]: {text}").unwrap();
    }
    log
}

fn show(events: &[MailLogEvent]) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let shown = |event: &MailLogEvent| match event {
        MailLogEvent::Attempt(attempt) => format!(
            "{} {} {} {} {} {} {}",
            attempt.at.to_string().get(17..19).unwrap(),
            attempt.outcome,
            or_none(attempt.host.as_ref().map(ToString::to_string)),
            attempt.address,
            or_none(attempt.domain.as_ref().map(ToString::to_string)),
            or_none(attempt.queue_id.clone()),
            or_none(attempt.reply.clone()),
        ),
        MailLogEvent::Delivery(delivery) => format!(
            "delivery {} {} {} {} {} {}",
            delivery.queue_id,
            or_none(delivery.domain.as_ref().map(ToString::to_string)),
            or_none(delivery.relay.map(|relay| relay.to_string())),
            delivery.status,
            or_none(delivery.dsn.map(|dsn| dsn.to_string())),
            or_none(delivery.outcome.map(|outcome| outcome.to_string())),
        ),
    };
    events.iter().map(shown).collect()
}

/// The events of a log to its end, which must be understood.
#[track_caller]
fn events(lines: &str) -> Vec<String> {
    let (mut parser, mut out) = (parser(), Vec::new());
    parser.on_bytes(log(lines).as_bytes(), &mut out);
    parser.finish(&mut out);
    assert_eq!(parser.counts().not_understood, 0, "{lines}");
    show(&out)
}

fn attempts(lines: &str) -> Vec<String> {
    let mut events = events(lines);
    events.retain(|event| !event.starts_with("delivery "));
    events
}

const SENT: &str =
    "relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)";

#[test]
fn failed_connections_belong_to_the_next_line_of_the_process() {
    let shown = events(&format!(
        "01 smtp 7 connect to a.example[2001:db8::1]:25: Connection timed out
         02 smtp 8 connect to z.example[2001:db8::9]:25: No route to host
         03 smtp 7 connect to a.example[2001:db8::2]:25: Connection refused
         04 smtp 7 ABC123: to=<u@b.example>, {SENT}"
    ));
    assert_eq!(
        shown,
        [
            "delivery ABC123 b.example 192.0.2.1:25 sent 2.0.0 delivered",
            "01 timed_out a.example [2001:db8::1]:25 b.example ABC123 -",
            "03 refused a.example [2001:db8::2]:25 b.example ABC123 -",
            "04 delivered a.example 192.0.2.1:25 b.example ABC123 250 ok",
            "02 unreachable z.example [2001:db8::9]:25 - - -",
        ]
    );
}

#[test]
fn the_last_failed_connection_is_not_counted_with_its_delivery_line() {
    let shown = events(
        "01 smtp 7 connect to a.example[192.0.2.1]:25: Connection refused
         01 smtp 7 ABC123: to=<u@b.example>, relay=none, delay=1, delays=0/0/1/0, dsn=4.4.1, \
         status=deferred (connect to a.example[192.0.2.1]:25: Connection refused)",
    );
    assert_eq!(
        shown,
        [
            "delivery ABC123 b.example - deferred 4.4.1 -",
            "01 refused a.example 192.0.2.1:25 b.example ABC123 -",
        ]
    );
}

#[test]
fn a_process_that_waits_longer_names_no_message() {
    let lines = log(&format!(
        "01 smtp 7 connect to a.example[2001:db8::1]:25: Connection timed out
         31 smtp 7 connect to a.example[2001:db8::2]:25: Connection timed out
         32 smtp 7 ABC123: to=<u@b.example>, {SENT}"
    ));
    let expected = "01 timed_out a.example [2001:db8::1]:25 - - -";
    let (mut parser, mut out) = (parser(), Vec::new());
    parser.on_bytes(lines.as_bytes(), &mut out);
    assert_eq!(show(&out)[0], expected);
    assert!(show(&out)[2].ends_with("b.example ABC123 -"), "{:?}", show(&out));

    // The same by the clock.
    let (mut parser, mut out) = (self::parser(), Vec::new());
    let first = lines.lines().next().unwrap();
    parser.on_bytes(format!("{first}\n").as_bytes(), &mut out);
    parser.on_time(at_second(5), &mut out);
    assert_eq!(show(&out), Vec::<String>::new());
    parser.on_time(at_second(6), &mut out);
    assert_eq!(show(&out), [expected]);
}

#[test]
fn one_attempt_for_the_soft_line_and_the_delivery_line() {
    let refused =
        "host a.example[2001:db8::1] said: 450 4.7.25 no PTR (in reply to RCPT TO command)";
    let shown = attempts(&format!(
        "01 qmgr 1 ABC123: from=<s@c.example>, size=9, nrcpt=1 (queue active)
         02 smtp 7 ABC123: {refused}
         03 smtp 7 ABC123: to=<u@b.example>, {SENT}
         09 qmgr 1 ABC124: from=<s@c.example>, size=9, nrcpt=1 (queue active)
         10 smtp 7 ABC124: {refused}
         10 smtp 7 ABC124: to=<u@b.example>, relay=a.example[2001:db8::1]:25, delay=1, delays=0/0/1/0, \
         dsn=4.7.25, status=deferred ({refused})"
    ));
    assert_eq!(
        shown,
        [
            "02 policy_refused a.example [2001:db8::1]:25 b.example ABC123 450 4.7.25 no PTR",
            "03 delivered a.example 192.0.2.1:25 b.example ABC123 250 ok",
            "10 policy_refused a.example [2001:db8::1]:25 b.example ABC124 450 4.7.25 no PTR",
        ]
    );
}

#[test]
fn recipients_of_a_message_share_an_attempt() {
    let line = |status: &str| {
        format!(
            "relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/2, dsn=5.1.1, status={status}"
        )
    };
    let unknown = line(
        "bounced (host a.example[192.0.2.1] said: 550 5.1.1 no user (in reply to RCPT TO command))",
    );
    let stalled = line(
        "deferred (conversation with a.example[192.0.2.1] timed out while sending message body)",
    );
    let shown = attempts(&format!(
        "01 smtp 7 ABC123: to=<u@b.example>, {unknown}
         02 smtp 7 ABC123: to=<v@b.example>, {SENT}
         02 smtp 7 ABC123: to=<w@b.example>, {SENT}
         03 smtp 7 ABC124: to=<u@b.example>, {unknown}
         43 smtp 7 ABC124: to=<v@b.example>, {stalled}
         43 smtp 7 ABC124: to=<w@b.example>, {stalled}
         44 smtp 7 ABC125: to=<w@b.example>, {unknown}"
    ));
    assert_eq!(
        shown,
        [
            "02 delivered a.example 192.0.2.1:25 b.example ABC123 250 ok",
            "43 stalled a.example 192.0.2.1:25 b.example ABC124 -",
            "44 rejected a.example 192.0.2.1:25 b.example ABC125 550 5.1.1 no user",
        ]
    );
}

#[test]
fn a_retry_of_a_message_is_another_attempt() {
    let refused = "relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, dsn=4.0.0, status=deferred (host \
                   a.example[192.0.2.1] refused to talk to me: 421 busy)";
    let shown = attempts(&format!(
        "01 qmgr 1 ABC123: from=<s@c.example>, size=9, nrcpt=1 (queue active)
         01 smtp 7 ABC123: to=<u@b.example>, {refused}
         01 smtp 7 ABC123: to=<v@b.example>, {refused}
         02 qmgr 1 ABC123: from=<s@c.example>, size=9, nrcpt=1 (queue active)
         02 smtp 7 ABC123: to=<u@b.example>, {refused}"
    ));
    assert_eq!(
        shown,
        [
            "01 greeting_refused a.example 192.0.2.1:25 b.example ABC123 421 busy",
            "02 greeting_refused a.example 192.0.2.1:25 b.example ABC123 421 busy",
        ]
    );
}

#[test]
fn a_failed_handshake_and_the_delivery_without_tls() {
    let shown = attempts(&format!(
        "01 smtp 7 SSL_connect error to a.example[192.0.2.1]:25: lost connection
         01 smtp 7 ABC123: Cannot start TLS: handshake failure
         02 smtp 7 ABC123: to=<u@b.example>, {SENT}
         03 smtp 7 SSL_connect error to a.example[192.0.2.1]:25: -1
         03 smtp 7 warning: TLS library problem: error:0A000410:SSL routines::x
         03 smtp 7 ABC124: to=<u@b.example>, relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, \
         dsn=4.7.5, status=deferred (Cannot start TLS: handshake failure)"
    ));
    assert_eq!(
        shown,
        [
            "01 tls_failed a.example 192.0.2.1:25 b.example ABC123 -",
            "02 delivered a.example 192.0.2.1:25 b.example ABC123 250 ok",
            "03 tls_failed a.example 192.0.2.1:25 b.example ABC124 -",
        ]
    );
}

#[test]
fn no_attempts() {
    let status = "delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)";
    let shown = attempts(&format!(
        "01 smtp 7 ABC123: to=<u@b.example>, relay=a.example[192.0.2.1]:25, conn_use=2, {status}
         02 smtp 7 ABC124: to=<u@b.example>, relay=none, delay=1, delays=0/0/1/0, dsn=4.4.1, \
         status=deferred (delivery temporarily suspended: connect to a.example[192.0.2.1]:25: Connection refused)
         03 smtp 7 ABC125: to=<u@b.example>, relay=127.0.0.1[127.0.0.1]:10024, {status}
         04 smtp 7 ABC126: to=<u@b.example>, relay=mx.example[private/filter], {status}
         05 smtp 7 connect to mx.example[private/filter]: No such file or directory
         06 smtp 7 connect to 127.0.0.1[127.0.0.1]:10024: Connection refused
         07 lmtp 7 connect to a.example[192.0.2.1]:24: Connection refused
         08 smtp 7 Untrusted TLS connection established to a.example[192.0.2.1]:25: TLSv1.3
         09 smtp 7 ABC127: to=<u@b.example>, relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, \
         dsn=4.3.0, status=deferred (local data error while talking to a.example[192.0.2.1])
         10 smtp 7 ABC128: to=<u@b.example>, relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, \
         dsn=2.1.5, status=deliverable (250 ok)"
    ));
    assert_eq!(shown, Vec::<String>::new());
}

#[test]
fn texts_of_servers_decide_nothing_else() {
    let forged = "550 5.1.1 x (in reply to end of DATA command)), relay=evil.example[192.0.2.66]:25, status=sent (250 ok";
    let shown = events(&format!(
        "01 smtp 7 ABC123: to=<u@b.example>, relay=a.example[192.0.2.1]:25, delay=1, delays=0/0/1/0, dsn=5.1.1, \
         status=bounced (host a.example[192.0.2.1] said: {forged} (in reply to RCPT TO command))"
    ));
    assert_eq!(
        shown,
        [
            "delivery ABC123 b.example 192.0.2.1:25 bounced 5.1.1 rejected".to_owned(),
            format!("01 rejected a.example 192.0.2.1:25 b.example ABC123 {forged}"),
        ]
    );
}

#[test]
fn no_local_part_is_kept() {
    let shown = events(
        "01 smtp 7 ABC123: host a.example[2001:db8::1] said: 450 4.1.1 <jane@b.example> Jane is away (in reply to RCPT TO command)
         02 smtp 7 ABC123: to=<jane@b.example>, orig_to=<jane>, relay=a.example[192.0.2.1]:25, delay=1, \
         delays=0/0/1/0, dsn=5.1.1, status=bounced (host a.example[192.0.2.1] said: 550 5.1.1 Jane is unknown (in \
         reply to RCPT TO command))",
    );
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(!shown.concat().to_lowercase().contains("jane"), "{shown:?}");
}

#[test]
fn nuls_garbage_and_long_lines() {
    let good = log(&format!("01 smtp 7 ABC123: to=<u@b.example>, {SENT}"));
    let mut bytes = vec![0; 100_000];
    bytes.extend_from_slice(good.as_bytes());
    bytes.extend_from_slice(b"\xff/smtp[\xfe]: \n/smtp[1]: \n\n (queue active)\n");
    bytes.extend_from_slice(good.trim_end().as_bytes());
    bytes.resize(bytes.len() + 70_000, b'a');
    let (mut parser, mut out) = (parser(), Vec::new());
    parser.on_bytes(&bytes, &mut out);
    parser.finish(&mut out);
    // The NULs make the first line too long.
    assert_eq!(show(&out), Vec::<String>::new());

    let (mut parser, mut out) = (self::parser(), Vec::new());
    parser.on_bytes(&[&[0; 100][..], good.as_bytes()].concat(), &mut out);
    assert_eq!(out.len(), 2);
}

#[test]
fn memory_is_bounded() {
    let (mut parser, mut out) = (parser(), Vec::new());
    for pid in 0..20_000 {
        let line =
            log(&format!("01 smtp {pid} connect to a.example[192.0.2.1]:25: Connection refused"));
        parser.on_bytes(line.as_bytes(), &mut out);
    }
    assert!(out.len() >= 20_000 - 4096, "{}", out.len());
    parser.finish(&mut out);
    assert_eq!(out.len(), 20_000);
}
