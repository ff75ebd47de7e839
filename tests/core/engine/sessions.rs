//! Sessions without errors.

use gatepost::engine::{Anomaly, Side, TlsState};
use serde_json::json;

use crate::engine::dialogue::{Dialogue, dialogue};

/// Up to an EHLO whose extensions include PIPELINING.
pub(crate) const HELLO: &str = r"S: 220 mx.example ESMTP
    C: EHLO a.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-CHUNKING
    S: 250-STARTTLS
    S: 250-AUTH LOGIN PLAIN
    S: 250 ENHANCEDSTATUSCODES
";

/// [`HELLO`] and an accepted envelope.
pub(crate) const ENVELOPE: &str = r"C: MAIL FROM:<a@a.example>
    S: 250 2.1.0 Ok
    C: RCPT TO:<b@b.example>
    S: 250 2.1.5 Ok
";

pub(crate) const BYE: &str = r"C: QUIT
    S: 221 2.0.0 Bye
    S.
    = quit
";

#[test]
fn a_plain_session_is_relayed_unchanged() {
    let record = dialogue(
        r"S: 220 mx.example SMTP
        C: HELO a.example
        S: 250 mx.example
        C: MAIL FROM:<a@a.example>
        S: 250 Ok
        C: RCPT TO:<b@b.example>
        S: 250 Ok
        C: DATA
        S: 354 go
        C: Subject: x
        C: \
        C: ..dot
        C: .
        S: 250 queued
        C: QUIT
        S: 221 bye
        S.
        = quit",
    );
    assert_eq!(record.smtp.greeting, Some(220));
    assert_eq!(record.smtp.helo.as_deref(), Some("a.example"));
    assert!(!record.smtp.esmtp);
    assert_eq!(record.smtp.transactions_total, 1);
    assert_eq!(record.smtp.transactions[0].bytes, 19);
}

/// The schema of issue 3, with the values that a live session has.
#[test]
fn the_record_as_json() {
    let record = dialogue(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example> BODY=8BITMIME
            C| RCPT TO:<b@b.example> NOTIFY=NEVER
            C| RCPT TO:<c@b.example>
            C| DATA
            S: 250 2.1.0 Ok
            S: 250 2.1.5 Ok
            S: 550-5.1.1 No such user
            S: 550 5.1.1 Really
            S: 354 go
            C: hello
            C: .
            S: 250 2.0.0 queued
            ",
            BYE,
        ]
        .concat(),
    );
    let expected = json!({
        "start": "2026-01-02T03:04:05.000000Z", "duration_s": 0.0, "family": "ipv6",
        "client": {"address": "2001:db8::1", "port": 40000},
        "server": {"address": "2001:db8::2", "port": 25},
        "listener": null,
        "upstream": {"address": "2001:db8::25", "port": 25},
        "upstream_error": null,
        "outcome": "quit",
        "tcp": {"client_bytes": 148, "server_bytes": 280},
        "smtp": {
            "greeting": 220, "helo": "a.example", "esmtp": true, "tls": "offered", "auth": false,
            "extensions": ["PIPELINING", "CHUNKING", "STARTTLS", "AUTH", "ENHANCEDSTATUSCODES"],
            "tls_version": null,
            "tls_handshake": null,
            "tls_error": null, "sni": null,
            "transactions": [{
                "mail_from": "a@a.example", "mail_code": 250,
                "rcpt_to": [
                    {"address": "b@b.example", "code": 250, "enhanced": "2.1.5"},
                    {"address": "c@b.example", "code": 550, "enhanced": "5.1.1"},
                ],
                "rcpt_total": 2, "data_code": 250, "bytes": 7, "chunking": false,
            }],
            "transactions_total": 1,
            "commands": {"EHLO": 1, "MAIL": 1, "RCPT": 2, "DATA": 1, "QUIT": 1},
            "replies": {"220": 1, "221": 1, "250": 4, "354": 1, "550": 1},
            "phases": {
                "connect_s": 0.0, "greeting_s": 0.0, "tls_handshake_s": null, "envelope_s": 0.0, "data_s": 0.0, "acceptance_s": 0.0,
            },
            "anomalies": [], "desyncs": 0, "resyncs": 0,
        },
        "facts": null,
        "verdict": {"action": "accept", "rule": null, "reason": null, "shadow": []},
    });
    let mut actual = serde_json::to_value(&record).unwrap();
    let bytes = actual["tcp"].take();
    let mut without_bytes = expected.clone();
    without_bytes["tcp"].take();
    assert_eq!(actual, without_bytes);
    assert!(bytes["client_bytes"].is_u64() && bytes["server_bytes"].is_u64());
}

#[test]
fn bytes_are_counted_as_received() {
    let record = dialogue("S: 220 a\nC: EHLO b\nS- 250-a\nS- 250 XCLIENT\n+C 250 a\n");
    assert_eq!(record.tcp.client_bytes, 8);
    assert_eq!(record.tcp.server_bytes, 7 + 7 + 13);
}

#[test]
fn multiline_replies_are_relayed_unchanged() {
    dialogue(
        r"S: 220-mx.example says
        S: 220-hello
        S: 220
        C: HELP
        S: 214-a
        S: 214 b
        C: VRFY x
        S: 252
        C: EXPN x
        S: 502 5.5.1 no
        C: ETRN x
        S: 250 ok
        C: NOOP
        S: 250 ok
        C: RSET
        S: 250 ok",
    );
}

#[test]
fn ehlo_relays_only_extensions_that_the_gateway_supports() {
    let record = Dialogue::new(
        r"S: 220 mx.example
        C: ehlo [IPv6:2001:db8::1]
        S- 250-mx.example greets
        S- 250-XCLIENT NAME ADDR
        S- 250-PIPELINING
        S- 250-SIZE 1000
        S- 250-STARTTLS
        S- 250-BURL imap
        S- 250-AUTH=LOGIN
        S- 250-8bitmime
        S- 250 XFORWARD NAME
        +C 250-mx.example greets
        +C 250-PIPELINING
        +C 250-SIZE 1000
        +C 250-AUTH=LOGIN
        +C 250 8bitmime
        C: EHLO again
        S: 550 not you
        C: HELO again
        S: 250 mx.example",
    )
    .with(|profile| profile.smtp.hide = vec![gatepost_keyword("STARTTLS")])
    .run();
    assert_eq!(record.smtp.tls, TlsState::None);
}

#[test]
fn rejected_commands_do_not_change_the_session() {
    let text = r"C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: HELO
        S: 501 5.5.4 who
        C: MAIL FROM:<b@b.example>
        S: 503 5.5.1 nested
        C: RCPT TO:<c@c.example>
        S: 250 2.1.5 Ok
        C: DATA
        S: 354 go
        C: x
        C: .
        S: 250 2.0.0 queued
        ";
    let record = dialogue(&[HELLO, text, BYE].concat());
    assert_eq!((record.smtp.helo.as_deref(), record.smtp.esmtp), (Some("a.example"), true));
    let [open, nested] = &record.smtp.transactions[..] else { panic!("two transactions") };
    assert_eq!(
        (open.mail_from.as_str(), open.rcpt_total, open.data_code),
        ("a@a.example", 1, Some(250))
    );
    assert_eq!(
        (nested.mail_from.as_str(), nested.rcpt_total, nested.mail_code),
        ("b@b.example", 0, Some(503))
    );
}

pub(crate) fn gatepost_keyword(word: &str) -> gatepost::smtp::Keyword {
    gatepost::smtp::Keyword::parse(word).unwrap()
}

#[test]
fn commands_of_hidden_extensions_are_rejected() {
    Dialogue::new(
        &[
            HELLO
                .replace("S: 250-STARTTLS", "S- 250-STARTTLS")
                .replace("S: 250-AUTH LOGIN PLAIN", "S- 250-AUTH LOGIN PLAIN")
                .replace("S: 250-CHUNKING", "S- 250-CHUNKING")
                .as_str(),
            r"C- STARTTLS
            +C 502 5.5.1 not offered here
            C- AUTH PLAIN x
            +C 502 5.5.1 not offered here
            C- BDAT 6 LAST
            C- RSET
            +C 502 5.5.1 not offered here
            ",
            BYE,
        ]
        .concat(),
    )
    .with(|profile| {
        profile.smtp.hide = ["STARTTLS", "AUTH", "CHUNKING"].map(gatepost_keyword).to_vec();
    })
    .run();
}

#[test]
fn each_command_gets_one_reply_in_order() {
    let record = dialogue(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example>
            S: 250 1
            C|- XCLIENT ADDR=::1
            +C 550 5.7.0 XCLIENT and XFORWARD are not accepted here
            C| RCPT TO:<b@b.example>
            S: 250 2
            C|- FROB
            +C 500 5.5.2 command not recognized
            C|- \x20
            +C 500 5.5.2 bad syntax
            C|- XFORWARD NAME=x
            +C 550 5.7.0 XCLIENT and XFORWARD are not accepted here
            C| NOOP
            S: 250 3
            C| RSET
            S: 250 4
            ",
            BYE,
        ]
        .concat(),
    );
    use Anomaly::{UnknownCommand, Xclient, Xforward};
    assert_eq!(record.smtp.anomalies, [UnknownCommand, Xclient, Xforward]);
    assert_eq!(record.verdict.reason.as_deref(), Some("xclient"));
}

#[test]
fn every_form_of_auth_is_relayed() {
    let record = dialogue(
        &[
            HELLO,
            r"C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: dXNlcg==
            S: 334 UGFzc3dvcmQ6
            C: *
            S: 501 5.7.0 cancelled
            C: AUTH PLAIN AGEAYg==
            S: 535 5.7.8 wrong
            C: AUTH PLAIN
            S: 334 go
            C: QUIT
            S: 235 2.7.0 yes
            ",
            ENVELOPE,
            BYE,
        ]
        .concat(),
    );
    assert!(record.smtp.auth);
    assert_eq!(record.smtp.commands[&gatepost::smtp::Verb::Quit], 1);
}

#[test]
fn an_over_long_auth_line_cancels_the_exchange() {
    let long = "x".repeat(13000);

    let mut driver = crate::engine::driver::Driver::new(
        gatepost::engine::Profile::default(),
        gatepost::engine::Timeouts::RFC_5321,
        "192.0.2.1:4000",
        "192.0.2.2:25",
        false,
    );
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"AUTH LOGIN\r\n");
    driver.upstream_sends(b"334 x\r\n");
    driver.client_sends(long.as_bytes());
    driver.client_sends(b"\r\nNOOP\r\n");
    assert_eq!(driver.to_upstream, b"AUTH LOGIN\r\n*\r\n");
    driver.upstream_sends(b"501 cancelled\r\n");
    driver.upstream_sends(b"250 noop\r\n");
    assert_eq!(driver.to_upstream, b"AUTH LOGIN\r\n*\r\nNOOP\r\n");
    assert_eq!(driver.to_client, b"220 a\r\n334 x\r\n501 cancelled\r\n250 noop\r\n");
}

#[test]
fn bare_newlines_in_auth_are_normalized_or_cancel_it() {
    let start = "S: 220 a\nC: AUTH LOGIN\nS: 334 x\n";
    dialogue(
        &[start, "C- ab\\rRCPT TO:<x@b.example>\\n\\\n+S ab RCPT TO:<x@b.example>\nS: 501 no\n"]
            .concat(),
    );
    Dialogue::new(&[start, "C- ab\\n\\\n+S *\nS: 501 cancelled\n"].concat())
        .with(|profile| profile.smtp.bare_newlines = gatepost::engine::BareNewlines::Reject)
        .run();
}

#[test]
fn everything_after_starttls_is_opaque() {
    let record = dialogue(
        &[
            HELLO,
            r"C: STARTTLS
            S: 220 2.0.0 go
            C: \x16\x03\x01 hello\n.\n\
            S: \x16\x03\x03 hello too \0\r\
            C: QUIT \
            S: 221 not SMTP
            C.
            S: more
            S.
            = tls_failed",
        ]
        .concat(),
    );
    assert_eq!(record.smtp.tls, TlsState::Started);
    assert_eq!(record.smtp.commands.len(), 2);
}

#[test]
fn an_opaque_session_may_be_closed_by_upstream_first() {
    let record = dialogue(
        "S: 220 a\nC: STARTTLS\nS: 220 go\nC: \\x16\nS: \\x16\nS.\nC: more\nC.\n= tls_failed",
    );
    assert_eq!(record.tcp.closed_by, Some(Side::Server));
}

#[test]
fn rejected_starttls_continues_in_plaintext() {
    let record = dialogue(
        &[
            HELLO,
            r"C: STARTTLS
            S: 454 4.7.0 not now
            C: EHLO a.example
            S: 250-mx.example
            S: 250 STARTTLS
            ",
            ENVELOPE,
            BYE,
        ]
        .concat(),
    );
    assert_eq!(record.smtp.tls, TlsState::Refused, "offered again, but refused");
}

#[test]
fn rejected_quit_does_not_end_the_session() {
    dialogue("S: 220 a\nC: QUIT now\nS: 501 5.5.4 no arguments\nC: QUIT\nS: 221 bye\nS.\n= quit");
}

#[test]
fn a_client_may_pipeline_everything() {
    let record = dialogue(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example>
            S: 250 1
            C| RCPT TO:<b@b.example>
            S: 250 2
            C| BDAT 12 LAST
            C| hel.
            C| .\r\n.\r\n\
            S: 250 3
            C| QUIT
            S: 221 bye
            ",
        ]
        .concat(),
    );
    assert_eq!(record.smtp.transactions[0].bytes, 12);
}

#[test]
fn a_half_closed_client_receives_all_replies() {
    let mut profile = gatepost::engine::Profile::default();
    profile.smtp.early_data = gatepost::engine::EarlyData::Allow;
    let mut driver = crate::engine::driver::Driver::new(
        profile,
        gatepost::engine::Timeouts::RFC_5321,
        "192.0.2.1:4000",
        "192.0.2.2:25",
        false,
    );
    let sent = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
    driver.client_sends(sent);
    driver.client_closes();
    assert!(!driver.closed);
    let replies = ["220 a", "250 b", "250 c", "250 d", "354 e", "250 f", "221 g"];
    for reply in replies {
        driver.upstream_sends(format!("{reply}\r\n").as_bytes());
    }
    assert_eq!(driver.to_upstream, sent);
    assert_eq!(
        String::from_utf8_lossy(&driver.to_client),
        replies.map(|reply| format!("{reply}\r\n")).concat()
    );
    driver.upstream_closes();
    let record = driver.finish();
    assert_eq!(record.outcome.as_str(), "quit");
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}
