//! All exchange hosts that our MTA tried, and the messages that they refused.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::host::Host;
use super::path_health::Decision;
use super::recent_map::RecentMap;
use super::report::OutboundReport;
use super::settings::SteeringSettings;
use super::{Attempt, AttemptOutcome, Effect, OutcomeCounts};
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
    known: RecentMap<DomainName, Host>,
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
    pub fn add(&mut self, attempt: &Attempt) {
        self.totals.of_mut(attempt.family()).add(attempt.outcome);
        let Some(name) = &attempt.host else { return };
        self.known.used(name, attempt.at).add(attempt, &self.settings);
    }

    /// Whether a message should use an IPv6 address of a host.
    pub fn decide(&mut self, host: &DomainName, ip: Ipv6Addr, now: Timestamp) -> Decision {
        let known = self.known.get_mut(host);
        known.map_or(Decision::Use, |known| known.decide(ip, now, &self.settings))
    }

    /// Whether all its IPv6 is avoided, without beginning a trial.
    pub fn is_avoided(&self, host: &DomainName) -> bool {
        self.known.get(host).is_some_and(|known| known.avoided().is_some())
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        self.known.expire(now, KEPT_FOR);
    }

    /// Hosts whose name, or a recipient domain of theirs, is `pattern` or below it; all without one.
    pub fn report(&self, pattern: Option<&DomainName>, now: Timestamp) -> OutboundReport {
        let mut report = OutboundReport {
            at: now,
            ipv6: *self.totals.of(Family::Ipv6),
            ipv4: *self.totals.of(Family::Ipv4),
            hosts_total: self.known.len(),
            hosts_avoided: 0,
            hosts_ipv6_delivered: 0,
            hosts_ipv6_refused: 0,
            hosts_ipv6_failed: 0,
            hosts: Vec::new(),
        };
        for (name, entry) in self.known.iter() {
            let host = &entry.value;
            report.hosts_avoided += usize::from(host.avoided().is_some());
            report.hosts_ipv6_refused += usize::from(host.refuses_ipv6());
            match host.last_over(Family::Ipv6).map(AttemptOutcome::effect) {
                Some(Effect::Delivered) => report.hosts_ipv6_delivered += 1,
                Some(Effect::PathFailed) => report.hosts_ipv6_failed += 1,
                Some(Effect::Answered | Effect::SenderRefused) | None => {}
            }
            let is_selected = |domain| name.is_within(domain) || host.is_of_domain(domain);
            if pattern.is_none_or(is_selected) {
                report.hosts.push(host.report(name, now, &self.settings));
            }
        }
        report.hosts.sort_by(|a, b| {
            let key = |host: &super::HostReport| (host.avoided.is_some(), host.last());
            key(b).cmp(&key(a)).then_with(|| a.host.cmp(&b.host))
        });
        report
    }
}
