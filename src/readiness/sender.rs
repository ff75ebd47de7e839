//! The sending addresses: reverse names, and the EHLO name.
//!
//! RFC 8601 §2.7.3 (forward-confirmed reverse names), RFC 5321 §4.1.1.1.

use std::net::IpAddr;

use super::finding::{CheckName, FindingList};
use super::known::{KnownAnswers, failure_text};
use super::mx::record_type;
use super::request::{CheckRequest, Origin};
use crate::addr::{Family, is_global};
use crate::humanize::family as family_name;
use crate::policy::facts::{DomainName, FactState, Reason, fcrdns, reverse_name};

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let from = match request.senders_from {
        Origin::CommandLine => "--from",
        Origin::Postfix => "Postfix configuration",
        Origin::Interfaces => "interfaces of this host",
    };
    let check = CheckName::SenderAddress;
    for family in [Family::Ipv6, Family::Ipv4] {
        let senders: Vec<String> = senders(request, family).map(|ip| ip.to_string()).collect();
        match (senders.is_empty(), family) {
            (false, _) => {
                let seen = format!("{} (from {from})", senders.join(", "));
                findings.pass(check, family_name(family), seen);
            }
            (true, Family::Ipv6) => {
                let seen = format!("no sending address (from {from}){}", omitted(request));
                let advice = "Give the sending host a global IPv6 address that lasts, or name its address with --from.";
                findings.warn(check, family_name(family), seen, advice);
            }
            // A request for IPv6 addresses only is legitimate.
            (true, Family::Ipv4) => {}
        }
    }
    for sender in &request.senders {
        if !is_global(*sender) {
            let seen = "not a global address: receivers see another one";
            let advice = "Send from a global address, or name the public one with --from.";
            findings.fail(check, sender, seen, advice);
            continue;
        }
        check_names(*sender, request, known, findings);
    }
}

/// The global addresses of the interfaces that are no senders.
fn omitted(request: &CheckRequest) -> String {
    let unsuitable = request.interfaces.iter().flat_map(|one| &one.unsuitable);
    let unsuitable = unsuitable
        .filter(|(ip, _)| request.senders_from != Origin::CommandLine && is_global(**ip))
        .map(|(ip, reason)| format!("; {ip} does not count, as it is {reason}"));
    unsuitable.collect()
}

pub(super) fn senders(request: &CheckRequest, family: Family) -> impl Iterator<Item = IpAddr> {
    request.senders.iter().copied().filter(move |ip| Family::of(*ip) == family)
}

fn check_names(
    sender: IpAddr,
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let Some(reverse) = known.fact(|answers| reverse_name(sender, answers)) else { return };
    let check = CheckName::SenderPtr;
    match (reverse.state, reverse.reason) {
        (FactState::Unknown, reason) => {
            findings.lookup_failed(check, sender, "PTR", reason.unwrap_or(Reason::Timeout));
            return;
        }
        (FactState::False, _) => {
            let zone = DomainName::reverse(sender);
            let advice = format!(
                "Ask the network operator of {sender} for a PTR record: {zone}. PTR the-host's-name."
            );
            findings.fail(check, sender, "no PTR record", advice);
            return;
        }
        (FactState::True, _) => {
            let name = reverse.detail.map(|name| name.to_string()).unwrap_or_default();
            findings.pass(check, sender, format!("PTR {name}"));
        }
    }
    let Some(confirmed) = known.fact(|answers| fcrdns(sender, answers)) else { return };
    let name = confirmed.detail.as_ref().map(ToString::to_string).unwrap_or_default();
    let check = CheckName::SenderFcrdns;
    match (confirmed.state, confirmed.reason) {
        (FactState::Unknown, reason) => {
            let what = "forward confirmation of the PTR name";
            findings.lookup_failed(check, sender, what, reason.unwrap_or(Reason::Timeout));
        }
        (FactState::False, _) => {
            let record = record_type(Family::of(sender));
            let seen = format!("PTR name {name} does not resolve back to {sender}");
            let advice =
                format!("Publish {record} of {name} with {sender}, or correct the PTR record.");
            findings.fail(check, sender, seen, advice);
        }
        (FactState::True, _) => {
            findings.pass(check, sender, format!("{name} resolves back to {sender}"));
        }
    }
    let Some((helo, origin)) = &request.helo else { return };
    let is_confirmed = confirmed.state == FactState::True;
    let confirmed = is_confirmed.then(|| DomainName::parse(&name)).flatten();
    check_helo(sender, helo, *origin, confirmed.as_ref(), known, findings);
}

/// Compares the EHLO name with the address and its `confirmed` reverse name.
fn check_helo(
    sender: IpAddr,
    helo: &DomainName,
    origin: Origin,
    confirmed: Option<&DomainName>,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let check = CheckName::SenderHelo;
    let family = Family::of(sender);
    let Some(found) = known.addresses(helo, family) else { return };
    let name = match origin {
        Origin::Postfix => format!("Postfix's EHLO name {helo}"),
        Origin::CommandLine | Origin::Interfaces => format!("EHLO name {helo}"),
    };
    let record = record_type(family);
    match found {
        Err(reason) => {
            let seen = format!("{record} of {name} unknown: {}", failure_text(reason));
            let advice = "Check the name servers of that name, then run this again.";
            findings.unknown(check, sender, seen, advice);
        }
        Ok(addresses) if addresses.contains(&sender) => match confirmed {
            Some(reverse) if reverse != helo => {
                let seen = format!(
                    "{name} differs from PTR name {reverse}; both have the address {sender}"
                );
                let advice =
                    "Use the same name in EHLO and in the PTR record: some receivers compare them.";
                findings.warn(check, sender, seen, advice);
            }
            _ => findings.pass(check, sender, format!("{name} has the address {sender}")),
        },
        Ok(addresses) => {
            let seen = match addresses.is_empty() {
                true => format!("{name} has no {record} record"),
                false => format!("{name} has other {record} records"),
            };
            let advice = format!(
                "Publish {record} of {helo} with {sender}, or use an EHLO name that has it."
            );
            findings.warn(check, sender, seen, advice);
        }
    }
}
