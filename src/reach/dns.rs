//! Answers from a DNS server, now.
//!
//! RFC 1035 over UDP, and over TCP for what does not fit. A server that fails, refuses or is silent makes the answer
//! unknown; nothing waits longer than the deadline.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use hickory_proto::op::ResponseCode;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Refused, NetError};

use super::{question, record};
use crate::policy::facts::{Answer, Lookup, Reason};

const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// resolv.conf(5): more are not used.
const MAX_SERVERS: usize = 3;

/// Why no DNS server can be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    #[error("cannot read {}: {why}; name a DNS server with --dns ADDR[:PORT]", file.display())]
    ResolvConf { file: PathBuf, why: io::Error },
    #[error("{} names no DNS server; name one with --dns ADDR[:PORT]", file.display())]
    NoServer { file: PathBuf },
    #[error("cannot set up the DNS resolver: {0}")]
    Resolver(NetError),
}

/// Reads `ADDR[:PORT]`: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`. The port is 53 if there is
/// none.
///
/// # Errors
/// What was expected and found.
pub fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (text.parse(), bare.parse::<IpAddr>()) {
        (Ok(server), _) => Ok(server),
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, PORT)),
        _ => Err(format!(
            "expected the address of a DNS server, such as 192.0.2.53, 192.0.2.53:5353, 2001:db8::53 or \
             [2001:db8::53]:5353; found {text:?}"
        )),
    }
}

/// A resolver with a deadline. Its cache keeps a session's questions from being asked again for the next.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: TokioResolver,
    deadline: Duration,
}

impl Dns {
    /// Asks `servers`, and nobody else: no hosts file, no search list.
    ///
    /// # Errors
    /// The resolver cannot be made.
    pub fn new(servers: &[SocketAddr], deadline: Duration) -> Result<Self, DnsError> {
        let servers = servers.iter().map(|server| {
            let ports = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, ports.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.os_port_selection = true;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        // Asked again once, when half the time is over.
        options.timeout = deadline / 2;
        options.attempts = 1;
        let resolver = builder.build().map_err(DnsError::Resolver)?;
        Ok(Self { resolver, deadline })
    }

    /// Asks the servers of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be read or names no server; the resolver cannot be made.
    pub fn system(deadline: Duration) -> Result<Self, DnsError> {
        let file = PathBuf::from(RESOLV_CONF);
        let text = fs::read_to_string(&file)
            .map_err(|why| DnsError::ResolvConf { file: file.clone(), why })?;
        match name_servers(&text).as_slice() {
            [] => Err(DnsError::NoServer { file }),
            servers => Self::new(servers, deadline),
        }
    }

    /// Never later than the deadline.
    pub async fn answer(&self, lookup: &Lookup) -> Answer {
        let (name, kind) = question(lookup);
        let asked = self.resolver.lookup(name.as_dns().clone(), kind);
        let found = match tokio::time::timeout(self.deadline, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => return without_records(&why),
            Err(_elapsed) => return Answer::Unknown(Reason::Timeout),
        };
        let of_kind = found.answers().iter().filter(|answer| answer.record_type() == kind);
        let mut records: Vec<_> = of_kind.filter_map(|answer| record(&answer.data)).collect();
        if records.is_empty() {
            return Answer::Unknown(Reason::Servfail);
        }
        records.sort();
        Answer::Records(records)
    }
}

/// The `nameserver` lines of resolv.conf(5).
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let addresses = servers.filter_map(|word| word.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, PORT)).take(MAX_SERVERS).collect()
}

fn without_records(why: &NetError) -> Answer {
    match why {
        NetError::Dns(Refused::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Answer::NxDomain,
            // Name servers and no SOA: a referral by a server that does not recurse (RFC 2308 §2.2).
            ResponseCode::NoError if none.ns.is_none() || none.soa.is_some() => Answer::NoData,
            _ => Answer::Unknown(Reason::Servfail),
        },
        NetError::Timeout => Answer::Unknown(Reason::Timeout),
        NetError::Io(_) | NetError::NoConnections => Answer::Unknown(Reason::Unreachable),
        _ => Answer::Unknown(Reason::Servfail),
    }
}
