//! What is known of hosts, for people and programs. The serde form is the public JSON form.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path_health::Avoidance;
use super::{OutboundOutcome, OutcomeCounts};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAttempt {
    pub at: Timestamp,
    pub outcome: OutboundOutcome,
    /// What the server replied, shortened; null if nothing, or not known.
    pub reply: Option<String>,
}

/// One family of a host, or of all hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyReport {
    /// Attempts by outcome.
    pub counts: OutcomeCounts,
    pub last: Option<LastAttempt>,
    /// Medians of the latest deliveries: until the transaction began, and the transaction.
    #[serde(rename = "connection_seconds", with = "seconds")]
    pub connection: Option<Duration>,
    #[serde(rename = "transmission_seconds", with = "seconds")]
    pub transmission: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressReport {
    pub ip: IpAddr,
    pub counts: OutcomeCounts,
    pub last: LastAttempt,
    pub avoided: Option<Avoidance>,
    /// A message is trying it.
    pub on_trial: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundHostReport {
    pub host: String,
    /// Of recipients, the latest.
    pub domains: Vec<String>,
    pub ipv6: FamilyReport,
    pub ipv4: FamilyReport,
    /// Of IPv6: of the host as a whole, or of all its addresses that were tried.
    pub avoided: Option<Avoidance>,
    /// Mail uses its IPv4, if it has any: see [`OutboundReport::canary_preference`].
    #[serde(default)]
    pub ipv4_by_canary: bool,
    pub addresses: Vec<AddressReport>,
}

impl OutboundHostReport {
    /// When it was last tried.
    pub fn last(&self) -> Option<Timestamp> {
        let last = |family: &FamilyReport| family.last.as_ref().map(|last| last.at);
        last(&self.ipv4).max(last(&self.ipv6))
    }
}

/// What the kernel does with connections of the MTA to addresses that are avoided (`reset_users`, `reset_sources`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundResetReport {
    /// Addresses, connections to which are reset now.
    pub addresses: usize,
    /// Connections that were reset since the start, as read some seconds ago.
    pub connections: u64,
    /// Why no connection is reset, if so.
    pub problem: Option<String>,
}

/// Mail to a destination uses IPv4, because its filters treat canaries over IPv6 worse (`prefer_ipv4` in `[canary]`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPreference {
    /// Of the mailbox that the canaries are sent to.
    pub domain: String,
    /// Its exchange hosts, without those that the operator pins.
    pub hosts: BTreeSet<DomainName>,
    /// What became of the latest pair.
    pub reason: String,
    /// When that was known.
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundReport {
    pub at: Timestamp,
    /// Attempts to all hosts since the start, those of forgotten hosts included.
    pub ipv6: OutcomeCounts,
    pub ipv4: OutcomeCounts,
    /// Hosts that are known; the list may be shorter.
    pub hosts_total: usize,
    /// Whose IPv6 is avoided.
    pub hosts_avoided: usize,
    /// Hosts that were tried over IPv6.
    pub hosts_ipv6_tried: usize,
    /// Hosts that took mail over IPv6, or refused it for the sending address, when they were last tried.
    pub hosts_ipv6_delivered: usize,
    pub hosts_ipv6_refused: usize,
    /// Hosts that were not reached over IPv6 when they were last tried.
    pub hosts_ipv6_failed: usize,
    /// Null if it is not configured, or a log is evaluated.
    #[serde(default)]
    pub resets: Option<OutboundResetReport>,
    /// Null if IPv4 is not preferred for a canary at any of these hosts, or a log is evaluated.
    #[serde(default)]
    pub canary_preference: Option<CanaryPreference>,
    /// Those that are avoided first, then the last tried.
    pub hosts: Vec<OutboundHostReport>,
}

impl OutboundReport {
    /// Adds the hosts whose IPv4 is preferred for a canary; with `pattern` those that it selects, as in [`super::Hosts::report`].
    #[must_use]
    pub fn with_canary(
        mut self,
        preference: Option<CanaryPreference>,
        pattern: Option<&DomainName>,
    ) -> Self {
        let Some(mut preference) = preference else { return self };
        for host in &mut self.hosts {
            let name = DomainName::parse(&host.host);
            host.ipv4_by_canary = name.is_some_and(|name| preference.hosts.contains(&name));
        }
        if let Some(pattern) = pattern {
            let domain = DomainName::parse(&preference.domain);
            let is_destination = domain.is_some_and(|domain| domain.is_within(pattern));
            let is_listed = |name: &DomainName| {
                self.hosts.iter().any(|host| host.ipv4_by_canary && host.host == name.to_string())
            };
            preference
                .hosts
                .retain(|name| is_destination || name.is_within(pattern) || is_listed(name));
        }
        self.canary_preference = Some(preference).filter(|it| !it.hosts.is_empty());
        self
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|time| time.as_secs_f64()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }
}
