//! DMARC: the domain's own policy, or the one that it inherits by the DNS tree walk (RFC 9989 §4.10).

use super::finding::{CheckName, Findings};
use super::tags::{not_tags, tags, value};
use super::{CheckRequest, KnownAnswers, TxtAnswer};
use crate::policy::facts::{DomainName, Reason};

/// RFC 9989 §4.10: of a longer name the walk goes on with so many labels.
const LABELS: usize = 7;

/// A record and where it is.
#[derive(Clone, Debug)]
struct Found {
    domain: DomainName,
    tags: Vec<(String, String)>,
    text: String,
}

/// What stands at `_dmarc` below a domain.
enum Stands {
    Pending,
    Nothing,
    One(Found),
    Several(usize),
    Unknown(Reason),
}

pub(super) fn judge(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let domain = &asked.domain;
    let check = CheckName::DmarcRecord;
    match at(domain, known) {
        Stands::Pending => {}
        Stands::Unknown(reason) => findings.unanswered(check, domain, "the DMARC record", reason),
        Stands::Several(count) => {
            let seen = format!("{count} DMARC records; receivers then take none");
            findings.fail(check, domain, seen, format!("Leave one record at _dmarc.{domain}."));
        }
        Stands::One(found) => told(&found, false, findings),
        Stands::Nothing => match inherited(domain, known) {
            Stands::Pending | Stands::Several(_) => {}
            Stands::Unknown(reason) => {
                findings.unanswered(check, domain, "the DMARC record of a parent", reason)
            }
            Stands::One(found) => told(&found, true, findings),
            Stands::Nothing => {
                let advice = format!(
                    "Publish TXT of _dmarc.{domain}: \"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\", read the \
                     reports, then ask for p=quarantine."
                );
                findings.warn(check, domain, "no DMARC record, nor one to inherit", advice);
            }
        },
    }
}

fn at(domain: &DomainName, known: &KnownAnswers) -> Stands {
    let Some(name) = DomainName::parse(&format!("_dmarc.{domain}")) else { return Stands::Nothing };
    let texts = match known.texts(&name) {
        None => return Stands::Pending,
        Some(TxtAnswer::NoData | TxtAnswer::NxDomain) => return Stands::Nothing,
        Some(TxtAnswer::Unknown(reason)) => return Stands::Unknown(*reason),
        Some(TxtAnswer::Found(texts)) => texts,
    };
    let mut records = texts.iter().map(|text| String::from_utf8_lossy(text)).filter_map(|text| {
        let tags = tags(&text);
        let is_dmarc = tags.first().is_some_and(|(name, value)| name == "v" && value == "DMARC1");
        is_dmarc.then(|| Found { domain: domain.clone(), tags, text: text.into_owned() })
    });
    match (records.next(), records.count()) {
        (None, _) => Stands::Nothing,
        (Some(one), 0) => Stands::One(one),
        (Some(_), more) => Stands::Several(more + 1),
    }
}

/// The record of the organisational domain. All parents are asked at once.
fn inherited(domain: &DomainName, known: &KnownAnswers) -> Stands {
    let text = domain.to_string();
    let labels: Vec<&str> = text.split('.').collect();
    let longest = labels.len().saturating_sub(1).min(LABELS);
    let mut above = Vec::new();
    let mut pending = false;
    let mut unknown = None;
    for count in (1..=longest).rev() {
        let name = labels.get(labels.len() - count..).unwrap_or_default().join(".");
        let Some(name) = DomainName::parse(&name) else { continue };
        match at(&name, known) {
            Stands::Pending => pending = true,
            // Several are none (RFC 9989 §4.10).
            Stands::Nothing | Stands::Several(_) => {}
            Stands::Unknown(reason) => unknown = Some(reason),
            Stands::One(found) => above.push(found),
        }
    }
    if pending {
        return Stands::Pending;
    }
    // From below: psd=n ends the walk at the organisational domain, psd=y one above it.
    let psd = |found: &Found, word| {
        value(&found.tags, "psd").is_some_and(|psd| psd.eq_ignore_ascii_case(word))
    };
    let own = above.iter().position(|found| psd(found, "n"));
    let public = above.iter().position(|found| psd(found, "y"));
    let chosen = match (own, public) {
        (Some(own), public) if public.is_none_or(|public| own < public) => above.get(own),
        // One label below the public suffix, or its own record if nothing is there.
        (_, Some(public)) => {
            let suffix = above.get(public);
            let below = |found: &&Found| {
                suffix.is_some_and(|suffix| found.domain.parent() == suffix.domain)
            };
            above.iter().take(public).find(below).or(suffix)
        }
        _ => above.last(),
    };
    match (chosen, unknown) {
        (Some(found), _) => Stands::One(found.clone()),
        (None, Some(reason)) => Stands::Unknown(reason),
        (None, None) => Stands::Nothing,
    }
}

fn told(found: &Found, inherited: bool, findings: &mut Findings) {
    let domain = &found.domain;
    let from = if inherited { format!("inherited from {domain}: ") } else { String::new() };
    if let Some(odd) = not_tags(&found.text).next() {
        let advice = "Correct the record: it is a list of tag=value, with semicolons between.";
        findings.fail(
            CheckName::DmarcRecord,
            domain,
            format!("{from}{odd:?} is no tag=value"),
            advice,
        );
    } else {
        findings.pass(CheckName::DmarcRecord, domain, format!("{from}{}", found.text));
    }
    let own = value(&found.tags, "p");
    let of_subdomains = value(&found.tags, "sp").filter(|_| inherited);
    let policy = of_subdomains.or(own).unwrap_or("none").to_ascii_lowercase();
    let tag = if of_subdomains.is_some() { "sp" } else { "p" };
    let check = CheckName::DmarcPolicy;
    match policy.as_str() {
        "quarantine" | "reject" => findings.pass(check, domain, format!("policy {tag}={policy}")),
        "none" => {
            let advice =
                "Ask for p=quarantine once the reports show that all senders pass, over IPv6 too.";
            findings.warn(
                check,
                domain,
                format!("{tag}=none: receivers are asked to do nothing"),
                advice,
            );
        }
        other => {
            let seen = format!("{tag}={other} is no policy");
            findings.fail(
                check,
                domain,
                seen,
                format!("Write {tag}=none, {tag}=quarantine or {tag}=reject."),
            );
        }
    }
    reports(found, findings);
}

fn reports(found: &Found, findings: &mut Findings) {
    let domain = &found.domain;
    let check = CheckName::DmarcReports;
    let Some(rua) = value(&found.tags, "rua").filter(|rua| !rua.is_empty()) else {
        let advice = format!(
            "Add rua=mailto:postmaster@{domain}: the reports tell which senders fail, by address."
        );
        findings.warn(check, domain, "nobody is sent reports (no rua=)", advice);
        return;
    };
    let is_mail = |uri: &str| {
        let address = uri
            .get(..7)
            .filter(|start| start.eq_ignore_ascii_case("mailto:"))
            .and_then(|_| uri.get(7..));
        address.is_some_and(|address| address.contains('@'))
    };
    match rua.split(',').map(str::trim).find(|uri| !is_mail(uri)) {
        Some(wrong) => {
            let seen = format!("{wrong:?} in rua= is no mailto: URI");
            findings.fail(check, domain, seen, format!("Write rua=mailto:postmaster@{domain}."));
        }
        None => findings.pass(check, domain, format!("reports go to {rua}")),
    }
}
