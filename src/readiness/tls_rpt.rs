//! TLSRPT (RFC 8460): where senders report TLS that failed.

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use super::versioned_text::{VersionedText, fields};
use crate::policy::facts::DomainName;

const VERSION: &str = "TLSRPTv1";

/// `is_needed`: senders verify TLS with the domain's servers, so that the domain has to know when that fails.
pub(super) fn check(
    request: &CheckRequest,
    is_needed: bool,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let domain = &request.domain;
    let check = CheckName::TlsRptRecord;
    let Some(name) = DomainName::parse(&format!("_smtp._tls.{domain}")) else { return };
    let example = format!("\"v=TLSRPTv1; rua=mailto:postmaster@{domain}\"");
    let texts = match known.texts(&name) {
        None => return,
        Some(Err(reason)) => {
            findings.lookup_failed(check, &name, "TLSRPT record", reason);
            return;
        }
        Some(Ok(texts)) => texts,
    };
    match VersionedText::find(&texts, VERSION, "rua") {
        VersionedText::Missing if is_needed => {
            let advice = format!(
                "Publish TXT of {name}: {example}. Otherwise nobody reports that mail stays away as TLS fails."
            );
            findings.warn(check, &name, "no TLSRPT record", advice);
        }
        VersionedText::Missing => {
            findings.pass(check, domain, "no TLSRPT record: senders do not report TLS that fails");
        }
        VersionedText::Several(count) => {
            let seen = format!("{count} TLSRPT records; senders then report nothing");
            findings.fail(check, &name, seen, "Keep one of the TXT records.");
        }
        VersionedText::Misspelt(text) => {
            let advice = format!(
                "Let the record begin with \"v=TLSRPTv1;\", as in {example}: senders ignore this one."
            );
            findings.fail(check, &name, format!("not a TLSRPT record: {text}"), advice);
        }
        VersionedText::One(text) => check_record(&name, &text, &example, findings),
    }
}

fn check_record(name: &DomainName, text: &str, example: &str, findings: &mut FindingList) {
    let fields = match fields(text) {
        Ok(fields) => fields,
        Err(part) => {
            let seen = format!("{part:?} is not name=value: {text}");
            findings.fail(CheckName::TlsRptRecord, name, seen, format!("Write such as {example}."));
            return;
        }
    };
    findings.pass(CheckName::TlsRptRecord, name, text);
    let check = CheckName::TlsRptReports;
    let mut lists = fields.iter().filter(|(name, _)| *name == "rua");
    let (Some((_, list)), None) = (lists.next(), lists.next()) else {
        let seen = format!("not exactly one rua=: {text}");
        findings.fail(check, name, seen, format!("Write such as {example}."));
        return;
    };
    let uris: Vec<&str> = list.split(',').map(|uri| uri.trim_matches([' ', '\t'])).collect();
    let (known, others): (Vec<&str>, Vec<&str>) = uris.iter().partition(|uri| is_report_uri(uri));
    match others.first() {
        None => findings.pass(check, name, format!("reports go to {list}")),
        Some(other) => {
            let seen = format!("{other:?} in rua= is neither a mailto: nor an https: URI");
            let advice = format!("Correct it or remove it, as in {example}.");
            match known.is_empty() {
                true => findings.fail(check, name, seen, advice),
                false => findings.warn(check, name, seen, advice),
            };
        }
    }
}

/// RFC 8460 §3: other schemes are not defined.
fn is_report_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_clean = rest.bytes().all(|octet| octet.is_ascii_graphic()) && !rest.contains('!');
    let is_complete = match scheme.to_ascii_lowercase().as_str() {
        "mailto" => {
            let mailbox = rest.split('?').next().unwrap_or_default().rsplit_once('@');
            mailbox.is_some_and(|(local, domain)| {
                !local.is_empty() && DomainName::parse(domain).is_some()
            })
        }
        "https" => rest.strip_prefix("//").is_some_and(|rest| {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            !host.is_empty() && !host.starts_with(':')
        }),
        _ => false,
    };
    is_clean && is_complete
}
