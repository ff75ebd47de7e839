//! The greeting: relayed line by line, and clients that do not wait for its end.

use gatepost::engine::{Anomaly, Pregreet, RefuseAt};
use gatepost::policy::PolicyAction;
use gatepost::policy::rules::FactName;

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::policy::{driver_with, good, rule};

#[test]
fn each_line_is_relayed_when_it_comes() {
    dialogue(
        "S: 220-mx.example teaser\nS: 220-more\nT 6s\nS: 220 mx.example ESMTP\nC: EHLO a\nS: 250 mx\n",
    );
    dialogue("S- 220-teaser\\n\\\n+C 220-teaser\nS: 220 mx\n");
}

/// postscreen(8) with `postscreen_greet_action = drop`, or at its limits.
#[test]
fn a_server_may_reject_after_its_first_lines() {
    for reply in ["521 5.5.1 Protocol error", "421 4.3.2 All server ports are busy"] {
        let record = dialogue(&format!("S: 220-teaser\nS: {reply}\nS.\n= upstream_closed"));
        assert_eq!(record.smtp.greeting, reply[..3].parse().ok());
        assert_eq!(record.smtp.anomalies, []);
    }
    let different = "+C 421 4.5.0 gate.example mail server sent a reply with different codes; try again later\n= protocol";
    dialogue(&format!("S: 220-teaser\nS- 221 bye\n{different}"));
    dialogue(&format!("S: 220-teaser\nS- 221-more\n{different}"));
}

#[test]
fn an_endless_greeting_is_no_greeting() {
    let mut driver = driver_with(Vec::new(), |_| ());
    for _ in 0..(64 * 1024 / 8 + 1) {
        driver.upstream_sends(b"220-xx\r\n");
    }
    assert!(driver.closed && driver.to_client.ends_with(b"try again later\r\n"));
}

/// As they come, so that the mail server's own test detects them.
#[test]
fn early_commands_go_on_at_once() {
    let record = dialogue("C: EHLO a\nS: 220 a\nS: 250 b\n");
    assert_eq!(record.smtp.anomalies, [Anomaly::Pregreet]);
    let record = dialogue(
        "S: 220-teaser\nC: EHLO a\nC: MAIL FROM:<a@a.example>\nS: 220 a\nS: 250 b\nS: 250 c\n",
    );
    assert_eq!(record.smtp.anomalies[0], Anomaly::Pregreet);
    dialogue("S: 220-teaser\nC: EHLO a\nS: 521 5.5.1 Protocol error\nS.\n= upstream_closed");
    dialogue("C: \\x20QUIT\nS: 220 a\nS: 221 bye\nS.\n= quit");
}

/// postscreen(8) with `postscreen_greet_action = enforce` goes on without the rest of the greeting.
#[test]
fn a_server_may_go_on_without_the_rest_of_its_greeting() {
    let record = dialogue(
        r"S: 220-teaser
        C: EHLO a
        S: 250-mx
        S: 250 SIZE
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 ok
        C: RCPT TO:<c@d.example>
        S: 550 5.5.1 Protocol error
        C: QUIT
        S: 221 bye
        S.
        = quit",
    );
    assert_eq!(record.smtp.greeting, Some(220));
    assert_eq!(record.smtp.transactions[0].rcpt_to[0].code, Some(550));
    dialogue(
        r"S: 220-teaser
        C- FROB
        +S NOOP
        S- 250 2.0.0 noop
        +C 500 5.5.2 command not recognized
        C: RCPT TO:<c@d.example>
        S: 550 5.5.1 Protocol error
        ",
    );
}

/// What cannot go on as it is: NOOP stands for it, and the client does not receive its reply.
#[test]
fn early_lines_that_upstream_does_not_receive_are_announced() {
    for (line, answer) in [
        ("FROB", "500 5.5.2 command not recognized"),
        ("\\r\\n\\", "500 5.5.2 bad syntax"),
        ("XCLIENT ADDR=::1", "550 5.7.0 XCLIENT and XFORWARD are not accepted here"),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", "500 5.5.2 command not recognized"),
    ] {
        dialogue(&format!(
            "C- {line}\n+S NOOP\nC: EHLO a\nS: 220 mx\n+C {answer}\nS- 250 noop\nS: 250 mx\nC: QUIT\nS: 221 bye\nS.\n= quit"
        ));
    }
    // Its rejection is the client's.
    dialogue(
        "C- FROB\n+S NOOP\nS: 220 mx\n+C 500 5.5.2 command not recognized\nS: 421 4.7.0 too early\nS.\n= upstream_closed",
    );
}

#[test]
fn the_gateways_own_test_replaces_that_of_the_server() {
    let record = Dialogue::new(
        r"S: 220-teaser
        C- EHLO a
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
fn early_data_is_rejected_in_place_of_the_greeting_or_of_its_end() {
    for teaser in ["", "S: 220-teaser\n"] {
        let text = r"C- EHLO a
            +C 554 5.5.1 client sent data before the greeting (RFC 5321 section 3.1)
            +C 503 5.5.1 access denied; only QUIT is accepted
            S- 220 mx
            C- QUIT
            +C 221 2.0.0 Bye
            = refused";
        let record = Dialogue::new(&[teaser, text].concat())
            .with(|profile| {
                profile.smtp.pregreet = Pregreet::Reject;
                profile.smtp.refuse_at = RefuseAt::Connect;
            })
            .run();
        assert_eq!(record.smtp.anomalies, [Anomaly::Pregreet]);
    }
}

/// The mail server detects it; the client's line waits for the decision.
#[test]
fn a_greeting_that_the_policy_holds_holds_the_client_too() {
    let mut driver =
        driver_with(vec![rule("named", FactName::Fcrdns, PolicyAction::Reject)], |profile| {
            profile.smtp.refuse_at = RefuseAt::Connect
        });
    driver.upstream_sends(b"220-teaser\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    assert_eq!((&driver.to_client[..], &driver.to_upstream[..]), (&b""[..], &b"NOOP\r\n"[..]));
    while !driver.needs.is_empty() {
        driver.answer(0, good);
    }
    assert_eq!(driver.to_client, b"220-teaser\r\n");
    assert_eq!(driver.to_upstream, b"NOOP\r\nEHLO client.example\r\n");
    driver.upstream_sends(b"220 mx\r\n250 noop\r\n250 mx\r\n");
    assert_eq!(driver.to_client, b"220-teaser\r\n220 mx\r\n250 mx\r\n");
}
