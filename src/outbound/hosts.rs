//! All exchange hosts that our MTA tried, and the messages that they refused.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::host::HostRecord;
use super::path_health::{Avoidance, SteeringDecision, TrialBy};
use super::recent_map::RecentMap;
use super::report::{OutboundHostReport, OutboundReport};
use super::settings::SteeringSettings;
use super::{Effect, OutboundAttempt, OutcomeCounts, WorkingPath};
use crate::addr::Family;
use crate::policy::facts::DomainName;
use crate::time::Timestamp;
use crate::traffic::PerFamily;

/// Hosts that are kept, some kilobytes each.
pub const MAX_HOSTS: usize = 4096;
/// A host that was not tried for so long is dropped.
const KEPT_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

/// Evidence of our outbound mail, by host.
#[derive(Clone, Debug)]
pub struct Hosts {
    settings: SteeringSettings,
    known: RecentMap<DomainName, HostRecord>,
    totals: PerFamily<OutcomeCounts>,
}

impl Hosts {
    pub fn new(settings: SteeringSettings) -> Self {
        Self { settings, known: RecentMap::new(MAX_HOSTS), totals: PerFamily::default() }
    }

    pub const fn set_settings(&mut self, settings: SteeringSettings) {
        self.settings = settings;
    }

    /// An attempt at a host without a name is counted only: mail is steered by names.
    pub fn add(&mut self, attempt: &OutboundAttempt) {
        self.totals.of_mut(attempt.family()).add(attempt.outcome);
        let Some(name) = &attempt.host else { return };
        self.known.used(name, attempt.at).add(attempt, &self.settings);
    }

    /// Ends the avoidance of an address that works.
    pub fn on_working_path(&mut self, path: &WorkingPath) {
        if let Some(known) = self.known.get_mut(&path.host) {
            known.on_working_path(path.ip, path.at);
        }
    }

    /// Whether a message should use an IPv6 address of a host. A host that is known by another name (CNAME) is found by the
    /// address.
    pub fn decide(
        &mut self,
        host: &DomainName,
        ip: Ipv6Addr,
        now: Timestamp,
        by: TrialBy,
    ) -> SteeringDecision {
        let settings = self.settings;
        let known = match self.known.get(host).is_some() {
            true => self.known.get_mut(host),
            false => self.known.values_mut().find(|known| known.has(ip)),
        };
        known.map_or(SteeringDecision::Use, |known| known.decide(ip, now, by, &settings))
    }

    /// Addresses about which [`Self::decide`] may decide otherwise than to use them, and those of pinned hosts, each with all
    /// hosts that are known to have it. Begins no trial.
    pub fn ipv6_addresses_to_decide(
        &self,
        is_pinned: impl Fn(&DomainName) -> bool,
    ) -> BTreeMap<Ipv6Addr, Vec<DomainName>> {
        let mut addresses: BTreeMap<Ipv6Addr, Vec<DomainName>> = BTreeMap::new();
        for (name, host) in self.known.iter() {
            if host.has_avoidance() || is_pinned(name) {
                addresses.extend(host.ipv6_addresses().map(|ip| (ip, Vec::new())));
            }
        }
        if addresses.is_empty() {
            return addresses;
        }
        for (name, host) in self.known.iter() {
            for ip in host.ipv6_addresses() {
                addresses.entry(ip).and_modify(|hosts| hosts.push(name.clone()));
            }
        }
        addresses
    }

    /// When the host was last tried over IPv4.
    pub fn last_ipv4(&self, host: &DomainName) -> Option<Timestamp> {
        self.known.get(host).and_then(HostRecord::last_ipv4)
    }

    /// Whether its IPv6 as a whole is avoided: see [`super::OutboundHostReport::avoided`]. Begins no trial.
    pub fn avoided(&self, host: &DomainName) -> Option<Avoidance> {
        self.known.get(host).and_then(HostRecord::avoided)
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        self.known.expire(now, KEPT_FOR);
    }

    /// A report without a list of hosts.
    pub fn summary(&self, now: Timestamp) -> OutboundReport {
        let mut report = OutboundReport {
            at: now,
            ipv6: *self.totals.of(Family::Ipv6),
            ipv4: *self.totals.of(Family::Ipv4),
            hosts_total: self.known.len(),
            hosts_avoided: 0,
            hosts_ipv6_tried: 0,
            hosts_ipv6_delivered: 0,
            hosts_ipv6_refused: 0,
            hosts_ipv6_failed: 0,
            resets: None,
            canary_preference: None,
            hosts: Vec::new(),
        };
        for host in self.known.values() {
            report.hosts_avoided += usize::from(host.avoided().is_some());
            let Some(last) = host.last_over(Family::Ipv6) else { continue };
            report.hosts_ipv6_tried += 1;
            report.hosts_ipv6_refused += usize::from(host.refuses_ipv6());
            report.hosts_ipv6_delivered += usize::from(last.effect() == Effect::Delivered);
            report.hosts_ipv6_failed += usize::from(last.effect() == Effect::PathFailed);
        }
        report
    }

    /// Hosts whose name, or a recipient domain of theirs, is `pattern` or below it; all without one.
    pub fn report(&self, pattern: Option<&DomainName>, now: Timestamp) -> OutboundReport {
        let is_selected = |name: &DomainName, host: &HostRecord| {
            pattern.is_none_or(|domain| name.is_within(domain) || host.is_of_domain(domain))
        };
        let selected = self.known.iter().filter(|(name, host)| is_selected(name, host));
        let mut hosts: Vec<OutboundHostReport> =
            selected.map(|(name, host)| host.report(name, now, &self.settings)).collect();
        hosts.sort_by(|a, b| {
            let key = |host: &OutboundHostReport| (host.avoided.is_some(), host.last());
            key(b).cmp(&key(a)).then_with(|| a.host.cmp(&b.host))
        });
        OutboundReport { hosts, ..self.summary(now) }
    }
}
