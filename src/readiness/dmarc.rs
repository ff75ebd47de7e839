//! DMARC: the domain's own policy, or the one inherited by the DNS tree walk (RFC 9989 §4.10).

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use crate::dkim::malformed_tags;
use crate::policy::facts::dmarc::{DmarcRecord, DmarcRecords, TreeWalk};

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let domain = &request.domain;
    let check = CheckName::DmarcRecord;
    let Some(walk) = known.evaluate(|answers| TreeWalk::new(domain, answers)) else { return };
    match walk.own() {
        DmarcRecords::Unknown(reason) => {
            findings.lookup_failed(check, domain, "DMARC record", *reason);
        }
        DmarcRecords::Several(count) => {
            let seen = format!("{count} DMARC records; receivers then use none");
            findings.fail(check, domain, seen, format!("Keep one record at _dmarc.{domain}."));
        }
        DmarcRecords::One(record) => check_record(record, false, findings),
        DmarcRecords::None => match walk.applicable() {
            Err(reason) => {
                findings.lookup_failed(check, domain, "DMARC record of a parent domain", reason);
            }
            Ok(Some(record)) => check_record(record, true, findings),
            Ok(None) => {
                let advice = format!(
                    "Publish TXT of _dmarc.{domain}: \"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\", read the \
                     reports, then change to p=quarantine."
                );
                findings.warn(check, domain, "no DMARC record, and none to inherit", advice);
            }
        },
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
    let own = record.tag("p");
    let of_subdomains = record.tag("sp").filter(|_| inherited);
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
    let Some(rua) = record.tag("rua").filter(|rua| !rua.is_empty()) else {
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
