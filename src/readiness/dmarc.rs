//! DMARC: the domain's own policy, or the one inherited by the DNS tree walk (RFC 9989 §4.10).

use std::collections::BTreeSet;

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use super::spf;
use crate::dkim::malformed_tags;
use crate::policy::facts::dmarc::{DmarcPolicy, DmarcRecord, DmarcRecords, DmarcScope, TreeWalk};
use crate::policy::facts::{DomainName, Reason};

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let domain = &request.domain;
    let check = CheckName::DmarcRecord;
    let Some(walk) = known.evaluate(|answers| TreeWalk::new(domain, answers)) else { return };
    let Some(sends_no_mail) = spf::sends_no_mail(domain, known) else { return };
    if let Some(broken) = broken_record(domain, known) {
        let advice =
            "Let the record begin with \"v=DMARC1;\", in capitals: receivers ignore this one.";
        findings.fail(check, domain, format!("not a DMARC record: {broken}"), advice);
    }
    let context = Context { known, sends_no_mail };
    match walk.own() {
        DmarcRecords::Unknown(reason) => {
            findings.lookup_failed(check, domain, "DMARC record", *reason);
        }
        DmarcRecords::Several(count) => {
            let seen = format!("{count} DMARC records; receivers then use none");
            findings.fail(check, domain, seen, format!("Keep one record at _dmarc.{domain}."));
        }
        DmarcRecords::One(record) => context.check_record(record, false, findings),
        DmarcRecords::None => match walk.applicable() {
            Err(reason) => {
                findings.lookup_failed(check, domain, "DMARC record of a parent domain", reason);
            }
            Ok(Some(record)) => context.check_record(record, true, findings),
            Ok(None) => {
                let advice = if sends_no_mail {
                    format!("Publish TXT of _dmarc.{domain}: \"v=DMARC1; p=reject\".")
                } else {
                    format!(
                        "Publish TXT of _dmarc.{domain}: \"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\", read the \
                     reports, then change to p=quarantine."
                    )
                };
                findings.warn(check, domain, "no DMARC record, and none to inherit", advice);
            }
        },
    }
}

/// A text in the place of the domain's own record that was meant to be one.
fn broken_record(domain: &DomainName, known: &KnownAnswers) -> Option<String> {
    let name = DomainName::parse(&format!("_dmarc.{domain}"))?;
    let texts = known.texts(&name)?.ok()?;
    let is_meant = |text: &&[u8]| {
        let start: Vec<u8> =
            text.iter().copied().filter(u8::is_ascii_alphanumeric).take(6).collect();
        start.eq_ignore_ascii_case(b"vdmarc")
    };
    let broken = texts.into_iter().filter(is_meant);
    let mut broken = broken.filter(|text| DmarcRecord::parse(domain, text).is_none());
    broken.next().map(|text| String::from_utf8_lossy(text).into_owned())
}

struct Context<'a> {
    known: &'a KnownAnswers,
    sends_no_mail: bool,
}

impl Context<'_> {
    fn check_record(&self, record: &DmarcRecord, inherited: bool, findings: &mut FindingList) {
        let domain = &record.domain;
        let check = CheckName::DmarcRecord;
        let from = if inherited { format!("inherited from {domain}: ") } else { String::new() };
        if let Some(part) = malformed_tags(&record.text).next() {
            let advice = "Correct the record: a list of tag=value, separated by semicolons.";
            findings.fail(check, domain, format!("{from}{part:?} is not tag=value"), advice);
        } else {
            findings.pass(check, domain, format!("{from}{}", record.text));
        }
        self.check_policy(record, inherited, findings);
        self.check_reports(record, findings);
    }

    fn check_policy(&self, record: &DmarcRecord, inherited: bool, findings: &mut FindingList) {
        let domain = &record.domain;
        let check = CheckName::DmarcPolicy;
        let own = record.tag("p");
        let of_subdomains = record.tag("sp").filter(|_| inherited);
        let policy = of_subdomains.or(own).unwrap_or("none").to_ascii_lowercase();
        let tag = if of_subdomains.is_some() { "sp" } else { "p" };
        let scope = if inherited { DmarcScope::Subdomain } else { DmarcScope::Domain };
        let applied = record.policy(scope);
        match policy.as_str() {
            "quarantine" | "reject" if applied.is_some_and(|one| one.as_str() != policy) => {
                let applied = applied.map(DmarcPolicy::as_str).unwrap_or_default();
                let seen = format!("{tag}={policy} in test mode: receivers apply {applied}");
                let advice = "Remove t=y (in older records pct=0) once the reports show that all senders pass, over IPv6 \
                              too.";
                findings.warn(check, domain, seen, advice);
            }
            "quarantine" if self.sends_no_mail => {
                let advice = "Change to p=reject: the domain sends no mail.";
                findings.warn(check, domain, format!("{tag}={policy}"), advice);
            }
            "quarantine" | "reject" => {
                findings.pass(check, domain, format!("policy {tag}={policy}"));
            }
            "none" => {
                let seen = format!("{tag}=none: receivers take no action");
                let advice = match self.sends_no_mail {
                    true => "Change to p=reject: the domain sends no mail.",
                    false => {
                        "Change to p=quarantine once the reports show that all senders pass, over IPv6 too."
                    }
                };
                findings.warn(check, domain, seen, advice);
            }
            other => {
                let seen = format!("{tag}={other} is not a policy");
                let advice = format!("Write {tag}=none, {tag}=quarantine or {tag}=reject.");
                findings.fail(check, domain, seen, advice);
            }
        }
        let missing = record.policy(DmarcScope::MissingSubdomain);
        if let (Some(missing), Some(applied)) = (missing, applied.filter(|_| !inherited))
            && missing < applied
        {
            let tag = if record.tag("np").is_some() { "np" } else { "sp" };
            let seen =
                format!("{tag}={missing}: names below {domain} that do not exist may be forged");
            let advice = format!("Write np={applied}, as no mail comes from such names.");
            findings.warn(check, domain, seen, advice);
        }
    }

    fn check_reports(&self, record: &DmarcRecord, findings: &mut FindingList) {
        let domain = &record.domain;
        let check = CheckName::DmarcReports;
        let Some(rua) = record.tag("rua").filter(|rua| !rua.is_empty()) else {
            if self.sends_no_mail {
                return;
            }
            let advice = format!(
                "Add rua=mailto:postmaster@{domain}: the reports list failing senders by address."
            );
            findings.warn(check, domain, "no report address (rua=)", advice);
            return;
        };
        let uris: Vec<&str> = rua.split(',').map(str::trim).collect();
        if let Some(wrong) = uris.iter().find(|uri| mailbox_domain(uri).is_none()) {
            let seen = format!("{wrong:?} in rua= is not a mailto: URI");
            findings.fail(check, domain, seen, format!("Write rua=mailto:postmaster@{domain}."));
            return;
        }
        let targets: BTreeSet<DomainName> =
            uris.iter().filter_map(|uri| DomainName::parse(mailbox_domain(uri)?)).collect();
        let mut are_known = true;
        let mut faults = false;
        for target in targets {
            match self.accepts_reports(&target, domain) {
                None => are_known = false,
                Some(Ok(true)) => {}
                Some(Ok(false)) => {
                    faults = true;
                    let seen = format!(
                        "{target} does not say that it takes reports about {domain}: they are not sent"
                    );
                    let advice = format!(
                        "Let {target} publish TXT of {domain}._report._dmarc.{target}: \"v=DMARC1;\" (RFC 9990), or write an \
                         address of this domain."
                    );
                    findings.fail(check, domain, seen, advice);
                }
                Some(Err(reason)) => {
                    faults = true;
                    let what = format!("whether {target} takes the reports");
                    findings.lookup_failed(check, domain, &what, reason);
                }
            }
        }
        if are_known && !faults {
            findings.pass(check, domain, format!("reports go to {rua}"));
        }
    }

    /// Whether reports about `domain` are sent to `target`: both have the same organisational domain, or `target` publishes that
    /// it takes them (RFC 9990, formerly RFC 7489 §7.1).
    fn accepts_reports(
        &self,
        target: &DomainName,
        domain: &DomainName,
    ) -> Option<Result<bool, Reason>> {
        let walks =
            [target, domain].map(|one| self.known.evaluate(|answers| TreeWalk::new(one, answers)));
        let [Some(of_target), Some(of_domain)] = walks else { return None };
        match (of_target.organizational_domain(), of_domain.organizational_domain()) {
            (Ok(one), Ok(other)) if one == other => return Some(Ok(true)),
            (Err(reason), _) | (_, Err(reason)) => return Some(Err(reason)),
            _ => {}
        }
        let name = DomainName::parse(&format!("{domain}._report._dmarc.{target}"))?;
        let is_record = |text: &[u8]| DmarcRecord::parse(target, text).is_some();
        Some(self.known.texts(&name)?.map(|texts| texts.into_iter().any(is_record)))
    }
}

/// The domain of a `mailto:` URI.
fn mailbox_domain(uri: &str) -> Option<&str> {
    let start = uri.get(..7).filter(|start| start.eq_ignore_ascii_case("mailto:"))?;
    let address = uri.get(start.len()..)?;
    // A limit of size, which older records have, follows an exclamation mark.
    let domain = address.split(['?', '!']).next()?.rsplit_once('@')?.1;
    (!domain.is_empty()).then_some(domain)
}
