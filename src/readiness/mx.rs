//! The exchanges of the domain and their addresses.
//!
//! RFC 5321 §5.1, RFC 7505, RFC 2181 §10.3 (an MX must not name an alias).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::dns64;
use super::finding::{CheckName, FindingList};
use super::known::{CnameAnswer, KnownAnswers};
use super::request::CheckRequest;
use super::spf;
use crate::addr::{Family, is_global, special_purpose};
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, MAX_EXCHANGES};

/// Addresses of one exchange that are surveyed.
const MAX_ADDRESSES: usize = 4;

/// IPv6 first: it is the subject of the check.
const ORDER: [Family; 2] = [Family::Ipv6, Family::Ipv4];

/// An exchange and its addresses to survey.
#[derive(Debug)]
pub(super) struct MxHost {
    pub(super) name: DomainName,
    pub(super) addresses: Vec<IpAddr>,
}

impl MxHost {
    pub(super) fn of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |ip| Family::of(*ip) == family)
    }
}

pub(super) fn check(
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Vec<MxHost> {
    let Some(names) = exchanges(&request.domain, known, findings) else { return Vec::new() };
    let mut hosts = Vec::new();
    let mut translated = BTreeMap::new();
    let mut anywhere = [AddressPresence::Missing; 2];
    let mut presences: Vec<(DomainName, [AddressPresence; 2])> = Vec::new();
    for name in names {
        if !check_name(&name, known, findings) {
            continue;
        }
        let mut addresses = Vec::new();
        let mut of_host = [AddressPresence::Missing; 2];
        for (at, family) in ORDER.into_iter().enumerate() {
            match known.addresses(&name, family) {
                None => {}
                Some(Err(reason)) => {
                    of_host[at] = AddressPresence::Unknown;
                    findings.lookup_failed(
                        address_check(family),
                        &name,
                        record_type(family),
                        reason,
                    );
                }
                Some(Ok(mut found)) => {
                    found.sort();
                    let Some((found, made_up)) = dns64::separate(found, known) else { continue };
                    if found.is_empty() && !made_up.is_empty() {
                        translated.insert(name.clone(), made_up);
                    }
                    let (usable, unusable): (Vec<_>, Vec<_>) =
                        found.into_iter().partition(|ip| is_global(*ip));
                    unusable.iter().for_each(|ip| unusable_address(&name, *ip, findings));
                    if !usable.is_empty() {
                        of_host[at] = AddressPresence::Usable;
                        findings.pass(address_check(family), &name, listed(family, &usable));
                    } else if !unusable.is_empty() {
                        of_host[at] = AddressPresence::Unusable;
                    }
                    addresses.extend(usable.into_iter().take(MAX_ADDRESSES));
                }
            }
            anywhere[at] = anywhere[at].max(of_host[at]);
        }
        presences.push((name.clone(), of_host));
        hosts.push(MxHost { name, addresses });
    }
    for (name, of_host) in presences {
        for (at, family) in ORDER.into_iter().enumerate() {
            if of_host[at] == AddressPresence::Missing {
                let made_up = translated.get(&name).filter(|_| family == Family::Ipv6);
                let elsewhere = anywhere[at] == AddressPresence::Usable;
                missing(&name, family, elsewhere, made_up.map(Vec::as_slice), findings);
            }
        }
    }
    hosts
}

/// Addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AddressPresence {
    Missing,
    /// Not reachable from the Internet; already reported.
    Unusable,
    /// Lookup failed; already reported.
    Unknown,
    Usable,
}

const fn address_check(family: Family) -> CheckName {
    match family {
        Family::Ipv6 => CheckName::MxIpv6,
        Family::Ipv4 => CheckName::MxIpv4,
    }
}

pub(super) const fn record_type(family: Family) -> &'static str {
    match family {
        Family::Ipv6 => "AAAA",
        Family::Ipv4 => "A",
    }
}

/// The hosts that accept its mail, the preferred first.
fn exchanges(
    domain: &DomainName,
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Option<Vec<DomainName>> {
    let check = CheckName::MxRecords;
    let answer = known.lookup(Lookup::MailExchanges(domain.clone()))?;
    let mut found: Vec<(u16, &DomainName)> = match answer {
        Answer::Records(records) => records.iter().filter_map(DnsRecord::exchange).collect(),
        Answer::NxDomain => {
            let seen = "the domain does not exist (NXDOMAIN)";
            findings.fail(check, domain, seen, "Register the domain, or correct its name.");
            return None;
        }
        Answer::Unknown(reason) => {
            findings.lookup_failed(check, domain, "MX", *reason);
            return None;
        }
        Answer::NoData | Answer::Yes(_) | Answer::No(..) => {
            return implicit_mx(domain, known, findings);
        }
    };
    found.sort();
    let all = found.len();
    found.retain(|(_, host)| !host.is_root());
    if found.is_empty() {
        if spf::sends_no_mail(domain, known)? {
            findings.pass(check, domain, "null MX (RFC 7505): accepts no mail, and sends none");
            return None;
        }
        let advice = "Publish an MX record if the domain is to receive mail. If it only sends, expect servers to reject \
                      its mail, because nobody can reply to it (RFC 7505 §4.2).";
        findings.warn(check, domain, "null MX: accepts no mail (RFC 7505)", advice);
        return None;
    }
    let list: Vec<String> =
        found.iter().map(|(preference, host)| format!("{preference} {host}")).collect();
    let list = list.join(", ");
    if all > found.len() {
        let advice =
            "Remove the MX record that names \".\"; a null MX must be the only one (RFC 7505 §3).";
        findings.fail(check, domain, format!("null MX beside other records: {list}"), advice);
    } else if found.len() > MAX_EXCHANGES {
        let seen = format!("{} MX records, the first {MAX_EXCHANGES} checked: {list}", found.len());
        let advice = "Publish at most ten: many senders read no further.";
        findings.warn(check, domain, seen, advice);
    } else {
        findings.pass(check, domain, format!("MX {list}"));
    }
    let mut hosts: Vec<DomainName> = Vec::new();
    for (_, host) in found {
        if hosts.len() < MAX_EXCHANGES && !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    Some(hosts)
}

/// Without MX records the domain itself is the exchange, if it has an address.
fn implicit_mx(
    domain: &DomainName,
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Option<Vec<DomainName>> {
    let found = Family::ALL.map(|family| known.addresses(domain, family));
    let [Some(v4), Some(v6)] = found else { return None };
    let check = CheckName::MxRecords;
    match (v4, v6) {
        (Ok(v4), Ok(v6)) if v4.is_empty() && v6.is_empty() => {
            if spf::sends_no_mail(domain, known)? {
                let advice =
                    format!("Publish a null MX, which says so: {domain}. MX 0 . (RFC 7505)");
                let seen = "no MX record and no address: accepts no mail, and sends none";
                findings.warn(check, domain, seen, advice);
                return None;
            }
            let advice = format!("Publish an MX record, such as: {domain}. MX 10 mx.{domain}.");
            findings.fail(
                check,
                domain,
                "no MX record and no address: cannot receive mail",
                advice,
            );
            None
        }
        (Err(reason), _) | (_, Err(reason)) => {
            findings.lookup_failed(check, domain, "no MX record, implicit MX", reason);
            Some(vec![domain.clone()])
        }
        _ => {
            let advice = "Publish an MX record: without one senders use the domain's own address, so an AAAA record for \
                          a web server attracts mail.";
            let seen = "no MX record; mail goes to the domain's own address (implicit MX)";
            findings.warn(check, domain, seen, advice);
            Some(vec![domain.clone()])
        }
    }
}

/// Returns whether the exchange can have addresses.
fn check_name(name: &DomainName, known: &KnownAnswers, findings: &mut FindingList) -> bool {
    let check = CheckName::MxName;
    let text = name.to_string();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seen = format!("a host named {text:?}, which cannot exist");
        let advice = "If the domain is to receive no mail, name the root in the MX record, a dot alone: MX 0 . (RFC 7505 §3). \
                      Otherwise name a host.";
        findings.fail(check, name, seen, advice);
        return false;
    }
    if text.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        let advice = "Name a host in the MX record, and publish A and AAAA records of that host.";
        findings.fail(check, name, "an address instead of a host name", advice);
        return false;
    }
    match known.cname(name) {
        None | Some(CnameAnswer::None) => {}
        Some(CnameAnswer::Target(target)) => {
            let seen = format!("alias (CNAME) of {target}");
            let advice = format!(
                "Name {target} in the MX record: an MX must not name an alias (RFC 2181 §10.3)."
            );
            findings.warn(check, name, seen, advice);
        }
        Some(CnameAnswer::Unknown(reason)) => {
            findings.lookup_failed(check, name, "CNAME", *reason);
        }
    }
    let lookups = Family::ALL.map(|family| known.lookup(Lookup::Addresses(name.clone(), family)));
    if lookups.contains(&Some(&Answer::NxDomain)) {
        let advice = "Remove the MX record, or correct the name. Whoever gets a missing name registered receives the domain's mail.";
        findings.fail(check, name, "the host does not exist (NXDOMAIN)", advice);
        return false;
    }
    true
}

fn unusable_address(name: &DomainName, ip: IpAddr, findings: &mut FindingList) {
    let Some(purpose) = special_purpose(ip) else { return };
    let record = record_type(if ip.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 });
    let about = format!("{name} {ip}");
    let why = match purpose.is_reachable {
        true => "no mail server of one's own can have it",
        false => "not reachable from the Internet",
    };
    let seen = format!("{}, {why}", purpose.name);
    let advice = format!("Remove this {record} record, or replace it by a global address.");
    findings.fail(CheckName::MxAddress, about, seen, advice);
}

/// `elsewhere`: another exchange has a usable address of the family. `made_up`: addresses of the resolver's DNS64.
fn missing(
    name: &DomainName,
    family: Family,
    elsewhere: bool,
    made_up: Option<&[IpAddr]>,
    findings: &mut FindingList,
) {
    let check = address_check(family);
    let dns64 = made_up.map_or_else(String::new, |addresses| {
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("; the resolver makes {} up from the A record (DNS64, RFC 6147)", shown.join(", "))
    });
    match (family, elsewhere) {
        (Family::Ipv6, false) => {
            let advice =
                format!("Give the server an IPv6 address, and publish it as AAAA of {name}.");
            let seen = format!("no AAAA record, and no other exchange has a usable one{dns64}");
            findings.fail(check, name, seen, advice);
        }
        (Family::Ipv6, true) => {
            let advice = format!(
                "Publish AAAA of {name}: IPv6 mail fails when the other exchanges are down."
            );
            findings.warn(check, name, format!("no AAAA record{dns64}"), advice);
        }
        (Family::Ipv4, false) => {
            let advice =
                format!("Publish A of {name}: IPv4-only hosts cannot send mail to the domain.");
            let seen = "no A record, and no other exchange has a usable one";
            findings.warn(check, name, seen, advice);
        }
        (Family::Ipv4, true) => findings.pass(check, name, "no A record; other exchanges have one"),
    }
}

/// `AAAA 2001:db8::1, 2001:db8::2`
fn listed(family: Family, addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let limit = if texts.len() > MAX_ADDRESSES {
        format!("; the first {MAX_ADDRESSES} are tested")
    } else {
        String::new()
    };
    format!("{} {}{limit}", record_type(family), texts.join(", "))
}
