//! Settings of the relay: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use crate::addr::Networks;
use crate::engine::{Limits as SessionLimits, Profile, SmtpOptions, Timeouts, TlsMode};
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;

#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    pub listen: ListenSettings,
    pub upstream: UpstreamSettings,
    /// Peers that must send a PROXY header first; all others must not.
    pub proxy_trusted: Networks,
    pub access: AccessRules,
    pub rules: Arc<PolicyRules>,
    pub smtp: SmtpOptions,
    pub limits: RelayLimits,
    pub timeouts: TimeoutSets,
    /// Whether the gateway ends the clients' TLS. Its certificates come by [`super::RelayHandle::set_tls`].
    pub tls: TlsMode,
    /// Time for transactions in progress to end after SIGTERM.
    pub drain: Duration,
}

impl RelaySettings {
    /// The engine's part of the settings; a replay evaluates with the same.
    pub fn profile(&self) -> Profile {
        Profile {
            smtp: self.smtp.clone(),
            limits: self.limits.session,
            access: self.access.clone(),
            rules: Arc::clone(&self.rules),
            xclient: self.upstream.identity == UpstreamIdentity::Xclient,
            tls: self.tls,
        }
    }

    /// The capabilities that a running relay needs: one of each set. Binding ports below 1024 happens before and is not among
    /// them.
    pub fn required_capabilities(&self) -> Vec<CapabilitySet> {
        const RAW: CapabilitySet = CapabilitySet::NET_RAW.union(CapabilitySet::NET_ADMIN);
        // IP_TRANSPARENT needs either; SO_MARK accepts CAP_NET_RAW only since Linux 5.17.
        let transparent = self.upstream.identity == UpstreamIdentity::Transparent;
        let mark = self.upstream.mark.is_some();
        let required = [(transparent, RAW), (mark, CapabilitySet::NET_ADMIN)];
        required.into_iter().filter(|&(is_needed, _)| is_needed).map(|(_, any)| any).collect()
    }
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// Never empty, no duplicates.
    pub addresses: Vec<SocketAddr>,
    /// Accept intercepted connections to other hosts' addresses (IP_TRANSPARENT).
    pub transparent: bool,
    /// Worker threads, each with its own listener (SO_REUSEPORT); never zero.
    pub threads: usize,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Empty only with a transparent listener: then the original destination is the upstream.
    pub addresses: Vec<SocketAddr>,
    pub identity: UpstreamIdentity,
    /// RFC 8305 §5 connection attempt delay.
    pub attempt_delay: Duration,
    /// For all attempts together.
    pub connect_timeout: Duration,
    /// How long an address is tried last after a failure.
    pub retry_after: Duration,
    pub check: UpstreamCheck,
    pub check_interval: Duration,
    /// Firewall mark (SO_MARK) of connections to upstream, so that they are not intercepted.
    pub mark: Option<u32>,
}

/// How upstreams are checked while no mail shows whether they work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamCheck {
    None,
    /// Connect, wait for the greeting, QUIT.
    #[default]
    Smtp,
}

/// How the client's address is passed to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamIdentity {
    /// Not at all: upstream sees the gateway's address.
    #[default]
    None,
    /// The gateway connects from the client's own address (IP_TRANSPARENT).
    Transparent,
    ProxyV1,
    ProxyV2,
    /// Postfix's XCLIENT command.
    Xclient,
}

/// `[limits]`. [`SessionLimits`] holds those of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    pub sessions: usize,
    /// Per IPv4 address or IPv6 /64.
    pub sessions_per_client: usize,
    /// Per IPv4 address or IPv6 /64; `None` is no limit.
    pub new_sessions_per_client_per_minute: Option<u32>,
    /// Per IPv6 /48.
    pub sessions_per_network: usize,
    /// Per IPv6 /48; `None` is no limit.
    pub new_sessions_per_network_per_minute: Option<u32>,
    pub session: SessionLimits,
}

/// `[timeouts]` and `[timeouts.stress]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutSets {
    pub normal: Timeouts,
    pub stress: Timeouts,
    /// The stress set applies while more than this share of `limits.sessions` is in use, in percent.
    pub stress_above: u8,
}
