//! Certificates that clients present in TLS that the gateway ends, as conditions of rules.

use std::sync::Arc;

use gatepost::addr::Networks;
use gatepost::engine::{Profile, Timeouts, TlsMode, evaluate_record};
use gatepost::policy::PolicyAction;
use gatepost::policy::facts::{Answers, ClientCertificate, DomainName};
use gatepost::policy::rules::{
    CertificateCondition, Domains, FactName, PolicyRule, PolicyRules, PolicyStage, When,
};

use super::dialogue::Dialogue;
use super::driver::Driver;
use super::policy::rule;

/// As the driver of a live session reports it, and as a recording has it.
fn certificate(verified: bool) -> ClientCertificate {
    ClientCertificate {
        sha256: "aa".repeat(32),
        public_key_sha256: "bb".repeat(32),
        common_name: Some("A partner".to_owned()),
        names: vec!["*.partner.example".to_owned(), "mx.partner.example".to_owned()],
        verified,
    }
}

fn with_condition(profile: &mut Profile, fingerprints: &[&str], names: &[&str]) {
    profile.tls = TlsMode::Terminate { required: false };
    let names = names.iter().map(|name| DomainName::parse(name).unwrap()).collect();
    let client_certificate = CertificateCondition {
        fingerprints: fingerprints.iter().map(|one| one.repeat(32)).collect(),
        names: Domains { exact: names, below: Vec::new() },
    };
    let when = When { client_certificate, ..When::default() };
    let rule = PolicyRule {
        require: Vec::new(),
        at: PolicyStage::Mail,
        when,
        ..rule("partner", FactName::Fcrdns, PolicyAction::Reject)
    };
    profile.rules = Arc::new(PolicyRules::new(vec![rule], Networks::default()));
}

/// Whether the rule rejects the recipient, under the two lists of its condition.
#[track_caller]
fn check(
    fingerprints: &[&str],
    names: &[&str],
    presented: Option<ClientCertificate>,
    rejects: bool,
) {
    let recipient = match rejects {
        true => {
            "C- RCPT TO:<b@mx.example>\n+C 550 5.7.1 rejected by local policy (rule \"partner\")\n"
        }
        false => "C: RCPT TO:<b@mx.example>\nS: 250 2.1.5 ok\n",
    };
    let text = [
        r"S: 220 a
        C: EHLO client.example
        S- 250 mx.example
        +C 250-mx.example
        +C 250 STARTTLS
        C- STARTTLS
        +C 220 2.0.0 ready to start TLS
        --
        C: EHLO client.example
        S: 250 mx.example
        C: MAIL FROM:<a@partner.example>
        S: 250 2.1.0 ok
        ",
        recipient,
        "C: QUIT\nS: 221 bye\nS.\n= quit",
    ];
    let dialogue = Dialogue::new(&text.concat());
    let mut dialogue = dialogue.with(|profile| with_condition(profile, fingerprints, names));
    if let Some(presented) = presented.clone() {
        dialogue = dialogue.client_certificate(presented);
    }
    assert_eq!(dialogue.run().smtp.client_certificate, presented);
}

#[test]
fn rules_match_clients_by_their_certificate() {
    check(&["aa"], &[], Some(certificate(false)), true);
    check(&["cc", "bb"], &[], Some(certificate(false)), true);
    check(&["cc"], &[], Some(certificate(true)), false);
    check(&["aa"], &[], None, false);
}

#[test]
fn a_name_counts_only_in_a_verified_certificate() {
    check(&[], &["mx.partner.example"], Some(certificate(true)), true);
    check(&[], &["mx.partner.example"], Some(certificate(false)), false);
    check(&[], &["other.partner.example"], Some(certificate(true)), false);
}

/// What the gateway decided on goes with the recording; a capture without it leaves the condition open.
#[test]
fn a_replay_needs_the_certificate() {
    let mut profile = Profile::default();
    with_condition(&mut profile, &["aa"], &[]);
    let (client, server) = ("[2001:db8::1]:40000", "[2001:db8::2]:25");
    let mut driver = Driver::new(profile.clone(), Timeouts::RFC_5321, client, server, false);
    driver.client_certificate = Some(certificate(false));
    driver.upstream_sends(b"220 a\r\n");
    driver.client_sends(b"STARTTLS\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250 mx.example\r\n");
    driver.client_sends(b"MAIL FROM:<a@partner.example>\r\n");
    driver.upstream_sends(b"250 ok\r\n");
    driver.client_sends(b"RCPT TO:<b@mx.example>\r\n");
    let record = driver.finish();
    let observed = driver.observed();
    driver.check_verdict_replays(&observed, &record, "with its answers");
    let answers = driver.answers();
    assert_eq!(Answers::from_json(&answers.to_json()).unwrap(), answers);
    let without = evaluate_record(&profile, &observed, &Answers::default());
    assert_eq!(without.verdict.action, PolicyAction::Tempfail, "on_unknown");
}

/// Outside of TLS nobody has a certificate.
#[test]
fn a_rule_about_certificates_does_not_match_plaintext() {
    let text = r"S: 220 a
        C: HELO client.example
        S: 250 mx.example
        C: MAIL FROM:<a@partner.example>
        S: 250 2.1.0 ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 ok";
    Dialogue::new(text).with(|profile| with_condition(profile, &["aa"], &[])).run();
}
