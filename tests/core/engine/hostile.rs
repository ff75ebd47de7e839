//! Hostile or broken clients and servers: early talk, junk, smuggling attempts, invalid replies.

use gatepost::engine::{
    Anomaly, BareNewlines, PathSyntax, Pregreet, RefuseAt, SessionRecord, TlsState,
};
use gatepost::policy::PolicyAction;

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::sessions::{ENVELOPE, HELLO};

const NOT_SMTP: &str = "+C 554 5.5.1 not SMTP; this is an SMTP server\n= protocol";

#[test]
fn early_talk_is_counted() {
    let record = dialogue("C- EHLO a\nS: 220 a\n+S EHLO a\n--\nS: 250 b\n");
    assert_eq!(record.smtp.anomalies[0], Anomaly::Pregreet);
}

#[test]
fn early_talk_is_rejected_at_rcpt() {
    let record = Dialogue::new(
        r"C- EHLO a
        S: 220 mx
        +S EHLO a
        --
        S: 250 mx
        C: MAIL FROM:<a@a.example>
        S: 250 ok
        C- RCPT TO:<b@b.example>
        +C 550 5.5.1 client sent data before the greeting (RFC 5321 section 3.1)
        ",
    )
    .with(|profile| profile.smtp.pregreet = Pregreet::Reject)
    .run();
    assert_eq!(record.verdict.reason.as_deref(), Some("pregreet"));
    assert_eq!(record.verdict.action, PolicyAction::Reject);
}

#[test]
fn early_talk_is_rejected_instead_of_the_greeting() {
    let record = Dialogue::new(
        r"C- EHLO a
        +C 554 5.5.1 client sent data before the greeting (RFC 5321 section 3.1)
        +C 503 5.5.1 access denied; only QUIT is accepted
        S- 220 mx
        C- QUIT
        +C 221 2.0.0 Bye
        = refused",
    )
    .with(|profile| {
        profile.smtp.pregreet = Pregreet::Reject;
        profile.smtp.refuse_at = RefuseAt::Connect;
    })
    .run();
    assert_eq!(record.smtp.anomalies, [Anomaly::Pregreet]);
}

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
    junk("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", Anomaly::JunkProxy);
}

#[test]
fn a_proxy_v2_header_is_recognised_before_and_after_the_greeting() {
    let header = "\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21";
    let record = dialogue(&format!("C- {header}\n{NOT_SMTP}"));
    assert!(record.smtp.anomalies.contains(&Anomaly::JunkProxy));
    let unknown = "+C 502 5.5.2 command not recognized\n";
    dialogue(&format!("S: 220 mx\nC- {header}\n{unknown}{unknown}{NOT_SMTP}"));
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
