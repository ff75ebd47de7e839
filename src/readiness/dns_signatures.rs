//! DNSSEC of the domain and of its exchanges, as the resolver validates it.
//!
//! RFC 4035 §4.3 (secure, insecure, bogus), RFC 8914 (why a zone is bogus). A domain need not be signed; but one with wrong
//! signatures does not exist for hosts whose resolver validates.

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::validated::{ValidatedAnswer, ValidatedOutcome, ValidatedType, ValidationFailure};
use crate::policy::facts::{Answer, DomainName, Lookup};

/// The validation of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signing<'a> {
    Verified,
    /// There are signatures, and no chain of keys that leads to them from the root.
    Unlinked,
    Unsigned,
    Bogus(&'a ValidationFailure),
    /// No answer, or the resolver does not validate.
    Unknown,
}

pub(super) fn check(
    domain: &DomainName,
    hosts: &[MxHost],
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let validates = validates(domain, known);
    let own = known.validated(domain, ValidatedType::Soa);
    let exchanges = known.lookup(Lookup::MailExchanges(domain.clone()));
    let (Some(true), Some(own), Some(exchanges)) = (validates, own, exchanges) else { return };
    let mut checked: Vec<&DomainName> = Vec::new();
    // A missing domain is reported with its MX records, and so is a failure of all its lookups.
    if *exchanges != Answer::NxDomain {
        report(domain, own, findings);
        checked.push(own.zone.as_ref().unwrap_or(domain));
        if let (Some(reason), Ok(_)) = (own.failure(), exchanges.records()) {
            findings.lookup_failed(CheckName::DnsSignatures, domain, "SOA", reason);
        }
    }
    for host in hosts {
        let Some(answer) = known.validated(&host.name, ValidatedType::Soa) else { continue };
        let zone = answer.zone.as_ref().unwrap_or(&host.name);
        // An alias may lead out of a zone that was checked.
        if answer.canonical == host.name && checked.contains(&zone) {
            continue;
        }
        checked.push(zone);
        report(&host.name, answer, findings);
    }
}

/// Whether the resolver validates; `None` as long as it is not known. The root has been signed since 2010.
pub(super) fn validates(domain: &DomainName, known: &KnownAnswers) -> Option<bool> {
    let root = known.validated(&DomainName::root(), ValidatedType::Soa);
    let own = known.validated(domain, ValidatedType::Soa);
    let answers = [root?, own?];
    let proves = |answer: &&ValidatedAnswer| answer.is_authentic || signing_of(answer).is_bogus();
    Some(answers.iter().any(proves))
}

/// Of the name of an exchange, if the resolver validates. `None` as long as it is not known.
pub(super) fn signing<'a>(name: &DomainName, known: &'a KnownAnswers) -> Option<Signing<'a>> {
    known.validated(name, ValidatedType::Soa).map(signing_of)
}

/// If the resolver validates.
fn signing_of(answer: &ValidatedAnswer) -> Signing<'_> {
    match &answer.outcome {
        ValidatedOutcome::Failed(failure) if failure.is_bogus() => Signing::Bogus(failure),
        ValidatedOutcome::Failed(_) => Signing::Unknown,
        _ if answer.is_authentic => Signing::Verified,
        _ if answer.is_signed => Signing::Unlinked,
        _ => Signing::Unsigned,
    }
}

impl Signing<'_> {
    const fn is_bogus(self) -> bool {
        matches!(self, Self::Bogus(_))
    }
}

fn report(name: &DomainName, answer: &ValidatedAnswer, findings: &mut FindingList) {
    let check = CheckName::DnsSignatures;
    let zone = answer.zone.as_ref().unwrap_or(name);
    match signing_of(answer) {
        Signing::Verified => findings.pass(check, zone, "signed, and validated (DNSSEC)"),
        Signing::Unsigned => findings.pass(check, zone, "not signed (DNSSEC)"),
        Signing::Unlinked => {
            let seen = "signed, but nobody can validate it: the parent zone has no DS record, or the resolver knows none of \
                        the algorithms";
            let advice = format!(
                "Have the registrar publish the DS record of {zone}, or stop signing: as it is, the signatures have no effect."
            );
            findings.warn(check, zone, seen, advice);
        }
        Signing::Bogus(failure) => {
            let seen = format!("bogus: {}", failure.explanation());
            let advice = format!(
                "{} Until then the domain does not exist for hosts whose resolver validates: they can send it no mail, and \
                 reject or defer mail from it.",
                remedy(failure, zone)
            );
            findings.fail(check, zone, seen, advice);
        }
        // Their addresses are unknown, too.
        Signing::Unknown => {}
    }
}

fn remedy(failure: &ValidationFailure, zone: &DomainName) -> String {
    if failure.has_expired() {
        format!("Sign {zone} anew, and find out why its server no longer does so by itself.")
    } else if failure.errors.iter().any(|error| error.code == 8) {
        format!("Correct the clock of the server that signs {zone}, and sign it anew.")
    } else {
        format!(
            "Compare the DS record in the parent zone with the keys of {zone}, and have the registrar publish the DS record of \
             a key that signs, or remove it; if they fit, sign the zone anew."
        )
    }
}
