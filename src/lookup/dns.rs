//! Live DNS answers.
//!
//! RFC 1035 over UDP, and over TCP for truncated answers. If a server fails, refuses or does not respond, the answer is
//! unknown (rule 6 of ARCHITECTURE.md). No lookup waits longer than the deadline.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup as DnsRecords;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Refused, NetError};
use tokio::time::Instant;

use super::dns_data::{question, record};
use crate::policy::facts::{Answer, DomainName, Lookup, Reason};

pub(super) const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// resolv.conf(5): further ones are ignored.
const MAX_SERVERS: usize = 3;

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    #[error("cannot read {}: {why}; name a DNS server with --dns ADDR[:PORT]", file.display())]
    ResolvConf { file: PathBuf, why: io::Error },
    #[error("{} has no nameserver line; name a DNS server with --dns ADDR[:PORT]", file.display())]
    NoServer { file: PathBuf },
    #[error("cannot set up the DNS resolver: {0}")]
    Resolver(NetError),
}

/// Parses `ADDR[:PORT]`: `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`. The default port is 53.
///
/// # Errors
/// A message with the expected form and the text.
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

/// When the servers count as dead, and for how long they are not queried then.
#[derive(Clone, Copy, Debug)]
struct BackoffSettings {
    /// Consecutive queries without a response.
    queries: u32,
    /// Time without a response.
    silence: Duration,
    /// Time without queries; after it one query tests the servers.
    pause: Duration,
}

impl BackoffSettings {
    /// A report does not wait for a dead server in every session.
    const REPORT: Self =
        Self { queries: 3, silence: Duration::ZERO, pause: Duration::from_secs(30) };
    /// Under load some packets are always lost: only servers without any response for a while are dead.
    const LIVE: Self =
        Self { queries: 20, silence: Duration::from_secs(10), pause: Duration::from_secs(1) };
}

/// Pauses queries while the servers are dead.
#[derive(Debug, Default)]
struct Backoff {
    /// Queries without a response, and time of the first.
    unanswered: u32,
    since: Option<Instant>,
    paused_until: Option<Instant>,
}

/// A resolver with a deadline and a backoff.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: TokioResolver,
    servers: Arc<[SocketAddr]>,
    deadline: Duration,
    backoff_settings: BackoffSettings,
    backoff: Arc<Mutex<Backoff>>,
}

impl Dns {
    /// Queries `servers` only: no hosts file, no search list. Caches answers, so that the next session's lookups need no
    /// query.
    ///
    /// # Errors
    /// The resolver cannot be created.
    pub fn new(servers: &[SocketAddr], deadline: Duration) -> Result<Self, DnsError> {
        Self::with(servers, deadline, BackoffSettings::REPORT, None)
    }

    /// For the domain check, which queries many names once, some of them of dead servers. Queries `server`, or the servers of
    /// `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be read or names no server; the resolver cannot be created.
    pub fn for_domain_check(
        server: Option<SocketAddr>,
        deadline: Duration,
    ) -> Result<Self, DnsError> {
        let servers = server.map_or_else(system_servers, |server| Ok(vec![server]))?;
        Self::uncached(&servers, deadline)
    }

    /// Without a cache, for a caller that has its own.
    ///
    /// # Errors
    /// The resolver cannot be created.
    pub(super) fn uncached(servers: &[SocketAddr], deadline: Duration) -> Result<Self, DnsError> {
        Self::with(servers, deadline, BackoffSettings::LIVE, Some(0))
    }

    fn with(
        servers: &[SocketAddr],
        deadline: Duration,
        backoff_settings: BackoffSettings,
        cache: Option<u64>,
    ) -> Result<Self, DnsError> {
        let name_servers = servers.iter().map(|server| {
            let ports = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, ports.into())
        });
        let config = ResolverConfig::from_name_servers(name_servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.os_port_selection = true;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        // One retry: after half the time, or after a SERVFAIL.
        options.timeout = deadline / 2;
        options.attempts = 1;
        if let Some(entries) = cache {
            options.cache_size = entries;
        }
        let resolver = builder.build().map_err(DnsError::Resolver)?;
        let servers = servers.into();
        Ok(Self { resolver, servers, deadline, backoff_settings, backoff: Arc::default() })
    }

    /// Queries the servers of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be read or names no server; the resolver cannot be created.
    pub fn system(deadline: Duration) -> Result<Self, DnsError> {
        Self::new(&system_servers()?, deadline)
    }

    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Of one query.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A panic elsewhere leaves the state consistent.
    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers no later than the deadline.
    pub async fn answer(&self, lookup: &Lookup) -> Answer {
        self.answer_with_ttl(lookup).await.0
    }

    /// The answer, and its TTL if there is one: the lowest TTL of the records, or the negative TTL of RFC 2308 §5. Answers no
    /// later than the deadline.
    pub(super) async fn answer_with_ttl(&self, lookup: &Lookup) -> (Answer, Option<Duration>) {
        let Some((name, kind)) = question(lookup) else {
            return (Answer::Unknown(Reason::NoResolver), None);
        };
        let found = match self.records(&name, kind).await {
            Ok(found) => found,
            Err(without_records) => return without_records,
        };
        let ttl = found.answers().iter().map(|answer| answer.ttl).min();
        let of_kind = found.answers().iter().filter(|answer| answer.record_type() == kind);
        let mut records: Vec<_> = of_kind.filter_map(|answer| record(&answer.data)).collect();
        if records.is_empty() {
            return (Answer::Unknown(Reason::Servfail), None);
        }
        records.sort();
        (Answer::Records(records), ttl.map(seconds))
    }

    /// The records; otherwise an answer without records, and its TTL.
    pub(super) async fn records(
        &self,
        name: &DomainName,
        kind: RecordType,
    ) -> Result<DnsRecords, (Answer, Option<Duration>)> {
        if self.backoff().is_paused(&self.backoff_settings, Instant::now()) {
            return Err((Answer::Unknown(Reason::Timeout), None));
        }
        let query = self.resolver.lookup(name.as_dns().clone(), kind);
        let found = match tokio::time::timeout(self.deadline, query).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => {
                let answer = without_records(&why);
                let no_response =
                    matches!(answer.0, Answer::Unknown(Reason::Timeout | Reason::Unreachable));
                self.on_query_end(!no_response);
                return Err(answer);
            }
            Err(_elapsed) => {
                self.on_query_end(false);
                return Err((Answer::Unknown(Reason::Timeout), None));
            }
        };
        self.on_query_end(true);
        Ok(found)
    }

    fn on_query_end(&self, has_response: bool) {
        self.backoff().on_query_end(has_response, &self.backoff_settings, Instant::now());
    }
}

const fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl as u64)
}

impl Backoff {
    /// Whether to skip a query. After a pause one query tests the servers, and further ones are still skipped.
    fn is_paused(&mut self, settings: &BackoffSettings, now: Instant) -> bool {
        let is_paused = self.paused_until.is_some_and(|end| now < end);
        if !is_paused && self.paused_until.is_some() {
            self.paused_until = Some(now + settings.pause);
        }
        is_paused
    }

    fn on_query_end(&mut self, has_response: bool, settings: &BackoffSettings, now: Instant) {
        if has_response {
            *self = Self::default();
            return;
        }
        self.unanswered += 1;
        let since = *self.since.get_or_insert(now);
        if self.unanswered >= settings.queries && now - since >= settings.silence {
            self.paused_until = Some(now + settings.pause);
        }
    }
}

/// The servers of `/etc/resolv.conf`.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, DnsError> {
    let file = PathBuf::from(RESOLV_CONF);
    let text = fs::read_to_string(&file)
        .map_err(|why| DnsError::ResolvConf { file: file.clone(), why })?;
    let servers = name_servers(&text);
    if servers.is_empty() { Err(DnsError::NoServer { file }) } else { Ok(servers) }
}

/// The `nameserver` lines of resolv.conf(5).
pub(super) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let addresses = servers.filter_map(|word| word.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, PORT)).take(MAX_SERVERS).collect()
}

fn without_records(why: &NetError) -> (Answer, Option<Duration>) {
    let unknown = |reason| (Answer::Unknown(reason), None);
    match why {
        NetError::Dns(Refused::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map(seconds);
            match none.response_code {
                ResponseCode::NXDomain => (Answer::NxDomain, ttl),
                // Name servers and no SOA: a referral by a server that does not recurse (RFC 2308 §2.2).
                ResponseCode::NoError if none.ns.is_none() || none.soa.is_some() => {
                    (Answer::NoData, ttl)
                }
                _ => unknown(Reason::Servfail),
            }
        }
        NetError::Timeout => unknown(Reason::Timeout),
        NetError::Io(_) | NetError::NoConnections => unknown(Reason::Unreachable),
        _ => unknown(Reason::Servfail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a query `at` milliseconds after `start` is sent.
    fn is_sent(backoff: &mut Backoff, start: Instant, at: u64) -> bool {
        !backoff.is_paused(&BackoffSettings::LIVE, start + Duration::from_millis(at))
    }

    #[test]
    fn only_servers_without_any_response_for_a_while_are_paused() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut backoff = Backoff::default();
        // 1000 losses within nine seconds, and a response.
        for n in 0..1000 {
            assert!(is_sent(&mut backoff, start, n * 9));
            backoff.on_query_end(false, &BackoffSettings::LIVE, at(n * 9));
        }
        backoff.on_query_end(true, &BackoffSettings::LIVE, at(9000));
        backoff.on_query_end(false, &BackoffSettings::LIVE, at(10_500));
        assert!(is_sent(&mut backoff, start, 11_000));
        // Too few queries to know.
        let mut backoff = Backoff::default();
        for n in 0..19 {
            backoff.on_query_end(false, &BackoffSettings::LIVE, at(n * 5000));
        }
        assert!(is_sent(&mut backoff, start, 100_000));
        // Dead: one query a second, until there is a response.
        backoff.on_query_end(false, &BackoffSettings::LIVE, at(100_000));
        let sent = (0..5000).filter(|n| is_sent(&mut backoff, start, 100_001 + n)).count();
        assert!((4..=5).contains(&sent), "{sent}");
        backoff.on_query_end(true, &BackoffSettings::LIVE, at(105_100));
        assert!(is_sent(&mut backoff, start, 105_101) && is_sent(&mut backoff, start, 105_102));
    }

    #[test]
    fn a_report_pauses_after_three_queries() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        for _ in 0..3 {
            assert!(!backoff.is_paused(&BackoffSettings::REPORT, start));
            backoff.on_query_end(false, &BackoffSettings::REPORT, start);
        }
        assert!(backoff.is_paused(&BackoffSettings::REPORT, start + Duration::from_secs(29)));
        assert!(!backoff.is_paused(&BackoffSettings::REPORT, start + Duration::from_secs(30)));
    }
}
