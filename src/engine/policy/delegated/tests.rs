//! Questions of a mail server, and the record of them.

use std::net::SocketAddr;

use super::*;
use crate::addr::Networks;
use crate::engine::{MessageProgress, evaluate_record};
use crate::policy::facts::{Answer, PresentedCertificate, Source};
use crate::policy::rules::{Exemption, FactName, PolicyRules, Requirement, RuleMode, When};
use crate::policy::{AccessRule, AccessRules, ListenerCondition};

fn rule(name: &str, fact: Option<FactName>, otherwise: PolicyAction, mode: RuleMode) -> PolicyRule {
    let require = fact.map(Requirement::new);
    PolicyRule {
        name: name.into(),
        at: fact.map_or(PolicyStage::Connect, FactName::stage),
        when: When::default(),
        exempt: Exemption::ALL.to_vec(),
        require: require.into_iter().collect(),
        otherwise,
        on_unknown: PolicyAction::Tempfail,
        mode,
        url: None,
    }
}

fn profile(rules: &[PolicyRule]) -> Arc<Profile> {
    let rules = Arc::new(PolicyRules::new(rules.to_vec(), Networks::default()));
    Arc::new(Profile { rules, ..Profile::default() })
}

fn asked(
    at: AskedAt,
    stage: PolicyStage,
    sender: &str,
    recipient: Option<&str>,
) -> DelegatedQuestion {
    DelegatedQuestion {
        question: PolicyQuestion {
            stage,
            helo: Some("mta.a.example".into()),
            sender: (stage >= PolicyStage::Mail).then(|| sender.into()),
            recipient: recipient.map(Into::into),
            message: None,
            authenticated: false,
            tls: true,
        },
        at,
        esmtp: true,
        tls_version: Some("TLSv1.3"),
        certificate: PresentedCertificate::None,
        instance: "1.2.3".into(),
        queue_id: None,
        size: 100,
        decided_by_relay: false,
    }
}

fn rcpt(sender: &str, recipient: &str) -> DelegatedQuestion {
    asked(AskedAt::Rcpt, PolicyStage::Rcpt, sender, Some(recipient))
}

/// The session asks, and nothing in the DNS exists. Returns the replies, the shadow rules of the last, and the record.
fn run(
    profile: &Arc<Profile>,
    questions: &[DelegatedQuestion],
) -> (Vec<DelegatedReply>, Vec<ShadowRecord>, SessionRecord, Answers) {
    let at = Timestamp::from_nanos(1);
    let client: SocketAddr = "[2001:db8::25]:40000".parse().unwrap();
    let server: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
    let mut session =
        DelegatedSession::new(profile, ClientAddr::new(client), OriginalDst::new(server), at);
    let (mut replies, mut last) = (Vec::new(), Vec::new());
    for question in questions {
        let mut out = Output::default();
        session.ask(question.clone(), at, &mut out);
        while let Some(crate::engine::Action::Need(lookups)) = out.actions.pop() {
            let answer = Answer::NxDomain;
            let result = LookupResult { answer, source: Source::Dns, at: Some(at) };
            let answers = lookups.into_iter().map(|lookup| (lookup, result.clone())).collect();
            session.on_answers(answers, at, &mut out);
        }
        let (reply, shadow) = session.take_reply().expect("decided");
        replies.push(reply);
        last = shadow;
    }
    let answers = session.answers().cloned().unwrap_or_default();
    let record = session.finish(&mut Output::default());
    (replies, last, record, answers)
}

fn code(reply: &DelegatedReply) -> String {
    match reply {
        DelegatedReply::Accept => "accept".to_owned(),
        DelegatedReply::Tag { field } => field.clone(),
        DelegatedReply::Refuse { enhanced, .. } => enhanced.to_string(),
    }
}

#[test]
fn the_end_of_a_message_has_one_decision_for_all_recipients() {
    let at_end = PolicyRule {
        at: PolicyStage::Data,
        exempt: vec![Exemption::Postmaster],
        ..rule("r", Some(FactName::Fcrdns), PolicyAction::Reject, RuleMode::Enforce)
    };
    let profile = profile(&[at_end]);
    let end = |recipient| asked(AskedAt::EndOfMessage, PolicyStage::Data, "a@a.example", recipient);
    let replies = |questions: &[DelegatedQuestion]| -> Vec<String> {
        let (replies, ..) = run(&profile, questions);
        replies.iter().map(code).collect()
    };
    let bob = rcpt("a@a.example", "bob@b.example");
    let eve = rcpt("a@a.example", "eve@b.example");
    let postmaster = rcpt("a@a.example", "postmaster");
    let all = [bob.clone(), postmaster.clone(), eve, end(None)];
    assert_eq!(replies(&all), ["accept", "4.5.3", "accept", "5.7.25"]);
    assert_eq!(replies(&[bob.clone(), end(Some("bob@b.example"))]), ["accept", "5.7.25"]);
    assert_eq!(replies(&[postmaster, bob, end(None)]), ["accept", "4.5.3", "accept"]);
    assert_eq!(replies(&[end(None)]), ["5.7.25"], "asked nowhere else");
}

#[test]
fn the_record_leads_to_the_same_verdict() {
    use PolicyAction::{Reject, Tag, Tempfail};
    use RuleMode::{Enforce, Shadow};
    let fcrdns = Some(FactName::Fcrdns);
    let path = Some(FactName::ReturnPath);
    for (rules, sender, expected, action) in [
        (vec![rule("r", fcrdns, Reject, Enforce)], "a@a.example", "5.7.25", Reject),
        (vec![rule("r", fcrdns, Tempfail, Enforce)], "a@a.example", "4.7.25", Tempfail),
        (vec![rule("r", fcrdns, Reject, Shadow)], "a@a.example", "accept", PolicyAction::Accept),
        (vec![rule("r", path, Reject, Enforce)], "a@a.example", "5.1.8", Reject),
        (vec![rule("r", path, Reject, Enforce)], "", "accept", PolicyAction::Accept),
        (
            vec![rule("r", fcrdns, Tag, Enforce)],
            "a@a.example",
            "Gatepost-Verdict: tag; rule=\"r\"; fact=fcrdns; reason=no_ptr",
            Tag,
        ),
    ] {
        let profile = profile(&rules);
        let questions = [
            asked(AskedAt::Mail, PolicyStage::Mail, sender, None),
            rcpt(sender, "b@b.example"),
            rcpt(sender, "c@b.example"),
        ];
        let (replies, shadow, record, answers) = run(&profile, &questions[1..]);
        assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), [expected; 2]);
        assert_eq!(shadow.is_empty(), rules[0].mode == Enforce);
        assert_eq!((record.verdict.action, record.questions.len()), (action, 2));
        let again = SessionRecord {
            verdict: crate::engine::VerdictRecord {
                action: PolicyAction::Accept,
                rule: None,
                reason: None,
                shadow: Vec::new(),
            },
            ..record.clone()
        };
        let replayed = evaluate_record(&profile, &again, &answers);
        assert_eq!((replayed.verdict, replayed.need), (record.verdict, vec![]));
        // Asked at MAIL too, a tag waits for the recipients.
        let (replies, ..) = run(&profile, &questions);
        let first = if action == Tag { "accept" } else { expected };
        assert_eq!(code(&replies[0]), first);
    }
}

#[test]
fn data_is_not_decided_again_for_all_recipients() {
    let rules = [rule("r", Some(FactName::Fcrdns), PolicyAction::Reject, RuleMode::Enforce)];
    let profile = profile(&rules);
    let data = asked(AskedAt::Data, PolicyStage::Mail, "a@a.example", None);
    let (replies, _, record, _) = run(&profile, &[rcpt("a@a.example", "postmaster"), data.clone()]);
    assert_eq!(replies.iter().map(code).collect::<Vec<_>>(), ["accept"; 2], "postmaster is exempt");
    assert_eq!(record.verdict.action, PolicyAction::Accept);
    let (replies, _, record, _) = run(&profile, &[data]);
    assert_eq!(code(&replies[0]), "5.7.25", "no recipient was decided on");
    assert_eq!(record.smtp.transactions[0].data_code, Some(554));
}

#[test]
fn only_data_and_the_end_show_the_progress_of_a_message() {
    use MessageProgress::{ContentDue, Received};
    let rules = [rule("r", Some(FactName::Fcrdns), PolicyAction::Reject, RuleMode::Enforce)];
    let at = |at| asked(at, PolicyStage::Mail, "a@a.example", None);
    let (data, end) = (at(AskedAt::Data), at(AskedAt::EndOfMessage));
    let rcpt = rcpt("a@a.example", "b@b.example");
    for (rules, questions, progress, accepted) in [
        (&[][..], vec![&rcpt], None, None),
        (&[], vec![&rcpt, &data], Some(ContentDue), Some(ContentDue)),
        (&[], vec![&rcpt, &data, &end], Some(Received), Some(Received)),
        (&[], vec![&rcpt, &end], Some(Received), Some(Received)),
        // The rule rejects the message.
        (&rules, vec![&data], Some(ContentDue), None),
        (&rules, vec![&end], Some(Received), None),
    ] {
        let questions: Vec<_> = questions.into_iter().cloned().collect();
        let (_, _, record, _) = run(&profile(rules), &questions);
        let transaction = &record.smtp.transactions[0];
        assert_eq!(
            (transaction.progress, transaction.progress_if_accepted()),
            (progress, accepted),
            "{questions:?}"
        );
    }
}

#[test]
fn access_rules_and_paths_need_no_lookup() {
    let accept = rule("r", Some(FactName::ReturnPath), PolicyAction::Reject, RuleMode::Enforce);
    let mut refused = (*profile(std::slice::from_ref(&accept))).clone();
    refused.access = AccessRules::new(vec![AccessRule {
        name: "no IPv6 yet".into(),
        family: Some(crate::addr::Family::Ipv6),
        networks: Networks::default(),
        listeners: ListenerCondition::default(),
        action: PolicyAction::Tempfail,
    }]);
    let question = [rcpt("a@a.example", "b@b.example")];
    let (replies, _, record, _) = run(&Arc::new(refused), &question);
    let text = "no IPv6 yet".to_owned();
    let enhanced = EnhancedCode::new(4, 7, 1);
    assert_eq!(replies, [DelegatedReply::Refuse { enhanced, text }]);
    assert_eq!(record.verdict.reason.as_deref(), Some("access_tempfail"));
    assert!(record.questions.is_empty());

    let rerouted = [rcpt("a%a.example@b.example", "b@b.example")];
    let (replies, _, record, _) = run(&profile(&[accept]), &rerouted);
    assert_eq!(code(&replies[0]), "5.7.1");
    assert_eq!(record.verdict.reason.as_deref(), Some("path_routing"));
    let (replies, ..) = run(&profile(&[]), &rerouted);
    assert_eq!(code(&replies[0]), "accept", "no rule depends on it");
}

#[test]
fn the_record_has_the_transactions() {
    let profile = profile(&[]);
    let second = DelegatedQuestion { instance: "1.2.4".into(), ..rcpt("", "b@b.example") };
    let end = DelegatedQuestion {
        queue_id: Some("4XyZ".to_owned()),
        size: 2000,
        ..asked(AskedAt::EndOfMessage, PolicyStage::Mail, "a@a.example", None)
    };
    let questions = [
        rcpt("a@a.example", "b@b.example"),
        rcpt("a@a.example", "c@b.example"),
        rcpt("a@a.example", "c@b.example"),
        end,
        second,
    ];
    let (_, _, record, _) = run(&profile, &questions);
    let smtp = &record.smtp;
    assert_eq!((smtp.transactions_total, smtp.transactions.len()), (2, 2));
    let first = &smtp.transactions[0];
    assert_eq!((first.rcpt_total, first.bytes), (2, 2000));
    assert_eq!(first.queue_id.as_deref(), Some("4XyZ"));
    assert_eq!(first.progress_if_accepted(), Some(MessageProgress::Received));
    assert_eq!((&*smtp.transactions[1].mail_from, smtp.transactions[1].progress), ("", None));
    assert_eq!((smtp.tls, smtp.tls_version), (TlsState::Established, Some("TLSv1.3")));
}

#[test]
fn a_shadow_rule_without_answer_at_the_deadline_matches_by_what_is_unknown() {
    let shadow = rule("r", Some(FactName::Fcrdns), PolicyAction::Reject, RuleMode::Shadow);
    let at = Timestamp::from_nanos(1);
    let client: SocketAddr = "[2001:db8::25]:40000".parse().unwrap();
    let server: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
    let (client, server) = (ClientAddr::new(client), OriginalDst::new(server));
    let mut session = DelegatedSession::new(&profile(&[shadow]), client, server, at);
    let mut out = Output::default();
    session.ask(rcpt("a@a.example", "b@b.example"), at, &mut out);
    assert!(session.is_decided() && session.awaits_shadow());
    session.on_deadline(at, &mut out);
    assert!(!session.awaits_shadow());
    let (reply, matches) = session.take_reply().unwrap();
    assert_eq!(reply, DelegatedReply::Accept);
    let matches: Vec<_> = matches.iter().map(|matched| matched.reason.as_deref()).collect();
    assert_eq!(matches, [Some("fcrdns.timeout")]);
    assert_eq!(session.finish(&mut out).verdict.shadow.len(), 1);
}
