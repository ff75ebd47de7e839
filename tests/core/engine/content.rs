//! Messages: DATA and BDAT, the end of data and the reply to it.

use gatepost::engine::{Anomaly, BareNewlines, SessionRecord};

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::sessions::{BYE, ENVELOPE, HELLO};

fn after_envelope(text: &str) -> SessionRecord {
    dialogue(&[HELLO, ENVELOPE, text].concat())
}

fn with_newlines(mode: BareNewlines, text: &str) -> SessionRecord {
    Dialogue::new(&[HELLO, ENVELOPE, text].concat())
        .with(|profile| profile.smtp.bare_newlines = mode)
        .run()
}

#[test]
fn the_next_transaction_may_be_pipelined_behind_data() {
    let record = after_envelope(
        r"C: DATA
        S: 354 go
        C: one
        C: .
        S: 250 first
        C| MAIL FROM:<>
        S: 250 m
        C| RCPT TO:<c@b.example>
        S: 250 r
        C| DATA
        S: 354 go
        C: three
        C: .
        S: 452 second
        C| QUIT
        S: 221 bye
        S.
        = quit",
    );
    let [first, second] = &record.smtp.transactions[..] else { panic!("two transactions") };
    assert_eq!((first.data_code, first.bytes), (Some(250), 5));
    assert_eq!((second.data_code, second.bytes), (Some(452), 7));
    assert_eq!(second.mail_from, "");
}

#[test]
fn commands_behind_rejected_data_are_relayed() {
    for code in ["503 5.5.1", "554 5.5.1", "421 4.3.0"] {
        let text = format!("C: DATA\nS: {code} no\nC| RSET\n--\nS: 250 ok\nC| NOOP\nS: 250 ok\n");
        let record = after_envelope(&text);
        assert_eq!(record.smtp.transactions[0].data_code, code[..3].parse().ok());
    }
    // No recipient was accepted, and the replies to RCPT have the reason.
    let refused =
        "C: MAIL FROM:<a@a.example>\nS: 250 ok\nC: RCPT TO:<b@b.example>\nS: 550 5.1.1 no\n";
    let record = dialogue(&[HELLO, refused, "C: DATA\nS: 554 5.5.1 no\n"].concat());
    assert_eq!(record.smtp.transactions[0].data_code, None);
}

#[test]
fn a_rejection_before_the_end_of_data_is_the_messages_reply() {
    let record = after_envelope(
        r"C: DATA
        S: 354 go
        C: some
        S: 552 5.3.4 too big
        C: more
        C: .
        C| RSET
        S: 250 ok
        C: MAIL FROM:<x@a.example>
        S: 250 ok
        C: RCPT TO:<b@b.example>
        S: 250 ok
        C: DATA
        S: 354 go
        C: 12345678
        C: .
        S: 250 ok
        ",
    );
    assert_eq!(record.smtp.transactions[0].data_code, Some(552));
    assert_eq!(record.smtp.transactions[1].data_code, Some(250));
    assert_eq!(record.smtp.transactions[1].bytes, 10);
}

/// A server that accepts early saw an end of data where there is none: nothing after it can be trusted.
#[test]
fn an_early_acceptance_ends_the_session() {
    let record = with_newlines(
        BareNewlines::Pass,
        r"C: DATA
        S: 354 go
        C: some\n.\nMAIL FROM:<x@y>
        S- 250 2.0.0 queued
        +C 421 4.5.0 gate.example mail server sent an invalid reply; try again later
        = protocol",
    );
    assert_eq!(record.smtp.transactions[0].data_code, Some(421), "sent to the client");
    assert!(record.smtp.anomalies.contains(&Anomaly::UnexpectedReply));
}

#[test]
fn chunk_content_is_counted_and_never_parsed() {
    let record = after_envelope(
        r"C: BDAT 21
        C| a\r\n.\r\nRCPT TO:<x@y>\r\n\
        S: 250 2.0.0 21 octets
        C| BDAT 4
        C| \n.\r\n\
        S: 250 4 octets
        C| BDAT 0 LAST
        S: 250 queued
        C| NOOP
        S: 250 ok
        ",
    );
    let transaction = &record.smtp.transactions[0];
    assert_eq!((transaction.data_code, transaction.bytes), (Some(250), 25));
    assert!(transaction.chunking);
    assert_eq!(transaction.rcpt_total, 1);
    assert_eq!(record.smtp.anomalies, []);
}

#[test]
fn chunks_of_two_messages_are_counted_separately() {
    let record = after_envelope(
        r"C: BDAT 3
        C| abc\
        S: 250 ok
        C| bdat 2 last
        C| de\
        S: 250 queued
        C| MAIL FROM:<x@a.example>
        S: 250 ok
        C| RCPT TO:<b@b.example>
        S: 250 ok
        C| BDAT 1 LAST
        C| f\
        S: 550 no
        ",
    );
    let counts: Vec<_> = record.smtp.transactions.iter().map(|t| (t.data_code, t.bytes)).collect();
    assert_eq!(counts, [(Some(250), 5), (Some(550), 1)]);
}

#[test]
fn the_content_of_a_rejected_chunk_is_not_parsed() {
    after_envelope(
        r"C: BDAT 6
        C| QUIT\r\n\
        S: 552 too big
        C| BDAT 6 LAST
        C| QUIT\r\n\
        S: 503 no
        C| RSET
        S: 250 ok
        ",
    );
}

/// An upstream without CHUNKING would parse a chunk as commands, which would bypass the gateway's rules.
#[test]
fn no_chunk_goes_to_an_upstream_that_did_not_offer_it() {
    for hello in [
        "S: 220 a\nC: EHLO b\nS: 250 mx\n",
        "S: 220 a\nC: HELO b\nS: 250 mx\n",
        "S: 220 a\nC: EHLO b\nS: 250-mx\nS: 250 CHUNKING\nC: HELO b\nS: 250 mx\n",
    ] {
        let text = r"C: MAIL FROM:<a@a.example>
            S: 250 ok
            C- BDAT 18 LAST
            C- RCPT TO:<x@y.zz>
            +C 502 5.5.1 not offered here
            C- BDAT 0 LAST
            +C 502 5.5.1 not offered here
            C: NOOP
            S: 250 ok
            ";
        dialogue(&[hello, text].concat());
    }
}

/// A size must not be parsed in two ways.
#[test]
fn bdat_is_relayed_in_canonical_form() {
    after_envelope("C- BDAT\\t007\\tLaSt\\x20\n+S BDAT 7 LAST\nC: 12345\nS: 250 ok\n");
    let closing = "+C 521 5.5.4 syntax: BDAT size [LAST]; closing\n= protocol";
    after_envelope(&format!("C- BDAT 9223372036854775808 LAST\n{closing}"));
}

#[test]
fn smuggling_sequences_are_normalized() {
    for (sequence, sent) in [
        (r"\n.\n", r"\r\n..\r\n"),
        (r"\n.\r\n", r"\r\n..\r\n"),
        (r"\r\n.\n", r"\r\n..\r\n"),
        (r"\r.\r", r" . "),
        (r"\r.\r\n", r" .\r\n"),
        (r"\r\n.\r", r"\r\n. "),
        (r"\n.\r", r"\r\n. "),
        (r"\r.\n", r" .\r\n"),
        (r"\r\n.\r\r\n", r"\r\n. \r\n"),
    ] {
        let text = format!(
            r"C: DATA
            S: 354 go
            C- x{sequence}MAIL FROM:<e@vil>
            +S x{sent}MAIL FROM:<e@vil>
            C: .
            S: 250 ok
            C: QUIT
            S: 221 bye
            S.
            = quit"
        );
        let record = with_newlines(BareNewlines::Normalize, &text);
        assert!(record.smtp.anomalies.contains(&Anomaly::Smuggling), "{sequence}");
        assert_eq!(record.smtp.transactions_total, 1, "{sequence}");

        let text = format!(
            r"C: DATA
            S: 354 go
            C: x{sequence}MAIL FROM:<e@vil>
            C: .
            S: 250 ok
            "
        );
        let record = with_newlines(BareNewlines::Pass, &[&text, BYE].concat());
        assert!(record.smtp.anomalies.contains(&Anomaly::Smuggling), "{sequence}");
    }
}

const REJECTION: &str =
    "+C 550 5.6.0 bare CR or LF in message; lines end in CRLF (RFC 5321 section 2.3.8)\n";

/// The segmentation decides how much of the message is relayed before the bare newline, but its end never is. The client
/// receives the rejection after it has sent the whole message.
#[test]
fn a_message_with_bare_newlines_is_rejected_at_its_end() {
    let content: [&[u8]; 6] = [
        b"x\n.\ny\r\n.\r\nQUIT\r\n",
        b"x\r.\ry\r\n.\r\nquit\r\n",
        b"x\r\n.\r\r\n.\r\nQUIT\r\n",
        b"a\r\nb\r\nx\ny\r\n.\r\nQUIT\r\n",
        b"\n.\r\n\r\n.\r\nQUIT\r\n",
        b"x\r\r\n.\r\nQUIT\r\n",
    ];
    for content in content {
        for cut in 0..=content.len() {
            for single in [false, true] {
                rejected(content, cut, single);
            }
        }
    }
}

fn rejected(content: &[u8], cut: usize, single: bool) {
    let mut driver = rejecting();
    let before = (driver.to_upstream.len(), driver.to_client.len());
    let (head, tail) = content.split_at(cut);
    let size = if single { 1 } else { content.len() };
    for part in head.chunks(size).chain(tail.chunks(size)) {
        driver.client_sends(part);
    }
    let sent = &driver.to_upstream[before.0..];
    assert!(content.starts_with(sent) && !sent.ends_with(b"\r\n.\r\n"), "{sent:?}");
    assert_ne!(sent, b".\r\n");
    assert!(driver.closed && driver.is_abandoned());
    let rejection = REJECTION.strip_prefix("+C ").unwrap().trim_end();
    let replies = String::from_utf8_lossy(&driver.to_client[before.1..]).into_owned();
    assert_eq!(replies, format!("{rejection}\r\n221 2.0.0 Bye\r\n"));
    let record = driver.finish();
    driver.check_replay(&record, &format!("{} cut at {cut}", content.escape_ascii()));
    let end = content.windows(5).position(|five| five == b"\r\n.\r\n").unwrap() + 2;
    assert_eq!(record.smtp.transactions[0].data_code, Some(550));
    assert_eq!(record.smtp.transactions[0].bytes, end as u64);
    assert_eq!(record.verdict.reason.as_deref(), Some("bare_newline"));
    assert_eq!(record.outcome.as_str(), "quit");
}

/// A session inside a message, with `bare_newlines = "reject"`.
fn rejecting() -> crate::engine::driver::Driver {
    let mut profile = gatepost::engine::Profile::default();
    profile.smtp.bare_newlines = BareNewlines::Reject;
    let timeouts = gatepost::engine::Timeouts::RFC_5321;
    let (client, server) = ("192.0.2.1:4000", "192.0.2.2:25");
    let mut driver = crate::engine::driver::Driver::new(profile, timeouts, client, server, false);
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n");
    driver.upstream_sends(b"250 a\r\n250 b\r\n354 c\r\n");
    driver
}

#[test]
fn upstream_is_abandoned_at_the_first_bare_newline() {
    let mut driver = rejecting();
    driver.client_sends(b"x\ny");
    assert!(driver.is_abandoned() && !driver.closed);
    driver.client_sends(b"and more\r\n");
    assert!(!driver.to_client.ends_with(b"RFC 5321 section 2.3.8)\r\n"), "not before the end");
}

fn after_a_rejected_message(text: &str) -> SessionRecord {
    let message = "C: DATA\nS: 354 go\nC- x\\ny\nC- .\n";
    // The segmentation decides how much is relayed before the bare newline; here it is nothing.
    let message = message.replace("C- x\\ny", "C- \\ny");
    with_newlines(BareNewlines::Reject, &[&message, REJECTION, text].concat())
}

#[test]
fn only_quit_is_accepted_after_a_rejected_message() {
    after_a_rejected_message("C- QUIT\n+C 221 2.0.0 Bye\n= quit");
    let closing = "+C 421 4.3.2 gate.example only QUIT was expected; closing\n= protocol";
    after_a_rejected_message(&["C- RSET\nC- NOOP\n", closing].concat());
    after_a_rejected_message("C- QUI\\\nC.\n= client_closed");
    let silent = "+C 421 4.4.2 gate.example timeout exceeded\n= timeout";
    after_a_rejected_message(&["T 299s\nT 1s\n", silent].concat());
    let shutdown =
        "+C 421 4.3.2 gate.example the service is shutting down; try again later\n= shutdown";
    after_a_rejected_message(&["drain\n", shutdown].concat());
    let draining = "C: DATA\nS: 354 go\nC- \\nx\ndrain\nC- .\n";
    with_newlines(BareNewlines::Reject, &[draining, REJECTION, shutdown].concat());
}

#[test]
fn a_message_that_upstream_rejected_early_is_rejected_once() {
    let record = with_newlines(
        BareNewlines::Reject,
        r"C: DATA
        S: 354 go
        S: 552 5.3.4 too big
        C- \nx
        C- .
        C- QUIT
        +C 221 2.0.0 Bye
        = quit",
    );
    assert_eq!(record.smtp.transactions[0].data_code, Some(552));
}

#[test]
fn closing_or_stalling_within_a_rejected_message_ends_the_session() {
    let start = "C: DATA\nS: 354 go\nC- \\nx\n";
    with_newlines(BareNewlines::Reject, &[start, "C.\n= client_closed"].concat());
    let silent = "+C 421 4.4.2 gate.example timeout exceeded\n= timeout";
    with_newlines(BareNewlines::Reject, &[start, "T 299s\nT 1s\n", silent].concat());
}

#[test]
fn the_size_of_a_message_excludes_the_end_of_data() {
    let record = after_envelope("C: DATA\nS: 354 go\nC: .\nS: 250 ok\n");
    assert_eq!(record.smtp.transactions[0].bytes, 0);
    let record = after_envelope("C: DATA\nS: 354 go\nC: ..\nC: .\nS: 250 ok\n");
    assert_eq!(record.smtp.transactions[0].bytes, 4);
}

#[test]
fn commands_outside_a_transaction_do_not_change_the_last_one() {
    let record = after_envelope(
        r"C: DATA
        S: 354 go
        C: x
        C: .
        S: 250 ok
        C: RCPT TO:<late@b.example>
        S: 503 5.5.1 MAIL first
        C: DATA
        S: 503 5.5.1 MAIL first
        ",
    );
    assert_eq!(record.smtp.transactions[0].rcpt_total, 1);
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}
