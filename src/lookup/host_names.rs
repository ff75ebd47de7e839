//! Addresses of host names as other programs of this host find them: hosts(5) first, then the DNS servers and the search list of
//! resolv.conf(5). Container networks depend on all three.
//!
//! Not getaddrinfo(3): it holds a thread until its own timeouts end, returns no TTL, and answers alike for a name that does not
//! exist and for servers that do not respond.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join;

use super::dns::{Dns, name_servers};
use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Time for the answer to one question.
const DEADLINE: Duration = Duration::from_secs(5);
/// resolv.conf(5): the default of `ndots`, and the most.
const NDOTS: usize = 1;
const MAX_NDOTS: usize = 15;

/// By family (`Family as usize`): the addresses, none if the name has none or does not exist; or why they are not known. And for
/// how long they are valid, if the DNS says so.
pub type HostLookup = ([Result<Vec<IpAddr>, Reason>; Family::ALL.len()], Option<Duration>);

/// Resolves host names by the files of this host, which are read each time.
#[derive(Debug, Default)]
pub struct HostNames {
    /// For the servers of the last lookup.
    dns: Mutex<Option<(Vec<SocketAddr>, Dns)>>,
}

impl HostNames {
    /// The addresses of `name`. With a final dot it is complete, and the search list does not apply.
    pub async fn resolve(&self, name: &str) -> HostLookup {
        let hosts = fs::read_to_string(HOSTS).unwrap_or_default();
        if let Some(addresses) = in_hosts(&hosts, name) {
            return (addresses.map(Ok), None);
        }
        let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let Some(dns) = self.dns(name_servers(&resolv_conf)) else {
            return ([Err(Reason::NoResolver), Err(Reason::NoResolver)], None);
        };
        let mut shortest = None;
        for candidate in SearchList::parse(&resolv_conf).candidates(name) {
            let (addresses, ttl) = query(&dns, &candidate).await;
            shortest = shorter(shortest, ttl);
            // A failure ends the search: the next name may be that of another server.
            if addresses.iter().any(|of| of.as_ref().map_or(true, |found| !found.is_empty())) {
                return (addresses, shortest);
            }
        }
        ([Ok(Vec::new()), Ok(Vec::new())], shortest)
    }

    fn dns(&self, servers: Vec<SocketAddr>) -> Option<Dns> {
        let mut dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, dns)) = dns.as_ref().filter(|(of, _)| *of == servers) {
            return Some(dns.clone());
        }
        let new = Some(&servers).filter(|servers| !servers.is_empty());
        let new = new.and_then(|servers| Dns::uncached(servers, DEADLINE).ok());
        *dns = new.clone().map(|new| (servers, new));
        new
    }
}

/// Both families of one name.
async fn query(dns: &Dns, name: &DomainName) -> HostLookup {
    let [ipv4, ipv6] = Family::ALL.map(|family| {
        let lookup = Lookup::Addresses(name.clone(), family);
        async move { dns.answer_with_ttl(&lookup).await }
    });
    let ((ipv4, ttl4), (ipv6, ttl6)) = join(ipv4, ipv6).await;
    let ttl = shorter(ttl4, ttl6);
    // A name that does not exist has neither family (RFC 8020), whatever became of the other question.
    if [&ipv4, &ipv6].contains(&&Answer::NxDomain) {
        return ([Ok(Vec::new()), Ok(Vec::new())], ttl);
    }
    ([ipv4, ipv6].map(addresses), ttl)
}

fn addresses(answer: Answer) -> Result<Vec<IpAddr>, Reason> {
    match answer {
        Answer::Records(records) => Ok(records
            .into_iter()
            .filter_map(|record| match record {
                DnsRecord::Address(ip) => Some(ip),
                _ => None,
            })
            .collect()),
        Answer::NoData | Answer::NxDomain => Ok(Vec::new()),
        Answer::Unknown(reason) => Err(reason),
        Answer::Yes(_) | Answer::No(..) => Err(Reason::Servfail),
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The addresses of `name` in a file as hosts(5) describes, by family; `None` if it does not have the name.
fn in_hosts(hosts: &str, name: &str) -> Option<[Vec<IpAddr>; Family::ALL.len()]> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found: [Vec<IpAddr>; Family::ALL.len()] = Default::default();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        let of_family = &mut found[Family::of(ip) as usize];
        if words.any(|alias| alias.eq_ignore_ascii_case(name)) && !of_family.contains(&ip) {
            of_family.push(ip);
        }
    }
    found.iter().any(|of_family| !of_family.is_empty()).then_some(found)
}

/// `search`, `domain` and `options ndots:` of resolv.conf(5). Of `search` and `domain` the last line counts.
#[derive(Debug, PartialEq, Eq)]
struct SearchList {
    domains: Vec<String>,
    ndots: usize,
}

impl SearchList {
    fn parse(resolv_conf: &str) -> Self {
        let mut list = Self { domains: Vec::new(), ndots: NDOTS };
        for line in resolv_conf.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("search") => list.domains = words.map(str::to_owned).collect(),
                Some("domain") => list.domains = words.take(1).map(str::to_owned).collect(),
                Some("options") => {
                    let mut ndots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    list.ndots = ndots.next_back().unwrap_or(list.ndots).min(MAX_NDOTS);
                }
                _ => {}
            }
        }
        list
    }

    /// The names to look up, in this order.
    fn candidates(&self, name: &str) -> Vec<DomainName> {
        let complete = DomainName::parse(name);
        if name.ends_with('.') {
            return complete.into_iter().collect();
        }
        let searched = self.domains.iter().filter_map(|domain| {
            let domain = domain.trim_matches('.');
            let separator = if domain.is_empty() { "" } else { "." };
            DomainName::parse(&format!("{name}{separator}{domain}"))
        });
        let is_first = name.matches('.').count() >= self.ndots;
        let (first, last) = if is_first { (complete, None) } else { (None, complete) };
        let mut candidates: Vec<DomainName> = Vec::new();
        for candidate in first.into_iter().chain(searched).chain(last) {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(resolv_conf: &str, name: &str) -> Vec<String> {
        let names = SearchList::parse(resolv_conf).candidates(name);
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_search_list_of_kubernetes_comes_first_for_short_names() {
        let resolv_conf = "search mail.svc.cluster.local svc.cluster.local cluster.local\n\
                           nameserver 10.96.0.10\noptions ndots:5\n";
        let searched = |name: &str| {
            ["mail.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                .map(|domain| format!("{name}.{domain}"))
        };
        let expected = [&searched("postfix")[..], &["postfix".to_owned()]].concat();
        assert_eq!(candidates(resolv_conf, "postfix"), expected);
        let expected = [&searched("postfix.mail")[..], &["postfix.mail".to_owned()]].concat();
        assert_eq!(candidates(resolv_conf, "postfix.mail"), expected);
        assert_eq!(candidates(resolv_conf, "mx.example.org."), ["mx.example.org"]);
    }

    #[test]
    fn a_name_with_enough_dots_is_tried_first() {
        let resolv_conf = "domain old.example\nsearch example.org\n";
        assert_eq!(candidates(resolv_conf, "mx"), ["mx.example.org", "mx"]);
        assert_eq!(candidates(resolv_conf, "mx.b"), ["mx.b", "mx.b.example.org"]);
        assert_eq!(candidates("search .\n", "mx"), ["mx"]);
        assert_eq!(candidates("", "mx_1"), ["mx_1"]);
        assert_eq!(SearchList::parse("options ndots:99 rotate\n").ndots, MAX_NDOTS);
        assert_eq!(SearchList::parse("options ndots:x\n").ndots, NDOTS);
    }

    #[test]
    fn hosts_has_names_and_aliases_of_both_families() {
        let hosts = "127.0.0.1 localhost\n# 192.0.2.9 postfix\n192.0.2.1\tmx.example.org Postfix # the MTA\n\
                     2001:db8::1 postfix\n192.0.2.1 postfix\nnonsense postfix\n";
        let found = in_hosts(hosts, "postfix").unwrap();
        assert_eq!(found[Family::Ipv4 as usize], ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found[Family::Ipv6 as usize], ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert!(in_hosts(hosts, "mx.example.org.").is_some());
        assert_eq!(in_hosts(hosts, "example.org"), None);
    }
}
