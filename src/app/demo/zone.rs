//! The demo's DNS: a few zones on loopback, over UDP and TCP, and the clients' resolver for them.
//!
//! Layer 5. RFC 1035, AAAA (3596); `.test` is reserved for testing (6761). The clients find the gateway as real MTAs do (RFC
//! 5321 §5.1): MX, then AAAA and A of each exchange. Only the port is not in the DNS: the demo runs without root, so it
//! cannot be 25.
//!
//! hickory-resolver answers reverse queries for loopback addresses itself (RFC 6761 §6.3), so only direct queries reach
//! the PTR records here.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_server::Server;
use hickory_server::proto::rr::{Name, RData, RecordType};
use hickory_server::proto::serialize::txt::Parser;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// The site behind the gateway.
pub(super) const DOMAIN: &str = "demo.test";
/// A site without a listener at its published IPv6 address.
pub(super) const HALF_DOMAIN: &str = "half.test";

const SITES: &str = "\
$TTL 60
@           IN SOA  ns.demo.test. hostmaster.demo.test. 1 3600 600 86400 60
@           IN NS   ns.demo.test.
ns.demo     IN A    127.0.0.1
demo        IN MX   10 mx.demo.test.
mx.demo     IN AAAA ::1
mx.demo     IN A    127.0.0.1
half        IN MX   10 mx.half.test.
mx.half     IN AAAA ::1
mx.half     IN A    127.0.0.1
";

const REVERSE: &str = "\
$TTL 60
@ IN SOA ns.demo.test. hostmaster.demo.test. 1 3600 600 86400 60
@ IN NS  ns.demo.test.
";

/// The running DNS server; stops when dropped.
pub(super) struct DemoZone {
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    server: Server<Catalog>,
}

impl DemoZone {
    /// Serves [`DOMAIN`], [`HALF_DOMAIN`] and, forward and reverse, each host of `hosts`.
    pub(super) async fn start(hosts: &[(&str, IpAddr)]) -> anyhow::Result<Self> {
        let mut catalog = Catalog::new();
        let mut sites = String::from(SITES);
        let mut reverse =
            [("127.in-addr.arpa.", String::from(REVERSE)), ("ip6.arpa.", String::from(REVERSE))];
        for &(host, ip) in hosts {
            let (kind, back) = match ip {
                IpAddr::V4(_) => ("A", 0),
                IpAddr::V6(_) => ("AAAA", 1),
            };
            writeln!(sites, "{host}. IN {kind} {ip}")?;
            if let Some((_, text)) = reverse.get_mut(back) {
                writeln!(text, "{} IN PTR {host}.", Name::from(ip))?;
            }
        }
        add(&mut catalog, "test.", &sites)?;
        for (origin, text) in &reverse {
            add(&mut catalog, origin, text)?;
        }

        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (udp_address, tcp_address) = (udp.local_addr()?, tcp.local_addr()?);
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 64);
        Ok(Self { udp: udp_address, tcp: tcp_address, server })
    }

    /// A resolver for this server alone: without /etc/resolv.conf and /etc/hosts.
    pub(super) fn resolver(&self) -> anyhow::Result<TokioResolver> {
        let mut udp = ConnectionConfig::udp();
        udp.port = self.udp.port();
        let mut tcp = ConnectionConfig::tcp();
        tcp.port = self.tcp.port();
        let server = NameServerConfig::new(self.udp.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        options.os_port_selection = true;
        Ok(builder.build()?)
    }
}

impl Drop for DemoZone {
    fn drop(&mut self) {
        self.server.shutdown_token().cancel();
    }
}

fn add(catalog: &mut Catalog, origin: &str, text: &str) -> anyhow::Result<()> {
    let origin = Name::from_ascii(origin)?;
    let (origin, records) = Parser::new(text, None, Some(origin))
        .parse()
        .with_context(|| format!("the demo's own zone {text:?} does not parse"))?;
    let zone = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
        origin.clone(),
        records,
        ZoneType::Primary,
        AxfrPolicy::Deny,
    )
    .map_err(|why| anyhow!("the demo's own zone is rejected: {why}"))?;
    let handlers: Vec<Arc<dyn ZoneHandler>> = vec![Arc::new(zone)];
    catalog.upsert(origin.into(), handlers);
    Ok(())
}

/// The addresses of the mail exchanges of `domain` in the order to try them: by MX preference, IPv6 first.
pub(super) async fn exchanges(
    resolver: &TokioResolver,
    domain: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    let failed = |record: &str| format!("the demo's DNS has no {record} for {domain}");
    let found = resolver.mx_lookup(format!("{domain}.")).await;
    let found = found.with_context(|| failed("MX"))?;
    let mut exchanges: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.clone())),
            _ => None,
        })
        .collect();
    exchanges.sort();
    let mut addresses = Vec::new();
    for (_, exchange) in exchanges {
        for kind in [RecordType::AAAA, RecordType::A] {
            let found = resolver.lookup(exchange.clone(), kind).await;
            let found = found.with_context(|| failed("address"))?;
            addresses.extend(found.answers().iter().filter_map(|record| record.data.ip_addr()));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::{Message, Query};

    use super::*;

    const HOSTS: [(&str, IpAddr); 2] = [
        ("six.sender.test", IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        ("listed.sender.test", IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66))),
    ];

    #[tokio::test]
    async fn mx_leads_to_both_families() {
        let zone = DemoZone::start(&HOSTS).await.unwrap();
        let resolver = zone.resolver().unwrap();
        let both: Vec<IpAddr> = vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(exchanges(&resolver, DOMAIN).await.unwrap(), both);
        assert_eq!(exchanges(&resolver, HALF_DOMAIN).await.unwrap(), both);
        let err = exchanges(&resolver, "elsewhere.test").await.unwrap_err();
        assert_eq!(err.to_string(), "the demo's DNS has no MX for elsewhere.test");

        let listed = resolver.ipv4_lookup("listed.sender.test.").await.unwrap();
        let listed: Vec<_> = listed.answers().iter().map(|r| r.data.ip_addr()).collect();
        assert_eq!(listed, [Some(HOSTS[1].1)]);
    }

    #[tokio::test]
    async fn every_client_has_a_ptr_record() {
        let zone = DemoZone::start(&HOSTS).await.unwrap();
        for (host, ip) in HOSTS {
            let mut query = Message::query();
            query.add_query(Query::query(Name::from(ip), RecordType::PTR));
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.send_to(&query.to_vec().unwrap(), zone.udp).await.unwrap();
            let mut answer = [0; 512];
            let n = socket.recv(&mut answer).await.unwrap();
            let answer = Message::from_vec(&answer[..n]).unwrap();
            let names: Vec<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
            assert_eq!(names, [format!("{host}.")]);
        }
    }
}
