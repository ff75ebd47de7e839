//! Findings about signatures, from answers with their validation.
//!
//! Lines `name SOA STATE [ZONE [CANONICAL NAME]]` with the state `verified`, `unsigned`, `unlinked` (signed without DS), `bogus` (with the code of the
//! extended error instead of a zone), `unchecked` (SERVFAIL, but an answer with CD) or `!servfail`.

use super::caa::caa_record;
use super::dane::tlsa_record;
use super::{Zone, faults, name, request};
use crate::policy::facts::{DomainName, Reason};
use crate::readiness::{
    CheckStatus, ExtendedError, Portion, ValidatedAnswer, ValidatedOutcome, ValidatedRecord,
    ValidatedType, ValidationFailure,
};

/// All zones are signed, and the resolver validates.
pub(super) const SIGNED: &str = "\
. SOA verified .
a.example SOA verified a.example
mx.a.example SOA verified a.example
";

impl Zone {
    pub(super) fn validated(&self, owner: &DomainName, kind: ValidatedType) -> ValidatedAnswer {
        let state = self.find(&owner.to_string(), kind.as_str());
        let states = match state {
            Err(reason) => return ValidatedAnswer::failed(owner.clone(), reason),
            Ok(None) => &Vec::new(),
            Ok(Some(states)) => states,
        };
        if kind == ValidatedType::Ns && !states.is_empty() {
            return name_servers(owner, states);
        }
        if kind == ValidatedType::Caa && !states.is_empty() {
            let records = states.iter().map(|text| ValidatedRecord::Caa(caa_record(text)));
            return unsigned(owner, records.collect());
        }
        let is_record = |state: &String| state.split(' ').count() == 5;
        if kind == ValidatedType::Tlsa && states.iter().any(is_record) {
            return tlsa(owner, states);
        }
        let mut words = states.first().map(String::as_str).unwrap_or_default().split(' ');
        let (state, argument) = (words.next().unwrap_or_default(), words.next());
        let failure = |errors, answers_unchecked| {
            let failure = ValidationFailure::new(Reason::Servfail, errors);
            ValidatedOutcome::Failed(ValidationFailure { answers_unchecked, ..failure })
        };
        let outcome = match state {
            "bogus" => {
                let code = argument.unwrap().parse().unwrap();
                failure(vec![ExtendedError { code, text: String::new() }], false)
            }
            "unchecked" => failure(Vec::new(), true),
            _ => ValidatedOutcome::NoRecord,
        };
        let is_answer = matches!(outcome, ValidatedOutcome::NoRecord);
        let zone = argument.filter(|_| is_answer);
        let zone = zone.map(|zone| if zone == "." { DomainName::root() } else { name(zone) });
        let is_authentic = state == "verified";
        let is_signed = matches!(state, "verified" | "unlinked");
        let canonical = words.next().map_or_else(|| owner.clone(), name);
        ValidatedAnswer { outcome, is_authentic, is_signed, zone, canonical }
    }
}

fn name_servers(owner: &DomainName, hosts: &[String]) -> ValidatedAnswer {
    unsigned(owner, hosts.iter().map(|host| ValidatedRecord::NameServer(name(host))).collect())
}

fn unsigned(owner: &DomainName, records: Vec<ValidatedRecord>) -> ValidatedAnswer {
    ValidatedAnswer {
        outcome: ValidatedOutcome::Records(records),
        is_authentic: false,
        is_signed: false,
        zone: None,
        canonical: owner.clone(),
    }
}

/// Each with the state in front.
fn tlsa(owner: &DomainName, records: &[String]) -> ValidatedAnswer {
    let split = records.iter().map(|record| record.split_once(' ').unwrap());
    let records = split.clone().map(|(_, record)| ValidatedRecord::Tlsa(tlsa_record(record)));
    let is_signed = split.clone().all(|(state, _)| state == "verified");
    ValidatedAnswer {
        outcome: ValidatedOutcome::Records(records.collect()),
        is_authentic: is_signed,
        is_signed,
        zone: None,
        canonical: owner.clone(),
    }
}

#[test]
fn findings_about_signatures() {
    let mut wrong = Vec::new();
    for (changes, expected) in [
        ("", ""),
        ("a.example SOA unsigned a.example\nmx.a.example SOA unsigned a.example", ""),
        (
            "a.example SOA unlinked a.example\nmx.a.example SOA unlinked a.example",
            "warn dns_signatures",
        ),
        ("a.example SOA bogus 6", "fail dns_signatures"),
        ("a.example SOA bogus 7", "fail dns_signatures"),
        ("a.example SOA bogus 9", "fail dns_signatures"),
        ("a.example SOA unchecked", "fail dns_signatures"),
        // No reachable authority, by an extended error that is not about signatures.
        ("a.example SOA bogus 22", "unknown dns_signatures"),
        ("a.example SOA !servfail", "unknown dns_signatures"),
        ("a.example SOA !timeout\na.example MX !timeout", "unknown mx_records"),
        // The exchange's zone is another one.
        ("mx.a.example SOA unsigned mx.a.example", ""),
        ("mx.a.example SOA bogus 6", "fail dns_signatures"),
        ("mx.a.example SOA unlinked mx.a.example", "warn dns_signatures"),
        ("mx.a.example SOA !servfail", ""),
        // The resolver does not validate.
        (". SOA unsigned .\na.example SOA unlinked a.example", ""),
        (". SOA !servfail\na.example SOA unsigned a.example", ""),
        // It does, even if it has no answer for the root.
        (". SOA !servfail\na.example SOA unchecked", "fail dns_signatures"),
    ] {
        let mut zone = Zone::new(SIGNED);
        zone.change(changes);
        let found = faults(&zone.evaluate(&request()));
        if found != expected {
            wrong.push(format!("{changes}\n    expected: {expected}\n    found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_resolver_that_does_not_validate_is_named() {
    let portions = |changes: &str| {
        let report = Zone::new(changes).evaluate(&request());
        assert_eq!(report.outcome(), CheckStatus::Pass, "{:?}", report.findings);
        report.not_checked.iter().map(|(portion, _)| *portion).collect::<Vec<_>>()
    };
    assert!(!portions(SIGNED).contains(&Portion::Dns));
    assert!(portions("").contains(&Portion::Dns));
    assert!(portions("a.example SOA unsigned a.example").contains(&Portion::Dns));
}

#[test]
fn the_cause_of_wrong_signatures_is_named() {
    for (state, cause) in [
        ("bogus 6", "do not fit together"),
        ("bogus 7", "a signature has expired"),
        ("bogus 9", "no DNSKEY record is usable"),
        ("bogus 10", "(RRSIG) are missing"),
        ("unchecked", "do not fit together"),
    ] {
        let mut zone = Zone::new(SIGNED);
        zone.change(&format!("a.example SOA {state}"));
        let report = zone.evaluate(&request());
        let worst = report.worst().unwrap();
        assert!(worst.seen.starts_with("bogus: ") && worst.seen.contains(cause), "{worst:?}");
    }
}
