//! What the relay is told: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use crate::addr::Networks;
use crate::engine::{Limits as SessionLimits, Profile, SmtpOptions, Timeouts};
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;

/// Everything that decides how sessions are relayed.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    pub listen: ListenSettings,
    pub upstream: UpstreamSettings,
    /// Peers that must speak the PROXY protocol first; everybody else must not.
    pub proxy_trusted: Networks,
    pub access: AccessRules,
    pub rules: Arc<PolicyRules>,
    pub smtp: SmtpOptions,
    pub limits: RelayLimits,
    pub timeouts: TimeoutSets,
    /// How long transactions in progress may take to end after SIGTERM.
    pub drain: Duration,
}

impl RelaySettings {
    /// What each conversation is told; a replay judges by the same.
    pub fn profile(&self) -> Profile {
        Profile {
            smtp: self.smtp.clone(),
            limits: self.limits.session,
            access: self.access.clone(),
            rules: Arc::clone(&self.rules),
            xclient: self.upstream.identity == UpstreamIdentity::Xclient,
        }
    }

    /// The capabilities that relaying takes as long as it goes on; of each set the kernel takes any. Binding ports below
    /// 1024 is not among them: that is done once.
    pub fn required_capabilities(&self) -> Vec<CapabilitySet> {
        const RAW: CapabilitySet = CapabilitySet::NET_RAW.union(CapabilitySet::NET_ADMIN);
        // IP_TRANSPARENT takes either; SO_MARK does only since Linux 5.17.
        let transparent = self.upstream.identity == UpstreamIdentity::Transparent;
        let mark = self.upstream.mark.is_some();
        let needs = [(transparent, RAW), (mark, CapabilitySet::NET_ADMIN)];
        needs.into_iter().filter(|&(is_so, _)| is_so).map(|(_, any)| any).collect()
    }
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSettings {
    /// Never empty, no duplicates.
    pub addresses: Vec<SocketAddr>,
    /// Accept what the kernel intercepts for other hosts' addresses (IP_TRANSPARENT).
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
    /// For the whole race over all addresses.
    pub connect_timeout: Duration,
    /// How long an address that failed is tried last.
    pub retry_after: Duration,
    /// Firewall mark (SO_MARK) on the connections to upstream, so that they are not intercepted again.
    pub mark: Option<u32>,
}

/// How the upstream learns who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamIdentity {
    /// It does not: it sees the gateway's address.
    #[default]
    None,
    /// The gateway connects from the client's own address (IP_TRANSPARENT).
    Transparent,
    ProxyV1,
    ProxyV2,
    /// Postfix's XCLIENT command.
    Xclient,
}

/// `[limits]`: those that span sessions here, those of one session in [`SessionLimits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    pub sessions: usize,
    /// Per IPv4 address or IPv6 /64.
    pub sessions_per_client: usize,
    /// Per IPv4 address or IPv6 /64; `None` is no limit.
    pub new_sessions_per_client_per_minute: Option<u32>,
    pub session: SessionLimits,
}

/// `[timeouts]` and `[timeouts.stress]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutSets {
    pub normal: Timeouts,
    pub stress: Timeouts,
    /// The stress set is in force while more than this share of `limits.sessions` is in use, in percent.
    pub stress_above: u8,
}
