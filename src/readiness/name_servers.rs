//! The domain's name servers over IPv6: for resolvers that have IPv6 only, a zone without one does not exist.
//!
//! RFC 1912 §2.8 (lame servers), RFC 3901 (IPv6 and the DNS).

use std::net::IpAddr;

use super::dns_signatures::validates;
use super::dns64;
use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::name_server_reply::NameServerReply;
use super::validated::{ValidatedOutcome, ValidatedRecord, ValidatedType};
use crate::addr::Family;
use crate::policy::facts::{Answer, DomainName, Lookup, Reason};

/// Servers that are asked.
const MAX_SERVERS: usize = 8;
const CHECK: CheckName = CheckName::NameServers;

pub(super) fn check(domain: &DomainName, known: &KnownAnswers, findings: &mut FindingList) {
    let exchanges = known.lookup(Lookup::MailExchanges(domain.clone()));
    let (Some(exchanges), Some(soa)) = (exchanges, known.validated(domain, ValidatedType::Soa))
    else {
        return;
    };
    // A missing domain, and a failure of all its lookups, are reported with its MX records.
    if *exchanges == Answer::NxDomain || exchanges.records().is_err() {
        return;
    }
    if let ValidatedOutcome::Failed(failure) = &soa.outcome {
        if validates(domain, known) == Some(false) {
            findings.lookup_failed(CHECK, domain, "SOA", failure.reason);
        }
        return;
    }
    let zone = soa.zone.as_ref().unwrap_or(domain);
    let Some(hosts) = hosts(zone, known, findings) else { return };
    let Some(servers) = addresses(&hosts, Family::Ipv6, known) else { return };
    let (servers, failed) = match servers {
        Ok(servers) => (servers, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    if let Some(reason) = failed {
        findings.lookup_failed(CHECK, zone, "AAAA of its name servers", reason);
        return;
    }
    if servers.is_empty() {
        let seen = format!("no name server has an IPv6 address ({})", listed(&hosts));
        let advice = "Give the name servers IPv6 addresses (AAAA, and glue at the registrar), or choose a DNS provider whose servers \
                      have them: resolvers that have IPv6 only do not find the domain.";
        findings.warn(CHECK, zone, seen, advice);
        return;
    }
    let Some(replies) = replies(&servers, zone, known) else { return };
    report(zone, &hosts, &replies, known, findings);
}

/// A server with its address and reply.
type AskedServer<'a> = (&'a DomainName, IpAddr, &'a NameServerReply);

fn hosts(
    zone: &DomainName,
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Option<Vec<DomainName>> {
    let records = match &known.validated(zone, ValidatedType::Ns)?.outcome {
        ValidatedOutcome::Records(records) => records.as_slice(),
        ValidatedOutcome::NoRecord | ValidatedOutcome::NxDomain => &[],
        ValidatedOutcome::Failed(failure) => {
            findings.lookup_failed(CHECK, zone, "NS", failure.reason);
            return None;
        }
    };
    let mut hosts: Vec<DomainName> = records
        .iter()
        .filter_map(|record| match record {
            ValidatedRecord::NameServer(host) => Some(host.clone()),
            ValidatedRecord::Tlsa(_) | ValidatedRecord::Caa(_) => None,
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(MAX_SERVERS);
    if hosts.is_empty() {
        let advice = "Publish the NS records in the zone itself, too, as the parent zone has them.";
        findings.unknown(CHECK, zone, "no NS record", advice);
        return None;
    }
    Some(hosts)
}

/// The addresses of one family; or, if there are none, why a lookup failed.
fn addresses<'a>(
    hosts: &'a [DomainName],
    family: Family,
    known: &KnownAnswers,
) -> Option<Result<Vec<(&'a DomainName, IpAddr)>, Reason>> {
    // All questions are put at once.
    let answers: Vec<_> = hosts.iter().map(|host| (host, known.addresses(host, family))).collect();
    let (mut found, mut failed) = (Vec::new(), None);
    for (host, answer) in answers {
        match answer? {
            Ok(addresses) => {
                let (addresses, _made_up) = dns64::separate(addresses, known)?;
                found.extend(addresses.into_iter().map(|ip| (host, ip)));
            }
            Err(reason) => failed = Some(reason),
        }
    }
    Some(match failed {
        Some(reason) if found.is_empty() => Err(reason),
        _ => Ok(found),
    })
}

fn replies<'a>(
    servers: &[(&'a DomainName, IpAddr)],
    zone: &DomainName,
    known: &'a KnownAnswers,
) -> Option<Vec<AskedServer<'a>>> {
    let asked: Vec<_> =
        servers.iter().map(|(host, ip)| (*host, *ip, known.name_server(*ip, zone))).collect();
    asked.into_iter().map(|(host, ip, reply)| Some((host, ip, reply?))).collect()
}

fn report(
    zone: &DomainName,
    hosts: &[DomainName],
    replies: &[AskedServer<'_>],
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let all = |wanted: &[NameServerReply]| replies.iter().all(|(.., reply)| wanted.contains(reply));
    if all(&[NameServerReply::NoRoute]) {
        let seen = "not tested: this host has no IPv6 route to its name servers";
        findings.unknown(CHECK, zone, seen, "Run this from a host with IPv6.");
        return;
    }
    if all(&[NameServerReply::NoRoute, NameServerReply::OutOfTime]) {
        let advice = "Run this again with a longer --timeout, or find out what is slow here.";
        findings.unknown(CHECK, zone, "name servers not tested: out of time", advice);
        return;
    }
    let answering: Vec<String> = replies
        .iter()
        .filter(|(.., reply)| **reply == NameServerReply::Answers)
        .map(|(host, ip, _)| format!("{host} {ip}"))
        .collect();
    if !answering.is_empty() {
        let seen = format!("name servers answer over IPv6: {}", answering.join(", "));
        findings.pass(CHECK, zone, seen);
    }
    let has_response = replies
        .iter()
        .any(|(.., reply)| matches!(reply, NameServerReply::Answers | NameServerReply::Lame(_)));
    if !has_response {
        no_response(zone, hosts, replies, known, findings);
        return;
    }
    for (host, ip, reply) in replies {
        match reply {
            NameServerReply::Lame(how) => {
                let seen = format!("name server {host} {ip} is lame: {how}");
                let advice = "Let it serve the zone, or remove it from the NS records and at the registrar: resolvers lose time with it.";
                findings.warn(CHECK, zone, seen, advice);
            }
            NameServerReply::NoResponse => {
                let seen = format!("name server {host} does not respond at {ip}");
                let advice = "Open port 53 (UDP and TCP) of that address, or remove the AAAA record: resolvers wait for it.";
                findings.warn(CHECK, zone, seen, advice);
            }
            NameServerReply::Answers | NameServerReply::NoRoute | NameServerReply::OutOfTime => {}
        }
    }
}

/// No server responds over IPv6. If none responds over IPv4 either, this network may be the reason.
fn no_response(
    zone: &DomainName,
    hosts: &[DomainName],
    replies: &[AskedServer<'_>],
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let Some(servers) = addresses(hosts, Family::Ipv4, known) else { return };
    let Some(over_ipv4) = self::replies(&servers.unwrap_or_default(), zone, known) else { return };
    let responds = over_ipv4
        .iter()
        .any(|(.., reply)| matches!(reply, NameServerReply::Answers | NameServerReply::Lame(_)));
    let servers: Vec<String> = replies.iter().map(|(host, ip, _)| format!("{host} {ip}")).collect();
    let servers = servers.join(", ");
    if responds {
        let seen = format!("no name server responds over IPv6 ({servers}), while IPv4 works");
        let advice = "Open port 53 (UDP and TCP) over IPv6: resolvers that have IPv6 only do not find the domain, and others wait.";
        findings.warn(CHECK, zone, seen, advice);
    } else {
        let seen = format!("no name server responds to this host ({servers})");
        let advice = "Run this from a host that may query other DNS servers than its resolver: many networks block port 53.";
        findings.unknown(CHECK, zone, seen, advice);
    }
}

fn listed(hosts: &[DomainName]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
