//! The addresses that mail is sent from: reverse names, and the name given in EHLO.
//!
//! RFC 8601 §2.7.3 (forward-confirmed reverse names), RFC 5321 §4.1.1.1.

use std::net::IpAddr;

use super::finding::{CheckName, Findings};
use super::known::in_words;
use super::smtp::word;
use super::{CheckRequest, KnownAnswers, Origin};
use crate::addr::{Family, is_global};
use crate::policy::facts::{DomainName, FactState, Reason, fcrdns, reverse_name};

pub(super) fn judge(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let from = match asked.senders_from {
        Origin::CommandLine => "--from",
        Origin::Postfix => "Postfix' configuration",
        Origin::Interfaces => "this host's interfaces",
    };
    for family in [Family::Ipv6, Family::Ipv4] {
        let of: Vec<String> = of(asked, family).map(|ip| ip.to_string()).collect();
        let check = CheckName::SenderAddress;
        match (of.is_empty(), family) {
            (false, _) => {
                findings.pass(check, word(family), format!("{} (from {from})", of.join(", ")))
            }
            (true, Family::Ipv6) => {
                let advice = "Give the sending host a global IPv6 address, or name the one that it has with --from.";
                findings.warn(
                    check,
                    word(family),
                    format!("no address to send from (from {from})"),
                    advice,
                );
            }
            // Whoever names only IPv6 addresses wants those judged.
            (true, Family::Ipv4) => {}
        }
    }
    for sender in &asked.senders {
        if !is_global(*sender) {
            let advice = "Send from a global address, or name the one that others see with --from.";
            findings.fail(
                CheckName::SenderAddress,
                sender,
                "not a global address: others see another one",
                advice,
            );
            continue;
        }
        names(*sender, asked, known, findings);
    }
}

pub(super) fn of(asked: &CheckRequest, family: Family) -> impl Iterator<Item = IpAddr> {
    asked.senders.iter().copied().filter(move |ip| Family::of(*ip) == family)
}

fn names(sender: IpAddr, asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let Some(reverse) = known.fact(|answers| reverse_name(sender, answers)) else { return };
    let advice = || {
        let zone = DomainName::reverse(sender);
        format!(
            "Have whoever runs the network of {sender} publish a PTR record: {zone}. PTR the-host's-name."
        )
    };
    match (reverse.state, reverse.reason) {
        (FactState::Unknown, reason) => {
            findings.unanswered(
                CheckName::SenderPtr,
                sender,
                "the reverse name",
                reason.unwrap_or(Reason::Timeout),
            );
            return;
        }
        (FactState::False, _) => {
            findings.fail(CheckName::SenderPtr, sender, "no reverse name (PTR record)", advice());
            return;
        }
        (FactState::True, _) => {
            let name = reverse.detail.map(|name| name.to_string()).unwrap_or_default();
            findings.pass(CheckName::SenderPtr, sender, format!("reverse name {name}"));
        }
    }
    let Some(confirmed) = known.fact(|answers| fcrdns(sender, answers)) else { return };
    let name = confirmed.detail.as_ref().map(ToString::to_string).unwrap_or_default();
    match (confirmed.state, confirmed.reason) {
        (FactState::Unknown, reason) => {
            let reason = reason.unwrap_or(Reason::Timeout);
            findings.unanswered(
                CheckName::SenderFcrdns,
                sender,
                "whether the reverse name is confirmed",
                reason,
            );
        }
        (FactState::False, _) => {
            let kind = if Family::of(sender) == Family::Ipv6 { "AAAA" } else { "A" };
            let advice =
                format!("Publish {kind} of {name} with {sender}, or correct the PTR record.");
            findings.fail(
                CheckName::SenderFcrdns,
                sender,
                format!("its reverse name {name} does not have it"),
                advice,
            );
        }
        (FactState::True, _) => findings.pass(
            CheckName::SenderFcrdns,
            sender,
            format!("forward-confirmed: {name} has it"),
        ),
    }
    let Some((helo, origin)) = &asked.helo else { return };
    let confirmed =
        (confirmed.state == FactState::True).then(|| DomainName::parse(&name)).flatten();
    said(sender, helo, *origin, confirmed.as_ref(), known, findings);
}

/// The name in EHLO beside the address.
fn said(
    sender: IpAddr,
    helo: &DomainName,
    origin: Origin,
    confirmed: Option<&DomainName>,
    known: &KnownAnswers,
    findings: &mut Findings,
) {
    let check = CheckName::SenderHelo;
    let family = Family::of(sender);
    let Some(found) = known.addresses(helo, family) else { return };
    let by = if origin == Origin::Postfix { "Postfix says" } else { "EHLO says" };
    let kind = if family == Family::Ipv6 { "AAAA" } else { "A" };
    match found {
        Err(reason) => {
            let seen = format!("{by} {helo}, whose {kind} cannot be learnt: {}", in_words(reason));
            findings.unknown(
                check,
                sender,
                seen,
                "Check the name servers of that name, then run this again.",
            );
        }
        Ok(addresses) if addresses.contains(&sender) => match confirmed {
            Some(name) if name != helo => {
                let seen =
                    format!("{by} {helo}, the reverse name is {name}; both have the address");
                let advice = format!(
                    "Let EHLO say {name}, or the PTR record name {helo}: some receivers compare them."
                );
                findings.warn(check, sender, seen, advice);
            }
            _ => findings.pass(check, sender, format!("{by} {helo}, which has it")),
        },
        Ok(addresses) => {
            let seen = if addresses.is_empty() {
                format!("{by} {helo}, which has no {kind} record")
            } else {
                format!("{by} {helo}, which has other {kind} records")
            };
            let advice = format!(
                "Publish {kind} of {helo} with {sender}, or let EHLO say a name that has it."
            );
            findings.warn(check, sender, seen, advice);
        }
    }
}
