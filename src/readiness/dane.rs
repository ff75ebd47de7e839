//! TLSA records of the exchanges (DANE), and whether the certificates that the servers present match them.
//!
//! RFC 6698 §2.1 (records), RFC 7671 §5 (matching) and §8 (new certificates), RFC 7672 §2.2 (where senders look) and §3.1
//! (usages). A sender with DANE delivers to a host with authentic TLSA records only under TLS, and only if one of them matches.

use std::net::IpAddr;

use data_encoding::HEXLOWER;

use super::dns_signatures::{Signing, signing, validates};
use super::finding::{CheckName, FindingList};
use super::known::{KnownAnswers, failure_text};
use super::mx::MxHost;
use super::survey::Survey;
use super::tlsa::{Mismatch, authenticate, is_usable, record_of};
use super::validated::{
    TlsaRecord, ValidatedAnswer, ValidatedOutcome, ValidatedRecord, ValidatedType,
};
use crate::policy::facts::{DomainName, Reason};

/// Hexadecimal digits of a record that are shown.
const DIGITS: usize = 16;

/// Returns whether senders with DANE verify a server.
pub(super) fn check(
    domain: &DomainName,
    hosts: &[MxHost],
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> bool {
    if validates(domain, known) != Some(true) {
        return false;
    }
    let mut has_records = false;
    for host in hosts {
        match signing(&host.name, known) {
            Some(Signing::Verified) => {}
            Some(Signing::Unsigned | Signing::Unlinked) => {
                check_unsigned(&host.name, known, findings);
                continue;
            }
            // The lookups of its addresses fail, too.
            Some(Signing::Bogus(_) | Signing::Unknown) | None => continue,
        }
        let Some((base, records)) = find_records(&host.name, known, findings) else { continue };
        has_records = true;
        let usable = check_records(&base, records, findings);
        for ip in &host.addresses {
            if let Some(survey) = known.survey(*ip, &host.name) {
                let names = [&base, &host.name, domain];
                check_server(&host.name, *ip, survey, &usable, names, findings);
            }
        }
    }
    let is_unsigned = matches!(signing(domain, known), Some(Signing::Unsigned | Signing::Unlinked));
    if has_records && is_unsigned {
        let seen = "exchanges have TLSA records, but the MX records are not signed";
        let advice = format!(
            "Sign {domain} (DNSSEC): without it an attacker can forge the MX records, and some senders then do without DANE."
        );
        findings.warn(CheckName::DaneTlsa, domain, seen, advice);
    }
    has_records
}

/// The name of the records of port 25; `None` if it is too long.
fn tlsa_name(host: &DomainName) -> Option<DomainName> {
    DomainName::parse(&format!("_25._tcp.{host}"))
}

fn tlsa_records(answer: &ValidatedAnswer) -> Vec<&TlsaRecord> {
    let ValidatedOutcome::Records(records) = &answer.outcome else { return Vec::new() };
    records
        .iter()
        .filter_map(|record| match record {
            ValidatedRecord::Tlsa(record) => Some(record),
            ValidatedRecord::NameServer(_) | ValidatedRecord::Caa(_) => None,
        })
        .collect()
}

/// Senders look at no TLSA records of a host without signatures.
fn check_unsigned(host: &DomainName, known: &KnownAnswers, findings: &mut FindingList) {
    let answer = tlsa_name(host).and_then(|name| known.validated(&name, ValidatedType::Tlsa));
    if answer.is_some_and(|answer| !tlsa_records(answer).is_empty()) {
        without_signatures(host, findings);
    }
}

fn without_signatures(host: &DomainName, findings: &mut FindingList) {
    let seen = "TLSA records without DNSSEC: senders ignore them";
    let advice = "Sign the zone and have its DS record published, or remove the TLSA records.";
    findings.warn(CheckName::DaneTlsa, host, seen, advice);
}

/// The authentic records, and the host whose they are: the end of the aliases of `host`, otherwise `host` itself (RFC 7672 §2.2.2).
fn find_records<'a>(
    host: &DomainName,
    known: &'a KnownAnswers,
    findings: &mut FindingList,
) -> Option<(DomainName, Vec<&'a TlsaRecord>)> {
    let check = CheckName::DaneTlsa;
    let canonical = &known.validated(host, ValidatedType::Soa)?.canonical;
    let mut bases = vec![canonical];
    bases.extend((canonical != host).then_some(host));
    for base in bases {
        let name = tlsa_name(base)?;
        let answer = known.validated(&name, ValidatedType::Tlsa)?;
        if let ValidatedOutcome::Failed(failure) = &answer.outcome {
            let is_bogus = failure.is_bogus();
            if !is_bogus && failure.reason != Reason::Servfail {
                findings.lookup_failed(check, base, "TLSA", failure.reason);
                return None;
            }
            let why = match is_bogus {
                true => format!("bogus: {}", failure.explanation()),
                false => failure_text(failure.reason).to_owned(),
            };
            let seen = format!("no answer about TLSA records ({name}): {why}");
            let advice = "Correct the name servers or the signatures of that name, also if there are no such records: senders \
                          with DANE keep the mail until they get an answer (RFC 7672 §2.1.2).";
            findings.fail(check, base, seen, advice);
            return None;
        }
        let records = tlsa_records(answer);
        if records.is_empty() {
            continue;
        }
        if answer.is_authentic {
            return Some((base.clone(), records));
        }
        without_signatures(base, findings);
        return None;
    }
    findings.pass(check, host, "no TLSA record");
    None
}

/// Returns the records that senders can use.
fn check_records<'a>(
    base: &DomainName,
    records: Vec<&'a TlsaRecord>,
    findings: &mut FindingList,
) -> Vec<&'a TlsaRecord> {
    let check = CheckName::DaneTlsa;
    let (usable, unusable): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| is_usable(record));
    if unusable.is_empty() {
        findings.pass(check, base, format!("TLSA {}", listed(&usable)));
        return usable;
    }
    let seen = format!("TLSA {}, unusable for mail", listed(&unusable));
    let effect = match usable.is_empty() {
        true => "As there is no other, senders with DANE demand TLS and accept any certificate.",
        false => "Senders ignore this one.",
    };
    let advice = format!(
        "Replace it by a record 3 1 1, or 2 1 1 for an authority: mail knows neither usage 0 nor 1 (RFC 7672 §3.1.3), and the \
         data must have the length of its matching type. {effect}"
    );
    findings.warn(check, base, seen, advice);
    usable
}

/// `names` may be in the certificate, if its authority is what the records are about (RFC 7672 §3.2.2).
fn check_server(
    host: &DomainName,
    ip: IpAddr,
    survey: &Survey,
    usable: &[&TlsaRecord],
    names: [&DomainName; 3],
    findings: &mut FindingList,
) {
    let check = CheckName::DaneCertificate;
    let about = format!("{host} {ip}");
    let Some(facts) = survey.established() else {
        if survey.tls.is_none() && survey.ehlo.reply().is_some_and(|ehlo| ehlo.is_positive()) {
            let seen = "no STARTTLS, although the exchange has TLSA records";
            let advice = "Offer STARTTLS at this address, or remove the TLSA records: senders with DANE keep the mail.";
            findings.fail(check, about, seen, advice);
        }
        // Other failures of TLS have findings of their own.
        return;
    };
    if usable.is_empty() {
        return;
    }
    let why = match authenticate(usable, facts, &names) {
        Ok(record) => {
            findings.pass(check, about, format!("TLSA {} matches", listed(&[record])));
            return;
        }
        Err(why) => why,
    };
    let [base, ..] = names;
    let record = match record_of(facts) {
        Some(record) => {
            format!("_25._tcp.{base}. TLSA 3 1 1 {}", HEXLOWER.encode(&record.data))
        }
        None => "the record of this certificate".to_owned(),
    };
    let (seen, advice) = match why {
        Mismatch::NoRecord => (
            format!("the certificate matches none of the TLSA records ({})", listed(usable)),
            format!(
                "If this is the server's own certificate, publish {record}. Until then senders with DANE keep the mail. Before \
                 the next change publish the new record beside the old one, and wait for its TTL (RFC 7671 §8.1)."
            ),
        ),
        Mismatch::Path(why) => (
            format!(
                "a TLSA record names an authority that the certificate does not lead to: {why}"
            ),
            format!(
                "Send the whole chain up to that authority and renew what has expired, or publish {record}, with which neither \
                 counts."
            ),
        ),
        Mismatch::Name => (
            format!("the authority matches a TLSA record, but the certificate is not for {base}"),
            format!(
                "Install a certificate for {base}, or publish {record}, with which the name does not count."
            ),
        ),
    };
    findings.fail(check, about, seen, advice);
}

/// `3 1 1 0123456789abcdef..., 2 1 1 ...`
fn listed(records: &[&TlsaRecord]) -> String {
    let text = |record: &&TlsaRecord| {
        let data = HEXLOWER.encode(&record.data);
        let shown = data.get(..DIGITS).map_or_else(|| data.clone(), |start| format!("{start}..."));
        format!("{} {} {} {shown}", record.usage, record.selector, record.matching)
    };
    records.iter().map(text).collect::<Vec<_>>().join(", ")
}
