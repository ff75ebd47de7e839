//! Settings of the relay: plain data, checked by `config/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::thread::CapabilitySet;

use super::target::{UpstreamHost, UpstreamTarget};
use crate::addr::Networks;
use crate::canary::MarkRules;
use crate::engine::{
    Limits as SessionLimits, ListenerProfiles, Profile, SmtpOptions, Timeouts, TlsMode, UpstreamTls,
};
use crate::label::labels;
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;
use crate::smtp::Keyword;

#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    /// In the order of the file. Empty only for a gateway that Postfix asks; no two have the same name or a common address.
    pub listeners: Vec<ListenerSettings>,
    /// Worker threads, each with its own socket for each address (SO_REUSEPORT); never zero.
    pub threads: usize,
    /// Firewall mark (SO_MARK) of the gateway's own connections, so that they are not intercepted.
    pub mark: Option<u32>,
    pub access: AccessRules,
    pub rules: Arc<PolicyRules>,
    pub smtp: SmtpOptions,
    pub limits: RelayLimits,
    pub timeouts: TimeoutSets,
    /// `[tls]`: what [`ListenerTls::Starttls`] does. The certificates come by [`super::RelayHandle::set_tls`].
    pub tls: TlsMode,
    pub after_tls_failures: AfterTlsFailures,
    /// Where the gateway ends TLS, a `Received:` field goes before each message.
    pub trace_header: bool,
    /// Header sections of messages are read for canaries, with these marks; `None`: they are not read.
    pub canary_marks: Option<MarkRules>,
    /// Time for transactions in progress to end after SIGTERM.
    pub drain: Duration,
}

impl RelaySettings {
    /// The profiles for sessions in captures.
    pub fn profiles(&self) -> ListenerProfiles {
        let listeners = self.listeners.iter().map(|listener| {
            // A transparent listener's sessions have other destinations.
            let addresses = if listener.transparent { &[][..] } else { &listener.addresses };
            (Arc::new(self.profile(Some(listener))), addresses.to_vec())
        });
        ListenerProfiles::new(listeners.collect(), Arc::new(self.profile(None)))
    }

    /// The engine's part of the settings for sessions of `listener`. If it is not known, as in a capture from another host, rules
    /// that name listeners do not match.
    pub fn profile(&self, listener: Option<&ListenerSettings>) -> Profile {
        let tls = listener.map_or(self.tls, |one| one.tls.mode(self.tls));
        let mut smtp = self.smtp.clone();
        if listener.is_some_and(|one| one.tls == ListenerTls::Off) {
            smtp.hide.push(Keyword::Starttls);
        }
        Profile {
            smtp,
            limits: self.limits.session,
            access: self.access.clone(),
            rules: Arc::clone(&self.rules),
            xclient: listener.is_some_and(|one| one.upstream.identity == UpstreamIdentity::Xclient),
            listener: listener.map(|one| Arc::clone(&one.name)),
            tls,
            trace_header: self.trace_header && tls.terminates(),
            canary_marks: self.canary_marks.clone(),
        }
    }

    /// Whether the gateway may use TLS of its own with an upstream.
    pub fn may_use_upstream_tls(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls != ListenerTls::Passthrough)
    }

    /// The listening addresses of all listeners.
    pub fn listen_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().flat_map(|listener| listener.addresses.iter().copied())
    }

    /// The upstreams of all listeners; those that listeners share once.
    pub fn upstreams(&self) -> Vec<&UpstreamSettings> {
        let mut distinct: Vec<&UpstreamSettings> = Vec::new();
        for listener in &self.listeners {
            if !distinct.contains(&&listener.upstream) {
                distinct.push(&listener.upstream);
            }
        }
        distinct
    }

    /// The host names of [`Self::upstreams`], each once.
    pub fn upstream_hosts(&self) -> Vec<&UpstreamHost> {
        let mut distinct = Vec::new();
        let targets = self.upstreams().into_iter().flat_map(|upstream| &upstream.addresses);
        for host in targets.filter_map(UpstreamTarget::host) {
            if !distinct.contains(&host) {
                distinct.push(host);
            }
        }
        distinct
    }

    /// The capabilities that a running relay needs: one of each set. Binding ports below 1024 happens before and is not among
    /// them.
    pub fn required_capabilities(&self) -> Vec<CapabilitySet> {
        const RAW: CapabilitySet = CapabilitySet::NET_RAW.union(CapabilitySet::NET_ADMIN);
        // IP_TRANSPARENT needs either; SO_MARK accepts CAP_NET_RAW only since Linux 5.17.
        let is_transparent =
            |one: &ListenerSettings| one.upstream.identity == UpstreamIdentity::Transparent;
        let transparent = self.listeners.iter().any(is_transparent);
        let required = [(transparent, RAW), (self.mark.is_some(), CapabilitySet::NET_ADMIN)];
        required.into_iter().filter(|&(is_needed, _)| is_needed).map(|(_, any)| any).collect()
    }
}

/// One `[[listener]]`, or `[listen]` with the sections that belong to it: sockets, and what becomes of their sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// In logs, records, metrics and rules; unique.
    pub name: Arc<str>,
    /// Never empty, no duplicates.
    pub addresses: Vec<SocketAddr>,
    /// Accept intercepted connections to other hosts' addresses (IP_TRANSPARENT).
    pub transparent: bool,
    /// Peers that must send a PROXY header first; all others must not.
    pub proxy_trusted: Networks,
    pub tls: ListenerTls,
    pub upstream: UpstreamSettings,
}

labels! {
    /// The key `tls` of a listener.
    pub enum ListenerTls {
        /// STARTTLS, which the gateway answers (RFC 3207).
        Starttls = "starttls",
        /// TLS from the client's first byte on (RFC 8314 §3).
        Implicit = "implicit",
        /// The MTA's own STARTTLS.
        Passthrough = "passthrough",
        /// No TLS: STARTTLS is hidden.
        Off = "off",
    }
}

impl ListenerTls {
    /// What clients get; `shared` is that of `[tls]`.
    const fn mode(self, shared: TlsMode) -> TlsMode {
        match self {
            Self::Starttls => shared,
            Self::Implicit => TlsMode::Implicit,
            Self::Passthrough | Self::Off => TlsMode::Passthrough,
        }
    }
}

impl ListenerSettings {
    /// The name of the listener of `[listen]`.
    pub const DEFAULT_NAME: &str = "default";
    /// Names are labels of metrics.
    pub const MOST: usize = 16;
}

/// `[upstream]` or `[listener.upstream]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Empty only with a transparent listener: then the original destination is the upstream.
    pub addresses: Vec<UpstreamTarget>,
    /// Longest time between two lookups of a host name.
    pub resolve_interval: Duration,
    pub identity: UpstreamIdentity,
    /// RFC 8305 §5 connection attempt delay.
    pub attempt_delay: Duration,
    /// For all attempts together.
    pub connect_timeout: Duration,
    /// How long an address is tried last after a failure.
    pub retry_after: Duration,
    pub check: UpstreamCheck,
    pub check_interval: Duration,
    /// Applies where the gateway ends the clients' TLS.
    pub tls: UpstreamTlsSettings,
}

impl UpstreamSettings {
    /// The default of `resolve_interval`.
    pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);

    pub fn has_names(&self) -> bool {
        self.addresses.iter().any(|target| target.host().is_some())
    }
}

/// The keys `tls`, `tls_ca` and `tls_name` of `[upstream]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTlsSettings {
    /// `None`: off for loopback addresses, opportunistic for others.
    pub level: Option<UpstreamTls>,
    /// Certificates of the authorities that may vouch for upstream; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The name in upstream's certificate, also sent as SNI.
    pub name: Option<String>,
}

impl UpstreamTlsSettings {
    /// What applies to an upstream at `address`. What stays on this host needs no encryption.
    pub fn level_for(&self, address: SocketAddr) -> UpstreamTls {
        let default =
            if address.ip().is_loopback() { UpstreamTls::Off } else { UpstreamTls::Opportunistic };
        self.level.unwrap_or(default)
    }
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

labels! {
    /// `tls.after_failures`: whether STARTTLS is offered to a client whose handshakes fail again and again.
    #[derive(Default)]
    pub enum AfterTlsFailures {
        #[default]
        Offer = "offer",
        /// Not for an hour, so that the client uses plaintext.
        Hide = "hide",
    }
}

/// `[timeouts]` and `[timeouts.stress]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutSets {
    pub normal: Timeouts,
    pub stress: Timeouts,
    /// The stress set applies while more than this share of `limits.sessions` is in use, in percent.
    pub stress_above: u8,
}
