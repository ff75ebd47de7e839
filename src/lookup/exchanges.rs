//! The mail exchanges of a domain, as a sender finds them (RFC 5321 §5.1).

use std::future::Future;
use std::net::IpAddr;

use futures_util::future::join_all;

use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, MAX_EXCHANGES, Reason};

/// The addresses of the exchanges of `domain` in `family`, in the order of preference. If some hosts are unknown, the known
/// ones are used.
///
/// # Errors
/// The lookup failed.
pub async fn exchange_addresses<F>(
    answer: impl Fn(Lookup) -> F,
    domain: &DomainName,
    family: Family,
) -> Result<Vec<(DomainName, IpAddr)>, Reason>
where
    F: Future<Output = Answer>,
{
    let mut hosts: Vec<_> = match answer(Lookup::MailExchanges(domain.clone())).await {
        Answer::Records(records) => records
            .into_iter()
            .filter_map(|record| match record {
                DnsRecord::Exchange { preference, host } => Some((preference, host)),
                _ => None,
            })
            .filter(|(_, host)| !host.is_root())
            .collect(),
        Answer::NoData => vec![(0, domain.clone())],
        Answer::Unknown(reason) => return Err(reason),
        _ => Vec::new(),
    };
    hosts.sort();
    hosts.truncate(MAX_EXCHANGES);
    let lookups = hosts.into_iter().map(|(_, host)| {
        let addresses = answer(Lookup::Addresses(host.clone(), family));
        async move { (host, addresses.await) }
    });
    let (mut found, mut unknown) = (Vec::new(), None);
    for (host, answer) in join_all(lookups).await {
        match answer {
            Answer::Records(records) => {
                found.extend(records.into_iter().filter_map(|record| match record {
                    DnsRecord::Address(ip) => Some((host.clone(), ip)),
                    _ => None,
                }));
            }
            Answer::Unknown(reason) => unknown = Some(reason),
            _ => {}
        }
    }
    match unknown {
        Some(reason) if found.is_empty() => Err(reason),
        _ => Ok(found),
    }
}
