//! What the live answerer is told: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::addr::Networks;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[reach]`, and what it takes from other sections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// DNS servers in this order; none are those of `/etc/resolv.conf`.
    pub dns: Vec<SocketAddr>,
    /// No question waits longer for its answer.
    pub deadline: Duration,
    /// How long what passing traffic showed of a server stands for a probe of it.
    pub traffic_fresh: Duration,
    pub keep: Keep,
    pub lives: Lives,
    pub probes: Probes,
    /// Recipients about whom upstream is being asked, at most; more are unknown.
    pub recipients_pending: usize,
    /// Where answers survive a restart; without it they are in memory only.
    pub cache: Option<PathBuf>,
    /// `redis://…`, where gateways share what probes told.
    pub store: Option<String>,
    /// What our EHLO says.
    pub hostname: String,
    /// Firewall mark (SO_MARK) on what we connect, so that it is not intercepted.
    pub mark: Option<u32>,
    /// Our own addresses: never called.
    pub ours: Networks,
    /// Whom to ask about recipients; nobody without any.
    pub upstreams: Vec<SocketAddr>,
    /// What an upstream wants to hear before SMTP: a PROXY header that names no client.
    pub upstream_preface: Vec<u8>,
}

/// What is kept in memory: both bounds hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub entries: usize,
    /// Octets, about.
    pub size: usize,
}

/// How long answers are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The TTL of records is taken for no less.
    pub dns_min: Duration,
    /// And for no more.
    pub dns_max: Duration,
    /// NXDOMAIN and NODATA by their SOA (RFC 2308 §5), no less than `dns_min` and no more than this.
    pub dns_negative_max: Duration,
    /// What nobody could say, before it is asked again.
    pub unknown: Duration,
    pub probe_yes: Duration,
    pub probe_no: Duration,
    pub callout_yes: Duration,
    pub callout_no: Duration,
    pub recipient_yes: Duration,
    pub recipient_no: Duration,
}

/// How other servers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// 25; another one only in tests.
    pub port: u16,
    /// For a whole dialogue. It may be longer than the deadline: whoever asked first then reads unknown, and the answer is
    /// there when he comes again.
    pub patience: Duration,
    /// Ask other servers about mailboxes (RCPT). Sites that are asked often list the asker.
    pub callouts: bool,
    /// Say something large in [`crate::policy::facts::Lookup::Greet`], so that a path MTU black hole shows.
    pub large_segments: bool,
    /// At once.
    pub at_once: usize,
    pub per_second: u32,
    /// Of one server.
    pub per_target_per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dns: Vec::new(),
            deadline: Duration::from_secs(5),
            traffic_fresh: 10 * MINUTE,
            keep: Keep { entries: 100_000, size: 64 << 20 },
            lives: Lives::default(),
            probes: Probes::default(),
            recipients_pending: 100,
            cache: None,
            store: None,
            hostname: String::from("localhost"),
            mark: None,
            ours: Networks::default(),
            upstreams: Vec::new(),
            upstream_preface: Vec::new(),
        }
    }
}

/// Callouts as Postfix' address verification has it.
impl Default for Lives {
    fn default() -> Self {
        Self {
            dns_min: Duration::from_secs(30),
            dns_max: DAY,
            dns_negative_max: HOUR,
            unknown: Duration::from_secs(30),
            probe_yes: 6 * HOUR,
            probe_no: 10 * MINUTE,
            callout_yes: 31 * DAY,
            callout_no: 3 * DAY,
            recipient_yes: HOUR,
            recipient_no: 5 * MINUTE,
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            port: 25,
            patience: Duration::from_secs(15),
            callouts: false,
            large_segments: false,
            at_once: 256,
            per_second: 100,
            per_target_per_minute: 30,
        }
    }
}
