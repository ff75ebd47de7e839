//! TLS that the gateway ends. The client's lines after `ready to start TLS` are what the gateway decrypted.

use gatepost::engine::{
    Anomaly, Profile, SessionRecord, Timeouts, TlsHandshake, TlsMode, TlsState,
};

use super::dialogue::Dialogue;
use super::driver::Driver;

const HELLO: &str = r"S: 220 a
    C: EHLO client.example
    S- 250-mx.example
    S- 250-PIPELINING
    S- 250 STARTTLS
    +C 250-mx.example
    +C 250-PIPELINING
    +C 250 STARTTLS
    ";
const STARTTLS: &str = r"C- STARTTLS
    +C 220 2.0.0 ready to start TLS
    --
    ";
const HELLO_AGAIN: &str = r"C: EHLO client.example
    S- 250-mx.example
    S- 250-PIPELINING
    S- 250 STARTTLS
    +C 250-mx.example
    +C 250 PIPELINING
    ";

fn terminate(profile: &mut Profile) {
    profile.tls = TlsMode::Terminate { required: false };
}

#[track_caller]
fn run(parts: &[&str]) -> SessionRecord {
    Dialogue::new(&parts.concat()).with(terminate).run()
}

#[test]
fn a_message_inside_tls_is_relayed_and_recorded() {
    let record = run(&[
        HELLO,
        STARTTLS,
        HELLO_AGAIN,
        r"C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 ok
        C: DATA
        S: 354 go
        C: Subject: x
        C:
        C: text
        C: .
        S: 250 2.0.0 accepted
        C: QUIT
        S: 221 bye
        S.
        = quit",
    ]);
    assert_eq!(record.smtp.tls, TlsState::Established);
    assert_eq!(record.smtp.tls_version, Some("TLSv1.3"));
    assert_eq!(record.smtp.tls_handshake, Some(TlsHandshake::Full));
    let [transaction] = &record.smtp.transactions[..] else { panic!("{record:?}") };
    assert_eq!(transaction.mail_from, "a@client.example");
    assert_eq!(transaction.data_code, Some(250));
}

/// RFC 8314 §3.3: as after STARTTLS, without it.
#[test]
fn a_message_inside_implicit_tls_is_relayed_and_recorded() {
    let dialogue = r"S: 220 a
        C: EHLO client.example
        S- 250-mx.example
        S- 250-STARTTLS
        S- 250 8BITMIME
        +C 250-mx.example
        +C 250 8BITMIME
        C- STARTTLS
        +C 554 5.5.1 TLS is active already
        C: MAIL FROM:<a@client.example>
        S: 250 2.1.0 ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 ok
        C: DATA
        S: 354 go
        C: Subject: x
        C:
        C: text
        C: .
        S: 250 2.0.0 accepted
        C: QUIT
        S: 221 bye
        S.
        = quit";
    let record = Dialogue::new(dialogue).with(|profile| profile.tls = TlsMode::Implicit).run();
    assert_eq!(record.smtp.tls, TlsState::Established);
    assert_eq!(record.smtp.tls_version, Some("TLSv1.3"));
    let [transaction] = &record.smtp.transactions[..] else { panic!("{record:?}") };
    assert_eq!(transaction.data_code, Some(250));
}

/// As outside of TLS: no session came before, so that nothing has to begin again.
#[test]
fn mail_without_ehlo_is_upstreams_to_judge_inside_implicit_tls() {
    let dialogue = r"S: 220 a
        C: MAIL FROM:<a@client.example>
        S: 503 5.5.1 EHLO first
        C: QUIT
        S: 221 bye
        S.
        = quit";
    Dialogue::new(dialogue).with(|profile| profile.tls = TlsMode::Implicit).run();
}

/// The MTA's own STARTTLS is for the way from the gateway to it.
#[test]
fn starttls_is_offered_also_for_an_mta_without_it() {
    run(&[
        r"S: 220 a
        C: EHLO client.example
        S- 250 mx.example
        +C 250-mx.example
        +C 250 STARTTLS
        ",
        STARTTLS,
        r"C: EHLO client.example
        S: 250 mx.example
        C: QUIT
        S: 221 bye
        S.
        = quit",
    ]);
}

/// `tls.after_failures = "hide"`: the client goes on in plaintext, and a STARTTLS without offer is a temporary failure.
#[test]
fn starttls_is_hidden_from_a_client_whose_handshakes_failed() {
    let text = r"S: 220 a
        C: EHLO client.example
        S- 250-mx.example
        S- 250-PIPELINING
        S- 250 STARTTLS
        +C 250-mx.example
        +C 250 PIPELINING
        C- STARTTLS
        +C 454 4.7.0 TLS is not available for now: handshakes of this client failed
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        C: QUIT
        S: 221 bye
        S.
        = quit";
    let record = Dialogue::new(text).with(terminate).starttls_hidden().run();
    assert!(record.smtp.starttls_hidden);
    assert_eq!(record.smtp.tls, TlsState::Refused);
}

/// CVE-2011-0411 and its kind: what was pipelined behind STARTTLS never counts inside TLS.
#[test]
fn commands_behind_starttls_are_discarded() {
    let mut profile = Profile::default();
    terminate(&mut profile);
    let (client, server) = ("[2001:db8::1]:40000", "[2001:db8::2]:25");
    let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, server, false);
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"STARTTLS\r\nRSET\r\nMAIL FROM:<injected@a.example>\r\n");
    assert_eq!(driver.to_upstream, b"");
    driver.client_sends(b"EHLO client.example\r\n");
    assert_eq!(driver.to_upstream, b"EHLO client.example\r\n");
    driver.upstream_sends(b"250 mx.example\r\n");
    let record = driver.finish();
    driver.check_replay(&record, "injected commands");
    assert_eq!(record.smtp.anomalies, [Anomaly::StarttlsPlaintext]);
    assert_eq!(record.smtp.transactions_total, 0);
}

/// RFC 3207 §4.2: nothing from before TLS counts.
#[test]
fn a_new_session_begins() {
    let record = run(&[
        HELLO,
        STARTTLS,
        r"C- MAIL FROM:<a@client.example>
        +C 503 5.5.1 EHLO comes first: STARTTLS began a new session
        ",
        HELLO_AGAIN,
        r"C: MAIL FROM:<a@client.example>
        S: 250 ok
        C- STARTTLS
        +C 554 5.5.1 TLS is active already
        ",
    ]);
    assert_eq!(record.smtp.tls, TlsState::Established, "a refused STARTTLS ends nothing");
}

#[test]
fn starttls_is_refused_where_the_mta_would_keep_state() {
    run(&[
        HELLO,
        r"C- STARTTLS now
        +C 501 5.5.4 syntax: STARTTLS
        C: MAIL FROM:<a@client.example>
        S: 250 ok
        C- STARTTLS
        +C 503 5.5.1 a mail transaction is in progress
        C: RSET
        S: 250 ok
        C: AUTH PLAIN abc
        S: 235 ok
        C- STARTTLS
        +C 503 5.5.1 STARTTLS comes before AUTH
        ",
    ]);
}

/// The 220 is the last reply in plaintext.
#[test]
fn starttls_waits_for_the_replies_before_it() {
    run(&[
        HELLO,
        r"C: NOOP
        C|- STARTTLS
        S: 250 ok
        +C 220 2.0.0 ready to start TLS
        --
        ",
        HELLO_AGAIN,
    ]);
}

#[test]
fn tls_can_be_required() {
    let script = [
        HELLO,
        r"C: NOOP
        S: 250 ok
        C- MAIL FROM:<a@client.example>
        +C 530 5.7.0 STARTTLS is required first
        C- VRFY b
        +C 530 5.7.0 STARTTLS is required first
        ",
        STARTTLS,
        HELLO_AGAIN,
        "C: MAIL FROM:<a@client.example>\nS: 250 ok\n",
    ];
    let required = |profile: &mut Profile| profile.tls = TlsMode::Terminate { required: true };
    Dialogue::new(&script.concat()).with(required).run();
}

/// Rule 4 of ARCHITECTURE.md.
#[test]
fn xclient_inside_tls_is_rejected() {
    run(&[
        HELLO,
        STARTTLS,
        HELLO_AGAIN,
        "C- XCLIENT ADDR=192.0.2.1\n+C 550 5.7.0 XCLIENT and XFORWARD are not accepted here\n",
    ]);
}

#[test]
fn a_session_in_plaintext_is_as_without_tls() {
    run(&[HELLO, "C: MAIL FROM:<a@client.example>\nS: 250 ok\n"]);
}

/// The mail server would prove the gateway's identity, not the client's.
#[test]
fn auth_external_is_not_passed_through() {
    run(&[
        HELLO,
        STARTTLS,
        r"C: EHLO client.example
        S- 250-mx.example
        S- 250 AUTH PLAIN EXTERNAL
        +C 250-mx.example
        +C 250 AUTH PLAIN
        C- AUTH EXTERNAL =
        +C 504 5.5.4 AUTH EXTERNAL is not offered here
        C: QUIT
        S: 221 bye
        S.
        = quit",
    ]);
}
