//! Settings of the lookup service: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::addr::Networks;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[lookup]`, and settings of other sections that lookups need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSettings {
    /// Tried in this order; empty means those of `/etc/resolv.conf`.
    pub dns_servers: Vec<SocketAddr>,
    /// The longest that a caller waits for an answer.
    pub deadline: Duration,
    /// How long observed traffic with a server replaces a probe of it.
    pub traffic_max_age: Duration,
    pub cache_limits: CacheLimits,
    pub ttls: Ttls,
    pub probes: ProbeSettings,
    /// For [`ProbeSettings::large_segments`], which has no effect without it.
    pub large_hello: Option<LargeHello>,
    /// Concurrent recipient verifications with upstream; the answer to more is unknown.
    pub max_pending_recipients: usize,
    /// The cache on disk, which survives a restart.
    pub cache_file: Option<PathBuf>,
    /// `redis://…`, through which gateways share probe results.
    pub redis: Option<String>,
    /// Our name in EHLO.
    pub hostname: String,
    /// Firewall mark (SO_MARK) of our connections, so that they are not intercepted.
    pub mark: Option<u32>,
    /// Our own networks: never probed.
    pub own_networks: Networks,
    /// Special-purpose networks (IANA registries, RFC 6890) that may be probed nevertheless: test networks.
    pub special_networks: Networks,
    /// Servers for recipient verification; without any there is none.
    pub upstreams: Vec<SocketAddr>,
    /// The listener whose upstream they are, if it has host names: their addresses come by
    /// [`super::LookupService::set_upstreams`].
    pub named_upstream: Option<Arc<str>>,
    /// The PROXY header, without a client's address, that upstream expects first; or empty.
    pub upstream_proxy_header: Vec<u8>,
    /// Upstream expects a PROXY header of version 1, which has the addresses of our own connection: Postfix rejects `UNKNOWN`.
    pub upstream_proxy_v1: bool,
}

/// TLS for probes with large segments: its ClientHello fills a segment, and it accepts any certificate.
#[derive(Clone, Debug)]
pub struct LargeHello(pub Arc<ClientConfig>);

impl PartialEq for LargeHello {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LargeHello {}

/// Limits of the memory cache; both apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    pub entries: usize,
    /// An estimate.
    pub bytes: usize,
}

/// How long answers are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// Lower bound of the TTL of records.
    pub dns_min: Duration,
    /// Upper bound of the TTL of records.
    pub dns_max: Duration,
    /// Upper bound for NXDOMAIN and NODATA, whose TTL comes from the SOA (RFC 2308 §5); the lower bound is `dns_min`.
    pub dns_negative_max: Duration,
    /// For unknown answers.
    pub unknown: Duration,
    pub probe_positive: Duration,
    pub probe_negative: Duration,
    pub callout_positive: Duration,
    pub callout_negative: Duration,
    pub recipient_positive: Duration,
    pub recipient_negative: Duration,
}

/// How other servers are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// 25, except in tests.
    pub port: u16,
    /// For a whole probe. It may be longer than the deadline: then the first caller gets an unknown answer, and a later one
    /// the result.
    pub timeout: Duration,
    /// Verify mailboxes at other servers (RCPT). Sites whose probes are frequent get listed.
    pub callouts: bool,
    /// Send a large segment in [`crate::policy::facts::Lookup::Greet`], to detect a path MTU black hole.
    pub large_segments: bool,
    pub max_concurrent: usize,
    pub per_second: u32,
    pub per_server_per_minute: u32,
    /// Probes that the clients of one network ([`crate::addr::NetworkKey`]) cause.
    pub per_client_per_minute: u32,
}

impl Default for LookupSettings {
    fn default() -> Self {
        Self {
            dns_servers: Vec::new(),
            deadline: Duration::from_secs(5),
            traffic_max_age: 10 * MINUTE,
            cache_limits: CacheLimits { entries: 100_000, bytes: 64 << 20 },
            ttls: Ttls::default(),
            probes: ProbeSettings::default(),
            large_hello: None,
            max_pending_recipients: 100,
            cache_file: None,
            redis: None,
            hostname: String::from("localhost"),
            mark: None,
            own_networks: Networks::default(),
            special_networks: Networks::default(),
            upstreams: Vec::new(),
            named_upstream: None,
            upstream_proxy_header: Vec::new(),
            upstream_proxy_v1: false,
        }
    }
}

/// Those of callouts are the defaults of Postfix (`address_verify_positive_expire_time`, `…_negative_expire_time`).
impl Default for Ttls {
    fn default() -> Self {
        Self {
            dns_min: Duration::from_secs(30),
            dns_max: DAY,
            dns_negative_max: HOUR,
            unknown: Duration::from_secs(30),
            probe_positive: 6 * HOUR,
            probe_negative: 10 * MINUTE,
            callout_positive: 31 * DAY,
            callout_negative: 3 * DAY,
            recipient_positive: HOUR,
            recipient_negative: 5 * MINUTE,
        }
    }
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            port: 25,
            timeout: Duration::from_secs(15),
            callouts: false,
            large_segments: false,
            max_concurrent: 256,
            per_second: 100,
            per_server_per_minute: 30,
            per_client_per_minute: 120,
        }
    }
}
