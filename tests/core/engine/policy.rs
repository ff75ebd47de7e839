//! Policy rules in a dialogue: which commands wait for them, and their effect.

use std::time::Duration;

use gatepost::addr::{Family, Networks};
use gatepost::engine::{Event, Profile, RefuseAt, SessionRecord, Timeouts, TlsState};
use gatepost::policy::facts::{
    Answer, DnsRecord, DomainName, FactState, Lookup, LookupResult, Reason, ReturnPathLevel, Source,
};
use gatepost::policy::rules::{
    Exemption, FactName, PolicyRule, PolicyRules, PolicyStage, Requirement, RuleMode, When,
};
use gatepost::policy::{AccessRule, AccessRules, PolicyAction};

use crate::engine::dialogue::Dialogue;
use crate::engine::driver::Driver;
use crate::engine::sessions::{BYE, HELLO};

pub(crate) const fn require(fact: FactName) -> Requirement {
    Requirement::new(fact)
}

/// An enforced rule with the default exemptions.
pub(crate) fn rule(name: &str, fact: FactName, otherwise: PolicyAction) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: fact.stage(),
        when: When::default(),
        exempt: Exemption::ALL.to_vec(),
        require: vec![require(fact)],
        otherwise,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

pub(crate) fn rules(rules: Vec<PolicyRule>) -> impl FnOnce(&mut Profile) {
    let site = vec![DomainName::parse("b.example").unwrap()];
    let rules = PolicyRules::new(rules, Networks::default()).with_site_domains(site);
    move |profile| profile.rules = rules.into()
}

/// Lookup results: the client's name is confirmed, senders at `a.example` are reachable, some recipients are unknown.
pub(crate) fn good(lookup: &Lookup) -> LookupResult {
    let name = |text: &str| DomainName::parse(text).unwrap();
    let is = |host: &DomainName, text: &str| host == &name(text);
    let answer = match lookup {
        Lookup::Reverse(_) => Answer::Records(vec![DnsRecord::Name(name("client.example"))]),
        Lookup::Addresses(host, Family::Ipv6) if is(host, "client.example") => {
            Answer::Records(vec![DnsRecord::Address("2001:db8::1".parse().unwrap())])
        }
        Lookup::Addresses(host, Family::Ipv4) if is(host, "mx.a.example") => {
            Answer::Records(vec![DnsRecord::Address("8.8.8.8".parse().unwrap())])
        }
        Lookup::MailExchanges(domain) if is(domain, "a.example") => {
            let host = name("mx.a.example");
            Answer::Records(vec![DnsRecord::Exchange { preference: 10, host }])
        }
        Lookup::MailExchanges(_) => Answer::NxDomain,
        Lookup::Addresses(..) => Answer::NoData,
        Lookup::Recipient(path) if path.starts_with("nobody") => {
            Answer::No(Reason::NoSuchMailbox, None)
        }
        Lookup::Recipient(path) if path.starts_with("later") => {
            Answer::Unknown(Reason::UpstreamDown)
        }
        _ => Answer::Yes(None),
    };
    LookupResult { answer, source: Source::Zone, at: None }
}

pub(crate) fn nameless(lookup: &Lookup) -> LookupResult {
    match lookup {
        Lookup::Reverse(_) => LookupResult { answer: Answer::NxDomain, ..good(lookup) },
        _ => good(lookup),
    }
}

pub(crate) fn lame(lookup: &Lookup) -> LookupResult {
    match lookup {
        Lookup::Reverse(_) => {
            LookupResult { answer: Answer::Unknown(Reason::Servfail), ..good(lookup) }
        }
        _ => good(lookup),
    }
}

fn run(text: &str, rule: PolicyRule, oracle: fn(&Lookup) -> LookupResult) -> SessionRecord {
    Dialogue::new(text).with(rules(vec![rule])).answered_by(oracle).run()
}

fn verdict(record: &SessionRecord) -> (PolicyAction, Option<&str>, Option<&str>) {
    let verdict = &record.verdict;
    (verdict.action, verdict.rule.as_deref(), verdict.reason.as_deref())
}

const NO_NAME: &str = "5.7.25 client address 2001:db8::1 has no PTR record (rule \"named\")";

#[test]
fn each_recipient_gets_its_own_decision() {
    let text = [
        HELLO,
        r#"C: MAIL FROM:<a@a.example>
        C| RCPT TO:<bob@b.example>
        C|- RCPT TO:<nobody@b.example>
        C| RCPT TO:<eve@b.example>
        C|- RCPT TO:<later@b.example>
        C|- DATA
        S: 250 mail
        S: 250 bob
        +C 550 5.1.1 unknown recipient <nobody@b.example> (rule "known")
        S: 250 eve
        +C 451 4.4.0 cannot verify <later@b.example> right now (rule "known")
        +S DATA
        --
        S: 354 go
        C: text
        C: .
        S: 250 queued
        "#,
        BYE,
    ]
    .concat();
    let record = run(&text, rule("known", FactName::Recipient, PolicyAction::Reject), good);
    let expected = (PolicyAction::Reject, Some("known"), Some("recipient.no_such_mailbox"));
    assert_eq!(verdict(&record), expected);
    let codes: Vec<_> = record.smtp.transactions[0].rcpt_to.iter().map(|to| to.code).collect();
    assert_eq!(codes, [Some(250), Some(550), Some(250), Some(451)]);
    assert_eq!(record.facts.unwrap().recipient.unwrap().state, FactState::False);
}

#[test]
fn a_client_without_a_name_is_rejected_at_rcpt_and_at_data() {
    let text = format!(
        r"{HELLO}C: MAIL FROM:<a@a.example>
        S: 250 ok
        C- RCPT TO:<bob@b.example>
        +C 550 {NO_NAME}
        C- DATA
        +C 554 5.5.1 no valid recipients
        C: RSET
        S: 250 ok
        C: MAIL FROM:<>
        S: 250 ok
        C- RCPT TO:<bob@b.example>
        +C 550 {NO_NAME}
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@a.example>
        S: 250 ok
        C: RCPT TO:<Postmaster@b.example>
        S: 250 whom everybody may ask
        {BYE}"
    );
    let named = rule("named", FactName::Fcrdns, PolicyAction::Reject);
    let record = run(&text, named.clone(), nameless);
    assert_eq!(verdict(&record), (PolicyAction::Reject, Some("named"), Some("fcrdns.no_ptr")));

    // An unknown fact never causes a 5xx, and upstream receives nothing of the rejected command.
    let text = format!(
        "{HELLO}C: MAIL FROM:<a@a.example>\nS: 250 ok\nC- RCPT TO:<bob@b.example>\n\
         +C 451 4.7.25 cannot confirm the PTR name of 2001:db8::1 right now (rule \"named\")\n{BYE}"
    );
    let record = run(&text, PolicyRule { on_unknown: PolicyAction::Reject, ..named.clone() }, lame);
    assert_eq!(verdict(&record), (PolicyAction::Tempfail, Some("named"), Some("fcrdns.servfail")));

    let text = format!(
        "{HELLO}C: MAIL FROM:<a@a.example>\nS: 250 ok\nC: RCPT TO:<bob@b.example>\nS: 250 ok\n{BYE}"
    );
    for (rule, oracle) in [
        (named.clone(), good as fn(&Lookup) -> LookupResult),
        (PolicyRule { on_unknown: PolicyAction::Accept, ..named.clone() }, lame),
        (PolicyRule { when: When { auth: Some(true), ..When::default() }, ..named }, nameless),
    ] {
        assert_eq!(verdict(&run(&text, rule, oracle)), (PolicyAction::Accept, None, None));
    }
}

#[test]
fn a_rule_in_shadow_mode_is_only_recorded() {
    let text = [
        HELLO,
        r"C: MAIL FROM:<a@nowhere.example>
        C| RCPT TO:<bob@b.example>
        C| RCPT TO:<nobody@b.example>
        S: 250 ok
        S: 250 ok
        S: 250 ok
        ",
        BYE,
    ]
    .concat();
    let shadow = |rule: PolicyRule| PolicyRule { mode: RuleMode::Shadow, ..rule };
    let record = Dialogue::new(&text)
        .with(rules(vec![
            shadow(rule("mailable", FactName::ReturnPath, PolicyAction::Tempfail)),
            shadow(rule("known", FactName::Recipient, PolicyAction::Reject)),
        ]))
        .answered_by(good)
        .run();
    assert_eq!(verdict(&record), (PolicyAction::Accept, None, None));
    let shadow: Vec<_> = record
        .verdict
        .shadow
        .iter()
        .map(|fired| (fired.rule.as_str(), fired.action, fired.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(
        shadow,
        [
            ("mailable", PolicyAction::Tempfail, "return_path.nxdomain"),
            ("known", PolicyAction::Reject, "recipient.no_such_mailbox")
        ]
    );
}

/// The sender stays the same until upstream accepts a command that resets it.
#[test]
fn recipients_are_decided_with_the_sender_that_upstream_has() {
    let refused = "+C 450 4.1.8 domain of <a@nowhere.example> does not exist (rule \"mailable\")";
    let text = format!(
        r"{HELLO}C: MAIL FROM:<a@nowhere.example>
        S: 250 ok
        C: MAIL FROM:<a@a.example>
        S: 503 5.5.1 nested MAIL
        C- RCPT TO:<bob@b.example>
        {refused}
        C: RSET now
        S: 501 5.5.4 Syntax
        C: MAIL FROM:<a@a.example>
        S: 503 5.5.1 nested MAIL
        C- RCPT TO:<bob@b.example>
        {refused}
        C: EHLO
        S: 501 5.5.4 Syntax
        C- RCPT TO:<bob@b.example>
        {refused}
        C: RSET
        S: 250 reset
        C: MAIL FROM:<a@a.example>
        C| RCPT TO:<bob@b.example>
        S: 250 mail
        S: 250 rcpt
        {BYE}"
    );
    run(&text, rule("mailable", FactName::ReturnPath, PolicyAction::Tempfail), good);
}

#[test]
fn a_recipient_waits_for_the_reply_to_mail() {
    let mut driver =
        driver_with(vec![rule("mailable", FactName::ReturnPath, PolicyAction::Tempfail)], |_| ());
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"HELO a\r\nMAIL FROM:<a@nowhere.example>\r\n");
    driver.answer(0, good);
    driver.upstream_sends(b"250 a\r\n250 a\r\n");
    driver.client_sends(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<bob@b.example>\r\nNOOP\r\n");
    while !driver.needs.is_empty() {
        driver.answer(0, good);
    }
    assert!(driver.to_upstream.ends_with(b"MAIL FROM:<a@a.example>\r\n"));
    driver.upstream_sends(b"503 nested\r\n");
    let replies = String::from_utf8_lossy(&driver.to_client).into_owned();
    assert!(replies.ends_with("does not exist (rule \"mailable\")\r\n"), "{replies}");
    assert!(driver.to_upstream.ends_with(b"NOOP\r\n"));
}

#[test]
fn a_verdict_at_connect_replaces_the_greeting() {
    let at_connect = |action, oracle: fn(&Lookup) -> LookupResult, text: &str| {
        Dialogue::new(text)
            .with(rules(vec![rule("named", FactName::Fcrdns, action)]))
            .with(|profile| profile.smtp.refuse_at = RefuseAt::Connect)
            .answered_by(oracle)
            .run()
    };
    let text = format!(
        "S- 220 mx.example\n+C 554 {NO_NAME}\nC- MAIL FROM:<a@b>\n\
         +C 503 5.5.1 access denied; only QUIT is accepted\nC- QUIT\n+C 221 2.0.0 Bye\n= refused"
    );
    let record = at_connect(PolicyAction::Reject, nameless, &text);
    assert_eq!(verdict(&record), (PolicyAction::Reject, Some("named"), Some("fcrdns.no_ptr")));
    let no_name = NO_NAME.replacen('5', "4", 1);
    let text = format!(
        "S- 220 mx.example\n+C 421 {}\n= refused",
        no_name.replace("4.7.25 ", "4.7.25 gate.example ")
    );
    let record = at_connect(PolicyAction::Tempfail, nameless, &text);
    assert_eq!(verdict(&record), (PolicyAction::Tempfail, Some("named"), Some("fcrdns.no_ptr")));
    // A client with a confirmed name gets upstream's own greeting.
    at_connect(PolicyAction::Reject, good, &[HELLO, BYE].concat());
    let closing = "S: 554 5.3.2 not today\nS.\n= upstream_closed";
    at_connect(PolicyAction::Reject, good, closing);
}

/// Upstream rejects the client and closes while lookups are pending: the client still receives that rejection.
#[test]
fn a_held_greeting_is_sent_after_upstream_closed() {
    let mut driver =
        driver_with(vec![rule("named", FactName::Fcrdns, PolicyAction::Reject)], |profile| {
            profile.smtp.refuse_at = RefuseAt::Connect;
        });
    driver.upstream_sends(b"554 5.3.2 not today\r\n");
    driver.upstream_closes();
    assert!(driver.to_client.is_empty() && !driver.closed);
    while !driver.needs.is_empty() {
        driver.answer(0, good);
    }
    assert_eq!(driver.to_client, b"554 5.3.2 not today\r\n");
    assert!(driver.closed);
}

#[test]
fn starttls_does_not_bypass_rules() {
    let greeted = r"S: 220 mx.example
        C: EHLO client.example
        S: 250-mx.example
        S: 250 STARTTLS
        C";
    let named = rule("named", FactName::Fcrdns, PolicyAction::Reject);
    let refused = |reason: &str, rcpt: &str| {
        format!(
            r"{greeted}- STARTTLS
            +C 454 4.7.0 TLS is not available to this client: {reason}
            C: MAIL FROM:<a@a.example>
            S: 250 ok
            C- RCPT TO:<bob@b.example>
            +C {rcpt}
            C: RCPT TO:<postmaster@b.example>
            S: 250 whom everybody may ask
            {BYE}"
        )
    };
    let no_name = NO_NAME.split_once(' ').unwrap().1;
    let record = run(&refused(no_name, &format!("550 {NO_NAME}")), named.clone(), nameless);
    assert_eq!(verdict(&record), (PolicyAction::Reject, Some("named"), Some("fcrdns.no_ptr")));
    assert_eq!(record.smtp.tls, TlsState::Refused);
    let unknown = "cannot confirm the PTR name of 2001:db8::1 right now (rule \"named\")";
    run(&refused(unknown, &format!("451 4.7.25 {unknown}")), named.clone(), lame);
    // A client that passes the rule, and a rule that needs MAIL.
    let started = format!("{greeted}: STARTTLS\nS: 220 go\nC: \\x16tls\\\nS: \\x16tls\\\n");
    run(&started, named, good);
    run(&started, rule("mailable", FactName::ReturnPath, PolicyAction::Reject), good);
}

#[test]
fn a_tag_contains_the_reason_and_forged_fields_are_removed() {
    let text = r#"S: 220 mx.example
        C: EHLO client.example
        S- 250-mx.example
        S- 250-CHUNKING
        S- 250-BINARYMIME
        S- 250 PIPELINING
        +C 250-mx.example
        +C 250 PIPELINING
        C: MAIL FROM:<a@a.example>
        C| RCPT TO:<bob@b.example>
        C| DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        C-  continued
        +S Gatepost-Verdict: tag; rule="na?ed"; fact=fcrdns; reason=no_ptr
        C: Subject: x
        C- gatepost-verdict: accept
        C-     folded
        C: To: bob
        C- .Gatepost-Verdict : accept
        C: 
        C: Gatepost-Verdict: in the body
        C: .
        S: 250 queued
        C: MAIL FROM:<a@a.example>
        S: 250 ok
        C: RCPT TO:<postmaster@b.example>
        S: 250 ok
        C: DATA
        S: 354 go
        C- Gatepost-Verdict: accept
        C: Subject: y
        C: .
        S: 250 queued
        C- BDAT 3
        C- abc\
        +C 502 5.5.1 not offered here
        "#;
    let record = run(text, rule("na\"ed", FactName::Fcrdns, PolicyAction::Tag), nameless);
    assert_eq!(verdict(&record), (PolicyAction::Tag, Some("na\"ed"), Some("fcrdns.no_ptr")));
}

#[test]
fn unanswered_lookups_are_unknown_after_the_timeout() {
    let text = format!(
        r#"{HELLO}C: MAIL FROM:<a@a.example>
        S: 250 ok
        C- RCPT TO:<bob@b.example>
        T 29s
        --
        T 1s
        +C 451 4.7.25 cannot confirm the PTR name of 2001:db8::1 right now (rule "named")
        {BYE}"#
    );
    for timeouts in [Timeouts::RFC_5321, Timeouts::STRESS] {
        let mut dialogue = Dialogue::new(&text).with(rules(vec![rule(
            "named",
            FactName::Fcrdns,
            PolicyAction::Reject,
        )]));
        dialogue.timeouts = timeouts;
        let record = dialogue.run();
        assert_eq!(
            verdict(&record),
            (PolicyAction::Tempfail, Some("named"), Some("fcrdns.timeout"))
        );
    }
    // The same at connect.
    Dialogue::new("S- 220 mx.example\nT 30s\n+C 421 4.7.25 gate.example cannot confirm the PTR name of 2001:db8::1 right now (rule \"named\")\n= refused")
        .with(rules(vec![rule("named", FactName::Fcrdns, PolicyAction::Reject)]))
        .with(|profile| profile.smtp.refuse_at = RefuseAt::Connect)
        .run();
}

pub(crate) fn driver_with(list: Vec<PolicyRule>, set: impl FnOnce(&mut Profile)) -> Driver {
    let mut profile = Profile::default();
    rules(list)(&mut profile);
    set(&mut profile);
    Driver::new(profile, Timeouts::RFC_5321, "[2001:db8::1]:4", "[2001:db8::2]:25", false)
}

#[test]
fn lookups_run_during_the_dialogue_and_the_wait_is_reported() {
    let mut driver = driver_with(
        vec![
            rule("named", FactName::Fcrdns, PolicyAction::Reject),
            rule("mailable", FactName::ReturnPath, PolicyAction::Reject),
            rule("known", FactName::Recipient, PolicyAction::Reject),
        ],
        |_| (),
    );
    let client = "2001:db8::1".parse().unwrap();
    let domain = DomainName::parse("a.example").unwrap();
    assert_eq!(driver.needs, [Lookup::Reverse(client)]);
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250 a\r\n");
    driver.client_sends(b"MAIL FROM:<a@a.example>\r\n");
    assert_eq!(driver.needs[1..], [Lookup::MailExchanges(domain)]);
    driver.answer(0, good);
    assert_eq!(driver.needs.len(), 2, "the answer leads to the next lookup");
    driver.upstream_sends(b"250 a\r\n");
    let before = driver.to_upstream.len();
    driver.client_sends(b"RCPT TO:<bob@b.example>\r\nRCPT TO:<nobody@b.example>\r\n");
    assert_eq!(driver.needs.last(), Some(&Lookup::Recipient("bob@b.example".to_owned())));
    driver.wait(Duration::from_secs(2));
    while !driver.needs.is_empty() {
        driver.answer(0, good);
    }
    assert_eq!(&driver.to_upstream[before..], b"RCPT TO:<bob@b.example>\r\n");
    driver.upstream_sends(b"250 a\r\n");
    driver.finish();
    let of_policy = |event: &Event| {
        matches!(event, Event::Policy { .. } | Event::Fact { .. } | Event::Waited(_))
    };
    let reported: Vec<_> = driver.events.iter().copied().filter(of_policy).collect();
    let fact = |name, state| Event::Fact { name, state, source: Source::Zone };
    assert_eq!(
        reported,
        [
            fact(FactName::Fcrdns, FactState::True),
            fact(FactName::ReturnPath, FactState::True),
            fact(FactName::Recipient, FactState::True),
            fact(FactName::Recipient, FactState::False),
            Event::Policy { rule: 2, action: PolicyAction::Reject, mode: RuleMode::Enforce },
            Event::Waited(Duration::from_secs(2)),
        ]
    );
}

/// A client that sends no more than MAIL aims no connection of ours at anybody (rule 12 of ARCHITECTURE.md).
#[test]
fn probes_start_at_rcpt_and_address_literals_get_none() {
    for level in [ReturnPathLevel::Tcp, ReturnPathLevel::Smtp, ReturnPathLevel::Rcpt] {
        let reachable = PolicyRule {
            require: vec![Requirement { level, ..require(FactName::ReturnPath) }],
            ..rule("reachable", FactName::ReturnPath, PolicyAction::Reject)
        };
        let shadow =
            PolicyRule { mode: RuleMode::Shadow, name: "shadow".into(), ..reachable.clone() };
        let mut driver = driver_with(vec![reachable, shadow], |_| ());
        let probes = |driver: &Driver| {
            driver.requested.iter().filter(|lookup| lookup.is_probe()).cloned().collect::<Vec<_>>()
        };
        driver.upstream_sends(b"220 a\r\n");
        driver.client_sends(b"EHLO client.example\r\n");
        driver.upstream_sends(b"250 a\r\n");
        driver.client_sends(b"MAIL FROM:<a@a.example>\r\n");
        driver.upstream_sends(b"250 a\r\n");
        while !driver.needs.is_empty() {
            driver.answer(0, good);
        }
        assert_eq!(probes(&driver), [], "{level:?}");
        let (asked, before) = (driver.requested.len(), driver.to_upstream.len());
        assert!(asked >= 2, "the DNS was asked ahead: {:?}", driver.requested);
        driver.client_sends(b"RCPT TO:<bob@b.example>\r\n");
        assert_eq!(probes(&driver).len(), 1, "{level:?}");
        while !driver.needs.is_empty() {
            driver.answer(0, good);
        }
        assert_eq!(&driver.to_upstream[before..], b"RCPT TO:<bob@b.example>\r\n");
        driver.upstream_sends(b"250 a\r\n");

        driver.client_sends(b"RSET\r\n");
        driver.upstream_sends(b"250 a\r\n");
        driver.client_sends(b"MAIL FROM:<a@[203.0.113.7]>\r\n");
        driver.upstream_sends(b"250 a\r\n");
        let asked = driver.requested.len();
        driver.client_sends(b"RCPT TO:<bob@b.example>\r\n");
        assert_eq!(driver.requested.len(), asked, "{level:?}: {:?}", driver.requested);
        let replies = String::from_utf8_lossy(&driver.to_client).into_owned();
        let last = replies.lines().last().unwrap();
        let expected =
            "451 4.1.8 cannot verify <a@[203.0.113.7]>: use a domain, not an address literal";
        assert!(last.starts_with(expected), "{last}");
        driver.finish();
    }
}

#[test]
fn a_client_that_an_access_rule_rejects_causes_no_lookups() {
    let driver =
        driver_with(vec![rule("named", FactName::Fcrdns, PolicyAction::Reject)], |profile| {
            profile.access = AccessRules::new(vec![AccessRule {
                name: "listed".into(),
                family: None,
                networks: Networks::default(),
                listeners: Default::default(),
                action: PolicyAction::Reject,
            }]);
        });
    assert_eq!(driver.needs, []);
}

/// The number of lookups that a session keeps is bounded.
#[test]
fn each_of_many_recipients_gets_a_decision() {
    let mut driver =
        driver_with(vec![rule("known", FactName::Recipient, PolicyAction::Reject)], |_| ());
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"EHLO a\r\n");
    driver.upstream_sends(b"250 a\r\n");
    driver.client_sends(b"MAIL FROM:<a@a.example>\r\n");
    driver.upstream_sends(b"250 a\r\n");
    for number in 0..1500 {
        driver.client_sends(format!("RCPT TO:<b{number}@b.example>\r\n").as_bytes());
        assert_eq!(driver.needs.len(), 1);
        driver.answer(0, good);
        driver.upstream_sends(b"250 a\r\n");
    }
    assert!(driver.to_upstream.ends_with(b"RCPT TO:<b1499@b.example>\r\n"));
    assert_eq!(PolicyStage::Rcpt, FactName::Recipient.stage());
}
