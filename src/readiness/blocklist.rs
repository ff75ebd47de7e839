//! The sending addresses on blocklists in the DNS (DNSBL), each family by itself.
//!
//! RFC 5782: §2.1 and §2.4 for the queries, §5 for the test entries. Their absence, or an answer that no list gives, makes the
//! list useless here: then nothing is known of an address, least of all that it is not listed.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::{CheckName, FindingList};
use super::known::{KnownAnswers, failure_text};
use super::request::CheckRequest;
use super::sender::senders;
use crate::addr::{Family, is_global};
use crate::humanize::family as family_name;
use crate::policy::facts::DomainName;

/// Test entries (RFC 5782 §5): in IPv6 they are v4-mapped.
const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NOT_LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Characters of the list's explanation that are reported.
const MAX_TEXT: usize = 300;
/// Lists of IPv6 addresses take hosts together by this prefix.
const PREFIX: u8 = 64;

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    for list in &request.dnsbls {
        for family in [Family::Ipv6, Family::Ipv4] {
            let mut senders = senders(request, family).filter(|ip| is_global(*ip)).peekable();
            if senders.peek().is_none() {
                continue;
            }
            // The queries of all are put at once.
            let senders: Vec<(IpAddr, Option<Entry>)> =
                senders.map(|ip| (ip, entry(ip, list, known))).collect();
            let Some(fault) = fault(list, family, known) else { continue };
            if let Some(fault) = fault {
                let seen = format!("{}: {}", family_name(family), fault.seen);
                findings.unknown(CheckName::Dnsbl, list, seen, fault.advice);
                continue;
            }
            let seen = format!("{}: the test entries are right", family_name(family));
            findings.pass(CheckName::Dnsbl, list, seen);
            for (ip, entry) in senders {
                if let Some(entry) = entry {
                    report(ip, list, entry, known, findings);
                }
            }
        }
    }
}

/// What a list answers about an address.
enum Entry {
    Absent,
    /// The codes of the list.
    Listed(Vec<Ipv4Addr>),
    /// Not an answer about the address.
    Useless(ListFault),
}

/// Why nothing follows from a list.
struct ListFault {
    seen: String,
    advice: &'static str,
}

const ASK_YOURSELF: &str = "Query the list by a resolver of your own (--dns ADDRESS) or with the key that the list gave you: lists refuse \
                            public resolvers and too many queries.";
const CORRECT: &str = "See at the list's site whether it still exists, how its zone is named and whether it needs a registration; \
                       otherwise leave it out.";

/// `None` while it is not known.
fn entry(ip: IpAddr, list: &DomainName, known: &KnownAnswers) -> Option<Entry> {
    let Some(name) = query_name(ip, list) else {
        let seen = "the name of the zone is too long for queries".to_owned();
        return Some(Entry::Useless(ListFault { seen, advice: CORRECT }));
    };
    let answer = known.addresses(&name, Family::Ipv4)?;
    let codes = match answer {
        Err(reason) => {
            let seen = format!("no answer: {}", failure_text(reason));
            return Some(Entry::Useless(ListFault { seen, advice: CORRECT }));
        }
        Ok(codes) => codes.into_iter().filter_map(|ip| match ip {
            IpAddr::V4(code) => Some(code),
            IpAddr::V6(_) => None,
        }),
    };
    let codes: Vec<Ipv4Addr> = codes.collect();
    let shown = listed(&codes);
    Some(if codes.is_empty() {
        Entry::Absent
    } else if codes.iter().any(|code| !code.is_loopback()) {
        // RFC 5782 §2.1: 127.0.0.0/8.
        let seen = format!(
            "the answer {shown} is that of a web server, not of a list: the zone has another owner"
        );
        Entry::Useless(ListFault { seen, advice: CORRECT })
    } else if codes.iter().any(is_refusal) {
        let seen = format!("the list refuses the query ({shown})");
        Entry::Useless(ListFault { seen, advice: ASK_YOURSELF })
    } else {
        Entry::Listed(codes)
    })
}

/// Codes for errors: 127.255.255.0/24 of Spamhaus and others, and 127.0.0.1, which lists no address (RFC 5782 §2.1).
fn is_refusal(code: &Ipv4Addr) -> bool {
    *code == NOT_LISTED || matches!(code.octets(), [127, 255, 255, _])
}

/// Why the list is useless for a family, by its test entries. `None` while it is not known.
fn fault(list: &DomainName, family: Family, known: &KnownAnswers) -> Option<Option<ListFault>> {
    let test = |ip: Ipv4Addr| match family {
        Family::Ipv4 => IpAddr::V4(ip),
        Family::Ipv6 => IpAddr::V6(ip.to_ipv6_mapped()),
    };
    let [listed, not_listed] = [LISTED, NOT_LISTED].map(|ip| entry(test(ip), list, known));
    let fault = match (listed?, not_listed?) {
        (Entry::Useless(fault), _) | (_, Entry::Useless(fault)) => Some(fault),
        (Entry::Absent, _) => {
            let test = shown(test(LISTED));
            let part = match family {
                Family::Ipv6 => "the list is dead or has no IPv6 part",
                Family::Ipv4 => "the list is dead or has no IPv4 part",
            };
            let seen = format!("the test entry {test} is missing (RFC 5782 §5): {part}");
            Some(ListFault { seen, advice: CORRECT })
        }
        (Entry::Listed(_), Entry::Listed(_)) => {
            let test = shown(test(NOT_LISTED));
            let seen = format!("the list lists everything, also {test} (RFC 5782 §5)");
            Some(ListFault { seen, advice: CORRECT })
        }
        (Entry::Listed(_), Entry::Absent) => None,
    };
    Some(fault)
}

/// As RFC 5782 §5 writes it.
fn shown(test: IpAddr) -> String {
    match test {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [.., high, low] = v6.segments();
            format!("::FFFF:{high:X}:{low:X}")
        }
    }
}

fn report(
    ip: IpAddr,
    list: &DomainName,
    entry: Entry,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let check = CheckName::SenderDnsbl;
    let codes = match entry {
        Entry::Absent => return findings.pass(check, ip, format!("not listed at {list}")),
        Entry::Useless(fault) => {
            return findings.unknown(check, ip, format!("{list}: {}", fault.seen), fault.advice);
        }
        Entry::Listed(codes) => codes,
    };
    let (explanation, extent) = (explanation(ip, list, known), extent(ip, list, known));
    let (Some(explanation), Some(extent)) = (explanation, extent) else { return };
    let seen = format!("listed at {list} ({}){extent}{explanation}", listed(&codes));
    let advice = "End what the list names as the reason, then ask it for removal; until then many receivers reject mail from this \
                  address.";
    findings.fail(check, ip, seen, advice);
}

/// The text of the entry, shortened. `None` while it is not known.
fn explanation(ip: IpAddr, list: &DomainName, known: &KnownAnswers) -> Option<String> {
    let Some(name) = query_name(ip, list) else { return Some(String::new()) };
    let Ok(texts) = known.texts(&name)? else { return Some(String::new()) };
    let texts: Vec<String> =
        texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let whole = texts.join("; ");
    let mut kept: String = whole.chars().take(MAX_TEXT).collect();
    if kept.len() < whole.len() {
        kept.push('…');
    }
    Some(if kept.is_empty() { kept } else { format!(": {kept}") })
}

/// Whether the whole /64 of an IPv6 address is listed, which lists prefer (RFC 5782 §2.4): shown by an address at the other
/// end of it. `None` while it is not known.
fn extent(ip: IpAddr, list: &DomainName, known: &KnownAnswers) -> Option<String> {
    let IpAddr::V6(v6) = ip else { return Some(String::new()) };
    let bits = u128::from(v6);
    let network = Ipv6Addr::from(bits & (u128::MAX << (128 - PREFIX)));
    let neighbour = Ipv6Addr::from(bits ^ (1 << (127 - PREFIX)));
    Some(match entry(neighbour.into(), list, known)? {
        Entry::Listed(_) => format!(" with its whole network {network}/{PREFIX}"),
        Entry::Absent => format!(" by itself, not with its network {network}/{PREFIX}"),
        Entry::Useless(_) => format!(", in {network}/{PREFIX}"),
    })
}

fn listed(codes: &[Ipv4Addr]) -> String {
    let texts: Vec<String> = codes.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The octets or nibbles in reverse order, before the zone; `None` if that is too long for a name. A v4-mapped address counts
/// as one of IPv6 here: the test entries are such.
fn query_name(ip: IpAddr, list: &DomainName) -> Option<DomainName> {
    let mut labels = String::new();
    let written = match ip {
        IpAddr::V4(v4) => v4.octets().iter().rev().try_for_each(|octet| write!(labels, "{octet}.")),
        IpAddr::V6(v6) => v6
            .octets()
            .iter()
            .rev()
            .try_for_each(|octet| write!(labels, "{:x}.{:x}.", octet & 15, octet >> 4)),
    };
    written.ok().and_then(|()| DomainName::parse(&format!("{labels}{list}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 5782 §2.1, §2.4 and §5.
    #[test]
    fn queries_are_those_of_the_standard() {
        let list = DomainName::parse("bad.example.com").unwrap();
        for (ip, expected) in [
            ("192.0.2.99", "99.2.0.192.bad.example.com"),
            (
                "2001:db8:1:2:3:4:567:89ab",
                "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bad.example.com",
            ),
            (
                "::FFFF:7F00:2",
                "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.bad.example.com",
            ),
        ] {
            let name = query_name(ip.parse().unwrap(), &list).unwrap();
            assert_eq!(name.to_string(), expected);
        }
        let long = DomainName::parse(&format!("{}example", "abcdefgh.".repeat(24))).unwrap();
        assert_eq!(query_name("2001:db8::1".parse().unwrap(), &long), None);
        assert_eq!(shown(IpAddr::V6(LISTED.to_ipv6_mapped())), "::FFFF:7F00:2");
    }
}
