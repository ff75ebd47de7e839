//! What the live answerer is told: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::addr::Networks;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[lookup]`, and what it takes from other sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSettings {
    /// DNS servers in this order; none are those of `/etc/resolv.conf`.
    pub dns_servers: Vec<SocketAddr>,
    /// No question waits longer for its answer.
    pub deadline: Duration,
    /// How long what passing traffic showed of a server stands for a probe of it.
    pub traffic_max_age: Duration,
    pub cache_limits: CacheLimits,
    pub ttls: Ttls,
    pub probes: ProbeSettings,
    /// Recipients about whom upstream is being asked, at most; more are unknown.
    pub max_pending_recipients: usize,
    /// Where answers survive a restart; without it they are in memory only.
    pub cache_file: Option<PathBuf>,
    /// `redis://…`, where gateways share what probes told.
    pub redis: Option<String>,
    /// What our EHLO says.
    pub hostname: String,
    /// Firewall mark (SO_MARK) on what we connect, so that it is not intercepted.
    pub mark: Option<u32>,
    /// Our own addresses: never called.
    pub own_networks: Networks,
    /// Whom to ask about recipients; nobody without any.
    pub upstreams: Vec<SocketAddr>,
    /// What an upstream wants to hear before SMTP: a PROXY header that names no client.
    pub upstream_proxy_header: Vec<u8>,
}

/// What is kept in memory: both bounds hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    pub entries: usize,
    /// Octets, about.
    pub bytes: usize,
}

/// How long answers are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttls {
    /// The TTL of records is taken for no less.
    pub dns_min: Duration,
    /// And for no more.
    pub dns_max: Duration,
    /// NXDOMAIN and NODATA by their SOA (RFC 2308 §5), no less than `dns_min` and no more than this.
    pub dns_negative_max: Duration,
    /// What nobody could say, before it is asked again.
    pub unknown: Duration,
    pub probe_positive: Duration,
    pub probe_negative: Duration,
    pub callout_positive: Duration,
    pub callout_negative: Duration,
    pub recipient_positive: Duration,
    pub recipient_negative: Duration,
}

/// How other servers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// 25; another one only in tests.
    pub port: u16,
    /// For a whole dialogue. It may be longer than the deadline: whoever asked first then reads unknown, and the answer is
    /// there when he comes again.
    pub timeout: Duration,
    /// Ask other servers about mailboxes (RCPT). Sites that are asked often list the asker.
    pub callouts: bool,
    /// Say something large in [`crate::policy::facts::Lookup::Greet`], so that a path MTU black hole shows.
    pub large_segments: bool,
    /// At once.
    pub max_concurrent: usize,
    pub per_second: u32,
    /// Of one server.
    pub per_server_per_minute: u32,
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
            max_pending_recipients: 100,
            cache_file: None,
            redis: None,
            hostname: String::from("localhost"),
            mark: None,
            own_networks: Networks::default(),
            upstreams: Vec::new(),
            upstream_proxy_header: Vec::new(),
        }
    }
}

/// Callouts as Postfix' address verification has it.
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
        }
    }
}
