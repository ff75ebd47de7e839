//! Passing the client's identity to upstream by XCLIENT.

use std::net::IpAddr;

use gatepost::policy::facts::{
    Answer, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source,
};

use crate::engine::dialogue::Dialogue;

/// The client of the dialogues.
const CLIENT: &str = "2001:db8::1";

/// The answers of a DNS about the client's name.
type Names = fn(&Lookup) -> LookupResult;

/// The client has a name, which is looked up before its first command.
fn with_xclient(text: &str) -> gatepost::engine::SessionRecord {
    named(confirmed, text)
}

fn named(names: Names, text: &str) -> gatepost::engine::SessionRecord {
    Dialogue::new(text).with(|profile| profile.xclient = true).answered_by(names).run()
}

fn dns_result(answer: Answer) -> LookupResult {
    LookupResult { answer, source: Source::Dns, at: None }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// `lookup`, with a PTR record for the client and these addresses of its name.
fn ptr(lookup: &Lookup, addresses: Answer) -> LookupResult {
    match lookup {
        Lookup::Reverse(ip) => {
            assert_eq!(*ip, CLIENT.parse::<IpAddr>().unwrap());
            dns_result(Answer::Records(vec![DnsRecord::Name(name("mx.a.example"))]))
        }
        Lookup::Addresses(host, _) => {
            assert_eq!(*host, name("mx.a.example"));
            dns_result(addresses)
        }
        other => panic!("{other:?} is not about the client's name"),
    }
}

fn confirmed(lookup: &Lookup) -> LookupResult {
    ptr(lookup, Answer::Records(vec![DnsRecord::Address(CLIENT.parse().unwrap())]))
}

const NOT_TAKEN: &str =
    "+C 421 4.3.5 gate.example mail server does not accept XCLIENT from this gateway\n= protocol";

#[test]
fn the_clients_commands_wait_for_the_xclient_exchange() {
    let record = with_xclient(
        r"S: 220 mx.example
        # The client's EHLO and what it pipelined wait.
        C- EHLO a.example
        C|- MAIL FROM:<a@a.example>
        +S EHLO gate.example
        S- 250-mx.example
        S- 250-PIPELINING
        S- 250 XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT
        +S XCLIENT NAME=mx.a.example ADDR=IPV6:2001:db8::1 PORT=40000 DESTADDR=IPV6:2001:db8::2 DESTPORT=25 PROTO=ESMTP HELO=a.example
        --
        S- 220 mx.example again
        +S EHLO a.example
        +S MAIL FROM:<a@a.example>
        --
        S- 250-mx.example
        S- 250-PIPELINING
        S- 250 XCLIENT NAME ADDR
        +C 250-mx.example
        +C 250 PIPELINING
        S: 250 ok
        C: QUIT
        S: 221 bye
        S.
        = quit",
    );
    assert_eq!(record.smtp.commands.len(), 3);
    assert_eq!(record.smtp.replies[&220], 1);
}

#[test]
fn the_exchange_precedes_a_first_command_that_is_not_ehlo() {
    with_xclient(
        r"S: 220 mx.example
        C- NOOP
        +S EHLO gate.example
        S- 250-mx
        S- 250 xclient addr
        +S XCLIENT ADDR=IPV6:2001:db8::1
        --
        S- 220 again
        +S NOOP
        --
        S: 250 ok",
    );
}

#[test]
fn an_upstream_that_rejects_xclient_gets_no_mail() {
    for answers in [
        "S- 250 mx.example\n",
        "S- 250-mx\nS- 250 XCLIENT NAME\n",
        "S- 500 what\n",
        "S- 250-mx\nS- 250 XCLIENT ADDR\n+S XCLIENT ADDR=IPV6:2001:db8::1\nS- 550 5.7.0 insufficient authorization\n",
    ] {
        let text = format!("S: 220 mx\nC- EHLO a\n+S EHLO gate.example\n{answers}{NOT_TAKEN}");
        let record = with_xclient(&text);
        assert_eq!(record.verdict.reason.as_deref(), Some("identity"));
    }
}

#[test]
fn a_lost_or_late_exchange_ends_the_session() {
    let start = "S: 220 mx\nC- EHLO a\n+S EHLO gate.example\n";
    with_xclient(&format!(
        "{start}S.\n+C 421 4.4.2 gate.example connection to the mail server was lost; try again later\n= upstream_closed"
    ));
    with_xclient(&format!(
        "{start}T 300s\n+C 421 4.4.2 gate.example mail server did not reply in time; try again later\n= timeout"
    ));
    // The client closes during the exchange: its earlier commands are still relayed.
    with_xclient(&format!(
        "{start}C.\nS- 250-mx\nS- 250 XCLIENT ADDR\n+S XCLIENT ADDR=IPV6:2001:db8::1\n--\nS- 220 mx\n+S EHLO a\n--\nS: 250 mx\n= client_closed"
    ));
}

/// The commands wait for the name, and say what is known about it.
#[test]
fn the_client_s_name_is_sent() {
    fn unconfirmed(lookup: &Lookup) -> LookupResult {
        ptr(lookup, Answer::Records(vec![DnsRecord::Address("2001:db8::7".parse().unwrap())]))
    }
    fn half_known(lookup: &Lookup) -> LookupResult {
        ptr(lookup, Answer::Unknown(Reason::Servfail))
    }
    fn missing(lookup: &Lookup) -> LookupResult {
        assert!(matches!(lookup, Lookup::Reverse(_)), "{lookup:?}");
        dns_result(Answer::NxDomain)
    }
    fn empty(_: &Lookup) -> LookupResult {
        dns_result(Answer::NoData)
    }
    fn broken(_: &Lookup) -> LookupResult {
        dns_result(Answer::Unknown(Reason::Timeout))
    }
    let cases: [(Names, &str, &str); 6] = [
        (confirmed, "mx.a.example", "mx.a.example"),
        (unconfirmed, "[UNAVAILABLE]", "mx.a.example"),
        (half_known, "[TEMPUNAVAIL]", "mx.a.example"),
        (missing, "[UNAVAILABLE]", "[UNAVAILABLE]"),
        (empty, "[UNAVAILABLE]", "[UNAVAILABLE]"),
        (broken, "[TEMPUNAVAIL]", "[TEMPUNAVAIL]"),
    ];
    for (names, name, reverse) in cases {
        named(
            names,
            &format!(
                "S: 220 mx\nC- EHLO a\n+S EHLO gate.example\nS- 250-mx\nS- 250 XCLIENT REVERSE_NAME NAME ADDR\n\
                 +S XCLIENT NAME={name} REVERSE_NAME={reverse} ADDR=IPV6:2001:db8::1\n--\nS- 220 mx\n+S EHLO a\n--\n\
                 S: 250 mx"
            ),
        );
    }
}

/// No resolver holds a session up for ever: then the name is temporarily unavailable, and nothing else is late.
#[test]
fn a_name_that_nobody_looks_up_ends_the_wait() {
    let silent = |text: &str| Dialogue::new(text).with(|profile| profile.xclient = true).run();
    silent(
        "S: 220 mx\nC- EHLO a\nC|- NOOP\n+S EHLO gate.example\nS- 250-mx\nS- 250 XCLIENT NAME ADDR\nT 29s\nT 1s\n\
         +S XCLIENT NAME=[TEMPUNAVAIL] ADDR=IPV6:2001:db8::1\n--\nS- 220 mx\n+S EHLO a\n+S NOOP\n--\nS: 250 mx\n\
         S: 250 ok\nT 299s\nT 1s\n+C 421 4.4.2 gate.example timeout exceeded\n= timeout",
    );
    // Where upstream accepts no name nothing waits for it.
    silent(
        "S: 220 mx\nC- EHLO a\n+S EHLO gate.example\nS- 250-mx\nS- 250 XCLIENT ADDR\n\
         +S XCLIENT ADDR=IPV6:2001:db8::1\n--\nS- 220 mx\n+S EHLO a\n--\nS: 250 mx",
    );
    // Upstream closes, or the gateway shuts down, meanwhile.
    let waiting =
        "S: 220 mx\nC- EHLO a\n+S EHLO gate.example\nS- 250-mx\nS- 250 XCLIENT NAME ADDR\n";
    silent(&format!(
        "{waiting}S.\n+C 421 4.4.2 gate.example connection to the mail server was lost; try again later\n= upstream_closed"
    ));
    silent(&format!(
        "{waiting}drain\n+C 421 4.3.2 gate.example the service is shutting down; try again later\n= shutdown"
    ));
}

/// A longest name, twice, does not fit into one command with the rest.
#[test]
fn long_names_are_split_over_commands() {
    fn long(lookup: &Lookup) -> LookupResult {
        let text = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        match lookup {
            Lookup::Reverse(_) => dns_result(Answer::Records(vec![DnsRecord::Name(name(&text))])),
            _ => dns_result(Answer::Records(vec![DnsRecord::Address(CLIENT.parse().unwrap())])),
        }
    }
    let text = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    named(
        long,
        &format!(
            "S: 220 mx\nC- EHLO a\n+S EHLO gate.example\nS- 250-mx\nS- 250 XCLIENT NAME REVERSE_NAME ADDR PROTO HELO\n\
             +S XCLIENT NAME={text}\n--\nS- 220 mx\n\
             +S XCLIENT REVERSE_NAME={text} ADDR=IPV6:2001:db8::1 PROTO=ESMTP HELO=a\n--\nS- 220 mx\n+S EHLO a\n--\n\
             S: 250 mx"
        ),
    );
}
