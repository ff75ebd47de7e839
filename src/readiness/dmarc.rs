//! DMARC: the domain's own policy, or the one inherited by the DNS tree walk (RFC 9989 §4.10).

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use crate::dkim::{malformed_tags, tags, value};
use crate::policy::facts::{DomainName, Reason};

/// RFC 9989 §4.10: the walk continues with this many labels of a longer name.
const MAX_WALK_LABELS: usize = 7;

#[derive(Clone, Debug)]
struct DmarcRecord {
    /// Where it was found.
    domain: DomainName,
    tags: Vec<(String, String)>,
    text: String,
}

/// The result of looking up `_dmarc` below a domain.
enum DmarcLookup {
    Pending,
    None,
    One(DmarcRecord),
    Several(usize),
    Unknown(Reason),
}

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let domain = &request.domain;
    let check = CheckName::DmarcRecord;
    match look_up(domain, known) {
        DmarcLookup::Pending => {}
        DmarcLookup::Unknown(reason) => {
            findings.lookup_failed(check, domain, "DMARC record", reason);
        }
        DmarcLookup::Several(count) => {
            let seen = format!("{count} DMARC records; receivers then use none");
            findings.fail(check, domain, seen, format!("Keep one record at _dmarc.{domain}."));
        }
        DmarcLookup::One(record) => check_record(&record, false, findings),
        DmarcLookup::None => match inherited(domain, known) {
            DmarcLookup::Pending | DmarcLookup::Several(_) => {}
            DmarcLookup::Unknown(reason) => {
                findings.lookup_failed(check, domain, "DMARC record of a parent domain", reason);
            }
            DmarcLookup::One(record) => check_record(&record, true, findings),
            DmarcLookup::None => {
                let advice = format!(
                    "Publish TXT of _dmarc.{domain}: \"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\", read the \
                     reports, then change to p=quarantine."
                );
                findings.warn(check, domain, "no DMARC record, and none to inherit", advice);
            }
        },
    }
}

fn look_up(domain: &DomainName, known: &KnownAnswers) -> DmarcLookup {
    let Some(name) = DomainName::parse(&format!("_dmarc.{domain}")) else {
        return DmarcLookup::None;
    };
    let texts = match known.texts(&name) {
        None => return DmarcLookup::Pending,
        Some(Err(reason)) => return DmarcLookup::Unknown(reason),
        Some(Ok(texts)) => texts,
    };
    let mut records =
        texts.into_iter().map(|text| String::from_utf8_lossy(text)).filter_map(|text| {
            let tags = tags(&text);
            let is_dmarc =
                tags.first().is_some_and(|(name, value)| name == "v" && value == "DMARC1");
            is_dmarc.then(|| DmarcRecord { domain: domain.clone(), tags, text: text.into_owned() })
        });
    match (records.next(), records.count()) {
        (None, _) => DmarcLookup::None,
        (Some(one), 0) => DmarcLookup::One(one),
        (Some(_), more) => DmarcLookup::Several(more + 1),
    }
}

/// The record of the organisational domain. All parents are looked up in parallel.
fn inherited(domain: &DomainName, known: &KnownAnswers) -> DmarcLookup {
    let text = domain.to_string();
    let labels: Vec<&str> = text.split('.').collect();
    let longest = labels.len().saturating_sub(1).min(MAX_WALK_LABELS);
    let mut parents = Vec::new();
    let mut pending = false;
    let mut unknown = None;
    for count in (1..=longest).rev() {
        let name = labels.get(labels.len() - count..).unwrap_or_default().join(".");
        let Some(name) = DomainName::parse(&name) else { continue };
        match look_up(&name, known) {
            DmarcLookup::Pending => pending = true,
            // Several records count as none (RFC 9989 §4.10).
            DmarcLookup::None | DmarcLookup::Several(_) => {}
            DmarcLookup::Unknown(reason) => unknown = Some(reason),
            DmarcLookup::One(record) => parents.push(record),
        }
    }
    if pending {
        return DmarcLookup::Pending;
    }
    // From the longest name: psd=n ends the walk at the organisational domain, psd=y one label above it.
    let psd = |record: &DmarcRecord, word| {
        value(&record.tags, "psd").is_some_and(|psd| psd.eq_ignore_ascii_case(word))
    };
    let own = parents.iter().position(|record| psd(record, "n"));
    let public = parents.iter().position(|record| psd(record, "y"));
    let chosen = match (own, public) {
        (Some(own), public) if public.is_none_or(|public| own < public) => parents.get(own),
        // One label below the public suffix, or the suffix' own record if there is none.
        (_, Some(public)) => {
            let suffix = parents.get(public);
            let below = |record: &&DmarcRecord| {
                suffix.is_some_and(|suffix| record.domain.parent() == suffix.domain)
            };
            parents.iter().take(public).find(below).or(suffix)
        }
        _ => parents.last(),
    };
    match (chosen, unknown) {
        (Some(record), _) => DmarcLookup::One(record.clone()),
        (None, Some(reason)) => DmarcLookup::Unknown(reason),
        (None, None) => DmarcLookup::None,
    }
}

fn check_record(record: &DmarcRecord, inherited: bool, findings: &mut FindingList) {
    let domain = &record.domain;
    let check = CheckName::DmarcRecord;
    let from = if inherited { format!("inherited from {domain}: ") } else { String::new() };
    if let Some(part) = malformed_tags(&record.text).next() {
        let advice = "Correct the record: a list of tag=value, separated by semicolons.";
        findings.fail(check, domain, format!("{from}{part:?} is not tag=value"), advice);
    } else {
        findings.pass(check, domain, format!("{from}{}", record.text));
    }
    let own = value(&record.tags, "p");
    let of_subdomains = value(&record.tags, "sp").filter(|_| inherited);
    let policy = of_subdomains.or(own).unwrap_or("none").to_ascii_lowercase();
    let tag = if of_subdomains.is_some() { "sp" } else { "p" };
    let check = CheckName::DmarcPolicy;
    match policy.as_str() {
        "quarantine" | "reject" => findings.pass(check, domain, format!("policy {tag}={policy}")),
        "none" => {
            let seen = format!("{tag}=none: receivers take no action");
            let advice = "Change to p=quarantine once the reports show that all senders pass, over IPv6 too.";
            findings.warn(check, domain, seen, advice);
        }
        other => {
            let seen = format!("{tag}={other} is not a policy");
            let advice = format!("Write {tag}=none, {tag}=quarantine or {tag}=reject.");
            findings.fail(check, domain, seen, advice);
        }
    }
    check_reports(record, findings);
}

fn check_reports(record: &DmarcRecord, findings: &mut FindingList) {
    let domain = &record.domain;
    let check = CheckName::DmarcReports;
    let Some(rua) = value(&record.tags, "rua").filter(|rua| !rua.is_empty()) else {
        let advice = format!(
            "Add rua=mailto:postmaster@{domain}: the reports list failing senders by address."
        );
        findings.warn(check, domain, "no report address (rua=)", advice);
        return;
    };
    let is_mailto = |uri: &str| {
        let address = uri
            .get(..7)
            .filter(|start| start.eq_ignore_ascii_case("mailto:"))
            .and_then(|_| uri.get(7..));
        address.is_some_and(|address| address.contains('@'))
    };
    match rua.split(',').map(str::trim).find(|uri| !is_mailto(uri)) {
        Some(wrong) => {
            let seen = format!("{wrong:?} in rua= is not a mailto: URI");
            findings.fail(check, domain, seen, format!("Write rua=mailto:postmaster@{domain}."));
        }
        None => findings.pass(check, domain, format!("reports go to {rua}")),
    }
}
