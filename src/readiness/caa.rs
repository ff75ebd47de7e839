//! CAA records of the exchanges: which authorities may issue their certificates.
//!
//! RFC 8659 §3 (the records of the closest parent count), §4.2 (issue). The organisation behind an issuer's domain is not known
//! from a certificate, so the records are reported, and only what stops every authority is a fault.

use std::iter;

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::survey::{CertificateTrust, ServerTls};
use super::validated::{CaaRecord, ValidatedOutcome, ValidatedRecord, ValidatedType};
use crate::policy::facts::{DomainName, Reason};

const CHECK: CheckName = CheckName::Caa;
/// Names that are asked about, from the exchange on.
const MAX_LEVELS: usize = 10;
/// The tags of the IANA registry; others matter if they are critical.
const TAGS: [&str; 7] =
    ["issue", "issuewild", "iodef", "contactemail", "contactphone", "issuevmc", "issuemail"];

pub(super) fn check(hosts: &[MxHost], known: &KnownAnswers, findings: &mut FindingList) {
    for host in hosts {
        let Some(soa) = known.validated(&host.name, ValidatedType::Soa) else { continue };
        // The lookups of its addresses fail, too.
        if !matches!(soa.outcome, ValidatedOutcome::Failed(_)) {
            check_host(host, known, findings);
        }
    }
}

fn check_host(host: &MxHost, known: &KnownAnswers, findings: &mut FindingList) {
    let parents = iter::successors(Some(host.name.clone()), |name| Some(name.parent()));
    let names: Vec<DomainName> =
        parents.take_while(|name| !name.is_root()).take(MAX_LEVELS).collect();
    // All are asked at once.
    let answers: Vec<_> =
        names.iter().map(|name| (name, known.validated(name, ValidatedType::Caa))).collect();
    for (name, answer) in answers {
        let Some(answer) = answer else { return };
        match &answer.outcome {
            ValidatedOutcome::NoRecord | ValidatedOutcome::NxDomain => {}
            ValidatedOutcome::Failed(failure) if failure.reason == Reason::Servfail => {
                let seen = format!("no answer about CAA records of {name} (SERVFAIL)");
                let advice = "Correct the name servers or the signatures of that name, also if there are no such records: without \
                              an answer many authorities issue no certificate (RFC 8659 §7).";
                findings.warn(CHECK, &host.name, seen, advice);
                return;
            }
            ValidatedOutcome::Failed(failure) => {
                findings.lookup_failed(CHECK, &host.name, "CAA", failure.reason);
                return;
            }
            ValidatedOutcome::Records(records) => {
                let records = records.iter().filter_map(|record| match record {
                    ValidatedRecord::Caa(record) => Some(record),
                    ValidatedRecord::NameServer(_) | ValidatedRecord::Tlsa(_) => None,
                });
                let records: Vec<&CaaRecord> = records.collect();
                check_records(host, name, &records, known, findings);
                return;
            }
        }
    }
    findings.pass(CHECK, &host.name, "no CAA record: each authority may issue certificates");
}

fn check_records(
    host: &MxHost,
    owner: &DomainName,
    records: &[&CaaRecord],
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let unknown = |record: &&&CaaRecord| {
        record.is_critical && !TAGS.iter().any(|tag| record.tag.eq_ignore_ascii_case(tag))
    };
    if let Some(record) = records.iter().find(unknown) {
        let seen = format!("CAA of {owner}: {}, critical and not registered", text(record));
        let advice = "Correct the tag, or set the flags to 0: authorities that do not know a critical tag issue nothing.";
        findings.warn(CHECK, &host.name, seen, advice);
        return;
    }
    let issue = records.iter().filter(|record| record.tag.eq_ignore_ascii_case("issue"));
    let issuers: Vec<_> = issue.clone().map(|record| issuer(&record.value)).collect();
    if let Some((record, _)) = issue.zip(&issuers).find(|(_, issuer)| issuer.is_none()) {
        let seen = format!("CAA of {owner}: {}, which is malformed", text(record));
        let advice = "Write the domain of the authority, such as: CAA 0 issue \"letsencrypt.org\". As it is, authorities read that \
                      none may issue.";
        findings.warn(CHECK, &host.name, seen, advice);
        return;
    }
    let authorities: Vec<&str> = issuers
        .iter()
        .filter_map(|issuer| issuer.as_deref())
        .filter(|name| !name.is_empty())
        .collect();
    if issuers.is_empty() {
        let seen = format!("CAA of {owner}: each authority may issue certificates");
        findings.pass(CHECK, &host.name, seen);
    } else if !authorities.is_empty() {
        let seen = format!("CAA of {owner}: certificates by {}", authorities.join(", "));
        findings.pass(CHECK, &host.name, seen);
    } else if has_trusted_certificate(host, known) {
        let seen =
            format!("CAA of {owner}: no authority may issue certificates, but the server has one");
        let advice = "Name the authority in a CAA record before the certificate is renewed, such as: CAA 0 issue \"letsencrypt.org\".";
        findings.warn(CHECK, &host.name, seen, advice);
    } else {
        let seen = format!("CAA of {owner}: no authority may issue certificates");
        findings.pass(CHECK, &host.name, seen);
    }
}

fn has_trusted_certificate(host: &MxHost, known: &KnownAnswers) -> bool {
    let surveys: Vec<_> = host.addresses.iter().map(|ip| known.survey(*ip, &host.name)).collect();
    let is_trusted = |facts: &ServerTls| facts.trust == CertificateTrust::Trusted;
    surveys.into_iter().flatten().filter_map(|survey| survey.established()).any(is_trusted)
}

/// `0 issue "letsencrypt.org"`
fn text(record: &CaaRecord) -> String {
    let flags = if record.is_critical { 128 } else { 0 };
    format!("{flags} {} {:?}", record.tag, String::from_utf8_lossy(&record.value))
}

/// The domain in an `issue-value` (RFC 8659 §4.2), empty if there is none; `None` if it is malformed.
fn issuer(value: &[u8]) -> Option<String> {
    let value = str::from_utf8(value).ok()?;
    let (domain, parameters) = value.split_once(';').unwrap_or((value, ""));
    let domain = domain.trim_matches([' ', '\t']);
    let is_label = |label: &str| {
        let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        is_end(label.chars().next())
            && is_end(label.chars().next_back())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_parameter = |parameter: &str| {
        parameter.split_once('=').is_some_and(|(tag, value)| {
            let value = value.trim_matches([' ', '\t']);
            is_label(tag.trim_matches([' ', '\t'])) && value.chars().all(|c| c.is_ascii_graphic())
        })
    };
    let parameters = parameters.trim_matches([' ', '\t']);
    let are_parameters = parameters.is_empty() || parameters.split(';').all(is_parameter);
    let is_domain = domain.is_empty() || domain.split('.').all(is_label);
    (is_domain && are_parameters).then(|| domain.to_owned())
}
