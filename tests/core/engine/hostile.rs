//! Hostile or broken clients and servers: early talk, junk, smuggling attempts, invalid replies.

use gatepost::engine::{Anomaly, BareNewlines, PathSyntax, SessionRecord, TlsState};

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::sessions::{ENVELOPE, HELLO};

const NOT_SMTP: &str = "+C 554 5.5.1 not SMTP; this is an SMTP server\n= protocol";

fn junk(line: &str, anomaly: Anomaly) {
    let record = dialogue(&format!("C- {line}\n{NOT_SMTP}"));
    assert_eq!(*record.smtp.anomalies.last().unwrap(), anomaly, "{line}");
    assert_eq!(record.verdict.reason.as_deref(), Some("junk"));
    let record = dialogue(&format!("S: 220 mx\nC- {line}\nC- more\n{NOT_SMTP}"));
    assert_eq!(record.smtp.anomalies, [anomaly], "{line}");
}

#[test]
fn junk_is_rejected_before_and_after_the_greeting() {
    junk("GET / HTTP/1.1", Anomaly::JunkHttp);
    junk("post /x HTTP/1.0", Anomaly::JunkHttp);
    junk("PRI * HTTP/2.0", Anomaly::JunkHttp);
    junk("\\x16\\x03\\x01\\0", Anomaly::JunkTls);
}

/// As to any server that expects no header.
#[test]
fn a_proxy_v1_header_is_an_unknown_command() {
    let text = r"S: 220 mx
        C- PROXY TCP4 192.0.2.1 192.0.2.2 1 2
        +C 500 5.5.2 command not recognized
        C: EHLO a
        S: 250 mx
        ";
    let record = dialogue(text);
    assert_eq!(record.smtp.anomalies, [Anomaly::JunkProxy]);
}

#[test]
fn a_proxy_v2_header_is_recognised_before_and_after_the_greeting() {
    let header = "\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21";
    let record = dialogue(&format!("C- {header}\n+S NOOP\n{NOT_SMTP}"));
    assert!(record.smtp.anomalies.contains(&Anomaly::JunkProxy));
    let empty = "+C 500 5.5.2 bad syntax\n";
    dialogue(&format!("S: 220 mx\nC- {header}\n{empty}{empty}{NOT_SMTP}"));
}

/// An immediate 554 would be taken for the reply to the message before it.
#[test]
fn the_reply_to_junk_waits_for_earlier_replies() {
    dialogue(
        &[
            HELLO,
            ENVELOPE,
            "C: DATA\nS: 354 go\nC: x\nC: .\nC|- GET / HTTP/1.1\nS: 250 queued\n",
            NOT_SMTP,
        ]
        .concat(),
    );
}

#[test]
fn plaintext_pipelined_behind_starttls_is_discarded() {
    let record = dialogue(
        &[
            HELLO,
            r"C: STARTTLS
            C- MAIL FROM:<injected@a.example>
            S: 220 2.0.0 go
            S- 250 2.1.0 injected
            C: \x16\x03\x01\
            S: \x16\x03\x03\
            ",
        ]
        .concat(),
    );
    assert_eq!(record.smtp.tls, TlsState::Started);
    assert!(record.smtp.anomalies.contains(&Anomaly::StarttlsPlaintext));
    assert_eq!(record.smtp.transactions_total, 0);
}

/// Also plaintext that arrives after the 220 was sent.
#[test]
fn plaintext_after_starttls_is_discarded() {
    let record = dialogue(
        r"S: 220 a
        C: STARTTLS
        S: 220 go
        C- RSET
        C- MAIL FROM:<injected@a.example>
        C: \x16\x03\x01 now TLS
        S: \x16\x03\x03\
        C: RSET
        ",
    );
    assert_eq!(record.smtp.anomalies, [Anomaly::StarttlsPlaintext]);
}

#[test]
fn commands_behind_a_rejected_starttls_are_relayed() {
    dialogue("S: 220 a\nC: STARTTLS\nC- NOOP\nS: 454 no\n+S NOOP\n--\nS: 250 ok\n");
}

fn commands(mode: BareNewlines, text: &str) -> SessionRecord {
    Dialogue::new(&["S: 220 a\n", text].concat())
        .with(|profile| profile.smtp.bare_newlines = mode)
        .run()
}

/// Content may be relayed with bare newlines, commands never: gateway and upstream must parse the same commands.
#[test]
fn bare_newlines_in_commands_are_normalized_or_rejected() {
    let two = r"C- MAIL FROM:<a@a.example>\rRCPT TO:<b@b.example>";
    for mode in [BareNewlines::Normalize, BareNewlines::Pass] {
        let record = commands(mode, "C- NOOP\\n\\\n+S NOOP\nS: 250 a\n");
        assert_eq!(record.smtp.anomalies, [Anomaly::BareLf]);
        let refusal = "+C 500 5.5.2 command contains a control character\n";
        let record = commands(mode, &format!("{two}\n{refusal}"));
        assert!(record.smtp.anomalies.contains(&Anomaly::BareCr));
        let one = "+S MAIL FROM:<a@a.example> RCPT TO:<b@b.example>\nS: 501 a\n";
        Dialogue::new(&format!("S: 220 a\n{two}\n{one}"))
            .with(|profile| {
                profile.smtp.bare_newlines = mode;
                profile.smtp.paths = PathSyntax::Lenient;
            })
            .run();
    }
    let refusal =
        "+C 500 5.5.2 bare CR or LF in command; lines end in CRLF (RFC 5321 section 2.3.8)\n";
    for line in ["NOOP\\n\\", "NO\\rOP", "\\rNOOP", "NOOP\\r"] {
        let record =
            commands(BareNewlines::Reject, &format!("C- {line}\n{refusal}C| NOOP\nS: 250 ok\n"));
        assert_eq!(record.verdict.reason.as_deref(), Some("bare_newline"));
    }
}

/// With `pass`, a strict upstream would parse one NOOP and then the chunk as commands.
#[test]
fn a_chunk_behind_a_bare_newline_is_recognised() {
    Dialogue::new(
        r"S: 220 a
        C: EHLO b
        S: 250-a
        S: 250 CHUNKING
        C- NOOP\nBDAT 6
        +S NOOP
        +S BDAT 6
        C: RSET
        S: 250 noop
        S: 250 bdat
        ",
    )
    .with(|profile| profile.smtp.bare_newlines = BareNewlines::Pass)
    .run();
}

#[test]
fn pipelining_that_was_not_offered_is_counted() {
    let record = dialogue("S: 220 a\nC: NOOP\nC: NOOP\nS: 250 a\nS: 250 b\n");
    assert_eq!(record.smtp.anomalies, [Anomaly::UnauthorizedPipelining]);
}

#[test]
fn content_before_the_354_is_held_back() {
    let text = "C: DATA\nC|- x\nC|- .\nS: 354 go\n+S x\n+S .\n--\nS: 250 queued\n";
    let record = dialogue(&[HELLO, ENVELOPE, text].concat());
    assert_eq!(record.smtp.anomalies, [Anomaly::EarlyData]);
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}

/// Nobody can tell the bytes of a chunk of unknown size from commands.
#[test]
fn malformed_bdat_ends_the_session_after_the_replies_before_it() {
    let end = "+C 521 5.5.4 syntax: BDAT size [LAST]; closing\n= protocol";
    for bdat in ["BDAT", "BDAT x", "BDAT -1", "BDAT 1 LASTS", "BDAT 1 LAST x", " bdat 0x10"] {
        let text = format!("C: RSET\nC|- {bdat}\nC|- RSET\nS: 250 ok\n{end}");
        let record = dialogue(&[HELLO, &text].concat());
        assert_eq!(record.verdict.reason.as_deref(), Some("command_syntax"), "{bdat}");
    }
    let text = format!("C- BDAT 5\\nRSET\\n\\\n{end}");
    Dialogue::new(&[HELLO, &text].concat())
        .with(|profile| profile.smtp.bare_newlines = BareNewlines::Reject)
        .run();
}

#[test]
fn a_message_where_commands_belong_ends_the_session() {
    let end = "+C 221 2.7.0 not SMTP; this is an SMTP server\n= protocol";
    for field in ["Subject: hello", "X-A:b", "Received: from a by b", ".", "8BIT", "<a>"] {
        let text = format!("C: NOOP\nC|- {field}\nC|- RSET\nS: 250 ok\n{end}");
        let record = dialogue(&[HELLO, &text].concat());
        assert_eq!(record.verdict.reason.as_deref(), Some("junk"), "{field}");
    }
}

/// Postfix skips it, so policy and record must too.
#[test]
fn a_leading_blank_does_not_hide_a_command() {
    let text = r"C- \x20MAIL FROM:<a@a.example>
        +S MAIL FROM:<a@a.example>
        S: 250 ok
        C- \x20\tBDAT 4 LAST
        +S BDAT 4 LAST
        C: ab
        S: 250 queued
        C- \x20XCLIENT ADDR=::1
        +C 550 5.7.0 XCLIENT and XFORWARD are not accepted here
        ";
    let record = dialogue(&[HELLO, text].concat());
    assert_eq!(record.smtp.transactions[0].mail_from, "a@a.example");
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}

/// What a client uses that was not offered is for the mail server to judge.
#[test]
fn parameters_pass_unchanged_whether_offered_or_not() {
    dialogue(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example> HOLDFOR=60 BY=120;R MT-PRIORITY=3 SOLICIT=x
            S: 555 5.5.4 Unsupported option: HOLDFOR=60
            C: MAIL FROM:<a@a.example>
            S: 250 ok
            C: RCPT TO:<b@b.example> RRVS=2014-04-03T23:01:00Z CONPERM
            S: 555 5.5.4 Unsupported option
            C: EHLO a
            S: 250-mx
            S: 250-FUTURERELEASE 1000 2026-01-01T00:00:00Z
            S: 250-NO-SOLICITING
            S: 250 DELIVERBY 120
            ",
        ]
        .concat(),
    );
}

#[test]
fn an_unexpected_or_invalid_reply_ends_the_session() {
    let cannot =
        "+C 421 4.5.0 gate.example mail server sent an invalid reply; try again later\n= protocol";
    let record = dialogue(&format!("S: 220 a\nS- 250 what\n{cannot}"));
    assert_eq!(record.smtp.anomalies, [Anomaly::UnexpectedReply]);
    let record = dialogue(&format!("S- hello\n{cannot}"));
    assert_eq!(record.smtp.anomalies, [Anomaly::BadReply]);
    let text = format!("C: DATA\nS: 354 go\nC: x\nC: .\nS- 2xx queued\n{cannot}");
    let record = dialogue(&[HELLO, ENVELOPE, &text].concat());
    assert_eq!(record.smtp.transactions[0].data_code, Some(421), "sent to the client");
}

/// The client alone would receive it too. Nothing can take it for the reply to a later command: the session is over.
#[test]
fn an_idle_server_that_closes_is_relayed_whatever_its_code() {
    for reply in ["451 4.4.2 idle for too long", "554 5.4.2 go away"] {
        let record =
            dialogue(&format!("S: 220 a\nC: NOOP\nS: 250 ok\nS: {reply}\n= upstream_closed"));
        assert_eq!(record.smtp.anomalies, [Anomaly::UnexpectedReply]);
    }
}

#[test]
fn different_codes_in_one_reply_end_the_session() {
    let end = "+C 421 4.5.0 gate.example mail server sent a reply with different codes; try again later\n= protocol";
    for reply in ["S- 250-a\nS- 354 b", "S- 250-a\nS- 251-b\nS- 250 c", "S- 550-a\nS- 250 b"] {
        let record = dialogue(&format!("S: 220 a\nC: NOOP\n{reply}\n{end}"));
        assert_eq!(record.smtp.anomalies, [Anomaly::BadReply]);
    }
    let text = format!("C: DATA\nS: 354 go\nC: x\nC: .\nS- 250-queued\nS- 451 not\n{end}");
    let record = dialogue(&[HELLO, ENVELOPE, &text].concat());
    assert_eq!(record.smtp.transactions[0].data_code, Some(421), "no 250 of the gateway's");
}

#[test]
fn replies_are_cleaned_before_the_client_receives_them() {
    for (sent, relayed) in [
        ("250OK", "250 OK"),
        ("250 a\\0b\\rc", "250 a b c"),
        ("250-a\\n250 b\\n\\", "250-a\n+C 250 b"),
    ] {
        dialogue(&format!("S: 220 a\nC: NOOP\nS- {sent}\n+C {relayed}\nC: NOOP\nS: 250 ok\n"));
    }
    dialogue(
        "S- 220mx\\0\n+C 220 mx \nC: EHLO a\nS- 250-m\\rx\nS- 250 SIZE\\n\\\n+C 250-m x\n+C 250 SIZE\n",
    );
}
