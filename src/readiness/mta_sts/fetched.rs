//! The policy host, and the policy that it serves at each of its addresses (RFC 8461 §3.3).

use std::net::IpAddr;
use std::time::Duration;

use super::policy::StsPolicy;
use crate::addr::{Family, is_global};
use crate::humanize::{duration, family as family_name};
use crate::policy::facts::{DomainName, Reason};
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::known::KnownAnswers;
use crate::readiness::mx::record_type;
use crate::readiness::policy_fetch::{HttpResponse, MAX_POLICY, PolicyFetch, PolicyResponse};
use crate::readiness::survey::{CertificateTrust, ConnectResult, ServerTls, TlsAttempt};

/// Addresses of a family that are asked.
const MAX_ADDRESSES: usize = 2;
/// IPv6 first, as with the exchanges.
const ORDER: [Family; 2] = [Family::Ipv6, Family::Ipv4];
/// Certificates are renewed earlier than this before their end.
const SOON: Duration = Duration::from_secs(14 * 86_400);

const AGAIN: &str = "Run this again with a longer --timeout, or find out what is slow here.";
const NO_POLICY: &str = "Senders without a stored copy have no policy then.";

/// A policy that senders get.
#[derive(Debug)]
pub(super) struct FetchedPolicy<'a> {
    /// The host, with an address if another one has another policy.
    pub(super) about: String,
    pub(super) body: &'a [u8],
}

/// The different policies; `None` as long as they are not known.
pub(super) fn check<'a>(
    host: &DomainName,
    known: &'a KnownAnswers,
    findings: &mut FindingList,
) -> Option<Vec<FetchedPolicy<'a>>> {
    let found = ORDER.map(|family| known.addresses(host, family));
    let [Some(v6), Some(v4)] = found else { return None };
    let addresses = check_addresses(host, [v6, v4], findings);
    let fetches: Vec<Option<(IpAddr, &PolicyFetch)>> =
        addresses.iter().map(|ip| Some((*ip, known.policy(*ip, host)?))).collect();
    let fetches: Vec<(IpAddr, &PolicyFetch)> = fetches.into_iter().collect::<Option<_>>()?;
    // If no address responds, the fault may be on this side.
    let any_connected =
        fetches.iter().any(|(_, fetch)| matches!(fetch.reached, ConnectResult::Connected(_)));
    let mut bodies: Vec<(IpAddr, &[u8])> = Vec::new();
    for (ip, fetch) in fetches {
        let about = format!("{host} {ip}");
        if let Some(facts) = check_connection(&about, ip, fetch, any_connected, findings) {
            check_certificate(&about, host, facts, findings);
            let body = check_response(&about, &fetch.response, findings);
            bodies.extend(body.map(|body| (ip, body)));
        }
    }
    Some(different(host, &bodies, findings))
}

/// The valid policies of a host that no record points to.
pub(super) fn policies_without_record(
    host: &DomainName,
    known: &KnownAnswers,
) -> Option<Vec<StsPolicy>> {
    let found = ORDER.map(|family| known.addresses(host, family));
    let [Some(v6), Some(v4)] = found else { return None };
    let addresses = [v6, v4].map(Result::unwrap_or_default).into_iter().flat_map(usable);
    let fetches: Vec<Option<&PolicyFetch>> = addresses.map(|ip| known.policy(ip, host)).collect();
    let fetches: Vec<&PolicyFetch> = fetches.into_iter().collect::<Option<_>>()?;
    let policies = fetches.into_iter().filter_map(|fetch| match &fetch.response {
        PolicyResponse::Received(response) if response.status == 200 => {
            StsPolicy::parse(&response.body).ok()
        }
        _ => None,
    });
    Some(policies.collect())
}

fn usable(mut addresses: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    addresses.sort();
    addresses.into_iter().filter(|ip| is_global(*ip)).take(MAX_ADDRESSES)
}

/// Returns those to ask.
fn check_addresses(
    host: &DomainName,
    found: [Result<Vec<IpAddr>, Reason>; 2],
    findings: &mut FindingList,
) -> Vec<IpAddr> {
    let check = CheckName::MtaStsHost;
    let mut all = Vec::new();
    let mut missing = Vec::new();
    let mut is_complete = true;
    for (family, found) in ORDER.into_iter().zip(found) {
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(reason) => {
                findings.lookup_failed(check, host, record_type(family), reason);
                is_complete = false;
                continue;
            }
        };
        for ip in addresses.iter().filter(|ip| !is_global(**ip)) {
            let advice = format!(
                "Remove this {} record, or replace it by a global address.",
                record_type(family)
            );
            findings.fail(check, format!("{host} {ip}"), "not reachable from the Internet", advice);
        }
        if addresses.is_empty() {
            missing.push(family);
        }
        all.extend(usable(addresses));
    }
    match missing.as_slice() {
        [] if is_complete && !all.is_empty() => {
            findings.pass(check, host, "has A and AAAA records")
        }
        [family] if !all.is_empty() => {
            let record = record_type(*family);
            let family = family_name(*family);
            let advice =
                format!("Publish {record} of {host}: senders with {family} alone get no policy.");
            findings.warn(check, host, format!("no {record} record"), advice);
        }
        [_, _] => {
            let seen = "no address: there is a record, and no policy";
            let advice = format!(
                "Serve the policy at https://{host}/.well-known/mta-sts.txt, over IPv6 and IPv4, or remove the record. {NO_POLICY}"
            );
            findings.fail(check, host, seen, advice);
        }
        _ => {}
    }
    all
}

/// Returns the facts of TLS if it was established.
fn check_connection<'a>(
    about: &str,
    ip: IpAddr,
    fetch: &'a PolicyFetch,
    any_connected: bool,
    findings: &mut FindingList,
) -> Option<&'a ServerTls> {
    let check = CheckName::MtaStsFetch;
    match fetch.reached {
        ConnectResult::Connected(_) => {}
        ConnectResult::Refused => {
            let advice = format!(
                "Let the web server listen on port 443 of this address, and let firewalls pass it. {NO_POLICY}"
            );
            findings.fail(check, about, "connection refused at port 443", advice);
            return None;
        }
        ConnectResult::NoResponse(after) if any_connected => {
            let seen = format!("no answer to the SYN at port 443 in {}", duration(after));
            let advice = "Find the firewall or wrong route that drops SYNs to port 443 of this address, or remove the record: \
                          senders that use this family wait for a timeout, and may get no policy.";
            findings.fail(check, about, seen, advice);
            return None;
        }
        ConnectResult::NoResponse(after) => {
            let seen =
                format!("no answer at port 443 in {}, nor from any other address", duration(after));
            let advice = "Run this from a host that may connect to port 443, as this one's network may block it. If others get no \
                          answer either, repair the web server.";
            findings.unknown(check, about, seen, advice);
            return None;
        }
        ConnectResult::NoRoute => {
            let family = family_name(Family::of(ip));
            let seen = format!("this host has no {family} route to it");
            findings.unknown(check, about, seen, format!("Run this from a host with {family}."));
            return None;
        }
        ConnectResult::OutOfTime => {
            findings.unknown(check, about, "not tested: out of time", AGAIN);
            return None;
        }
    }
    let seen = match &fetch.tls {
        TlsAttempt::Established(facts) => return Some(facts),
        TlsAttempt::OutOfTime => {
            findings.unknown(
                check,
                about,
                "no TLS when the time for the whole check was over",
                AGAIN,
            );
            return None;
        }
        TlsAttempt::TimedOut(after) => {
            format!("no answer to the TLS handshake in {}", duration(*after))
        }
        TlsAttempt::Failed(why) => format!("no TLS: {why}"),
        TlsAttempt::Closed | TlsAttempt::NotReached => {
            "the server closes the connection in the TLS handshake".to_owned()
        }
    };
    let advice = format!("Find the reason in the web server's log. {NO_POLICY}");
    findings.fail(check, about, seen, advice);
    None
}

fn check_certificate(
    about: &str,
    host: &DomainName,
    facts: &ServerTls,
    findings: &mut FindingList,
) {
    let check = CheckName::MtaStsCertificate;
    let until = facts.not_after.to_string();
    let day = until.get(..10).unwrap_or(&until);
    let names = facts.names.join(", ");
    match &facts.trust {
        CertificateTrust::Distrusted(why) => {
            let advice = format!(
                "Install a certificate of a public authority for {host}, with its chain: senders take no policy from this \
                 address."
            );
            findings.fail(check, about, format!("certificate for {names}: {why}"), advice);
        }
        CertificateTrust::Unknown => {
            let seen =
                format!("certificate for {names} until {day}; this host trusts no authority");
            let advice = "Install the system's certificates here (Debian: ca-certificates), then run this again.";
            findings.unknown(check, about, seen, advice);
        }
        CertificateTrust::Trusted if facts.not_after.since(facts.at) < SOON => {
            let advice = "Renew it, and let the web server read the new one: see whether the automatic renewal works.";
            let seen = format!("certificate for {names} ends soon, on {day}");
            findings.warn(check, about, seen, advice);
        }
        CertificateTrust::Trusted => {
            findings.pass(check, about, format!("certificate for {names} until {day}"));
        }
    }
}

/// Returns the body if senders take it for the policy.
fn check_response<'a>(
    about: &str,
    response: &'a PolicyResponse,
    findings: &mut FindingList,
) -> Option<&'a [u8]> {
    let check = CheckName::MtaStsFetch;
    let (seen, advice) = match response {
        PolicyResponse::Received(response) if response.status == 200 => {
            check_type(about, response, findings);
            return Some(&response.body);
        }
        PolicyResponse::Received(HttpResponse { status: status @ 300..=399, location, .. }) => {
            let to = location.as_deref().map(|to| format!(" to {to}")).unwrap_or_default();
            let advice = "Serve the file itself at this place: senders must not follow redirects (RFC 8461 §3.3).";
            (format!("a redirect ({status}){to}"), advice)
        }
        PolicyResponse::Received(response) => {
            let advice =
                "Put the file at /.well-known/mta-sts.txt of this host name, or remove the record.";
            (format!("HTTP status {}", response.status), advice)
        }
        PolicyResponse::TooLarge => {
            let advice = "Shorten it: senders read no more, and have no policy then.";
            (format!("the policy is larger than {} KiB", MAX_POLICY / 1024), advice)
        }
        PolicyResponse::TimedOut(after) => {
            let advice =
                "Find out what the web server waits for: senders give up, and have no policy then.";
            (format!("no complete response in {}", duration(*after)), advice)
        }
        PolicyResponse::OutOfTime => {
            let seen = "no complete response when the time for the whole check was over";
            findings.unknown(check, about, seen, AGAIN);
            return None;
        }
        PolicyResponse::Closed | PolicyResponse::NotRequested => {
            let advice = "Find the reason in the web server's log: senders have no policy then.";
            ("the server closes the connection before the end of the response".to_owned(), advice)
        }
        PolicyResponse::NotHttp => {
            let advice = "Find out which service listens on port 443 of this address.";
            ("the response is not HTTP/1.1".to_owned(), advice)
        }
    };
    findings.fail(check, about, seen, advice);
    None
}

/// RFC 8461 §3.2: senders should accept nothing but text/plain.
fn check_type(about: &str, response: &HttpResponse, findings: &mut FindingList) {
    let check = CheckName::MtaStsFetch;
    let kind = response.content_type.as_deref().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("text/plain") {
        findings.pass(check, about, format!("a file of {} octets", response.body.len()));
        return;
    }
    let seen = match kind {
        "" => "no Content-Type".to_owned(),
        other => format!("Content-Type: {other}"),
    };
    let advice = "Serve the file as text/plain: some senders accept nothing else (RFC 8461 §3.2).";
    findings.warn(check, about, seen, advice);
}

/// Each policy once.
fn different<'a>(
    host: &DomainName,
    bodies: &[(IpAddr, &'a [u8])],
    findings: &mut FindingList,
) -> Vec<FetchedPolicy<'a>> {
    let check = CheckName::MtaStsFamilies;
    let mut policies: Vec<(IpAddr, &'a [u8])> = Vec::new();
    for (ip, body) in bodies {
        if !policies.iter().any(|(_, known)| are_alike(known, body)) {
            policies.push((*ip, body));
        }
    }
    if let [(_, body)] = policies.as_slice() {
        if bodies.len() > 1 {
            let seen = format!("the same policy at {} addresses", bodies.len());
            findings.pass(check, host, seen);
        }
        return vec![FetchedPolicy { about: host.to_string(), body }];
    }
    if let [(one, _), (other, _), ..] = policies.as_slice() {
        let seen = format!("another policy at {one} than at {other}");
        let advice = "Serve the same file at all addresses: which one applies depends on the sender's family, and stays so until \
                      the id of the record changes.";
        findings.warn(check, host, seen, advice);
    }
    let named =
        |(ip, body): (IpAddr, &'a [u8])| FetchedPolicy { about: format!("{host} {ip}"), body };
    policies.into_iter().map(named).collect()
}

/// But for line ends.
fn are_alike(one: &[u8], other: &[u8]) -> bool {
    let lines = |body: &[u8]| -> Vec<Vec<u8>> {
        body.split(|octet| *octet == b'\n').map(|line| line.trim_ascii_end().to_vec()).collect()
    };
    let trimmed = |body| {
        let mut lines = lines(body);
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        lines
    };
    trimmed(one) == trimmed(other)
}
