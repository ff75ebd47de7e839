//! Sends one outbound pair, from this host straight to the exchanges of its destination.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::{ActiveCanaries, wall_clock};
use crate::addr::Family;
use crate::canary::{CanaryAddresses, CanaryDirection, CanaryPair};
use crate::lookup::{LookupService, exchange_addresses};
use crate::policy::facts::{DomainName, Lookup};
use crate::smtp_connection::{CanarySender, CanaryTarget, PairOrder};

const SMTP: u16 = 25;
/// For each connection and reply.
const STEP: Duration = Duration::from_secs(15);

/// The pair with the replies of the mail servers, and the exchange hosts.
///
/// # Errors
/// Why nothing was sent, for people.
pub(super) async fn send_pair(
    active: &ActiveCanaries,
    addresses: &CanaryAddresses,
    lookup: &LookupService,
    tls: &Arc<ClientConfig>,
) -> Result<(CanaryPair, BTreeSet<DomainName>), String> {
    let to = &addresses.to;
    let domain = to.rsplit_once('@').and_then(|(_, domain)| DomainName::parse(domain));
    let domain = domain.ok_or_else(|| format!("{to} has no domain name"))?;
    let targets = async |family: Family| {
        let answer = |needed: Lookup| {
            let service = lookup.clone();
            async move { service.lookup(&needed).await.answer }
        };
        let found = exchange_addresses(answer, &domain, family).await;
        found.map_err(|reason| format!("cannot look up the exchanges of {domain} ({reason})"))
    };
    let (ipv4, ipv6) = (targets(Family::Ipv4).await?, targets(Family::Ipv6).await?);
    let hosts = ipv4.iter().chain(&ipv6).map(|(host, _)| host.clone()).collect();
    let target = |(name, ip): &(DomainName, IpAddr)| CanaryTarget {
        name: name.to_string(),
        address: SocketAddr::new(*ip, SMTP),
    };
    let [ipv4, ipv6] = [ipv4, ipv6].map(|all| all.iter().map(target).collect::<Vec<_>>());
    let (direction, key) = (CanaryDirection::Outbound, &active.key);
    let order = PairOrder { direction, addresses, key, ipv4: &ipv4, ipv6: &ipv6 };
    let hostname = active.hostname.clone();
    let sender = CanarySender { hostname, timeout: STEP, tls: Arc::clone(tls) };
    let pair = sender.send_pair(order, wall_clock()).await;
    let pair = pair.map_err(|error| format!("cannot read random bytes: {error}"))?;
    Ok((pair, hosts))
}
