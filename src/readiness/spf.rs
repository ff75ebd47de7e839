//! SPF (RFC 7208): the record, and whether the senders pass, over both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::{CheckName, FindingList};
use super::known::{KnownAnswers, failure_text};
use super::request::CheckRequest;
use crate::addr::{Family, is_global};
use crate::humanize::family as family_name;
use crate::policy::facts::spf::{
    Directive, MAX_LOOKUPS, MAX_VOID, Mechanism, Qualifier, SpfEvaluation, SpfQuery, SpfRecord,
    SpfResult, check_host, costs, is_sender_id, is_spf,
};
use crate::policy::facts::{DomainName, Reason};

/// Addresses for benchmarks (RFC 5180 §8, RFC 2544): no host on the Internet has them.
const STRANGERS: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0xffff, 0, 0, 0, 0x77)),
    IpAddr::V4(Ipv4Addr::new(198, 18, 255, 77)),
];

/// Whether the record says that the domain sends no mail: `v=spf1 -all` (RFC 7208 §10.1.2). `None` as long as it is not known.
pub(super) fn sends_no_mail(domain: &DomainName, known: &KnownAnswers) -> Option<bool> {
    let Ok(texts) = known.texts(domain)? else { return Some(false) };
    let records: Vec<SpfRecord> =
        texts.into_iter().filter(|text| is_spf(text)).map(SpfRecord::parse).collect();
    Some(match records.as_slice() {
        [record] => {
            let denies_all = |one: &Directive| {
                one.mechanism == Mechanism::All && one.qualifier == Qualifier::Fail
            };
            record.errors.is_empty()
                && matches!(record.directives.as_slice(), [only] if denies_all(only))
        }
        _ => false,
    })
}

/// Whether the record lists one of the senders. `None` as long as it is not known.
pub(super) fn lists_a_sender(request: &CheckRequest, known: &KnownAnswers) -> Option<bool> {
    let results: Vec<Option<SpfEvaluation>> =
        request.senders.iter().map(|ip| evaluate(*ip, request, known)).collect();
    let results: Option<Vec<SpfEvaluation>> = results.into_iter().collect();
    Some(results?.iter().any(|one| one.result == SpfResult::Pass))
}

pub(super) fn check(
    request: &CheckRequest,
    judges_senders: bool,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let domain = &request.domain;
    let check = CheckName::SpfRecord;
    let texts = match known.texts(domain) {
        None => return,
        Some(Err(reason)) => {
            findings.lookup_failed(check, domain, "TXT", reason);
            return;
        }
        Some(Ok(texts)) => texts,
    };
    if let Some(text) = texts.iter().find(|text| is_sender_id(text)) {
        let seen = format!("Sender ID record: {}", String::from_utf8_lossy(text));
        let advice = "Remove it: Sender ID is historic and not evaluated (RFC 4406, RFC 6686).";
        findings.warn(CheckName::SenderId, domain, seen, advice);
    }
    let records: Vec<&[u8]> = texts.into_iter().filter(|text| is_spf(text)).collect();
    let text = match records.as_slice() {
        [] => {
            let advice = format!("Publish TXT of {domain}: \"{}\".", proposal(request));
            findings.fail(check, domain, "no SPF record", advice);
            return;
        }
        [one] => one,
        several => {
            let seen =
                format!("{} SPF records; receivers then use none (RFC 7208 §4.5)", several.len());
            findings.fail(check, domain, seen, "Merge them into one record.");
            return;
        }
    };
    findings.pass(check, domain, String::from_utf8_lossy(text));
    let record = SpfRecord::parse(text);
    check_syntax(&record, request, findings);
    check_all(&record, request, known, findings);
    check_costs(request, known, findings);
    if record.errors.is_empty() && judges_senders {
        check_senders(request, known, findings);
    }
}

/// A record that lists the senders.
fn proposal(request: &CheckRequest) -> String {
    let mut record = String::from("v=spf1 mx");
    for sender in request.senders.iter().filter(|sender| is_global(**sender)) {
        record.push(' ');
        record.push_str(&term(*sender));
    }
    record + " ~all"
}

fn term(sender: IpAddr) -> String {
    match sender {
        IpAddr::V4(v4) => format!("ip4:{v4}"),
        IpAddr::V6(v6) => format!("ip6:{v6}"),
    }
}

fn check_syntax(record: &SpfRecord, request: &CheckRequest, findings: &mut FindingList) {
    let check = CheckName::SpfSyntax;
    for error in &record.errors {
        let advice = "Correct this term: receivers treat the whole record as invalid (permerror).";
        findings.fail(check, &request.domain, error, advice);
    }
    for warning in &record.warnings {
        let advice = "Correct this term: as written it has no effect.";
        findings.warn(check, &request.domain, warning, advice);
    }
}

/// The result for hosts that send nothing for the domain.
fn check_all(
    record: &SpfRecord,
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let check = CheckName::SpfAll;
    let domain = &request.domain;
    let all = record.directives.iter().find(|one| one.mechanism == Mechanism::All);
    let strangers = STRANGERS.map(|stranger| (stranger, evaluate(stranger, request, known)));
    let [(_, Some(over_ipv6)), (_, Some(over_ipv4))] = &strangers else { return };
    let passes = strangers.iter().find_map(|(stranger, evaluation)| {
        let evaluation = evaluation.as_ref().filter(|one| one.result == SpfResult::Pass)?;
        Some((*stranger, evaluation.term.clone().unwrap_or_default()))
    });
    if let Some((stranger, term)) =
        passes.filter(|_| all.is_none_or(|all| all.qualifier != Qualifier::Pass))
    {
        let seen = format!("{stranger}, which is no host's address, passes by {term}");
        let advice = "Narrow the term to the domain's own senders: as it is, strangers may send as the domain.";
        findings.fail(check, domain, seen, advice);
        return;
    }
    match (all.map(|all| all.qualifier), &record.redirect) {
        (Some(Qualifier::Pass), _) => {
            let advice = "Write ~all or -all: as it is, any host may send as the domain.";
            findings.fail(check, domain, "\"all\" passes: every host is allowed", advice);
        }
        (Some(Qualifier::Neutral), _) => {
            let advice = "Write ~all or -all once the record lists all senders.";
            findings.warn(check, domain, "ends in ?all: neutral for other hosts", advice);
        }
        (Some(Qualifier::Fail), _) => findings.pass(check, domain, "ends in -all"),
        (Some(Qualifier::SoftFail), _) => findings.pass(check, domain, "ends in ~all"),
        (None, Some(_))
            if [over_ipv6, over_ipv4].iter().any(|one| one.result == SpfResult::Neutral) =>
        {
            let seen = "the record of redirect= has no \"all\": neutral for other hosts";
            findings.warn(check, domain, seen, "End that record with ~all or -all.");
        }
        (None, Some(_)) => findings.pass(check, domain, "continues with the record of redirect="),
        (None, None) => {
            let seen = "no \"all\" and no redirect=: neutral for other hosts";
            findings.warn(check, domain, seen, "End the record with ~all or -all.");
        }
    }
}

/// The record's costs for receivers, over each family.
fn check_costs(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let domain = &request.domain;
    let helo = helo(request);
    let counts =
        Family::ALL.map(|family| known.evaluate(|answers| costs(domain, &helo, family, answers)));
    let [Some(v4), Some(v6)] = counts else { return };
    if v4.uses_reverse_name {
        let seen = "uses the sender's reverse name (ptr)";
        let advice = "Replace ptr and %{p} by ip6: and ip4: terms: RFC 7208 §5.5 discourages them, and some receivers \
                      ignore them.";
        findings.warn(CheckName::SpfPtr, domain, seen, advice);
    }
    for error in &v4.errors {
        let advice =
            "Correct or remove the term: receivers treat the whole record as invalid (permerror).";
        findings.fail(CheckName::SpfSyntax, domain, error, advice);
    }
    let check = CheckName::SpfLookups;
    let lookups = v4.lookups;
    if lookups > MAX_LOOKUPS {
        let seen =
            format!("{lookups} terms with DNS lookups; RFC 7208 §4.6.4 allows {MAX_LOOKUPS}");
        let advice = "Replace include:, a and mx by the ip6: and ip4: terms that they stand for, or remove senders that \
                      are no longer used.";
        findings.fail(check, domain, seen, advice);
    } else if let Some(reason) = v4.unknown.or(v6.unknown) {
        let seen = format!(
            "at least {lookups} terms with DNS lookups; not all could be followed: {}",
            failure_text(reason)
        );
        let advice = "Check the name servers of the domains in the record, then run this again.";
        findings.unknown(check, domain, seen, advice);
    } else {
        let seen = format!("{lookups} of at most {MAX_LOOKUPS} terms with DNS lookups");
        findings.pass(check, domain, seen);
    }
    check_voids(&v4.voids, &v6.voids, request, findings);
}

/// Reports the family with more void lookups.
fn check_voids(v4: &[String], v6: &[String], request: &CheckRequest, findings: &mut FindingList) {
    let check = CheckName::SpfVoidLookups;
    let domain = &request.domain;
    let (family, voids) =
        if v6.len() >= v4.len() { (Family::Ipv6, v6) } else { (Family::Ipv4, v4) };
    let over = if v6.len() == v4.len() {
        String::new()
    } else {
        format!(" for a sender over {}", family_name(family))
    };
    let names = voids.join(", ");
    match voids.len() {
        0 => findings.pass(check, domain, "no void lookups"),
        few if few <= MAX_VOID => {
            let seen = format!("{few} of at most {MAX_VOID} void lookups{over}: {names}");
            findings.pass(check, domain, seen);
        }
        many => {
            let seen = format!("{many} void lookups{over}, {MAX_VOID} are allowed: {names}");
            let advice = "Remove the terms whose names have no records, or publish these: a host without AAAA is a void \
                          lookup for each sender over IPv6.";
            findings.fail(check, domain, seen, advice);
        }
    }
}

fn check_senders(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let check = CheckName::SpfSender;
    let senders = request.senders.iter().copied().filter(|sender| is_global(*sender));
    let results: Vec<(IpAddr, SpfEvaluation)> =
        senders.filter_map(|ip| Some((ip, evaluate(ip, request, known)?))).collect();
    let passes = |result: &SpfEvaluation| result.result == SpfResult::Pass;
    let ipv4_passes = results.iter().any(|(ip, result)| ip.is_ipv4() && passes(result));
    for (sender, evaluation) in &results {
        let by = evaluation.term.as_deref();
        match evaluation.result {
            SpfResult::Temperror => {
                let reason = evaluation.failure.unwrap_or(Reason::Servfail);
                findings.lookup_failed(check, sender, "SPF result", reason);
            }
            SpfResult::Permerror => {
                let advice =
                    "Correct the record: receivers that evaluate this term treat it as invalid.";
                let why = evaluation.error.as_deref().unwrap_or_default();
                findings.fail(check, sender, format!("permerror: {why}"), advice);
            }
            // The domain's own record was found before.
            SpfResult::None => {}
            SpfResult::Pass => {
                findings.pass(check, sender, format!("pass by {}", by.unwrap_or_default()));
            }
            result @ (SpfResult::Fail | SpfResult::Softfail | SpfResult::Neutral) => {
                let by = by.map_or_else(String::new, |term| format!(" by {term}"));
                let beside =
                    if sender.is_ipv6() && ipv4_passes { ", while IPv4 passes" } else { "" };
                let advice = format!(
                    "Add {} to the record if the domain's mail is sent from there.",
                    term(*sender)
                );
                findings.fail(check, sender, format!("{result}{by}{beside}"), advice);
            }
        }
    }
}

fn evaluate(ip: IpAddr, request: &CheckRequest, known: &KnownAnswers) -> Option<SpfEvaluation> {
    let helo = helo(request);
    let (local_part, domain) = ("postmaster", request.domain.clone());
    let query = SpfQuery { ip, local_part, domain, helo: &helo };
    known.evaluate(|answers| check_host(&query, answers))
}

fn helo(request: &CheckRequest) -> String {
    request.helo.as_ref().map_or_else(|| request.domain.to_string(), |(name, _)| name.to_string())
}
