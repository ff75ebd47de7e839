//! Content in one write with DATA, before the 354.

use gatepost::engine::{Anomaly, EarlyData, Profile, SessionRecord, Timeouts};
use gatepost::policy::PolicyAction;

use crate::engine::driver::Driver;

const REJECTED: &str =
    "503 5.5.0 content was sent before the reply to DATA (RFC 2920 section 3.1)\r\n";

/// The reply to EHLO, or to HELO.
#[derive(Clone, Copy, Debug)]
enum Hello {
    Helo,
    Ehlo(&'static str),
}

const PIPELINING: Hello = Hello::Ehlo("250-mx\r\n250 PIPELINING\r\n");
const PLAIN: [Hello; 2] = [Hello::Helo, Hello::Ehlo("250-mx\r\n250 8BITMIME\r\n")];

/// A session whose client sends `last` in one write after an accepted envelope. Returns what each side received from then
/// on, and the record.
fn session(hello: Hello, mode: EarlyData, last: &[u8]) -> (String, String, SessionRecord) {
    let mut profile = Profile::default();
    profile.smtp.early_data = mode;
    let (client, server) = ("192.0.2.1:4", "192.0.2.2:25");
    let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, server, false);
    let (command, reply) = match hello {
        Hello::Helo => ("HELO a\r\n", "250 mx\r\n"),
        Hello::Ehlo(reply) => ("EHLO a\r\n", reply),
    };
    driver.upstream_sends(b"220 mx\r\n");
    for (command, reply) in [
        (command, reply),
        ("MAIL FROM:<a@a.example>\r\n", "250 ok\r\n"),
        ("RCPT TO:<b@b.example>\r\n", "250 ok\r\n"),
    ] {
        driver.client_sends(command.as_bytes());
        driver.upstream_sends(reply.as_bytes());
    }
    let (to_client, to_upstream) = (driver.to_client.len(), driver.to_upstream.len());
    driver.client_sends(last);
    let sent = |bytes: &[u8], from: usize| String::from_utf8_lossy(&bytes[from..]).into_owned();
    if sent(&driver.to_upstream, to_upstream).starts_with("DATA") {
        driver.upstream_sends(b"354 go\r\n");
    }
    if driver.to_upstream.ends_with(b"\r\n.\r\n") {
        driver.upstream_sends(b"250 queued\r\n");
    }
    let received = (sent(&driver.to_client, to_client), sent(&driver.to_upstream, to_upstream));
    let record = driver.finish();
    driver.check_replay(&record, &format!("{hello:?}, {mode:?}"));
    (received.0, received.1, record)
}

#[test]
fn it_is_rejected_where_pipelining_was_not_offered() {
    for hello in PLAIN {
        let (to_client, to_upstream, record) =
            session(hello, EarlyData::default(), b"DATA\r\nhello\r\n");
        assert!(to_client.starts_with(REJECTED), "{to_client}");
        assert_eq!(to_upstream, "", "no DATA, no content");
        assert!(record.smtp.anomalies.contains(&Anomaly::EarlyData));
        assert_eq!(record.verdict.action, PolicyAction::Reject);
        assert_eq!(record.verdict.reason.as_deref(), Some("early_data"));
        assert_eq!(record.smtp.transactions[0].data_code, Some(503));
    }
}

#[test]
fn reject_and_allow_hold_for_every_session() {
    for hello in [PLAIN[0], PLAIN[1], PIPELINING] {
        let (to_client, to_upstream, _) =
            session(hello, EarlyData::Reject, b"DATA\r\nhello\r\n.\r\n");
        assert!(to_client.starts_with(REJECTED) && to_upstream.is_empty(), "{to_client}");
        let (to_client, _, record) = session(hello, EarlyData::Allow, b"DATA\r\nhello\r\n.\r\n");
        assert_eq!(to_client, "354 go\r\n250 queued\r\n");
        assert_eq!(record.verdict.action, PolicyAction::Accept);
    }
    let (to_client, ..) = session(PIPELINING, EarlyData::default(), b"DATA\r\nhello\r\n.\r\n");
    assert_eq!(to_client, "354 go\r\n250 queued\r\n", "the default where PIPELINING was offered");
}

/// The first header field ends the session, as with Postfix: the rest is not taken for commands.
#[test]
fn the_content_is_not_taken_for_commands() {
    let content = b"DATA\r\nSubject: x\r\n\r\nRSET\r\n.\r\n";
    let (to_client, to_upstream, _) = session(Hello::Helo, EarlyData::Reject, content);
    assert_eq!(to_upstream, "");
    let last = "221 2.7.0 not SMTP; this is an SMTP server\r\n";
    assert_eq!(to_client, format!("{REJECTED}{last}"));
}

#[test]
fn a_client_that_waits_is_not_affected() {
    for hello in [PLAIN[0], PLAIN[1], PIPELINING] {
        let (_, to_upstream, record) = session(hello, EarlyData::Reject, b"DATA\r\n");
        assert_eq!(to_upstream, "DATA\r\n");
        assert_eq!(record.verdict.action, PolicyAction::Accept);
    }
}

/// As Postfix, which remembers it: a client does not get through at its second attempt.
#[test]
fn a_later_data_of_the_session_is_rejected_too() {
    let (to_client, to_upstream, _) =
        session(Hello::Helo, EarlyData::default(), b"DATA\r\nhello\r\nDATA\r\n");
    assert_eq!(to_upstream, "");
    assert_eq!(to_client.matches(REJECTED).count(), 2, "{to_client}");
}
