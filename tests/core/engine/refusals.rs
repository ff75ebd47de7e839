//! Rejections by the gateway itself: access rules and limits.

use gatepost::addr::Networks;
use gatepost::engine::{Profile, RefuseAt, TlsState};
use gatepost::policy::{AccessRule, AccessRules, PolicyAction};
use gatepost::smtp::Keyword;

use crate::engine::dialogue::Dialogue;
use crate::engine::sessions::{BYE, HELLO};

fn rule(action: PolicyAction) -> impl FnOnce(&mut Profile) {
    move |profile| {
        profile.access = AccessRules::new(vec![AccessRule {
            name: "no mail from there".into(),
            family: None,
            networks: Networks::new(["2001:db8::/32".parse().unwrap()]),
            listeners: Default::default(),
            action,
        }]);
    }
}

fn refused(action: PolicyAction, text: &str) -> gatepost::engine::SessionRecord {
    Dialogue::new(text).with(rule(action)).run()
}

#[test]
fn every_recipient_is_rejected_in_order_and_then_data() {
    for (action, code) in
        [(PolicyAction::Reject, "550 5.7.1"), (PolicyAction::Tempfail, "450 4.7.1")]
    {
        let text = format!(
            r"C: MAIL FROM:<a@a.example>
            S: 250 ok
            C|- RCPT TO:<b@b.example>
            +C {code} no mail from there
            C|- RCPT TO:<c@b.example>
            +C {code} no mail from there
            C|- DATA
            +C 554 5.5.1 no valid recipients
            C| RSET
            --
            S: 250 ok
            "
        );
        let record = refused(action, &[HELLO, &text, BYE].concat());
        let transaction = &record.smtp.transactions[0];
        assert_eq!(transaction.mail_from, "a@a.example");
        assert_eq!(transaction.rcpt_to.len(), 2);
        assert_eq!(transaction.rcpt_to[1].address, "c@b.example");
        assert_eq!(transaction.rcpt_to[1].code, code[..3].parse().ok());
        assert_eq!(record.verdict.rule.as_deref(), Some("no mail from there"));
        assert_eq!(record.verdict.action, action);
        let reason = format!("access_{action}");
        assert_eq!(record.verdict.reason, Some(reason));
    }
}

#[test]
fn a_chunk_after_rejected_recipients_is_discarded() {
    let text = r"C: MAIL FROM:<a@a.example>
        S: 250 ok
        C|- RCPT TO:<b@b.example>
        +C 550 5.7.1 no mail from there
        C|- BDAT 21
        C|- RCPT TO:<c@b.example>\
        +C 554 5.5.1 no valid recipients
        C|- BDAT 0 LAST
        +C 554 5.5.1 no valid recipients
        C| NOOP
        --
        S: 250 ok
        C|- BDAT 6 LAST
        C|- NOOP
        +C 554 5.5.1 no valid recipients
        ";
    let record = refused(PolicyAction::Reject, &[HELLO, text, BYE].concat());
    let transaction = &record.smtp.transactions[0];
    assert_eq!(transaction.rcpt_total, 1);
    assert_eq!((transaction.data_code, transaction.bytes), (Some(554), 6), "the last one");
}

/// A rejected HELO or EHLO changes nothing (RFC 5321 §4.1.4).
#[test]
fn a_rejected_ehlo_keeps_the_transaction() {
    let text = r"S: 220 a
        C: HELO a.example
        S: 250 mx
        C: MAIL FROM:<a@a.example>
        S: 250 ok
        C: EHLO
        S: 501 5.5.4 who
        C: RCPT TO:<b@b.example>
        S: 250 ok
        C: EHLO a.example
        S: 250 mx
        C: RCPT TO:<c@b.example>
        S: 503 5.5.1 no
        ";
    let record = Dialogue::new(text).run();
    assert_eq!(record.smtp.transactions[0].rcpt_total, 1);
}

#[test]
fn a_rejection_at_connect_replaces_the_greeting() {
    let at_connect = |profile: &mut Profile| {
        rule(PolicyAction::Reject)(profile);
        profile.smtp.refuse_at = RefuseAt::Connect;
    };
    let record = Dialogue::new(
        r"C- EHLO a.example
        +C 554 5.7.1 no mail from there
        +C 503 5.5.1 access denied; only QUIT is accepted
        C- MAIL FROM:<a@b>
        +C 503 5.5.1 access denied; only QUIT is accepted
        C- QUIT
        +C 221 2.0.0 Bye
        = refused",
    )
    .with(at_connect)
    .run();
    assert_eq!(record.upstream, None);
    assert_eq!(record.smtp.helo.as_deref(), Some("a.example"));
    assert_eq!(record.smtp.transactions[0].mail_code, Some(503), "the sender is recorded");
    Dialogue::new("C- EHLO a\\\n+C 554 5.7.1 no mail from there\nC.\n= refused")
        .with(at_connect)
        .run();
    Dialogue::new(
        r"T 300s
        +C 554 5.7.1 no mail from there
        +C 421 4.4.2 gate.example timeout exceeded
        = timeout",
    )
    .with(at_connect)
    .run();
}

#[test]
fn a_deferral_at_connect_replaces_the_greeting() {
    Dialogue::new("C- QUIT\n+C 421 4.7.1 gate.example no mail from there\n= refused")
        .with(|profile| {
            rule(PolicyAction::Tempfail)(profile);
            profile.smtp.refuse_at = RefuseAt::Connect;
        })
        .run();
}

/// Under TLS nobody would see its recipients; in plaintext it learns the reason.
#[test]
fn a_refused_client_stays_in_plaintext_until_rcpt() {
    let greeted = r"S: 220 mx.example ESMTP
        C: EHLO client.example
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250 STARTTLS
        ";
    for (action, code) in
        [(PolicyAction::Reject, "550 5.7.1"), (PolicyAction::Tempfail, "450 4.7.1")]
    {
        // In its turn, and as often as it is asked.
        let text = format!(
            r"{greeted}C: NOOP
            C|- STARTTLS
            S: 250 noop
            +C 454 4.7.0 TLS is not available to this client: no mail from there
            C- STARTTLS
            +C 454 4.7.0 TLS is not available to this client: no mail from there
            C: MAIL FROM:<a@a.example>
            S: 250 ok
            C- RCPT TO:<b@b.example>
            +C {code} no mail from there
            {BYE}"
        );
        let record = refused(action, &text);
        assert_eq!(record.verdict.action, action);
        assert_eq!(record.verdict.reason, Some(format!("access_{action}")));
        assert_eq!(record.smtp.tls, TlsState::Refused);
        assert_eq!(record.smtp.transactions[0].rcpt_total, 1, "the log has the envelope");
    }
    let hidden = r"S: 220 a
        C: EHLO client.example
        S- 250-mx.example
        S- 250 STARTTLS
        +C 250 mx.example
        C- STARTTLS
        +C 502 5.5.1 not offered here
        ";
    Dialogue::new(hidden)
        .with(rule(PolicyAction::Reject))
        .with(|profile| profile.smtp.hide = vec![Keyword::Starttls])
        .run();
}

#[test]
fn too_many_commands_without_a_message_end_the_session() {
    let text = r"S: 220 a
        C: NOOP
        S: 250 1
        C: NOOP
        S: 250 2
        C- NOOP
        +C 421 4.7.0 gate.example too many commands without a message
        = limit";
    Dialogue::new(text).with(|profile| profile.limits.commands = 2).run();
}

#[test]
fn a_message_resets_the_command_count() {
    let text = r"S: 220 a
        C: MAIL FROM:<a@a.example>
        S: 250 1
        C: RCPT TO:<b@b.example>
        S: 250 2
        C: DATA
        S: 354 3
        C: x
        C: .
        S: 250 4
        C: MAIL FROM:<a@a.example>
        S: 250 5
        C: RCPT TO:<b@b.example>
        S: 250 6
        C: DATA
        S: 354 7
        ";
    Dialogue::new(text).with(|profile| profile.limits.commands = 2).run();
}

/// Upstream limits those that it answers itself; an MTA such as Exim may have no limit on rejected recipients.
#[test]
fn errors_of_upstream_do_not_count() {
    let rejected = "C: RCPT TO:<x@b.example>\nS: 550 5.1.1 unknown\n".repeat(30);
    let text = [HELLO, "C: MAIL FROM:<a@a.example>\nS: 250 ok\n", &rejected, BYE].concat();
    Dialogue::new(&text).run();
}

#[test]
fn too_many_errors_that_the_gateway_answers() {
    let text = r"S: 220 a
        C: MAIL FROM:<a@a.example>
        S: 550 1
        C- FROB
        +C 500 5.5.2 command not recognized
        C- FROB
        +C 500 5.5.2 command not recognized
        C- NOOP
        +C 421 4.7.0 gate.example too many errors
        = limit";
    Dialogue::new(text).with(|profile| profile.limits.errors = 2).run();
}

/// A recipient that the gateway rejects is an error, for now or for good: as Postfix, which counts both.
#[test]
fn recipients_that_the_gateway_rejects_are_errors() {
    for (action, code) in
        [(PolicyAction::Reject, "550 5.7.1"), (PolicyAction::Tempfail, "450 4.7.1")]
    {
        let rejected = format!("C- RCPT TO:<b@b.example>\n+C {code} no mail from there\n");
        let end = "C- NOOP\n+C 421 4.7.0 gate.example too many errors\n= limit";
        let mail = "C: MAIL FROM:<a@a.example>\nS: 250 ok\n";
        let record = refused(action, &[HELLO, mail, &rejected.repeat(20), end].concat());
        assert_eq!(record.verdict.rule.as_deref(), Some("no mail from there"));
    }
}

#[test]
fn recipients_do_not_count_as_commands() {
    let recipients = "C: RCPT TO:<x@b.example>\nS: 250 ok\n".repeat(30);
    let mail = "C: MAIL FROM:<a@a.example>\nS: 250 ok\n";
    let text = [HELLO, mail, &recipients, BYE].concat();
    Dialogue::new(&text).with(|profile| profile.limits.commands = 3).run();
}

/// It could guess passwords and addresses otherwise.
#[test]
fn a_rejected_client_gets_no_auth_and_no_lists() {
    for (action, code) in
        [(PolicyAction::Reject, "550 5.7.1"), (PolicyAction::Tempfail, "450 4.7.1")]
    {
        let text = format!(
            r"C- AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=
            +C {code} no mail from there
            C- VRFY root
            +C {code} no mail from there
            C- EXPN staff
            +C {code} no mail from there
            C- ETRN a.example
            +C {code} no mail from there
            "
        );
        refused(action, &[HELLO, &text, BYE].concat());
    }
}

#[test]
fn too_long_lines_count_as_commands_and_errors() {
    let long = format!("C- {}\n+C 500 5.5.2 line too long\n", "x".repeat(600));
    let text = format!(
        "S: 220 a\n{long}{long}C- {}\n+C 421 4.7.0 gate.example too many errors\n= limit",
        "y".repeat(600)
    );
    Dialogue::new(&text)
        .with(|profile| {
            profile.limits.errors = 2;
            profile.limits.line_length = 512;
        })
        .run();
}

/// A 421 instead of the reply to a message would make the client send it again.
#[test]
fn limits_apply_only_after_the_reply_to_a_message() {
    let text = [
        HELLO,
        r"C: MAIL FROM:<a@a.example>
        C| RCPT TO:<b@b.example>
        C| BDAT 2 LAST
        C| x\n\
        C| NOOP
        C| NOOP
        S: 250 m
        S: 250 r
        S: 250 queued
        S: 250 n
        S: 250 n
        C: QUIT
        S: 221 bye
        S.
        = quit",
    ]
    .concat();
    Dialogue::new(&text).with(|profile| profile.limits.commands = 5).run();
}

#[test]
fn an_over_long_command_is_one_error_and_the_next_line_is_a_command() {
    let text = format!(
        "S: 220 a\nC- EHLO {}\n+C 500 5.5.2 line too long\nC| NOOP\nS: 250 ok\nC: NOOP {}\nS: 250 ok\n",
        "x".repeat(600),
        "y".repeat(512 - "NOOP \r\n".len()),
    );
    let record = Dialogue::new(&text).with(|profile| profile.limits.line_length = 512).run();
    assert_eq!(record.smtp.helo, None);
    assert_eq!(record.verdict.reason.as_deref(), Some("limit_line"));
}
