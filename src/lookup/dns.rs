//! Answers from a DNS server, now.
//!
//! RFC 1035 over UDP, and over TCP for what does not fit. A server that fails, refuses or is silent makes the answer
//! unknown; nothing waits longer than the deadline.

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
use hickory_resolver::lookup::Lookup as Found;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Refused, NetError};
use tokio::time::Instant;

use super::{question, record};
use crate::policy::facts::{Answer, DomainName, Lookup, Reason};

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

/// When servers that do not answer are left alone, and for how long.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    /// Questions in a row without an answer.
    questions: u32,
    /// Time without an answer.
    lasts: Duration,
    /// For so long nobody asks; then one question is let through, to see.
    rest: Duration,
}

impl Quiet {
    /// A report shall not wait for a dead server once a session.
    const REPORT: Self =
        Self { questions: 3, lasts: Duration::ZERO, rest: Duration::from_secs(30) };
    /// Under load some packets are always lost: only servers that said nothing at all for a while are dead.
    const LIVE: Self =
        Self { questions: 20, lasts: Duration::from_secs(10), rest: Duration::from_secs(1) };
}

/// How long nobody has answered.
#[derive(Debug, Default)]
struct Silence {
    questions: u32,
    since: Option<Instant>,
    rests_until: Option<Instant>,
}

/// A resolver with a deadline, which does not ask for a while once nobody answers.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: TokioResolver,
    deadline: Duration,
    quiet: Quiet,
    silence: Arc<Mutex<Silence>>,
}

impl Dns {
    /// Asks `servers`, and nobody else: no hosts file, no search list. A cache keeps a session's questions from being asked
    /// again for the next.
    ///
    /// # Errors
    /// The resolver cannot be made.
    pub fn new(servers: &[SocketAddr], deadline: Duration) -> Result<Self, DnsError> {
        Self::with(servers, deadline, Quiet::REPORT, None)
    }

    /// For a single look at many names, some of which may have no server that answers: `server`, or those of
    /// `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be read or names no server; the resolver cannot be made.
    pub fn for_domain_check(
        server: Option<SocketAddr>,
        deadline: Duration,
    ) -> Result<Self, DnsError> {
        let servers = server.map_or_else(system_servers, |server| Ok(vec![server]))?;
        Self::uncached(&servers, deadline)
    }

    /// For somebody who keeps answers himself and asks much: without a cache.
    ///
    /// # Errors
    /// The resolver cannot be made.
    pub(super) fn uncached(servers: &[SocketAddr], deadline: Duration) -> Result<Self, DnsError> {
        Self::with(servers, deadline, Quiet::LIVE, Some(0))
    }

    fn with(
        servers: &[SocketAddr],
        deadline: Duration,
        quiet: Quiet,
        cache: Option<u64>,
    ) -> Result<Self, DnsError> {
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
        // Asked again once: when half the time is over, or after a SERVFAIL.
        options.timeout = deadline / 2;
        options.attempts = 1;
        if let Some(entries) = cache {
            options.cache_size = entries;
        }
        let resolver = builder.build().map_err(DnsError::Resolver)?;
        Ok(Self { resolver, deadline, quiet, silence: Arc::default() })
    }

    /// Asks the servers of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be read or names no server; the resolver cannot be made.
    pub fn system(deadline: Duration) -> Result<Self, DnsError> {
        Self::new(&system_servers()?, deadline)
    }

    /// A panic elsewhere leaves nothing half done in it.
    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never later than the deadline.
    pub async fn answer(&self, lookup: &Lookup) -> Answer {
        self.timed(lookup).await.0
    }

    /// The answer and, where the records or their absence say so, how long it is good: the shortest TTL of what led to it,
    /// or RFC 2308 §5. Never later than the deadline.
    pub(super) async fn timed(&self, lookup: &Lookup) -> (Answer, Option<Duration>) {
        let Some((name, kind)) = question(lookup) else {
            return (Answer::Unknown(Reason::NoResolver), None);
        };
        let found = match self.records(&name, kind).await {
            Ok(found) => found,
            Err(none) => return none,
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

    /// What the resolver found; else an answer without records, and how long it is good.
    pub(super) async fn records(
        &self,
        name: &DomainName,
        kind: RecordType,
    ) -> Result<Found, (Answer, Option<Duration>)> {
        if self.silence().rests(&self.quiet, Instant::now()) {
            return Err((Answer::Unknown(Reason::Timeout), None));
        }
        let asked = self.resolver.lookup(name.as_dns().clone(), kind);
        let found = match tokio::time::timeout(self.deadline, asked).await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => {
                let told = without_records(&why);
                let silent =
                    matches!(told.0, Answer::Unknown(Reason::Timeout | Reason::Unreachable));
                self.silence().heard(!silent, &self.quiet, Instant::now());
                return Err(told);
            }
            Err(_elapsed) => {
                self.silence().heard(false, &self.quiet, Instant::now());
                return Err((Answer::Unknown(Reason::Timeout), None));
            }
        };
        self.silence().heard(true, &self.quiet, Instant::now());
        Ok(found)
    }
}

const fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl as u64)
}

impl Silence {
    fn rests(&mut self, quiet: &Quiet, now: Instant) -> bool {
        let rests = self.rests_until.is_some_and(|end| now < end);
        if !rests && self.rests_until.is_some() {
            // The one that sees whether they are back; the others go on resting.
            self.rests_until = Some(now + quiet.rest);
        }
        rests
    }

    fn heard(&mut self, answer: bool, quiet: &Quiet, now: Instant) {
        if answer {
            *self = Self::default();
            return;
        }
        self.questions += 1;
        let since = *self.since.get_or_insert(now);
        if self.questions >= quiet.questions && now - since >= quiet.lasts {
            self.rests_until = Some(now + quiet.rest);
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
fn name_servers(text: &str) -> Vec<SocketAddr> {
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

    /// A question at so many milliseconds: whether it is let through.
    fn asks(silence: &mut Silence, start: Instant, at: u64) -> bool {
        !silence.rests(&Quiet::LIVE, start + Duration::from_millis(at))
    }

    #[test]
    fn only_servers_that_say_nothing_for_a_while_are_left_alone() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::default();
        // A thousand lost in nine seconds, and one that is answered.
        for n in 0..1000 {
            assert!(asks(&mut silence, start, n * 9));
            silence.heard(false, &Quiet::LIVE, at(n * 9));
        }
        silence.heard(true, &Quiet::LIVE, at(9000));
        silence.heard(false, &Quiet::LIVE, at(10_500));
        assert!(asks(&mut silence, start, 11_000));
        // Few questions: nothing is known of them.
        let mut silence = Silence::default();
        for n in 0..19 {
            silence.heard(false, &Quiet::LIVE, at(n * 5000));
        }
        assert!(asks(&mut silence, start, 100_000));
        // Dead: one question a second, until one is answered.
        silence.heard(false, &Quiet::LIVE, at(100_000));
        let through = (0..5000).filter(|n| asks(&mut silence, start, 100_001 + n)).count();
        assert!((4..=5).contains(&through), "{through}");
        silence.heard(true, &Quiet::LIVE, at(105_100));
        assert!(asks(&mut silence, start, 105_101) && asks(&mut silence, start, 105_102));
    }

    #[test]
    fn a_report_waits_three_times_for_a_dead_server() {
        let start = Instant::now();
        let mut silence = Silence::default();
        for _ in 0..3 {
            assert!(!silence.rests(&Quiet::REPORT, start));
            silence.heard(false, &Quiet::REPORT, start);
        }
        assert!(silence.rests(&Quiet::REPORT, start + Duration::from_secs(29)));
        assert!(!silence.rests(&Quiet::REPORT, start + Duration::from_secs(30)));
    }
}
