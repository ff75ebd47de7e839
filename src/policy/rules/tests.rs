//! Rules and what they decide, as a person reads them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::addr::Family;
use crate::policy::facts::{
    Answer, DnsRecord, DomainName, FamilyRequirement, LookupResult, ReturnPathLevel, Source,
};

const CLIENT: &str = "2001:db8::25";

fn require(fact: FactName) -> Requirement {
    Requirement { fact, level: ReturnPathLevel::Dns, over: FamilyRequirement::Any }
}

/// Enforced, with no exemption, from the moment on that what it requires is known.
fn rule(name: &str, facts: &[FactName], otherwise: PolicyAction) -> PolicyRule {
    PolicyRule {
        name: name.into(),
        at: facts.iter().map(|fact| fact.moment()).max().unwrap_or_default(),
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
        listener: "[2001:db8::1]:25".parse().unwrap(),
        helo: Some("mta.a.example"),
        sender: Some("u@a.example"),
        recipient: Some("bob@b.example"),
        tls: false,
        authenticated: false,
    }
}

fn answered(answer: Answer) -> LookupResult {
    LookupResult { answer, source: Source::Zone, at: None }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// What a resolver and the others would answer; `no ptr` and the like are lookups that fail.
fn world(lookup: &Lookup, is: &[&str]) -> Answer {
    let says = |word: &str| is.contains(&word);
    let client: IpAddr = CLIENT.parse().unwrap();
    match lookup {
        Lookup::Reverse(_) if says("no ptr") => Answer::NxDomain,
        Lookup::Reverse(_) if says("ptr unknown") => Answer::Unknown(Reason::Servfail),
        Lookup::Reverse(_) => Answer::Records(vec![DnsRecord::Name(name("mta.a.example"))]),
        Lookup::Addresses(..) if says("no address") => Answer::NoData,
        Lookup::Addresses(_, Family::Ipv6) => Answer::Records(vec![DnsRecord::Address(client)]),
        Lookup::Addresses(_, Family::Ipv4) => Answer::NoData,
        Lookup::MailExchanges(_) if says("no domain") => Answer::NxDomain,
        Lookup::MailExchanges(_) => Answer::NoData,
        Lookup::Recipient(_) if says("no mailbox") => Answer::No(Reason::NoSuchMailbox, None),
        Lookup::ReceivePath(_) if says("path unknown") => Answer::Unknown(Reason::NoProof),
        Lookup::ReceivePath(_) if says("no path") => Answer::No(Reason::NotReached, None),
        _ => Answer::Yes(None),
    }
}

/// Asks and answers until all is known: what is decided then, and what was asked.
fn settle(
    rules: &[PolicyRule],
    moment: PolicyStage,
    subject: &Subject<'_>,
    is: &[&str],
) -> (Decision, Vec<Lookup>) {
    let rules = PolicyRules::new(rules.to_vec(), Networks::default());
    let mut known = Answers::default();
    let mut asked = Vec::new();
    loop {
        let decision = rules.decide(moment, subject, &known);
        if decision.need.is_empty() {
            return (decision, asked);
        }
        for lookup in decision.need {
            assert!(known.get(&lookup).is_none(), "{lookup:?} was answered already");
            known.insert(lookup.clone(), answered(world(&lookup, is)));
            asked.push(lookup);
        }
    }
}

/// `NAME ACTION REASON`; `none` if no rule fired.
fn told(fired: Option<&RuleMatch>) -> String {
    fired.map_or_else(
        || String::from("none"),
        |fired| {
            let reason = fired.reason().unwrap_or_default();
            format!("{} {} {reason}", fired.rule, fired.action).trim_end().to_owned()
        },
    )
}

fn ruling(rules: &[PolicyRule], is: &[&str]) -> String {
    of(rules, &subject(), is)
}

fn of(rules: &[PolicyRule], subject: &Subject<'_>, is: &[&str]) -> String {
    let (decision, _) = settle(rules, PolicyStage::Rcpt, subject, is);
    told(decision.ruling.unwrap().as_ref())
}

#[test]
fn the_first_that_fires_wins() {
    let fcrdns = rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail);
    let path = rule("back", &[FactName::ReturnPath], PolicyAction::Reject);
    let rules = [fcrdns.clone(), path.clone()];
    assert_eq!(ruling(&rules, &[]), "none");
    assert_eq!(ruling(&rules, &["no ptr"]), "named tempfail fcrdns.no_ptr");
    assert_eq!(ruling(&rules, &["no domain"]), "back reject return_path.nxdomain");
    assert_eq!(ruling(&rules, &["no ptr", "no domain"]), "named tempfail fcrdns.no_ptr");
    let rules = [path, fcrdns];
    assert_eq!(ruling(&rules, &["no ptr", "no domain"]), "back reject return_path.nxdomain");
}

#[test]
fn all_that_a_rule_requires_must_hold() {
    let both = rule("both", &[FactName::Fcrdns, FactName::ReturnPath], PolicyAction::Reject);
    assert_eq!(ruling(std::slice::from_ref(&both), &[]), "none");
    assert_eq!(ruling(std::slice::from_ref(&both), &["no ptr"]), "both reject fcrdns.no_ptr");
    // What fails counts more than what is unknown, also when that comes first.
    let told = ruling(std::slice::from_ref(&both), &["ptr unknown", "no domain"]);
    assert_eq!(told, "both reject return_path.nxdomain");
    assert_eq!(ruling(&[both], &["ptr unknown"]), "both tempfail fcrdns.servfail");
}

#[test]
fn a_rule_that_accepts_ends_the_search() {
    let ours = PolicyRule {
        when: When {
            networks: Networks::new(["2001:db8::/32".parse().unwrap()]),
            ..When::default()
        },
        ..rule("ours", &[], PolicyAction::Accept)
    };
    let named = rule("named", &[FactName::Fcrdns], PolicyAction::Reject);
    let rules = [ours, named];
    let (decision, asked) = settle(&rules, PolicyStage::Rcpt, &subject(), &["no ptr"]);
    assert_eq!((told(decision.ruling.unwrap().as_ref()).as_str(), asked), ("ours accept", vec![]));
    let other = Subject { client: "2001:db9::1".parse().unwrap(), ..subject() };
    assert_eq!(of(&rules, &other, &["no ptr"]), "named reject fcrdns.no_ptr");
}

#[test]
fn unknown_that_is_accepted_leaves_it_to_the_rules_after_it() {
    let lenient = PolicyRule {
        on_unknown: PolicyAction::Accept,
        ..rule("named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let back = rule("back", &[FactName::ReturnPath], PolicyAction::Tempfail);
    let rules = [lenient, back];
    assert_eq!(ruling(&rules, &["ptr unknown"]), "none");
    let told = ruling(&rules, &["ptr unknown", "no domain"]);
    assert_eq!(told, "back tempfail return_path.nxdomain");
    assert_eq!(ruling(&rules, &["no ptr"]), "named reject fcrdns.no_ptr");
}

#[test]
fn those_who_are_exempt_are_left_alone() {
    let all = PolicyRule {
        exempt: Exemption::ALL.to_vec(),
        ..rule("named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let none = rule("named", &[FactName::Fcrdns], PolicyAction::Reject);
    let to = |recipient| Subject { recipient: Some(recipient), ..subject() };
    for exempt in [
        Subject { sender: Some(""), ..subject() },
        to("postmaster"),
        to("PostMaster@b.example"),
        to("abuse@b.example"),
        Subject { authenticated: true, ..subject() },
    ] {
        assert_eq!(of(std::slice::from_ref(&all), &exempt, &["no ptr"]), "none", "{exempt:?}");
        let told = of(std::slice::from_ref(&none), &exempt, &["no ptr"]);
        assert_eq!(told, "named reject fcrdns.no_ptr", "{exempt:?}");
    }
    for other in [
        to("postmasters@b.example"),
        to("a.postmaster@b.example"),
        to("postmaster@a@b.example"),
        to("postmaste\u{e9}@b.example"),
        to("postm"),
        to(""),
    ] {
        let told = of(std::slice::from_ref(&all), &other, &["no ptr"]);
        assert_eq!(told, "named reject fcrdns.no_ptr", "{other:?}");
    }
    // Before the envelope nobody is exempt for it.
    let early = Subject { sender: None, recipient: None, ..subject() };
    let (decision, _) = settle(&[all], PolicyStage::Connect, &early, &["no ptr"]);
    assert_eq!(told(decision.ruling.unwrap().as_ref()), "named reject fcrdns.no_ptr");
}

#[test]
fn conditions_say_whom_a_rule_is_about() {
    let fires = |when: When, subject: &Subject<'_>| {
        of(&[PolicyRule { when, ..rule("r", &[], PolicyAction::Tempfail) }], subject, &[]) != "none"
    };
    let any = When::default;
    let v4 = Subject { client: "::ffff:192.0.2.1".parse().unwrap(), ..subject() };
    let six = || When { family: Some(Family::Ipv6), ..any() };
    assert!(fires(six(), &subject()) && !fires(six(), &v4));
    let here = || When { listeners: vec!["[2001:db8::1]:25".parse().unwrap()], ..any() };
    let there = Subject { listener: "[2001:db8::1]:587".parse().unwrap(), ..subject() };
    assert!(fires(here(), &subject()) && !fires(here(), &there));
    let domains = |exact: &[&str], below: &[&str]| Domains {
        exact: exact.iter().copied().map(name).collect(),
        below: below.iter().copied().map(name).collect(),
    };
    let from = |domains| When { sender: domains, ..any() };
    let by = |sender| Subject { sender: Some(sender), ..subject() };
    assert!(fires(from(domains(&["a.example"], &[])), &by("u@A.EXAMPLE")));
    assert!(!fires(from(domains(&["a.example"], &[])), &by("u@x.a.example")));
    assert!(fires(from(domains(&[], &["a.example"])), &by("u@x.a.example")));
    assert!(!fires(from(domains(&[], &["a.example"])), &by("u@a.example")));
    assert!(!fires(from(domains(&["a.example"], &["a.example"])), &by("u@[192.0.2.1]")));
    let helo = When { helo: domains(&[], &["a.example"]), ..any() };
    assert!(fires(helo.clone(), &subject()));
    assert!(!fires(helo, &Subject { helo: Some("[192.0.2.1]"), ..subject() }));
    let to = When { recipient: domains(&["b.example"], &[]), ..any() };
    assert!(fires(to.clone(), &subject()));
    assert!(!fires(to, &Subject { recipient: Some("postmaster"), ..subject() }));
    let authenticated = Subject { authenticated: true, ..subject() };
    assert!(fires(When { auth: Some(false), ..any() }, &subject()));
    assert!(!fires(When { auth: Some(false), ..any() }, &authenticated));
    let tls = Subject { tls: true, ..subject() };
    assert!(fires(When { tls: Some(true), ..any() }, &tls) && fires(any(), &tls));
    assert!(!fires(When { tls: Some(true), ..any() }, &subject()));
}

#[test]
fn a_rule_waits_for_its_moment() {
    let rules = [
        rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail),
        rule("back", &[FactName::ReturnPath], PolicyAction::Reject),
    ];
    let early = Subject { helo: None, sender: None, recipient: None, ..subject() };
    let (decision, asked) = settle(&rules, PolicyStage::Connect, &early, &["no domain"]);
    assert_eq!(decision.ruling, Some(None));
    assert!(!asked.iter().any(|lookup| matches!(lookup, Lookup::MailExchanges(_))));
}

#[test]
fn a_rule_in_shadow_is_recorded_and_changes_nothing() {
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
    let shadows: Vec<_> = decision.shadow.iter().map(|fired| told(Some(fired))).collect();
    assert_eq!(shadows, ["try named reject fcrdns.no_ptr"]);
    let ruling = decision.ruling.unwrap();
    assert_eq!(told(ruling.as_ref()), "back tempfail return_path.nxdomain");
    let (decision, _) = settle(&rules, PolicyStage::Rcpt, &subject(), &["no ptr"]);
    assert_eq!(decision.ruling, Some(None));
    assert_eq!(decision.shadow.len(), 2);
}

#[test]
fn the_ruling_does_not_wait_for_rules_in_shadow() {
    let shadow = PolicyRule {
        mode: RuleMode::Shadow,
        ..rule("try named", &[FactName::Fcrdns], PolicyAction::Reject)
    };
    let rules = PolicyRules::new(vec![shadow], Networks::default());
    let decision = rules.decide(PolicyStage::Rcpt, &subject(), &Answers::default());
    assert_eq!(decision.ruling, Some(None));
    assert_eq!(decision.need, [Lookup::Reverse(CLIENT.parse().unwrap())]);
}

#[test]
fn what_could_change_nothing_is_not_asked_for() {
    let rules = [
        rule("named", &[FactName::Fcrdns], PolicyAction::Tempfail),
        rule("nobody", &[], PolicyAction::Reject),
        rule("back", &[FactName::ReturnPath, FactName::Recipient], PolicyAction::Reject),
    ];
    let (decision, asked) = settle(&rules, PolicyStage::Rcpt, &subject(), &[]);
    assert_eq!(told(decision.ruling.unwrap().as_ref()), "nobody reject");
    let asked_for = |is: fn(&Lookup) -> bool| asked.iter().any(is);
    assert!(asked_for(|lookup| matches!(lookup, Lookup::Reverse(_))));
    assert!(!asked_for(|lookup| matches!(lookup, Lookup::MailExchanges(_) | Lookup::Recipient(_))));
    // A rule that fails on one fact does not wait for its others.
    let rules = PolicyRules::new(
        vec![rule("both", &[FactName::ReceivePath, FactName::Fcrdns], PolicyAction::Tempfail)],
        Networks::default(),
    );
    let mut known = Answers::default();
    let no = Answer::No(Reason::NotReached, None);
    known.insert(Lookup::ReceivePath(Family::Ipv6), answered(no));
    let decision = rules.decide(PolicyStage::Connect, &subject(), &known);
    assert_eq!(decision.need, []);
    assert_eq!(told(decision.ruling.unwrap().as_ref()), "both tempfail receive_path.not_reached");
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
    /// Whatever rules and answers: it ends, asks for nothing twice, never rejects for what is unknown, and what was decided
    /// before all was known stays decided.
    #[test]
    fn a_decision_is_reached_and_kept(
        rules in any_rules(),
        answers in prop::collection::vec(any_answer(), 1..20),
        moment in prop::sample::select(PolicyStage::ALL.to_vec()),
        one_by_one in any::<bool>(),
    ) {
        let rules = PolicyRules::new(rules, Networks::default());
        let subject = subject();
        let answers = RefCell::new(answers.into_iter().cycle());
        let mut known = Answers::default();
        let mut early: Option<Option<RuleMatch>> = None;
        for _ in 0..200 {
            let decision = rules.decide(moment, &subject, &known);
            let needed: BTreeSet<_> = decision.need.iter().cloned().collect();
            prop_assert_eq!(needed.len(), decision.need.len(), "asked twice at once");
            for fired in decision.shadow.iter().chain(decision.ruling.iter().flatten()) {
                let unknown =
                    matches!(&fired.cause, Some((_, fact)) if fact.state == FactState::Unknown);
                prop_assert!(!unknown || fired.action < PolicyAction::Reject);
            }
            if let Some(early) = &early {
                prop_assert_eq!(decision.ruling.as_ref(), Some(early));
            }
            early = decision.ruling.clone();
            if decision.need.is_empty() {
                prop_assert!(early.is_some());
                break;
            }
            let count = if one_by_one { 1 } else { decision.need.len() };
            for lookup in decision.need.into_iter().take(count) {
                prop_assert!(known.get(&lookup).is_none(), "asked again");
                let answer = answers.borrow_mut().next().unwrap();
                known.insert(lookup, answered(answer));
            }
        }
        prop_assert!(early.is_some(), "never decided");
    }
}
