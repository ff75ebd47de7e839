//! The checked configuration: every value valid, every default filled in.
//!
//! Layer 5, and plain data. Each part is a type of the module that uses it; this module records the section each comes from.
//! Only `raw` makes a [`Config`] from text.

mod error;
mod host;
mod keys;
mod passthrough;
mod raw;
mod size;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors, Position};
pub use host::HostAddresses;
#[doc(hidden)]
pub use keys::{DefaultSpec, KeySpec, RENAMED, SECTIONS, SectionSpec};
pub use size::{WATCH_BUFFER, parse_size};

use crate::addr::{Family, Networks};
use crate::canary::{CanaryAddresses, MarkPattern};
use crate::control;
use crate::intercept;
use crate::intercept::door::RefuseMethod;
use crate::intercept::outbound_reset::OutboundResetSettings;
use crate::lookup::{self, vantage};
use crate::metrics::domain_check::DomainCheckSettings;
use crate::outbound;
use crate::policy;
use crate::policy::facts::DomainName;
use crate::postfix;
use crate::postfix::mail_log::MailLogSource;
use crate::postfix::policy::PolicyAddress;
use crate::readiness::Control;
use crate::relay;
use crate::report;
use crate::smtp::Keyword;
use crate::source::live;
use crate::tls;

/// The content of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub relay: relay::RelaySettings,
    /// By listener.
    pub upstream_trust: Vec<UpstreamTrust>,
    /// `[tls]`, if the gateway ends the TLS of clients.
    pub tls: Option<tls::TlsSettings>,
    /// Present exactly with a listener in `mode = "tproxy"`.
    pub intercept: Option<intercept::InterceptSettings>,
    pub log: report::LogSettings,
    /// `[metrics]`; absent without the section.
    pub metrics: Option<MetricsConfig>,
    /// `[status]`: contents of the status page.
    pub status: report::status::StatusSettings,
    pub control: control::ControlSettings,
    /// `[postfix] policy`: Postfix asks there.
    pub policy_service: Option<postfix::policy::PolicySettings>,
    /// `[process] user`: the account that a gateway started by root switches to.
    pub user: Option<String>,
    pub site: Site,
    /// `[watch]`; without the section there is no capture.
    pub watch: Option<live::CaptureSettings>,
    /// `[door]`; without the section no family is ever refused.
    pub door: Option<DoorConfig>,
    /// `[lookup]`, and settings from other sections.
    pub lookup: lookup::LookupSettings,
    /// `[outbound]`; without the section Postfix's questions have no answer.
    pub outbound: Option<OutboundConfig>,
    /// `[vantage]`; without the section no vantage probes this site.
    pub vantage: Option<vantage::VantageSettings>,
    /// `[canary]`; without the section no report about a canary is accepted.
    pub canary: Option<CanaryConfig>,
}

/// What becomes of a stranger if the MTA trusts the address of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamTrust {
    /// Nothing: the MTA sees the clients' own addresses, or no stranger can be a client.
    #[default]
    Irrelevant,
    /// It may relay. The MTA is on another host, and in no network that is known to be trusted.
    Unknown,
    /// It may relay, and `[upstream] trusted_by_address` says that the MTA trusts no address.
    Denied,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    pub address: SocketAddr,
    /// The domains of `/probe`.
    pub checks: DomainCheckSettings,
    /// Hosts known to answer on port 25, for the checks.
    pub controls: Vec<Control>,
}

/// `[door]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    pub refuse: RefuseMethod,
    /// Networks that a closed door admits: the vantage, monitoring.
    pub exempt: Networks,
    /// Interval of the vantage's probes.
    pub probe_interval: Duration,
    /// `None` for a door that is always open.
    pub ipv6: Option<policy::door::DoorSettings>,
    pub ipv4: Option<policy::door::DoorSettings>,
}

impl DoorConfig {
    /// The default of `probe_interval`.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(60);

    /// Both doors are always open.
    pub fn unguarded() -> Self {
        Self {
            refuse: RefuseMethod::Smtp,
            exempt: Networks::default(),
            probe_interval: Self::PROBE_INTERVAL,
            ipv6: None,
            ipv4: None,
        }
    }

    /// The settings of `family`'s door.
    pub const fn of(&self, family: Family) -> Option<&policy::door::DoorSettings> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }
}

/// `[outbound]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundConfig {
    /// The socket for `gatepost postfix map`.
    pub map: PathBuf,
    pub pins: outbound::Pins,
    pub steering: outbound::SteeringSettings,
    /// Of Postfix: the source of attempts. Without one, the watched traffic is.
    pub mail_log: Option<MailLogSource>,
    /// Of Postfix, if it is not the default one: for postqueue(1).
    pub config_directory: Option<PathBuf>,
    /// Whose connections to avoided addresses are reset; `None` without `reset_users` and `reset_sources`.
    pub resets: Option<OutboundResetSettings>,
}

impl OutboundConfig {
    /// The default of `map`.
    pub const MAP: &str = "/run/gatepost/outbound.sock";
}

/// `[canary]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryConfig {
    /// The file with the key.
    pub key: PathBuf,
    /// The mailbox that inbound canaries are sent to.
    pub inbound_to: String,
    /// Sender and recipient of outbound canaries.
    pub outbound: Option<CanaryAddresses>,
    /// Whether mail to a destination that filters IPv6 mail away prefers IPv4.
    pub prefer_ipv4: bool,
    /// Time for the reports about a pair.
    pub timeout: Duration,
    /// Age from which a result no longer counts.
    pub max_age: Duration,
    /// At which pairs are sent in both directions; `None` without a schedule.
    pub interval: Option<Duration>,
    /// Pairs in 24 hours, in each direction.
    pub per_day: u32,
    /// Beyond the built-in table of filters.
    pub marks: Vec<MarkPattern>,
}

/// `[site]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Own networks; a sender whose mail would return to them is unreachable.
    pub addresses: Networks,
    /// Domains that this site accepts mail for.
    pub domains: Vec<DomainName>,
}

impl Config {
    /// Settings that are valid but probably not intended.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.relay.smtp.hide.contains(&Keyword::Starttls) {
            warnings.push(self.hidden_starttls());
        }
        warnings.extend(
            [UpstreamTrust::Denied, UpstreamTrust::Unknown]
                .map(|trust| self.trust_warning(trust))
                .into_iter()
                .flatten(),
        );
        warnings.extend(self.policy_warning());
        warnings.extend(self.resets_warning());
        warnings.extend(self.canary_warning());
        warnings
    }

    /// Nothing outlives the process.
    fn canary_warning(&self) -> Option<String> {
        (self.canary.is_some() && self.lookup.cache_file.is_none()).then(|| {
            "[canary] without cache_file in [lookup]: a restart forgets the results and how many pairs were sent; set cache_file"
                .to_owned()
        })
    }

    /// Only evidence leads to resets.
    fn resets_warning(&self) -> Option<String> {
        let outbound = self.outbound.as_ref().filter(|outbound| outbound.resets.is_some())?;
        (outbound.mail_log.is_none() && self.watch.is_none()).then(|| {
            "reset_users or reset_sources in [outbound], without mail_log and [watch]: gatepost sees no attempt of the MTA, \
             and no connection is ever reset; add the section [watch]"
                .to_owned()
        })
    }

    /// Whoever reaches the policy service learns what the rules decide, and causes lookups.
    fn policy_warning(&self) -> Option<String> {
        let PolicyAddress::Inet(address) = self.policy_service.as_ref()?.address else {
            return None;
        };
        (!address.ip().is_loopback()).then(|| {
            format!(
                "policy = \"inet:{address}\" in [postfix]: every host that can connect may ask, and cause lookups; let a packet \
                 filter admit Postfix's host only"
            )
        })
    }

    /// An MTA does not know who the clients are, and is known, or stated, not to trust them by address.
    pub fn identity_warning(&self) -> Option<String> {
        let danger = || self.trust_warning(UpstreamTrust::Denied);
        danger().or_else(|| self.trust_warning(UpstreamTrust::Unknown))
    }

    /// Whether safety depends on a statement about an MTA, `trusted_by_address = false`.
    pub fn depends_on_trust(&self) -> bool {
        self.upstream_trust.contains(&UpstreamTrust::Denied)
    }

    fn trust_warning(&self, of: UpstreamTrust) -> Option<String> {
        let listeners = self.relay.listeners.iter().zip(&self.upstream_trust);
        let names: Vec<&str> =
            listeners.filter(|(_, trust)| **trust == of).map(|(one, _)| &*one.name).collect();
        let danger = "every client looks like this host to the MTA";
        let warning = match of {
            _ if names.is_empty() => return None,
            UpstreamTrust::Irrelevant => return None,
            UpstreamTrust::Unknown => format!(
                "identity = \"none\": {danger}, which must not trust its address (Postfix: mynetworks), or strangers can \
                 relay mail; set identity = \"proxy-v2\" in [upstream]"
            ),
            UpstreamTrust::Denied => format!(
                "trusted_by_address = false: {danger}, and strangers can relay mail if it trusts that address after all \
                 (Postfix: mynetworks)"
            ),
        };
        Some(match self.relay.listeners.len() {
            1 => warning,
            _ => format!("{}: {warning}", listener_names(&names)),
        })
    }

    fn hidden_starttls(&self) -> String {
        let is_xclient = |one: &relay::ListenerSettings| {
            one.upstream.identity == relay::UpstreamIdentity::Xclient
        };
        let remedy = if self.relay.listeners.iter().any(is_xclient) {
            "set identity = \"proxy-v2\" in [upstream], and remove it"
        } else {
            "remove it"
        };
        format!(
            "hide = [\"STARTTLS\"] in [smtp]: senders that require TLS (MTA-STS, DANE, `smtp_tls_security_level = \
             encrypt`) cannot deliver, and all other mail arrives unencrypted; {remedy}"
        )
    }
}

/// `listener mx`, `listeners mx, submission`
fn listener_names(names: &[&str]) -> String {
    let noun = if names.len() == 1 { "listener" } else { "listeners" };
    format!("{noun} {}", names.join(", "))
}
