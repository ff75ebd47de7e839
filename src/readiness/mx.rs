//! Where the DNS sends mail for the domain.
//!
//! RFC 5321 §5.1, RFC 7505, RFC 2181 §10.3 (an MX names no alias).

use std::net::IpAddr;

use super::finding::{CheckName, Findings};
use super::{CheckRequest, CnameAnswer, KnownAnswers};
use crate::addr::{Family, is_global};
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, MAX_EXCHANGES};

/// Addresses of one exchange that are called.
const MAX_ADDRESSES: usize = 4;

/// IPv6 is what is asked about.
const ORDER: [Family; 2] = [Family::Ipv6, Family::Ipv4];

/// An exchange and those of its addresses that can be called.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: DomainName,
    pub(super) addresses: Vec<IpAddr>,
}

impl Host {
    pub(super) fn of(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |ip| Family::of(*ip) == family)
    }
}

pub(super) fn judge(
    asked: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut Findings,
) -> Vec<Host> {
    let Some(names) = exchanges(&asked.domain, known, findings) else { return Vec::new() };
    let mut hosts = Vec::new();
    let mut has: [Has; 2] = [Has::No; 2];
    let mut lacks: Vec<(DomainName, [Has; 2])> = Vec::new();
    for name in names {
        if !name_of(&name, known, findings) {
            continue;
        }
        let mut addresses = Vec::new();
        let mut of_host = [Has::No; 2];
        for (at, family) in ORDER.into_iter().enumerate() {
            match known.addresses(&name, family) {
                None => {}
                Some(Err(reason)) => {
                    of_host[at] = Has::Unknown;
                    let check = check(family);
                    findings.unanswered(check, &name, records(family), reason);
                }
                Some(Ok(mut found)) => {
                    found.sort();
                    let (usable, useless): (Vec<_>, Vec<_>) =
                        found.into_iter().partition(|ip| is_global(*ip));
                    useless.iter().for_each(|ip| no_use(&name, *ip, findings));
                    if !usable.is_empty() {
                        of_host[at] = Has::Yes;
                        findings.pass(check(family), &name, listed(family, &usable));
                    } else if !useless.is_empty() {
                        // Said already.
                        of_host[at] = Has::Useless;
                    }
                    addresses.extend(usable.into_iter().take(MAX_ADDRESSES));
                }
            }
            has[at] = has[at].max(of_host[at]);
        }
        lacks.push((name.clone(), of_host));
        hosts.push(Host { name, addresses });
    }
    for (name, of_host) in lacks {
        for (at, family) in ORDER.into_iter().enumerate() {
            if of_host[at] == Has::No {
                without(&name, family, has[at] == Has::Yes, findings);
            }
        }
    }
    hosts
}

/// Of addresses of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Has {
    No,
    Useless,
    Unknown,
    Yes,
}

const fn check(family: Family) -> CheckName {
    match family {
        Family::Ipv6 => CheckName::MxIpv6,
        Family::Ipv4 => CheckName::MxIpv4,
    }
}

const fn records(family: Family) -> &'static str {
    match family {
        Family::Ipv6 => "AAAA",
        Family::Ipv4 => "A",
    }
}

/// The hosts that take its mail, the preferred first.
fn exchanges(
    domain: &DomainName,
    known: &KnownAnswers,
    findings: &mut Findings,
) -> Option<Vec<DomainName>> {
    let check = CheckName::MxRecords;
    let answer = known.lookup(Lookup::MailExchanges(domain.clone()))?;
    let mut found: Vec<(u16, &DomainName)> = match answer {
        Answer::Records(records) => records
            .iter()
            .filter_map(|record| match record {
                DnsRecord::Exchange { preference, host } => Some((*preference, host)),
                _ => None,
            })
            .collect(),
        Answer::NxDomain => {
            let seen = "the domain does not exist (NXDOMAIN)";
            findings.fail(check, domain, seen, "Register the domain, or correct its name.");
            return None;
        }
        Answer::Unknown(reason) => {
            findings.unanswered(check, domain, "MX", *reason);
            return None;
        }
        Answer::NoData | Answer::Yes(_) | Answer::No(..) => {
            return implicit(domain, known, findings);
        }
    };
    found.sort();
    let all = found.len();
    found.retain(|(_, host)| !host.is_root());
    if found.is_empty() {
        let advice = "Publish an MX record if the domain is to take mail. If it only sends, expect servers that \
                      refuse its mail because nobody can answer it (RFC 7505 §4.2).";
        findings.warn(check, domain, "it takes no mail, on purpose: null MX (RFC 7505)", advice);
        return None;
    }
    let told: Vec<String> =
        found.iter().map(|(preference, host)| format!("{preference} {host}")).collect();
    let told = told.join(", ");
    if all > found.len() {
        let advice = "Remove the MX record that names \".\"; it must stand alone (RFC 7505 §3).";
        findings.fail(check, domain, format!("a null MX beside others: {told}"), advice);
    } else if found.len() > MAX_EXCHANGES {
        let seen =
            format!("{} MX records; the first {MAX_EXCHANGES} are looked at: {told}", found.len());
        findings.warn(
            check,
            domain,
            seen,
            "Publish no more than ten: many senders read no further.",
        );
    } else {
        findings.pass(check, domain, format!("MX {told}"));
    }
    let mut hosts: Vec<DomainName> = Vec::new();
    for (_, host) in found {
        if hosts.len() < MAX_EXCHANGES && !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    Some(hosts)
}

/// Without MX the domain itself is the host, if it has an address.
fn implicit(
    domain: &DomainName,
    known: &KnownAnswers,
    findings: &mut Findings,
) -> Option<Vec<DomainName>> {
    let found = Family::ALL.map(|family| known.addresses(domain, family));
    let [Some(v4), Some(v6)] = found else { return None };
    let check = CheckName::MxRecords;
    match (v4, v6) {
        (Ok(v4), Ok(v6)) if v4.is_empty() && v6.is_empty() => {
            let advice = format!("Publish one, such as: {domain}. MX 10 mx.{domain}.");
            findings.fail(check, domain, "neither MX nor address: nobody can mail it", advice);
            None
        }
        (Err(reason), _) | (_, Err(reason)) => {
            findings.unanswered(
                check,
                domain,
                "without MX records it is its own exchange, but its address",
                reason,
            );
            Some(vec![domain.clone()])
        }
        _ => {
            let advice = "Publish an MX record: without one senders take the domain's own address, and a web server's \
                          AAAA is then where mail goes.";
            let seen = "no MX record; mail goes to the domain's own address (implicit MX)";
            findings.warn(check, domain, seen, advice);
            Some(vec![domain.clone()])
        }
    }
}

/// Whether it can be a host at all.
fn name_of(name: &DomainName, known: &KnownAnswers, findings: &mut Findings) -> bool {
    let text = name.to_string();
    if text.parse::<IpAddr>().is_ok() || text.starts_with('[') {
        let advice = "Name a host in the MX record, and give that host A and AAAA records.";
        findings.fail(
            CheckName::MxName,
            name,
            "an address where the name of a host belongs",
            advice,
        );
        return false;
    }
    match known.alias(name) {
        None | Some(CnameAnswer::None) => {}
        Some(CnameAnswer::Target(target)) => {
            let seen = format!("an alias (CNAME) of {target}");
            let advice = format!(
                "Name {target} in the MX record: an MX must not name an alias (RFC 2181 §10.3)."
            );
            findings.warn(CheckName::MxName, name, seen, advice);
        }
        Some(CnameAnswer::Unknown(reason)) => {
            findings.unanswered(CheckName::MxName, name, "whether it is an alias", *reason);
        }
    }
    true
}

fn no_use(name: &DomainName, ip: IpAddr, findings: &mut Findings) {
    let what = match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            "an IPv4 address in the form of an IPv6 one"
        }
        IpAddr::V6(v6) if v6.is_unique_local() => "a unique local address (ULA, RFC 4193)",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_private() => "a private address (RFC 1918)",
        _ if ip.is_loopback() => "a loopback address",
        _ if ip.is_multicast() => "a multicast address",
        _ => "an address that no host has",
    };
    let kind = records(if ip.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 });
    let advice =
        format!("Remove this {kind} record, or replace it by a global address of the server.");
    findings.fail(
        CheckName::MxAddress,
        format!("{name} {ip}"),
        format!("{what}: nobody outside reaches it"),
        advice,
    );
}

/// `elsewhere`: another exchange has what this one lacks.
fn without(name: &DomainName, family: Family, elsewhere: bool, findings: &mut Findings) {
    let check = check(family);
    match (family, elsewhere) {
        (Family::Ipv6, false) => {
            let advice =
                format!("Give the server an IPv6 address, and publish it as AAAA of {name}.");
            findings.fail(check, name, "no AAAA record, nor has any exchange of use one", advice);
        }
        (Family::Ipv6, true) => {
            let advice = format!(
                "Publish AAAA of {name}: over IPv6 it is missing when the other exchanges are down."
            );
            findings.warn(check, name, "no AAAA record", advice);
        }
        (Family::Ipv4, false) => {
            let advice = format!("Publish A of {name}: hosts without IPv6 cannot mail the domain.");
            findings.warn(check, name, "no A record, nor has any exchange of use one", advice);
        }
        (Family::Ipv4, true) => findings.pass(check, name, "no A record; other exchanges have one"),
    }
}

/// `AAAA 2001:db8::1, 2001:db8::2`
fn listed(family: Family, addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let all = if texts.len() > MAX_ADDRESSES {
        format!("; the first {MAX_ADDRESSES} are called")
    } else {
        String::new()
    };
    format!("{} {}{all}", records(family), texts.join(", "))
}
