//! How the SMTP client of Postfix sends over IPv6.

use std::net::IpAddr;

use crate::addr::{Family, is_global};
use crate::policy::facts::{DomainName, FactState, fcrdns};
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::known::KnownAnswers;
use crate::readiness::postconf::{CLIENT, Postfix, parse_address};
use crate::readiness::request::{CheckRequest, HostInterface, UnsuitableSender};
use crate::readiness::sender::senders;

pub(super) fn check(
    postfix: &Postfix,
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    check_preference(postfix, findings);
    check_bind_address(postfix, request, findings);
    check_helo(postfix, request, known, findings);
}

fn check_preference(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixPreference;
    let (value, is_override) = postfix.of(CLIENT, "smtp_address_preference");
    let seen = format!("smtp_address_preference = {value}");
    if value == "ipv4" {
        let advice = "Use any: with ipv4, mail leaves over IPv6 only when IPv4 fails, and IPv6 faults stay hidden.";
        let line = postfix.set(CLIENT, "smtp_address_preference", "any");
        findings.warn(check, file(is_override), seen, advice).commands = vec![line];
    } else {
        findings.pass(check, file(is_override), seen);
    }
}

fn check_bind_address(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    let check = CheckName::PostfixBind;
    let (value, is_override) = postfix.of(CLIENT, "smtp_bind_address6");
    let (ipv4, _) = postfix.of(CLIENT, "smtp_bind_address");
    let file = file(is_override);
    let proposed = ipv6_beside(request, parse_address(ipv4));
    let set = |value: &str| vec![postfix.set(CLIENT, "smtp_bind_address6", value)];
    if value.is_empty() {
        match proposed {
            Some(ip) if !ipv4.is_empty() => {
                let seen = format!(
                    "smtp_bind_address = {ipv4}, but smtp_bind_address6 is empty: the kernel chooses"
                );
                let advice = "Set the IPv6 address too: the kernel may choose a temporary one, without PTR and SPF.";
                findings.warn(check, file, seen, advice).commands = set(&ip.to_string());
            }
            Some(ip) if has_temporary(request) => {
                let seen =
                    "smtp_bind_address6 is empty, and this host has temporary IPv6 addresses";
                let advice = "Set the address that has a PTR record: the kernel may choose a temporary one, without PTR \
                              and SPF.";
                findings.warn(check, file, seen, advice).commands = set(&ip.to_string());
            }
            _ => findings.pass(check, file, "smtp_bind_address6 is empty: the kernel chooses"),
        }
        return;
    }
    let seen = format!("smtp_bind_address6 = {value}");
    let is_own = |ip: IpAddr| {
        let mut own = request.interfaces.iter().flat_map(|one| &one.addresses);
        own.any(|net| net.addr() == ip)
    };
    let fault = match parse_address(value) {
        None => "not an address",
        Some(ip) if !ip.is_ipv6() => "not an IPv6 address",
        Some(ip) if !is_global(ip) => "not a global address",
        Some(ip) if !is_own(ip) => "not an address of this host, cannot send over IPv6",
        Some(_) => {
            findings.pass(check, file, seen);
            return;
        }
    };
    let advice = "Bind to a global address of this host, or to none.";
    let proposed = proposed.map_or_else(String::new, |ip| ip.to_string());
    findings.fail(check, file, format!("{seen}: {fault}"), advice).commands = set(&proposed);
}

/// The kernel may prefer them (RFC 6724 §5, rule 7).
fn has_temporary(request: &CheckRequest) -> bool {
    let mut reasons = request.interfaces.iter().flat_map(|one| &one.unsuitable);
    reasons.any(|(ip, reason)| is_global(*ip) && *reason == UnsuitableSender::Temporary)
}

/// A global IPv6 address of the interface that has `ipv4`, or of any.
fn ipv6_beside(request: &CheckRequest, ipv4: Option<IpAddr>) -> Option<IpAddr> {
    let has = |one: &&HostInterface| one.addresses.iter().any(|net| Some(net.addr()) == ipv4);
    let same = request.interfaces.iter().filter(has);
    let mut candidates = same.chain(&request.interfaces).flat_map(HostInterface::senders);
    candidates.find(|ip| ip.is_ipv6() && is_global(*ip))
}

/// Compares the EHLO name with the confirmed reverse names of the IPv6 senders.
fn check_helo(
    postfix: &Postfix,
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let check = CheckName::PostfixHelo;
    let (value, is_override) = postfix.helo_name();
    let file = file(is_override);
    let seen = format!("smtp_helo_name = {value}");
    let mut names: Vec<DomainName> = Vec::new();
    for sender in senders(request, Family::Ipv6).filter(|ip| is_global(*ip)) {
        let Some(fact) = known.fact(|answers| fcrdns(sender, answers)) else { return };
        let confirmed = fact.detail.filter(|_| fact.state == FactState::True);
        names.extend(confirmed.and_then(|name| DomainName::parse(&name.to_string())));
    }
    names.sort();
    names.dedup();
    let helo = DomainName::parse(value).filter(|name| name.to_string().contains('.'));
    match (helo, names.as_slice()) {
        (Some(helo), names) if names.is_empty() || names.contains(&helo) => {
            findings.pass(check, file, seen);
        }
        // No single name can match several senders.
        (Some(_), [_, _, ..]) => findings.pass(check, file, seen),
        (_, [name, ..]) => {
            let line = postfix.set(CLIENT, "smtp_helo_name", &name.to_string());
            let advice = format!("Use {name}, the confirmed PTR name of the IPv6 sender, in EHLO.");
            findings.warn(check, file, format!("{seen}, not {name}"), advice).commands = vec![line];
        }
        (None, []) => {
            let advice = "Set myhostname to this host's full name, which has AAAA and A records.";
            findings.warn(check, file, format!("{seen} is not a full name"), advice);
        }
        (Some(_), []) => {}
    }
}

const fn file(is_override: bool) -> &'static str {
    if is_override { "master.cf" } else { "main.cf" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Origin;

    #[test]
    fn an_address_is_bound_where_the_kernel_may_choose_a_temporary_one() {
        let [lasting, temporary]: [IpAddr; 2] =
            ["2001:db8::5", "2001:db8::99"].map(|ip| ip.parse().unwrap());
        let lines = |reason: Option<UnsuitableSender>, main: &str| {
            let postfix = Postfix::new(None, main, "", "");
            let interface = HostInterface {
                addresses: vec![temporary.into(), lasting.into()],
                unsuitable: reason.into_iter().map(|reason| (temporary, reason)).collect(),
                ..HostInterface::default()
            };
            let request = CheckRequest {
                senders: Vec::new(),
                senders_from: Origin::Interfaces,
                interfaces: vec![interface],
                ..CheckRequest::new(DomainName::parse("a.example").unwrap())
            };
            let mut findings = FindingList::default();
            check_bind_address(&postfix, &request, &mut findings);
            let report = findings.into_report(&request, Vec::new());
            report.findings.into_iter().flat_map(|one| one.commands).collect::<Vec<_>>()
        };
        let bound = ["postconf -e 'smtp_bind_address6 = 2001:db8::5'"];
        assert_eq!(lines(Some(UnsuitableSender::Temporary), ""), bound);
        // Of these the kernel chooses none by itself.
        assert!(lines(Some(UnsuitableSender::Deprecated), "").is_empty());
        assert!(lines(None, "").is_empty());
        let set = format!("smtp_bind_address6 = {temporary}");
        assert!(lines(Some(UnsuitableSender::Temporary), &set).is_empty());
        assert_eq!(lines(Some(UnsuitableSender::Temporary), "smtp_bind_address6 = ::1"), bound);
    }
}
