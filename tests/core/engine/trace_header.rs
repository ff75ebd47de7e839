//! The gateway's own `Received:` field: before the message, once, and counted in SIZE and in the first chunk.

use gatepost::engine::{Profile, TlsMode};

use super::dialogue::Dialogue;

/// The time and the names are those of all dialogues.
const FIELD: &str = r"+S Received: from client.example ([IPv6:2001:db8::1]) by gate.example with ESMTP;\r\n\tFri, 02 Jan 2026 03:04:05 +0000
";
const FIELD_TLS: &str = r"+S Received: from client.example ([IPv6:2001:db8::1]) by gate.example\r\n\twith ESMTPS tls TLS_AES_256_GCM_SHA384;\r\n\tFri, 02 Jan 2026 03:04:05 +0000
";
const HELLO: &str = r"S: 220 a
    C: EHLO client.example
    S- 250-mx.example
    S- 250-PIPELINING
    S- 250 CHUNKING
    +C 250-mx.example
    +C 250-PIPELINING
    +C 250-CHUNKING
    +C 250 STARTTLS
    ";
const ENVELOPE: &str = r"C: MAIL FROM:<a@client.example>
    S: 250 2.1.0 ok
    C: RCPT TO:<b@mx.example>
    S: 250 2.1.5 ok
    ";
const DATA: &str = r"C: DATA
    S: 354 go
    C- Subject: x
    ";
const REST: &str = r"+S Subject: x
    C:
    C: ..dot
    C: .
    S: 250 2.0.0 accepted
    ";
const BYE: &str = "C: QUIT\nS: 221 bye\nS.\n= quit";

#[track_caller]
fn run(parts: &[&str]) {
    let traced = |profile: &mut Profile| {
        profile.tls = TlsMode::Terminate { required: false };
        profile.trace_header = true;
    };
    Dialogue::new(&parts.concat()).with(traced).run();
}

#[test]
fn each_message_has_one() {
    let message = [ENVELOPE, DATA, FIELD, REST].concat();
    run(&[HELLO, &message, &message, BYE]);
}

#[test]
fn it_names_the_tls_of_the_client() {
    let starttls = r"C- STARTTLS
        +C 220 2.0.0 ready to start TLS
        --
        C: EHLO client.example
        S: 250 mx.example
        ";
    run(&[HELLO, starttls, ENVELOPE, DATA, FIELD_TLS, REST, BYE]);
}

#[test]
fn a_size_includes_it() {
    let mail = r"C- MAIL FROM:<a@client.example> BODY=8BITMIME SIZE=1000
        +S MAIL FROM:<a@client.example> BODY=8BITMIME SIZE=1114
        S: 250 2.1.0 ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 ok
        ";
    run(&[HELLO, mail, DATA, FIELD, REST, BYE]);
}

/// The mail server counts the octets of a chunk: the first has as many more, also an empty one.
#[test]
fn the_first_chunk_includes_it() {
    let chunks = r"C- BDAT 5
        +S BDAT 119
        ";
    let more = r"C: abc
        S: 250 2.0.0 5 octets
        C: BDAT 5 LAST
        C: def
        S: 250 2.0.0 accepted
        ";
    run(&[HELLO, ENVELOPE, chunks, FIELD, more, BYE]);
    let empty = r"C- BDAT 0 LAST
        +S BDAT 114 LAST
        ";
    run(&[HELLO, ENVELOPE, empty, FIELD, "S: 250 2.0.0 accepted\n", BYE]);
}

/// The mail server rejects it, and the message goes on without a second field.
#[test]
fn a_mail_between_chunks_changes_nothing() {
    let chunks = r"C- BDAT 5
        +S BDAT 119
        ";
    let more = r"C: abc
        S: 250 2.0.0 5 octets
        C: MAIL FROM:<c@client.example> SIZE=5
        S: 503 5.5.1 nested MAIL
        C: BDAT 5 LAST
        C: def
        S: 250 2.0.0 accepted
        ";
    run(&[HELLO, ENVELOPE, chunks, FIELD, more, BYE]);
}

#[test]
fn a_message_after_rset_has_its_own() {
    let rset = "C: RSET\nS: 250 ok\n";
    run(&[HELLO, ENVELOPE, rset, ENVELOPE, DATA, FIELD, REST, BYE]);
}
