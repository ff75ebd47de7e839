//! Rules and their decisions, in short text forms.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::addr::{Family, Networks};
use crate::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, FactState, Lookup, LookupResult, Reason, Source,
};
use crate::policy::{ListenerCondition, PolicyAction};

const CLIENT: &str = "2001:db8::25";

fn require(fact: FactName) -> Requirement {
    Requirement::new(fact)
}

/// Enforced, without exemptions, from the first stage at which its facts are known.
fn rule(name: &str, facts: &[FactName], otherwise: PolicyAction) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: facts.iter().map(|fact| fact.stage()).max().unwrap_or_default(),
        when: When::default(),
        exempt: Vec::new(),
        require: facts.iter().copied().map(require).collect(),
        otherwise,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

fn subject() -> Subject<'static> {
    Subject {
        client: CLIENT.parse().unwrap(),
        destination: "[2001:db8::1]:25".parse().unwrap(),
        listener: Some("mx"),
        helo: Some("mta.a.example"),
        sender: Some("u@a.example"),
        recipient: Some("bob@b.example"),
        message: None,
        tls: false,
        authenticated: false,
    }
}

fn result(answer: Answer) -> LookupResult {
    LookupResult { answer, source: Source::Zone, at: None }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// The answer to `lookup`: positive, unless one of `faults` concerns it.
fn answer(lookup: &Lookup, faults: &[&str]) -> Answer {
    let has = |fault: &str| faults.contains(&fault);
    let client: IpAddr = CLIENT.parse().unwrap();
    match lookup {
        Lookup::Reverse(_) if has("no ptr") => Answer::NxDomain,
        Lookup::Reverse(_) if has("ptr unknown") => Answer::Unknown(Reason::Servfail),
        Lookup::Reverse(_) => Answer::Records(vec![DnsRecord::Name(name("mta.a.example"))]),
        Lookup::Addresses(..) if has("no address") => Answer::NoData,
        Lookup::Addresses(_, Family::Ipv6) => Answer::Records(vec![DnsRecord::Address(client)]),
        Lookup::Addresses(_, Family::Ipv4) => Answer::NoData,
        Lookup::MailExchanges(_) if has("no domain") => Answer::NxDomain,
        Lookup::MailExchanges(_) => Answer::NoData,
        Lookup::Recipient(_) if has("no mailbox") => Answer::No(Reason::NoSuchMailbox, None),
        Lookup::ReceivePath(_) if has("path unknown") => Answer::Unknown(Reason::NoProof),
        Lookup::ReceivePath(_) if has("no path") => Answer::No(Reason::NotReached, None),
        _ => Answer::Yes(None),
    }
}

/// Decides with all needed answers; returns the decision and the lookups.
fn settle(
    rules: &[PolicyRule],
    stage: PolicyStage,
    subject: &Subject<'_>,
    faults: &[&str],
) -> (Decision, Vec<Lookup>) {
    let rules = PolicyRules::new(rules.to_vec(), Networks::default())
        .with_site_domains(vec![name("b.example"), name("c.example")]);
    let mut known = Answers::default();
    let mut lookups = Vec::new();
    loop {
        let decision = rules.decide(stage, subject, &known);
        if decision.need.is_empty() {
            return (decision, lookups);
        }
        for lookup in decision.need {
            assert!(known.get(&lookup).is_none(), "{lookup:?} was needed twice");
            known.insert(lookup.clone(), result(answer(&lookup, faults)));
            lookups.push(lookup);
        }
    }
}

/// `NAME ACTION REASON`; `none` if no rule matched.
fn describe(matched: Option<&RuleMatch>) -> String {
    matched.map_or_else(
        || String::from("none"),
        |matched| {
            let reason = matched.reason().unwrap_or_default();
            format!("{} {} {reason}", matched.rule, matched.action).trim_end().to_owned()
        },
    )
}

fn decide(rules: &[PolicyRule], faults: &[&str]) -> String {
    decide_for(rules, &subject(), faults)
}

fn decide_for(rules: &[PolicyRule], subject: &Subject<'_>, faults: &[&str]) -> String {
    let (decision, _) = settle(rules, PolicyStage::Rcpt, subject, faults);
    describe(decision.enforced.unwrap().as_ref())
}

#[test]
fn the_first_match_decides() {
    let fcrdns = rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail);
    let path = rule("back", &[FactName::ReturnPath], PolicyAction::Reject);
    let rules = [fcrdns.clone(), path.clone()];
    assert_eq!(decide(&rules, &[]), "none");
    assert_eq!(decide(&rules, &["no ptr"]), "named tempfail fcrdns.no_ptr");
    assert_eq!(decide(&rules, &["no domain"]), "back reject return_path.nxdomain");
    assert_eq!(decide(&rules, &["no ptr", "no domain"]), "named tempfail fcrdns.no_ptr");
    let rules = [path, fcrdns];
    assert_eq!(decide(&rules, &["no ptr", "no domain"]), "back reject return_path.nxdomain");
}

#[test]
fn every_requirement_must_hold() {
    let both = rule("both", &[FactName::Fcrdns, FactName::ReturnPath], PolicyAction::Reject);
    assert_eq!(decide(std::slice::from_ref(&both), &[]), "none");
    assert_eq!(decide(std::slice::from_ref(&both), &["no ptr"]), "both reject fcrdns.no_ptr");
    // A failure takes precedence over an earlier unknown.
    let found = decide(std::slice::from_ref(&both), &["ptr unknown", "no domain"]);
    assert_eq!(found, "both reject return_path.nxdomain");
    assert_eq!(decide(&[both], &["ptr unknown"]), "both tempfail fcrdns.servfail");
}

#[test]
fn an_accepting_rule_decides() {
    let ours = PolicyRule {
        when: When {
            networks: Networks::new(["2001:db8::/32".parse().unwrap()]),
            ..When::default()
        },
        ..rule("ours", &[], PolicyAction::Accept)
    };
    let named = rule("named", &[FactName::Fcrdns], PolicyAction::Reject);
    let rules = [ours, named];
    let (decision, lookups) = settle(&rules, PolicyStage::Rcpt, &subject(), &["no ptr"]);
    assert_eq!(
        (describe(decision.enforced.unwrap().as_ref()).as_str(), lookups),
        ("ours accept", vec![])
    );
    let other = Subject { client: "2001:db9::1".parse().unwrap(), ..subject() };
    assert_eq!(decide_for(&rules, &other, &["no ptr"]), "named reject fcrdns.no_ptr");
}

#[test]
fn on_unknown_accept_defers_to_later_rules() {
    let lenient = PolicyRule {
        on_unknown: PolicyAction::Accept,
        ..rule("named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let back = rule("back", &[FactName::ReturnPath], PolicyAction::Tempfail);
    let rules = [lenient, back];
    assert_eq!(decide(&rules, &["ptr unknown"]), "none");
    let found = decide(&rules, &["ptr unknown", "no domain"]);
    assert_eq!(found, "back tempfail return_path.nxdomain");
    assert_eq!(decide(&rules, &["no ptr"]), "named reject fcrdns.no_ptr");
}

#[test]
fn exemptions() {
    let all = PolicyRule {
        exempt: Exemption::ALL.to_vec(),
        ..rule("named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let none = rule("named", &[FactName::Fcrdns], PolicyAction::Reject);
    let to = |recipient| Subject { recipient: Some(recipient), ..subject() };
    for exempt in [
        to("postmaster"),
        to("PostMaster@b.example"),
        to("postmaster@B.Example"),
        to("abuse@c.example"),
        Subject { authenticated: true, ..subject() },
    ] {
        assert_eq!(
            decide_for(std::slice::from_ref(&all), &exempt, &["no ptr"]),
            "none",
            "{exempt:?}"
        );
        let found = decide_for(std::slice::from_ref(&none), &exempt, &["no ptr"]);
        assert_eq!(found, "named reject fcrdns.no_ptr", "{exempt:?}");
    }
    for other in [
        Subject { sender: Some(""), ..subject() },
        to("abuse"),
        to("postmaster@elsewhere.example"),
        to("postmaster@sub.b.example"),
        to("abuse@[192.0.2.1]"),
        to("postmaster@"),
        to("postmaster@<victim%b.example>"),
        to("\"postmaster\"@b.example"),
        to("postmaster%b.example"),
        to("postmasters@b.example"),
        to("a.postmaster@b.example"),
        to("postmaster@a@b.example"),
        to("postmaste\u{e9}@b.example"),
        to("postm"),
        to(""),
    ] {
        let found = decide_for(std::slice::from_ref(&all), &other, &["no ptr"]);
        assert_eq!(found, "named reject fcrdns.no_ptr", "{other:?}");
    }
    // The null sender passes the fact about the sender, and no other.
    let bounce = Subject { sender: Some(""), ..subject() };
    let back = rule("back", &[FactName::ReturnPath], PolicyAction::Reject);
    assert_eq!(decide_for(&[back], &bounce, &["no domain"]), "none");
    // Before the envelope is known, its exemptions do not apply.
    let early = Subject { sender: None, recipient: None, ..subject() };
    let (decision, _) = settle(&[all], PolicyStage::Connect, &early, &["no ptr"]);
    assert_eq!(describe(decision.enforced.unwrap().as_ref()), "named reject fcrdns.no_ptr");
}

#[test]
fn conditions() {
    let matches = |when: When, subject: &Subject<'_>| {
        decide_for(&[PolicyRule { when, ..rule("r", &[], PolicyAction::Tempfail) }], subject, &[])
            != "none"
    };
    let any = When::default;
    let v4 = Subject { client: "::ffff:192.0.2.1".parse().unwrap(), ..subject() };
    let six = || When { family: Some(Family::Ipv6), ..any() };
    assert!(matches(six(), &subject()) && !matches(six(), &v4));
    let listeners = |names: &[&str], addresses: &[&str]| When {
        listeners: ListenerCondition {
            names: names.iter().map(|&name| name.into()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        },
        ..any()
    };
    let here = || listeners(&[], &["[2001:db8::1]:25"]);
    let named = || listeners(&["mx"], &[]);
    let there = Subject {
        destination: "[2001:db8::1]:587".parse().unwrap(),
        listener: Some("submission"),
        ..subject()
    };
    assert!(matches(here(), &subject()) && !matches(here(), &there));
    assert!(matches(named(), &subject()) && !matches(named(), &there));
    assert!(!matches(named(), &Subject { listener: None, ..subject() }), "not known");
    let either = || listeners(&["mx"], &["[2001:db8::1]:587"]);
    assert!(matches(either(), &subject()) && matches(either(), &there));
    let domains = |exact: &[&str], below: &[&str]| Domains {
        exact: exact.iter().copied().map(name).collect(),
        below: below.iter().copied().map(name).collect(),
    };
    let from = |domains| When { sender: domains, ..any() };
    let by = |sender| Subject { sender: Some(sender), ..subject() };
    assert!(matches(from(domains(&["a.example"], &[])), &by("u@A.EXAMPLE")));
    assert!(!matches(from(domains(&["a.example"], &[])), &by("u@x.a.example")));
    assert!(matches(from(domains(&[], &["a.example"])), &by("u@x.a.example")));
    assert!(!matches(from(domains(&[], &["a.example"])), &by("u@a.example")));
    assert!(!matches(from(domains(&["a.example"], &["a.example"])), &by("u@[192.0.2.1]")));
    let helo = When { helo: domains(&[], &["a.example"]), ..any() };
    assert!(matches(helo.clone(), &subject()));
    assert!(!matches(helo, &Subject { helo: Some("[192.0.2.1]"), ..subject() }));
    let to = When { recipient: domains(&["b.example"], &[]), ..any() };
    assert!(matches(to.clone(), &subject()));
    assert!(!matches(to, &Subject { recipient: Some("postmaster"), ..subject() }));
    let authenticated = Subject { authenticated: true, ..subject() };
    assert!(matches(When { auth: Some(false), ..any() }, &subject()));
    assert!(!matches(When { auth: Some(false), ..any() }, &authenticated));
    let tls = Subject { tls: true, ..subject() };
    assert!(matches(When { tls: Some(true), ..any() }, &tls) && matches(any(), &tls));
    assert!(!matches(When { tls: Some(true), ..any() }, &subject()));
}

#[test]
fn a_rule_is_not_evaluated_before_its_stage() {
    let rules = [
        rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail),
        rule("back", &[FactName::ReturnPath], PolicyAction::Reject),
    ];
    let early = Subject { helo: None, sender: None, recipient: None, ..subject() };
    let (decision, lookups) = settle(&rules, PolicyStage::Connect, &early, &["no domain"]);
    assert_eq!(decision.enforced, Some(None));
    assert!(!lookups.iter().any(|lookup| matches!(lookup, Lookup::MailExchanges(_))));
}

#[test]
fn a_shadow_rule_is_recorded_and_changes_nothing() {
    let shadow = |name, facts: &[FactName], otherwise| PolicyRule {
        mode: RuleMode::Shadow,
        ..rule(name, facts, otherwise)
    };
    let rules = [
        shadow("try named", &[FactName::Fcrdns], PolicyAction::Reject),
        rule("back", &[FactName::ReturnPath], PolicyAction::Tempfail),
        shadow("never seen", &[], PolicyAction::Reject),
    ];
    let (decision, _) = settle(&rules, PolicyStage::Rcpt, &subject(), &["no ptr", "no domain"]);
    let shadows: Vec<_> = decision.shadow.iter().map(|matched| describe(Some(matched))).collect();
    assert_eq!(shadows, ["try named reject fcrdns.no_ptr"]);
    let enforced = decision.enforced.unwrap();
    assert_eq!(describe(enforced.as_ref()), "back tempfail return_path.nxdomain");
    let (decision, _) = settle(&rules, PolicyStage::Rcpt, &subject(), &["no ptr"]);
    assert_eq!(decision.enforced, Some(None));
    assert_eq!(decision.shadow.len(), 2);
}

#[test]
fn the_decision_does_not_wait_for_shadow_rules() {
    let shadow = PolicyRule {
        mode: RuleMode::Shadow,
        ..rule("try named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let rules = PolicyRules::new(vec![shadow], Networks::default());
    let decision = rules.decide(PolicyStage::Rcpt, &subject(), &Answers::default());
    assert_eq!(decision.enforced, Some(None));
    assert_eq!(decision.need, [Lookup::Reverse(CLIENT.parse().unwrap())]);
}

#[test]
fn lookups_without_influence_are_not_needed() {
    let rules = [
        rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail),
        rule("nobody", &[], PolicyAction::Reject),
        rule("back", &[FactName::ReturnPath, FactName::Recipient], PolicyAction::Reject),
    ];
    let (decision, lookups) = settle(&rules, PolicyStage::Rcpt, &subject(), &[]);
    assert_eq!(describe(decision.enforced.unwrap().as_ref()), "nobody reject");
    let needed = |is: fn(&Lookup) -> bool| lookups.iter().any(is);
    assert!(needed(|lookup| matches!(lookup, Lookup::Reverse(_))));
    assert!(!needed(|lookup| matches!(lookup, Lookup::MailExchanges(_) | Lookup::Recipient(_))));
    // A rule that fails on one fact does not wait for its others.
    let rules = PolicyRules::new(
        vec![rule("both", &[FactName::ReceivePath, FactName::Fcrdns], PolicyAction::Tempfail)],
        Networks::default(),
    );
    let mut known = Answers::default();
    let no = Answer::No(Reason::NotReached, None);
    known.insert(Lookup::ReceivePath(Family::Ipv6), result(no));
    let decision = rules.decide(PolicyStage::Connect, &subject(), &known);
    assert_eq!(decision.need, []);
    assert_eq!(
        describe(decision.enforced.unwrap().as_ref()),
        "both tempfail receive_path.not_reached"
    );
}

fn any_action() -> impl Strategy<Value = PolicyAction> {
    prop::sample::select(vec![
        PolicyAction::Accept,
        PolicyAction::Tag,
        PolicyAction::Tempfail,
        PolicyAction::Reject,
    ])
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let facts = prop::collection::vec(prop::sample::select(FactName::ALL.to_vec()), 0..4);
    let lenient =
        prop::sample::select(vec![PolicyAction::Accept, PolicyAction::Tag, PolicyAction::Tempfail]);
    (facts, any_action(), lenient, any::<bool>(), any::<bool>()).prop_map(
        |(facts, otherwise, on_unknown, shadow, exempt)| PolicyRule {
            on_unknown,
            mode: if shadow { RuleMode::Shadow } else { RuleMode::Enforce },
            exempt: if exempt { Exemption::ALL.to_vec() } else { Vec::new() },
            ..rule("r", &facts, otherwise)
        },
    )
}

fn any_rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    prop::collection::vec(any_rule(), 0..6).prop_map(|mut rules| {
        for (n, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("r{n}").into();
        }
        rules
    })
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let client: IpAddr = CLIENT.parse().unwrap();
    prop::sample::select(vec![
        Answer::Records(vec![DnsRecord::Address(client)]),
        Answer::Records(vec![DnsRecord::Name(name("mta.a.example"))]),
        Answer::NoData,
        Answer::NxDomain,
        Answer::Yes(None),
        Answer::No(Reason::NoSuchMailbox, None),
        Answer::Unknown(Reason::Timeout),
        Answer::Unknown(Reason::RateLimited),
    ])
}

proptest! {
    /// For any rules and answers: the decision is reached, needs no lookup twice, never rejects for an unknown fact, and is
    /// not revised by later answers.
    #[test]
    fn a_decision_is_reached_and_kept(
        rules in any_rules(),
        answers in prop::collection::vec(any_answer(), 1..20),
        stage in prop::sample::select(PolicyStage::ALL.to_vec()),
        one_by_one in any::<bool>(),
    ) {
        let rules = PolicyRules::new(rules, Networks::default());
        let subject = subject();
        let answers = RefCell::new(answers.into_iter().cycle());
        let mut known = Answers::default();
        let mut early: Option<Option<RuleMatch>> = None;
        for _ in 0..200 {
            let decision = rules.decide(stage, &subject, &known);
            let needed: BTreeSet<_> = decision.need.iter().cloned().collect();
            prop_assert_eq!(needed.len(), decision.need.len(), "needed twice at once");
            for matched in decision.shadow.iter().chain(decision.enforced.iter().flatten()) {
                let unknown =
                    matches!(&matched.cause, Some((_, fact)) if fact.state == FactState::Unknown);
                prop_assert!(!unknown || matched.action < PolicyAction::Reject);
            }
            if let Some(early) = &early {
                prop_assert_eq!(decision.enforced.as_ref(), Some(early));
            }
            early = decision.enforced.clone();
            if decision.need.is_empty() {
                prop_assert!(early.is_some());
                break;
            }
            let count = if one_by_one { 1 } else { decision.need.len() };
            for lookup in decision.need.into_iter().take(count) {
                prop_assert!(known.get(&lookup).is_none(), "needed again");
                let answer = answers.borrow_mut().next().unwrap();
                known.insert(lookup, result(answer));
            }
        }
        prop_assert!(early.is_some(), "never decided");
    }
}
