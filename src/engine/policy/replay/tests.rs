//! Dialogues as a capture gives them, and what rules make of their records.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::addr::{ClientAddr, Networks, OriginalDst, Side};
use crate::engine::{Observer, Output, RefuseAt, SmtpOptions, TcpFacts};
use crate::policy::facts::{Answer, DnsRecord, DomainName, LookupResult, Reason, Source};
use crate::policy::rules::{
    Exemption, FactName, PolicyRule, PolicyRules, Requirement, RuleMode, When,
};
use crate::policy::{AccessRule, AccessRules};
use crate::smtp::Keyword;
use crate::time::Timestamp;

const CLIENT: &str = "[2001:db8::25]:40000";
const SERVER: &str = "[2001:db8::1]:25";

fn rule(name: &str, fact: FactName, otherwise: PolicyAction) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: fact.stage(),
        when: When::default(),
        exempt: Exemption::ALL.to_vec(),
        require: vec![Requirement::new(fact)],
        otherwise,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

fn profile(rules: &[PolicyRule]) -> Profile {
    let site = vec![DomainName::parse("b.example").unwrap()];
    let rules = PolicyRules::new(rules.to_vec(), Networks::default()).with_site_domains(site);
    let rules = Arc::new(rules);
    Profile { rules, ..Profile::default() }
}

fn at_connect(mut profile: Profile) -> Profile {
    profile.smtp.refuse_at = RefuseAt::Connect;
    profile
}

/// The record of `C: ` and `S: ` lines.
fn record_of(profile: &Profile, script: &str) -> SessionRecord {
    let at = Timestamp::from_nanos(1);
    let (client, server): (SocketAddr, SocketAddr) =
        (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    let (client, server) = (ClientAddr::new(client), OriginalDst::new(server));
    let mut out = Output::default();
    let mut observer = Observer::new(Arc::new(profile.clone()), client, server, at, false);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (who, text) = line.split_at(3);
        let side = if who == "C: " { Side::Client } else { Side::Server };
        observer.on_data(side, format!("{text}\r\n").as_bytes(), at, &mut out);
    }
    observer.finish(TcpFacts::default(), at, &mut out)
}

const GREETED: &str = "S: 220 mx.b.example\n C: EHLO mta.a.example\n S: 250 mx.b.example\n";

/// Mail of `sender` to each of `recipients`, all of it taken.
fn mail(sender: &str, recipients: &[&str]) -> String {
    let mut script = format!("{GREETED} C: MAIL FROM:<{sender}>\n S: 250 ok\n");
    for recipient in recipients {
        script += &format!("C: RCPT TO:<{recipient}>\n S: 250 ok\n");
    }
    script + "C: QUIT\n S: 221 bye"
}

/// The client has no name; `nowhere.example` is no domain; `nobody` is no mailbox; the rest is well.
fn world(lookup: &Lookup) -> Answer {
    match lookup {
        Lookup::Reverse(_) => Answer::NxDomain,
        Lookup::MailExchanges(domain) if domain.to_string() == "nowhere.example" => {
            Answer::NxDomain
        }
        Lookup::MailExchanges(_) => {
            let host = DomainName::parse("mx.a.example").unwrap();
            Answer::Records(vec![DnsRecord::Exchange { preference: 10, host }])
        }
        Lookup::Addresses(..) => {
            Answer::Records(vec![DnsRecord::Address("198.41.0.4".parse().unwrap())])
        }
        Lookup::Recipient(path) if path.starts_with("nobody") => {
            Answer::No(Reason::NoSuchMailbox, None)
        }
        Lookup::ReceivePath(_) => Answer::Unknown(Reason::NoProof),
        _ => Answer::Yes(None),
    }
}

fn evaluated(profile: &Profile, record: &SessionRecord) -> Evaluated {
    let mut known = Answers::default();
    for _ in 0..10 {
        let evaluated = evaluate_record(profile, record, &known);
        if evaluated.need.is_empty() {
            return evaluated;
        }
        for lookup in evaluated.need {
            assert!(known.get(&lookup).is_none(), "{lookup:?} is asked for twice");
            let answer = world(&lookup);
            known.insert(lookup, LookupResult { answer, source: Source::Dns, at: None });
        }
    }
    panic!("it is never known");
}

/// `ACTION RULE REASON` and the same of rules in shadow.
fn verdict_of(profile: &Profile, script: &str) -> String {
    let verdict = evaluated(profile, &record_of(profile, script)).verdict;
    let line = |action: PolicyAction, rule: Option<&str>, reason: Option<&str>| {
        let words = [Some(action.as_str()), rule, reason];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let mut out = line(verdict.action, verdict.rule.as_deref(), verdict.reason.as_deref());
    for shadow in &verdict.shadow {
        out += "; ";
        out += &line(shadow.action, Some(&shadow.rule), shadow.reason.as_deref());
    }
    out
}

fn named() -> PolicyRule {
    rule("named", FactName::Fcrdns, PolicyAction::Tempfail)
}

fn back() -> PolicyRule {
    rule("back", FactName::ReturnPath, PolicyAction::Reject)
}

#[test]
fn every_recipient_is_judged_and_the_strictest_counts() {
    let rules =
        profile(&[rule("known", FactName::Recipient, PolicyAction::Reject), back(), named()]);
    let good = "u@a.example";
    assert_eq!(verdict_of(&rules, &mail(good, &["bob@b.example"])), "tempfail named fcrdns.no_ptr");
    let verdict_for = |recipients: &[&str]| verdict_of(&rules, &mail(good, recipients));
    let reject = "reject known recipient.no_such_mailbox";
    assert_eq!(verdict_for(&["bob@b.example", "nobody@b.example"]), reject);
    assert_eq!(verdict_for(&["nobody@b.example", "bob@b.example"]), reject);
    let script = mail("u@nowhere.example", &["bob@b.example"]);
    assert_eq!(verdict_of(&rules, &script), "reject back return_path.nxdomain");
    // No recipient, no decision.
    assert_eq!(verdict_of(&rules, &mail(good, &[])), "accept");
    assert_eq!(verdict_of(&rules, &mail(good, &["postmaster@b.example"])), "accept");
    let bounce = mail("", &["bob@b.example"]);
    assert_eq!(verdict_of(&rules, &bounce), "tempfail named fcrdns.no_ptr");
    assert_eq!(verdict_of(&profile(&[back()]), &bounce), "accept");
    let odd = mail(good, &["bob@b.example>,<nobody@b.example"]);
    assert_eq!(verdict_of(&profile(&[]), &odd), "reject path_syntax");
    assert_eq!(
        verdict_of(&rules, &mail(good, &["postmaster@c.example"])),
        "tempfail named fcrdns.no_ptr"
    );
    assert_eq!(verdict_of(&profile(&[]), &mail(good, &["nobody@b.example"])), "accept");
}

#[test]
fn the_facts_are_those_that_the_rules_went_by_and_of_several_the_worst() {
    let rules = profile(&[back(), rule("path", FactName::ReceivePath, PolicyAction::Tempfail)]);
    let script = mail("u@a.example", &["bob@b.example"]);
    let other = mail("u@nowhere.example", &["bob@b.example"]);
    let both = script.replace("C: QUIT\n S: 221 bye", "C: RSET\n S: 250 ok\n")
        + other.strip_prefix(GREETED).unwrap();
    let facts = |script: &str| {
        let facts = evaluated(&rules, &record_of(&rules, script)).facts;
        assert_eq!((&facts.fcrdns, &facts.recipient), (&None, &None));
        assert_eq!(facts.receive_path.unwrap().reason, Some(Reason::NoProof));
        facts.return_path.unwrap().reason
    };
    assert_eq!(facts(&script), None);
    assert_eq!(facts(&both), Some(Reason::Nxdomain));
    assert_eq!(verdict_of(&rules, &both), "reject back return_path.nxdomain");
}

#[test]
fn with_refuse_at_connect_the_greeting_is_the_last_moment() {
    let rules = at_connect(profile(&[named(), back()]));
    let script = mail("u@nowhere.example", &["bob@b.example"]);
    assert_eq!(verdict_of(&rules, &script), "tempfail named fcrdns.no_ptr");
    let record = record_of(&rules, &script);
    let first = evaluate_record(&rules, &record, &Answers::default());
    assert!(!first.need.iter().any(|lookup| matches!(lookup, Lookup::MailExchanges(_))));
    // At RCPT all rules decide; the first match is named.
    let rules = profile(&[back(), named()]);
    assert_eq!(verdict_of(&rules, &script), "reject back return_path.nxdomain");
    // Without RCPT.
    assert_eq!(verdict_of(&at_connect(rules.clone()), GREETED), "tempfail named fcrdns.no_ptr");
    assert_eq!(verdict_of(&rules, GREETED), "accept");
    // An accept or tag is not enforced before the envelope.
    let tag = PolicyRule { otherwise: PolicyAction::Tag, ..named() };
    assert_eq!(verdict_of(&at_connect(profile(std::slice::from_ref(&tag))), GREETED), "accept");
    let script = mail("u@a.example", &["bob@b.example"]);
    assert_eq!(verdict_of(&at_connect(profile(&[tag])), &script), "tag named fcrdns.no_ptr");
}

#[test]
fn starttls_is_the_last_word_that_is_heard() {
    let started = format!("{GREETED} C: STARTTLS\n S: 220 go on");
    assert_eq!(verdict_of(&profile(&[named()]), &started), "tempfail named fcrdns.no_ptr");
    assert_eq!(verdict_of(&profile(&[back()]), &started), "accept");
    let refused = started.replace("220 go on", "421 4.7.25 no");
    assert_eq!(verdict_of(&profile(&[named()]), &refused), "tempfail named fcrdns.no_ptr");
    let mut hidden = profile(&[named()]);
    hidden.smtp = SmtpOptions { hide: vec![Keyword::Starttls], ..hidden.smtp };
    assert_eq!(verdict_of(&hidden, &started.replace("220 go on", "502 no")), "accept");
}

#[test]
fn rules_in_shadow_are_told_apart() {
    let shadow = |rule: PolicyRule| PolicyRule { mode: RuleMode::Shadow, ..rule };
    let rules = profile(&[shadow(named()), back()]);
    let verdict_for =
        |sender| verdict_of(&rules, &mail(sender, &["bob@b.example", "eve@b.example"]));
    assert_eq!(verdict_for("u@a.example"), "accept; tempfail named fcrdns.no_ptr");
    let expected = "reject back return_path.nxdomain; tempfail named fcrdns.no_ptr";
    assert_eq!(verdict_for("u@nowhere.example"), expected);
}

#[test]
fn what_is_refused_anyway_is_not_judged() {
    let access = AccessRule {
        name: "listed".into(),
        family: None,
        networks: Networks::new(["2001:db8::/32".parse().unwrap()]),
        listeners: Default::default(),
        action: PolicyAction::Tempfail,
    };
    let mut rules = profile(&[rule("known", FactName::Recipient, PolicyAction::Reject)]);
    rules.access = AccessRules::new(vec![access]);
    let script = mail("u@a.example", &["nobody@b.example"]);
    assert_eq!(verdict_of(&rules, &script), "tempfail listed access_tempfail");
    assert_eq!(evaluate_record(&rules, &record_of(&rules, &script), &Answers::default()).need, []);
}

#[test]
fn a_limit_that_is_stricter_stays_the_verdict() {
    let mut rules = profile(&[named()]);
    rules.limits.commands = 2;
    let script = mail("u@a.example", &["bob@b.example"]);
    assert_eq!(verdict_of(&rules, &script), "tempfail limit_commands");
    let stricter = PolicyRule { otherwise: PolicyAction::Reject, ..named() };
    let mut rules = profile(&[stricter]);
    rules.smtp.bare_newlines = crate::engine::BareNewlines::Reject;
    assert_eq!(verdict_of(&rules, &script), "reject named fcrdns.no_ptr");
}
