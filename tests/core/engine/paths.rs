//! Paths in MAIL and RCPT: what reaches upstream is what was decided on, in one spelling, and nothing else does.

use gatepost::addr::Networks;
use gatepost::engine::{PathSyntax, Profile, Timeouts};
use gatepost::policy::PolicyAction;
use gatepost::policy::facts::DomainName;
use gatepost::policy::rules::{Domains, FactName, PolicyRule, PolicyRules, PolicyStage, When};
use gatepost::smtp::{Command, EnvelopeArgument, PathKind};
use proptest::prelude::*;

use crate::engine::dialogue::Dialogue;
use crate::engine::driver::Driver;
use crate::engine::path_forms::{
    KNOWN, LOCAL, OPEN, PROTECTED, forward_argument, reverse_argument,
};
use crate::engine::policy::{good, require, rule};
use crate::engine::sessions::{BYE, HELLO};

fn domains(names: &[&str]) -> Vec<DomainName> {
    names.iter().map(|name| DomainName::parse(name).unwrap()).collect()
}

/// Rejects mail from and to the protected domain. No requirement: it always matches.
fn protecting() -> Vec<PolicyRule> {
    let of = |when: When, at| PolicyRule {
        when,
        at,
        require: Vec::new(),
        ..rule("closed", FactName::Recipient, PolicyAction::Reject)
    };
    let protected = Domains { exact: domains(&[PROTECTED]), below: Vec::new() };
    vec![
        of(When { recipient: protected.clone(), ..When::default() }, PolicyStage::Rcpt),
        of(When { sender: protected, ..When::default() }, PolicyStage::Mail),
    ]
}

fn profile(rules: Vec<PolicyRule>) -> Profile {
    let rules = PolicyRules::new(rules, Networks::default())
        .with_site_domains(domains(&[PROTECTED, OPEN, LOCAL]));
    let mut profile = Profile { rules: rules.into(), ..Profile::default() };
    profile.limits.errors = 1_000_000;
    profile
}

fn run(rules: Vec<PolicyRule>, text: &str) -> gatepost::engine::SessionRecord {
    let rules = profile(rules).rules;
    Dialogue::new(&[HELLO, text, BYE].concat())
        .with(|profile| profile.rules = rules)
        .answered_by(good)
        .run()
}

const NO_SENDER: &str =
    "+C 501 5.1.7 sender is not a mailbox in angle brackets (RFC 5321 section 4.1.2)";
const NO_RECIPIENT: &str =
    "+C 501 5.1.3 recipient is not a mailbox in angle brackets (RFC 5321 section 4.1.2)";

#[test]
fn a_path_goes_on_in_one_spelling_or_not_at_all() {
    let text = format!(
        r"C- MAIL FROM:a@a.example>
        {NO_SENDER}
        C- MAIL FROM:<>a@a.example
        {NO_SENDER}
        C- MAIL FROM <a@a.example>
        +C 501 5.5.4 syntax: MAIL FROM:<address>
        C- mail from: a@a.example   SIZE=3  BODY=8BITMIME
        +S MAIL FROM:<a@a.example> SIZE=3 BODY=8BITMIME
        S: 250 ok
        C: rcpt to:<b@b.example> NOTIFY=NEVER
        S: 250 ok
        C- RCPT TO: b@b.example
        +S RCPT TO:<b@b.example>
        S: 250 ok
        C- RCPT TO:<@r.example:b@b.example>
        +S RCPT TO:<b@b.example>
        S: 250 ok
        C- RCPT TO:<b@b.example> <c@b.example>
        +C 501 5.5.4 malformed parameter after the address
        C- RCPT TO:<b@b.example>,<c@b.example>
        {NO_RECIPIENT}
        C- RCPT TO:postmaster@<victim%b.example>
        {NO_RECIPIENT}
        C: RCPT TO:<Postmaster>
        S: 250 ok
        "
    );
    let record = run(Vec::new(), &text);
    assert_eq!(record.verdict.action, PolicyAction::Reject);
    assert_eq!(record.verdict.reason.as_deref(), Some("path_syntax"));
    let accepted =
        record.smtp.transactions.iter().find(|transaction| transaction.mail_code == Some(250));
    let accepted: Vec<_> =
        accepted.unwrap().rcpt_to.iter().filter(|to| to.code == Some(250)).collect();
    let accepted: Vec<_> = accepted.iter().map(|to| to.address.as_str()).collect();
    assert_eq!(accepted, ["b@b.example", "b@b.example", "b@b.example", "Postmaster"]);
}

#[test]
fn control_characters_are_in_no_command() {
    for sent_line in [
        r"NOOP \0",
        r"NOOP\x0b",
        r"EHLO a\0b",
        r"\x7fNOOP",
        r"RCPT TO:<b@b.example>\x00",
        r"MAIL FROM:<a@a.example>\tSIZE=3",
        r"MAIL FROM:<a@a.example>\rRCPT TO:<b@b.example>",
        r"DATA\x0c",
        r"QUIT\x01",
    ] {
        let text = format!("C- {sent_line}\n+C 500 5.5.2 command contains a control character\n");
        let record = run(Vec::new(), &text);
        assert_eq!(record.verdict.reason.as_deref(), Some("command_syntax"), "{sent_line}");
    }
    for sent_line in
        [r"\xef\xbb\xbfRCPT TO:<b@b.example>", r"MAIL FROM:<\xe9@a.example>", r"NOOP \xc3\xa9"]
    {
        let refusal = "+C 500 5.5.2 command contains non-ASCII characters without SMTPUTF8\n";
        run(Vec::new(), &format!("C- {sent_line}\n{refusal}"));
    }
}

#[test]
fn utf8_takes_an_offer_and_a_request() {
    let utf8 = "500 5.5.2 command contains non-ASCII characters without SMTPUTF8";
    let text = format!(
        r"S: 220 mx.example ESMTP
        C: EHLO client.example
        S: 250-mx.example
        S: 250 SMTPUTF8
        C- MAIL FROM:<\xc3\xa9@a.example>
        +C {utf8}
        C- MAIL FROM:<\xff@a.example> SMTPUTF8
        +C {utf8}
        C: MAIL FROM:<a@a.example>
        S: 250 ok
        C- RCPT TO:<\xc3\xa9@b.example>
        +C {utf8}
        C: RSET
        S: 250 ok
        C: MAIL FROM:<\xc3\xa9@a.example> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<\xc3\xa9@b.example>
        S: 250 ok
        C- RCPT TO:\xef\xbb\xbf<b@b.example>
        {NO_RECIPIENT}
        C: HELO client.example
        S: 250 mx.example
        C: MAIL FROM:<a@a.example> SMTPUTF8
        S: 250 really
        C- RCPT TO:<\xc3\xa9@b.example>
        +C {utf8}
        {BYE}"
    );
    Dialogue::new(&text).run();
    // A command that waits for the reply to EHLO.
    let text = r"S: 220 mx.example
        C: EHLO client.example
        C|- MAIL FROM:<\xc3\xa9@a.example> SMTPUTF8
        S: 250-mx.example
        S: 250 SMTPUTF8
        +S MAIL FROM:<\xc3\xa9@a.example> SMTPUTF8
        --
        S: 250 ok
        C: QUIT
        S: 221 bye
        S.
        = quit";
    Dialogue::new(text).run();
}

#[test]
fn what_a_server_may_reroute_is_rejected_where_a_rule_decides_by_it() {
    let recipients = [
        "<victim%protected.example@open.example>",
        "<protected.example!victim@open.example>",
        "<\"victim@protected.example\"@open.example>",
        "<@protected.example:victim@open.example>",
        "<victim@[192.0.2.1]>",
        "<victim@protected>",
    ];
    for recipient in recipients {
        let text = format!(
            "C: MAIL FROM:<a@a.example>\nS: 250 ok\nC- RCPT TO:{recipient}\n\
             +C 550 5.7.1 recipient may be rerouted to another domain; write <user@domain>\n"
        );
        let record = run(protecting(), &text);
        let reason = record.verdict.reason.as_deref();
        assert_eq!((record.verdict.action, reason), (PolicyAction::Reject, Some("path_routing")));
        // Rules that depend on neither path, or not on this client.
        let named = rule("named", FactName::Fcrdns, PolicyAction::Reject);
        let mut elsewhere = protecting();
        for rule in &mut elsewhere {
            rule.when.networks = Networks::new(["192.0.2.0/24".parse().unwrap()]);
        }
        let shadow: Vec<_> = protecting()
            .into_iter()
            .map(|rule| PolicyRule { mode: gatepost::policy::rules::RuleMode::Shadow, ..rule })
            .collect();
        let canonical = recipient.replace("@protected.example:victim", "victim");
        let marker = if canonical == recipient { ":" } else { "-" };
        let sent = if marker == "-" { format!("+S RCPT TO:{canonical}\n") } else { String::new() };
        for rules in [vec![named], elsewhere, shadow, Vec::new()] {
            run(
                rules,
                &format!(
                    "C: MAIL FROM:<a@a.example>\nS: 250 ok\nC{marker} RCPT TO:{recipient}\n{sent}S: 250 ok\n"
                ),
            );
        }
    }
    let text = "C- MAIL FROM:<a%protected.example@a.example>\n\
                +C 550 5.7.1 sender may be rerouted to another domain; write <user@domain>\n";
    run(protecting(), text);
    run(vec![rule("mailable", FactName::ReturnPath, PolicyAction::Reject)], text);
}

#[test]
fn lenient_paths_are_upstreams_to_judge() {
    for sent_line in
        ["MAIL FROM:a@a.example>", "RCPT TO:<b@b.example>,<c@b.example>", r"NOOP \0", "RCPT TO: x"]
    {
        let text = format!("{HELLO}C: {sent_line}\nS: 250 ok\n{BYE}");
        Dialogue::new(&text).with(|profile| profile.smtp.paths = PathSyntax::Lenient).run();
    }
}

/// The reply to the first MAIL decides which of the two the recipient belongs to.
#[test]
fn a_recipient_behind_a_malformed_mail_waits_for_the_reply_to_the_mail_before() {
    for (reply, last) in [("452 4.3.1 full", "503 5.5.1 need MAIL"), ("250 ok", "250 ok")] {
        let text = format!(
            r"C: MAIL FROM:<a@a.example>
            C|- MAIL FROM:<>a@a.example
            C|- RCPT TO:<b@b.example>
            S: {reply}
            {NO_SENDER}
            +S RCPT TO:<b@b.example>
            --
            S: {last}
            "
        );
        run(protecting(), &text);
    }
}

/// Neither the null sender nor an exempt recipient opens the door to anybody else.
#[test]
fn exemptions_hold_for_exact_mailboxes_of_the_site_only() {
    let closed = || PolicyRule {
        require: vec![require(FactName::HeloResolves)],
        ..rule("named", FactName::HeloResolves, PolicyAction::Reject)
    };
    let refused = "+C 550 5.7.1 HELO name a.example has no address (rule \"named\")";
    let nameless =
        |lookup: &gatepost::policy::facts::Lookup| gatepost::policy::facts::LookupResult {
            answer: gatepost::policy::facts::Answer::NxDomain,
            ..good(lookup)
        };
    let mut text = format!("{HELLO}C: MAIL FROM:<>\nS: 250 ok\n");
    for exempt in ["<postmaster>", "<PostMaster@open.example>", "<abuse@PROTECTED.example>"] {
        text.push_str(&format!("C: RCPT TO:{exempt}\nS: 250 ok\n"));
    }
    for other in [
        "<b@open.example>",
        "<postmaster@b.example>",
        "<abuse@sub.open.example>",
        "<postmaster+x@open.example>",
        "<\"postmaster\"@open.example>",
        "<postmaster@[192.0.2.1]>",
        "<postmaster%b.example@open.example>",
    ] {
        text.push_str(&format!("C- RCPT TO:{other}\n{refused}\n"));
    }
    text.push_str(BYE);
    let rules = profile(vec![closed()]).rules;
    Dialogue::new(&text).with(|profile| profile.rules = rules).answered_by(nameless).run();
}

/// Sends one transaction; returns the paths that reached upstream, as it would read them, and the record.
fn transact(reverse: &[u8], forward: &[u8]) -> (Vec<String>, gatepost::engine::SessionRecord) {
    let mut driver = Driver::new(
        profile(protecting()),
        Timeouts::RFC_5321,
        "[2001:db8::1]:4",
        "[2001:db8::2]:25",
        false,
    );
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250-a\r\n250 SMTPUTF8\r\n");
    let mut sent = Vec::new();
    for (verb, argument) in [("MAIL", reverse), ("RCPT", forward)] {
        let before = driver.to_upstream.len();
        driver.client_sends(&[verb.as_bytes(), b" ", argument, b"\r\n"].concat());
        let passed = String::from_utf8(driver.to_upstream[before..].to_vec()).unwrap();
        if !passed.is_empty() {
            driver.upstream_sends(b"250 ok\r\n");
            sent.push(passed);
        }
    }
    let record = driver.finish();
    let observed = driver.observed();
    assert_eq!(observed.smtp.transactions, record.smtp.transactions);
    assert_eq!(observed.questions, record.questions);
    driver.check_verdict_replays(&observed, &record, "a path");
    (sent, record)
}

/// The mailbox of a line, read without the parser: what is between its first `<` and the first `>` outside quotes, with
/// nothing before or after that a server could take for a part of it.
fn mailbox_of<'a>(line: &'a str, command: &str) -> &'a str {
    assert!(line.ends_with("\r\n") && !line.trim_end().contains(char::is_control), "{line:?}");
    let (head, inside) = line.trim_end().split_once('<').expect("a bracket");
    assert!(head.eq_ignore_ascii_case(command), "{line:?}");
    let mut quoted = false;
    let end = inside.bytes().enumerate().position(|(at, b)| {
        let escaped = quoted
            && inside.as_bytes()[..at].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1;
        quoted ^= b == b'"' && !escaped;
        b == b'>' && !quoted
    });
    let (mailbox, rest) = inside.split_at(end.expect("a closing bracket"));
    assert!(rest == ">" || rest.starts_with("> "), "{line:?}");
    mailbox
}

fn is_plain(mailbox: &str) -> bool {
    let (local, domain) = mailbox.rsplit_once('@').unwrap_or((mailbox, ""));
    let name = domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    !local.contains(['%', '!', '@']) && (name || !domain.is_ascii())
}

fn checked(reverse: &[u8], forward: &[u8]) -> Result<(), TestCaseError> {
    let (sent, record) = transact(reverse, forward);
    for line in sent {
        let is_mail = line[..4].eq_ignore_ascii_case("MAIL");
        let mailbox = mailbox_of(&line, if is_mail { "MAIL FROM:" } else { "RCPT TO:" });
        // A literal's reverse-path is delivered nowhere by the server that receives it.
        prop_assert!(is_plain(mailbox) || is_mail && mailbox.ends_with(']'), "{:?}", line);
        if is_mail {
            prop_assert_eq!(&record.smtp.transactions[0].mail_from, mailbox);
        } else {
            let (local, domain) = mailbox.rsplit_once('@').unwrap_or((mailbox, ""));
            let is_exempt = ["postmaster", "abuse"].contains(&&*local.to_ascii_lowercase());
            prop_assert!(is_exempt || !domain.eq_ignore_ascii_case(PROTECTED), "{:?}", line);
            let asked: Vec<_> =
                record.questions.iter().filter_map(|asked| asked.recipient.as_deref()).collect();
            // What upstream is outside of a transaction for, nobody decides on.
            prop_assert!(asked.is_empty() || asked == [mailbox], "{:?}: {:?}", line, asked);
        }
    }
    Ok(())
}

#[test]
fn no_known_form_reaches_the_protected_domain() {
    for argument in KNOWN {
        checked(b"FROM:<a@a.example>", argument).unwrap();
        let sender = String::from_utf8_lossy(argument).replacen("TO:", "FROM:", 1);
        checked(sender.as_bytes(), b"TO:<b@open.example>").unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4000)
    ))]

    /// Two parts at a time: whatever the path, upstream reads what was decided on.
    #[test]
    fn what_reaches_upstream_is_what_was_decided_on(
        reverse in prop_oneof![Just(b"FROM:<a@a.example> SMTPUTF8".to_vec()).boxed(), reverse_argument().boxed()],
        forward in forward_argument(),
    ) {
        checked(&reverse, &forward)?;
    }

    /// The parser alone: an accepted argument has one reading, also for one who does not know the grammar.
    #[test]
    fn an_accepted_path_has_one_reading(forward in forward_argument(), reverse in reverse_argument()) {
        for (kind, argument, command) in [
            (PathKind::Forward, &forward, "RCPT TO:"), (PathKind::Reverse, &reverse, "MAIL FROM:"),
        ] {
            let Ok(read) = EnvelopeArgument::parse(kind, argument) else { continue };
            let line = format!("{}\r\n", read.canonical());
            prop_assert_eq!(mailbox_of(&line, command), read.mailbox());
            if read.rerouting().is_none() {
                let is_literal = kind == PathKind::Reverse && read.mailbox().ends_with(']');
                prop_assert!(is_plain(read.mailbox()) || is_literal, "{}", line);
            }
            let again = Command::parse(line.trim_end().as_bytes());
            prop_assert_eq!(again.envelope().unwrap().canonical(), read.canonical());
        }
    }
}
