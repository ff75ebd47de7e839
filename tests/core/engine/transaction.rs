//! The transaction changes when a reply confirms a command, never when the command is sent.

use gatepost::engine::SessionRecord;
use gatepost::policy::PolicyAction;
use gatepost::policy::rules::FactName;

use crate::engine::dialogue::{Dialogue, dialogue};
use crate::engine::policy::{good, rule, rules};
use crate::engine::sessions::{BYE, ENVELOPE, HELLO};

const NO_MAILBOX: &str = r#"+C 550 5.1.1 unknown recipient <nobody@b.example> (rule "known")"#;

/// With a rule that rejects unknown recipients.
fn with_known_recipients(text: &str) -> SessionRecord {
    Dialogue::new(text)
        .with(rules(vec![rule("known", FactName::Recipient, PolicyAction::Reject)]))
        .answered_by(good)
        .run()
}

/// A command that upstream rejects inside a transaction keeps it: the recipient accepted before is still there, so the
/// gateway must not answer DATA with 554.
#[test]
fn a_rejected_command_keeps_an_accepted_recipient() {
    for (command, reply) in [
        ("RSET now", "501 5.5.4 Syntax: RSET"),
        ("MAIL FROM:<x@a.example>", "503 5.5.1 Error: nested MAIL command"),
        ("EHLO", "501 Syntax: EHLO hostname"),
        ("HELO", "501 Syntax: HELO hostname"),
    ] {
        let text = format!(
            "{HELLO}C: MAIL FROM:<a@a.example>
            S: 250 2.1.0 Ok
            C: RCPT TO:<bob@b.example>
            S: 250 2.1.5 Ok
            C: {command}
            S: {reply}
            C- RCPT TO:<nobody@b.example>
            {NO_MAILBOX}
            C: DATA
            S: 354 go
            C: text
            C: .
            S: 250 2.0.0 queued
            {BYE}"
        );
        let record = with_known_recipients(&text);
        let delivered = record.smtp.transactions.iter().find(|t| t.mail_from == "a@a.example");
        let delivered = delivered.unwrap_or_else(|| panic!("{command}"));
        assert_eq!((delivered.data_code, delivered.bytes), (Some(250), 6), "{command}");
        let codes: Vec<_> = delivered.rcpt_to.iter().map(|to| to.code).collect();
        assert_eq!(codes, [Some(250), Some(550)], "{command}");
    }
}

/// The same pipelined: DATA waits for the reply that decides whether there is a recipient.
#[test]
fn data_waits_for_the_reply_to_a_pipelined_rset() {
    let text = format!(
        "{HELLO}C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: RCPT TO:<bob@b.example>
        S: 250 2.1.5 Ok
        C: RSET now
        C|- RCPT TO:<nobody@b.example>
        C|- DATA
        S: 501 5.5.4 Syntax: RSET
        {NO_MAILBOX}
        +S DATA
        --
        S: 354 go
        C: text
        C: .
        S: 250 2.0.0 queued
        {BYE}"
    );
    let record = with_known_recipients(&text);
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}

/// Also without rules: a message after a rejected command is recorded with its reply and size.
#[test]
fn a_message_after_a_rejected_command_is_recorded() {
    for (command, reply) in [
        ("RSET now", "501 5.5.4 Syntax: RSET"),
        ("MAIL FROM:<x@a.example>", "503 5.5.1 Error: nested MAIL command"),
        ("EHLO", "501 Syntax: EHLO hostname"),
    ] {
        let text = format!(
            "{HELLO}{ENVELOPE}C: {command}
            S: {reply}
            C: DATA
            S: 354 go
            C: text
            C: .
            S: 250 2.0.0 queued
            {BYE}"
        );
        let record = dialogue(&text);
        let first = &record.smtp.transactions[0];
        assert_eq!((first.deciding_code(), first.bytes), (Some(250), 6), "{command}");
        assert_eq!(record.smtp.helo.as_deref(), Some("a.example"), "{command}");
    }
}

/// A rejected EHLO does not change the extensions: BDAT still reaches upstream.
#[test]
fn a_rejected_ehlo_keeps_the_extensions() {
    let text = format!(
        "{HELLO}{ENVELOPE}C: EHLO
        S: 501 Syntax: EHLO hostname
        C: BDAT 6 LAST
        C| text
        S: 250 2.0.0 queued
        {BYE}"
    );
    let record = dialogue(&text);
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
}

/// The code that decides a transaction is the first: 452 to MAIL, not 503 to the RCPT pipelined after it.
#[test]
fn a_rejected_mail_decides_the_transaction() {
    let text = format!(
        "{HELLO}C: MAIL FROM:<a@a.example>
        C| RCPT TO:<b@b.example>
        C| DATA
        S: 452 4.3.1 Insufficient system storage
        S: 503 5.5.1 Error: need MAIL command
        S: 503 5.5.1 Error: need RCPT command
        {BYE}"
    );
    let record = dialogue(&text);
    let [transaction] = &record.smtp.transactions[..] else { panic!("one transaction") };
    assert_eq!(transaction.deciding_code(), Some(452));
    assert_eq!(transaction.rcpt_to[0].code, Some(503));
}

/// Each recipient is decided by the HELO name and AUTH state at its RCPT, live and in a replay (the driver compares).
#[test]
fn recipients_are_decided_by_the_last_helo_before_them() {
    let helo = rule("helo", FactName::HeloResolves, PolicyAction::Reject);
    let text = r#"S: 220 mx.example ESMTP
        C: EHLO bad.example
        S: 250 mx.example
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C- RCPT TO:<bob@b.example>
        +C 550 5.7.1 HELO name bad.example has no address (rule "helo")
        C: RSET
        S: 250 2.0.0 Ok
        C: EHLO client.example
        S: 250 mx.example
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: RCPT TO:<bob@b.example>
        S: 250 2.1.5 Ok
        "#;
    let record =
        Dialogue::new(&[text, BYE].concat()).with(rules(vec![helo])).answered_by(good).run();
    assert_eq!(record.verdict.action, PolicyAction::Reject);
    let helos: Vec<_> = record.questions.iter().map(|question| question.helo.as_deref()).collect();
    assert_eq!(helos, [Some("bad.example"), Some("client.example")]);
}

#[test]
fn recipients_are_decided_by_the_auth_state_before_them() {
    let text = format!(
        "{HELLO}C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C- RCPT TO:<nobody@b.example>
        {NO_MAILBOX}
        C: RSET
        S: 250 2.0.0 Ok
        C: AUTH PLAIN AGEAYg==
        S: 235 2.7.0 ok
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: RCPT TO:<nobody@b.example>
        S: 250 2.1.5 Ok
        {BYE}"
    );
    let record = with_known_recipients(&text);
    assert_eq!(record.verdict.action, PolicyAction::Reject);
    let auth: Vec<_> = record.questions.iter().map(|question| question.authenticated).collect();
    assert_eq!(auth, [false, true]);
}

/// With rules, no recipient reaches upstream without a decision: outside a transaction the gateway answers itself.
#[test]
fn a_recipient_without_a_sender_is_rejected_by_the_gateway() {
    let text = format!(
        "{HELLO}C- RCPT TO:<bob@b.example>
        +C 503 5.5.1 need MAIL command
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: RSET
        S: 250 2.0.0 Ok
        C- RCPT TO:<bob@b.example>
        +C 503 5.5.1 need MAIL command
        {BYE}"
    );
    let record = with_known_recipients(&text);
    assert_eq!(record.questions, []);
}
