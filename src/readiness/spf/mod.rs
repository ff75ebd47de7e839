//! SPF (RFC 7208): the record itself, and whether the senders pass, over IPv6 as over IPv4.
//!
//! The evaluation is ours: the mail-auth crate, whose newest release needs a newer Rust, counts no void lookups, takes the
//! first of several records and reads `/129` as `/128`; these are what this has to tell.
//!
//! Of the RFC 7208 test suite (that of pyspf 2.0.14) it gives 200 of 203 results; four of these 200 are of what is no
//! domain name, which is not asked about. Of the others two hang on the sender's local part, which is always `postmaster`
//! here, and one (`p-macro-multiple`) on `%{p}`, which is always `unknown`. `exp=` is read, not followed: explanations are
//! no results.

mod eval;
mod macros;
mod record;

use std::net::IpAddr;

use self::eval::{MAX_LOOKUPS, MAX_VOID, Stop, Verdict, Walk};
use self::record::{Mechanism, Qualifier, Record, is_sender_id, is_spf};
use super::finding::{CheckName, Findings};
use super::known::in_words;
use super::smtp::word;
use super::{CheckRequest, KnownAnswers, TxtAnswer};
use crate::addr::{Family, is_global};

pub(super) fn judge(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let domain = &asked.domain;
    let texts: &[Vec<u8>] = match known.texts(domain) {
        None => return,
        Some(TxtAnswer::Unknown(reason)) => {
            findings.unanswered(CheckName::SpfRecord, domain, "TXT", *reason);
            return;
        }
        Some(TxtAnswer::NoData | TxtAnswer::NxDomain) => &[],
        Some(TxtAnswer::Found(texts)) => texts,
    };
    if let Some(text) = texts.iter().find(|text| is_sender_id(text)) {
        let seen = format!("a Sender ID record: {}", String::from_utf8_lossy(text));
        let advice = "Remove it: Sender ID is historic (RFC 4406, RFC 6686), and nobody reads it.";
        findings.warn(CheckName::SenderId, domain, seen, advice);
    }
    let records: Vec<&Vec<u8>> = texts.iter().filter(|text| is_spf(text)).collect();
    let text = match records.as_slice() {
        [] => {
            let advice = format!("Publish TXT of {domain}: \"{}\".", proposal(asked));
            findings.fail(CheckName::SpfRecord, domain, "no SPF record", advice);
            return;
        }
        [one] => one,
        several => {
            let seen =
                format!("{} SPF records; receivers then take none (RFC 7208 §4.5)", several.len());
            findings.fail(CheckName::SpfRecord, domain, seen, "Join them into one record.");
            return;
        }
    };
    findings.pass(CheckName::SpfRecord, domain, String::from_utf8_lossy(text));
    let record = Record::parse(text);
    syntax(&record, asked, findings);
    all(&record, asked, findings);
    costs(asked, known, findings);
    if record.mistakes.is_empty() {
        senders(asked, known, findings);
    }
}

/// A record that names the senders.
fn proposal(asked: &CheckRequest) -> String {
    let mut record = String::from("v=spf1 mx");
    for sender in asked.senders.iter().filter(|sender| is_global(**sender)) {
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

fn syntax(record: &Record, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::SpfSyntax;
    for mistake in &record.mistakes {
        let advice = "Correct this term: receivers take the whole record for broken (permerror).";
        findings.fail(check, &asked.domain, mistake, advice);
    }
    for odd in &record.odd {
        findings.warn(
            check,
            &asked.domain,
            odd,
            "Correct this term: it does nothing as it stands.",
        );
    }
}

fn all(record: &Record, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::SpfAll;
    let all = record.directives.iter().find(|one| one.mechanism == Mechanism::All);
    match (all.map(|all| all.qualifier), &record.redirect) {
        (Some(Qualifier::Pass), _) => {
            let advice = "Write ~all or -all: as it is, everybody may send as the domain.";
            findings.fail(
                check,
                &asked.domain,
                "\"all\" passes: the record allows every host",
                advice,
            );
        }
        (Some(Qualifier::Neutral), _) => {
            let advice = "Write ~all or -all once the record names all senders.";
            findings.warn(
                check,
                &asked.domain,
                "?all: the record says nothing of other hosts",
                advice,
            );
        }
        (Some(Qualifier::Fail), _) => findings.pass(check, &asked.domain, "it ends in -all"),
        (Some(Qualifier::SoftFail), _) => findings.pass(check, &asked.domain, "it ends in ~all"),
        (None, Some(_)) => {
            findings.pass(check, &asked.domain, "the record that redirect= names decides")
        }
        (None, None) => {
            let advice = "End the record with ~all or -all.";
            findings.warn(
                check,
                &asked.domain,
                "no \"all\" and no redirect=: it says nothing of other hosts",
                advice,
            );
        }
    }
}

/// What the record asks of receivers, over either family.
fn costs(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let domain = &asked.domain;
    let helo = helo(asked);
    let counted = Family::ALL.map(|family| Walk::count(known, domain, &helo, family));
    let [Some(v4), Some(v6)] = counted else { return };
    if v4.asks_for_reverse_name {
        let advice = "Replace ptr and %{p} by ip6: and ip4: terms: RFC 7208 §5.5 says not to use them, and some \
                      receivers skip them.";
        findings.warn(
            CheckName::SpfPtr,
            domain,
            "it asks for the sender's reverse name (ptr)",
            advice,
        );
    }
    for why in &v4.broken {
        let advice = "Correct it, or leave the term out: receivers take the whole record for broken (permerror).";
        findings.fail(CheckName::SpfSyntax, domain, why, advice);
    }
    let lookups = v4.lookups;
    if lookups > MAX_LOOKUPS {
        let seen = format!("{lookups} terms ask the DNS; RFC 7208 §4.6.4 allows {MAX_LOOKUPS}");
        let advice = "Replace include:, a and mx by the ip6: and ip4: terms that they stand for, or drop what sends no \
                      more.";
        findings.fail(CheckName::SpfLookups, domain, seen, advice);
    } else if let Some(reason) = v4.unknown.or(v6.unknown) {
        let seen = format!(
            "at least {lookups} terms ask the DNS; not all could be followed: {}",
            in_words(reason)
        );
        let advice =
            "Check the name servers of the domains that the record names, then run this again.";
        findings.unknown(CheckName::SpfLookups, domain, seen, advice);
    } else {
        let seen = format!("{lookups} of at most {MAX_LOOKUPS} terms ask the DNS");
        findings.pass(CheckName::SpfLookups, domain, seen);
    }
    let worse = if v6.voids.len() >= v4.voids.len() { &v6 } else { &v4 };
    let over = if v6.voids.len() == v4.voids.len() {
        String::new()
    } else {
        format!(
            " of a sender over {}",
            word(if std::ptr::eq(worse, &v6) { Family::Ipv6 } else { Family::Ipv4 })
        )
    };
    let names = worse.voids.join(", ");
    match worse.voids.len() {
        0 => findings.pass(CheckName::SpfVoidLookups, domain, "each question has an answer"),
        few if few <= MAX_VOID => {
            let seen =
                format!("{few} of at most {MAX_VOID} questions{over} without an answer: {names}");
            findings.pass(CheckName::SpfVoidLookups, domain, seen);
        }
        many => {
            let seen =
                format!("{many} questions{over} have no answer, {MAX_VOID} are allowed: {names}");
            let advice = "Remove the terms that name nothing, or publish what they name: a host without AAAA counts \
                          for each sender over IPv6.";
            findings.fail(CheckName::SpfVoidLookups, domain, seen, advice);
        }
    }
}

fn senders(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let helo = helo(asked);
    let results: Vec<(IpAddr, Result<Verdict, Stop>)> = asked
        .senders
        .iter()
        .filter(|sender| is_global(**sender))
        .map(|sender| (*sender, Walk::evaluate(known, &asked.domain, &helo, *sender)))
        .collect();
    let passes = |result: &Result<Verdict, Stop>| {
        result.as_ref().is_ok_and(|verdict| verdict.qualifier == Some(Qualifier::Pass))
    };
    let ipv4_passes = results.iter().any(|(ip, result)| ip.is_ipv4() && passes(result));
    for (sender, result) in &results {
        let check = CheckName::SpfSender;
        match result {
            Err(Stop::Pending) => {}
            Err(Stop::Temporary(reason)) => {
                findings.unanswered(check, sender, "whether it passes", *reason);
            }
            Err(Stop::Permanent(why)) => {
                let advice = "Correct the record: receivers that come this far take it for broken.";
                findings.fail(check, sender, format!("permerror: {why}"), advice);
            }
            Ok(Verdict { qualifier: Some(Qualifier::Pass), term }) => {
                let by = term.as_deref().unwrap_or_default();
                findings.pass(check, sender, format!("passes by {by}"));
            }
            Ok(Verdict { qualifier, term }) => {
                let result = match qualifier {
                    Some(Qualifier::Fail) => "fail",
                    Some(Qualifier::SoftFail) => "softfail",
                    _ => "neutral",
                };
                let by = term.as_deref().map_or_else(String::new, |term| format!(" by {term}"));
                let beside =
                    if sender.is_ipv6() && ipv4_passes { ", while IPv4 passes" } else { "" };
                let advice = format!(
                    "Add {} to the record if the domain's mail leaves from there.",
                    self::term(*sender)
                );
                findings.fail(check, sender, format!("{result}{by}{beside}"), advice);
            }
        }
    }
}

fn helo(asked: &CheckRequest) -> String {
    asked.helo.as_ref().map_or_else(|| asked.domain.to_string(), |(name, _)| name.to_string())
}
