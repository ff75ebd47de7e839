//! Sessions that end without QUIT: timeouts, lost connections, shutdown.

use gatepost::policy::PolicyAction;

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::sessions::{ENVELOPE, HELLO};

const SILENT: &str = "+C 421 4.4.2 gate.example timeout exceeded\n= timeout";
const LATE: &str =
    "+C 421 4.4.2 gate.example mail server did not reply in time; try again later\n= timeout";
const LOST: &str = "+C 421 4.4.2 gate.example connection to the mail server was lost; try again later\n= upstream_closed";
const SHUTDOWN: &str =
    "+C 421 4.3.2 gate.example the service is shutting down; try again later\n= shutdown";

fn ends(parts: &[&str]) -> gatepost::engine::SessionRecord {
    dialogue(&parts.concat())
}

#[test]
fn each_phase_has_its_timeout() {
    ends(&["T 299s\nT 1s\n", LATE]); // greeting
    ends(&["S: 220 a\nT 299s\nC- NOO\\\nT 1s\n", SILENT]); // an incomplete command does not restart the timer
    ends(&["S: 220 a\nC: NOOP\nT 299s\nT 1s\n", LATE]); // reply
    ends(&[HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: x\nT 299s\nT 1s\n", SILENT]); // data
    ends(&[HELLO, ENVELOPE, "C: BDAT 10\nC: x\nT 300s\n", SILENT]); // chunk
    ends(&[HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: x\nC: .\nT 599s\nT 1s\n", LATE]); // acceptance
    ends(&[HELLO, ENVELOPE, "C: BDAT 1 LAST\nC: x\\\nT 600s\n", LATE]);
    ends(&["S: 220 a\nC: STARTTLS\nS: 220 go\nT 299s\nC: \\x16\nT 600s\n= timeout"]); // opaque
    ends(&["S: 220 a\nC: QUIT\nS: 221 bye\nT 4s\nT 1s\n= quit"]); // leaving
    let record = ends(&["S: 220 a\nT 300s\n", SILENT]);
    assert_eq!(record.duration.as_secs(), 300);
    assert_eq!(record.verdict.reason.as_deref(), Some("timeout"));
}

#[test]
fn silent_clients_time_out_earlier_under_stress() {
    let mut dialogue = Dialogue::new(&["S: 220 a\nT 9s\nT 1s\n", SILENT].concat());
    dialogue.timeouts = gatepost::engine::Timeouts::STRESS;
    dialogue.run();
}

#[test]
fn shutdown_ends_idle_sessions_at_once_and_others_after_their_transaction() {
    ends(&["S: 220 a\ndrain\n", SHUTDOWN]);
    ends(&["drain\nS: 220 a\n", SHUTDOWN]);
    ends(&["S: 220 a\nC: NOOP\ndrain\nS: 250 ok\n", SHUTDOWN]);
    ends(&[HELLO, ENVELOPE, "drain\nC: RSET\nS: 250 ok\n", SHUTDOWN]);
    ends(&[HELLO, "C: MAIL FROM:<a@a.example>\ndrain\nS: 550 no\n", SHUTDOWN]);
    ends(&[HELLO, ENVELOPE, "C: DATA\ndrain\nS: 354 go\nC: x\nC: .\nS: 250 queued\n", SHUTDOWN]);
    ends(&[
        HELLO,
        ENVELOPE,
        "C: BDAT 1\nC: x\\\nS: 250 ok\ndrain\nC: BDAT 1 LAST\nC: x\\\nS: 250 ok\n",
        SHUTDOWN,
    ]);
    ends(&["S: 220 a\nC: STARTTLS\nS: 220 go\ndrain\nC: \\x16\nS: \\x16\nC.\nS.\n= tls_failed"]);
    ends(&["S: 220 a\nC: STARTTLS\nS: 220 go\nC: \\x16\nabort\n= shutdown"]);
    ends(&[HELLO, ENVELOPE, "abort\n", SHUTDOWN]);
    // A rejected nested MAIL leaves the transaction open.
    ends(&[
        HELLO,
        ENVELOPE,
        "C: MAIL FROM:<second@a.example>\nS: 503 nested\ndrain\nC: DATA\nS: 354 go\nC: .\nS: 250 ok\n",
        SHUTDOWN,
    ]);
}

#[test]
fn losing_upstream_ends_the_session_with_421() {
    let record = ends(&[
        "S.\n+C 421 4.3.2 gate.example mail server is unavailable; try again later\n= upstream_unavailable",
    ]);
    assert_eq!(record.smtp.greeting, None);
    ends(&["S: 220 a\nS.\n", LOST]);
    ends(&["S: 220 a\nC: NOOP\nS- 25\\\nS.\n", LOST]);
    ends(&[HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: x\nS.\n", LOST]);
    ends(&["S: 220 a\nC: QUIT\nS.\n", LOST]);
}

/// Upstream may have accepted the message, so the client receives a 421 and retries; the gateway does not.
#[test]
fn losing_upstream_after_the_end_of_data_gives_421() {
    for text in [
        "C: DATA\nS: 354 go\nC: x\nC: .\nS.\n",
        "C: DATA\nS: 354 go\nC: x\nC: .\nS- 250 2.0.0 queu\\\nS.\n",
        "C: BDAT 2 LAST\nC: ab\\\nC| NOOP\nS.\n",
    ] {
        let record = ends(&[HELLO, ENVELOPE, text, LOST]);
        assert_eq!(record.smtp.transactions[0].data_code, Some(421), "sent to the client");
        assert_eq!(record.verdict.reason.as_deref(), Some("upstream_lost"));
        assert_eq!(record.verdict.action, PolicyAction::Accept, "not a policy decision");
    }
}

#[test]
fn a_421_or_521_of_upstream_ends_the_session() {
    ends(&["S: 421 4.3.0 busy\nS.\n= upstream_closed"]);
    ends(&["S: 220 a\nS: 421 4.4.2 timeout\nS.\n= upstream_closed"]);
    ends(&["S: 220 a\nC: NOOP\nS: 421 4.4.2 timeout\nS.\n= upstream_closed"]);
    let text = "C: DATA\nS: 354 go\nC: x\nS: 421 4.3.0 shutting down\nS.\n= upstream_closed";
    let record = ends(&[HELLO, ENVELOPE, text]);
    assert_eq!(record.smtp.transactions[0].data_code, Some(421));
    // So do a rejection in place of the greeting (RFC 5321 §3.1) and a 521 (RFC 7504).
    ends(&["S: 554 5.7.1 no\nS.\n= upstream_closed"]);
    ends(&["S: 220 a\nC: EHLO b\nS: 521 5.7.1 no\nS.\n= upstream_closed"]);
    ends(&["S: 554 5.7.1 no\nC: QUIT\nS: 221 bye\nS.\n= quit"]);
}

#[test]
fn a_client_that_closes_ends_the_session() {
    ends(&["C.\n= client_closed"]); // without waiting for the greeting
    ends(&["S: 220 a\nC.\n= client_closed"]);
    ends(&["S: 220 a\nC- QUI\\\nC.\n= client_closed"]);
    ends(&["S: 220 a\nC: NOOP\nC.\nS: 250 ok\n= client_closed"]);
    ends(&[HELLO, ENVELOPE, "C.\n= client_closed"]);
    ends(&[HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: half\nC.\n= client_closed"]);
    ends(&[HELLO, ENVELOPE, "C: DATA\nC.\nS: 354 go\n= client_closed"]);
    ends(&[HELLO, ENVELOPE, "C: BDAT 10 LAST\nC: half\nC.\n= client_closed"]);
    let record = ends(&[
        HELLO,
        ENVELOPE,
        "C: DATA\nS: 354 go\nC: x\nC: .\nC.\nS: 250 queued\n= client_closed",
    ]);
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
    ends(&["S: 220 a\nC: QUIT\nC.\nS: 221 bye\nS.\n= quit"]);
    ends(&["S: 220 a\nC: QUIT\nS: 221 bye\nC.\nS.\n= quit"]);
}
