//! Passing the client's identity to upstream by XCLIENT.

use crate::engine::dialogue::Dialogue;

fn with_xclient(text: &str) -> gatepost::engine::SessionRecord {
    Dialogue::new(text).with(|profile| profile.xclient = true).run()
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
        +S XCLIENT NAME=[TEMPUNAVAIL] ADDR=IPV6:2001:db8::1 PORT=40000 PROTO=ESMTP HELO=a.example DESTADDR=IPV6:2001:db8::2 DESTPORT=25
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
