//! One exchange host: what became of our attempts over each family, and whether its IPv6 addresses are used.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::path_health::{Avoidance, PathHealth, SteeringDecision, TrialBy};
use super::report::{AddressReport, FamilyReport, LastAttempt, OutboundHostReport};
use super::settings::SteeringSettings;
use super::{Effect, OutboundAttempt, OutboundOutcome, OutcomeCounts};
use crate::addr::Family;
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

/// Addresses that are kept for each host; the least recently tried is dropped first.
const MAX_ADDRESSES: usize = 16;
/// Recipient domains that are kept for each host, the latest.
const MAX_DOMAINS: usize = 8;
/// Delays that are kept for a median.
const MAX_DELAYS: usize = 15;
/// Characters of a reply that are kept.
const MAX_REPLY: usize = 512;
/// Failures in a row that lead to the avoidance of an address that worked lately.
const FAILURES: u32 = 2;
/// A refusal for the sending address is deliberate, and the message that met it is not delivered before it takes IPv4.
const REFUSALS: u32 = 1;

/// Outcomes over one family.
#[derive(Clone, Debug, Default)]
struct FamilyRecord {
    counts: OutcomeCounts,
    last: Option<LastAttempt>,
    connection: VecDeque<Duration>,
    transmission: VecDeque<Duration>,
}

#[derive(Clone, Debug)]
struct AddressRecord {
    ip: IpAddr,
    counts: OutcomeCounts,
    last: LastAttempt,
    /// Of IPv6 addresses.
    path: PathHealth,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HostRecord {
    ipv4: FamilyRecord,
    ipv6: FamilyRecord,
    addresses: Vec<AddressRecord>,
    domains: VecDeque<DomainName>,
    /// Of all IPv6 addresses together: refusals for the sending address.
    refusals: PathHealth,
}

impl HostRecord {
    pub(super) fn add(&mut self, attempt: &OutboundAttempt, settings: &SteeringSettings) {
        let last = LastAttempt {
            at: attempt.at,
            outcome: attempt.outcome,
            reply: attempt.reply.as_deref().map(|reply| reply.chars().take(MAX_REPLY).collect()),
        };
        self.family_mut(attempt.family()).add(attempt, &last);
        if let Some(domain) = &attempt.domain {
            self.add_domain(domain);
        }
        let address = self.address_mut(attempt.address.ip(), &last);
        address.counts.add(attempt.outcome);
        if attempt.family() == Family::Ipv4 {
            return;
        }
        let at = attempt.at;
        match attempt.outcome.effect() {
            Effect::Delivered => {
                address.path.on_success(at);
                self.refusals.on_success(at);
            }
            Effect::Answered => address.path.on_success(at),
            Effect::PathFailed => {
                address.path.on_failure(attempt.outcome, at, FAILURES, settings);
            }
            Effect::SenderRefused => {
                address.path.on_success(at);
                self.refusals.on_failure(attempt.outcome, at, REFUSALS, settings);
            }
        }
    }

    pub(super) fn on_working_path(&mut self, ip: Ipv6Addr, at: Timestamp) {
        if let Some(known) = self.addresses.iter_mut().find(|known| known.ip == IpAddr::V6(ip)) {
            known.path.on_success(at);
        }
    }

    pub(super) fn ipv6_addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|known| match known.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        })
    }

    /// Whether [`Self::decide`] may omit one of its addresses, now or after a trial.
    pub(super) fn has_avoidance(&self) -> bool {
        let mut paths = self.addresses.iter().map(|known| &known.path);
        self.refusals.avoided().is_some() || paths.any(|path| path.avoided().is_some())
    }

    pub(super) fn has(&self, ip: Ipv6Addr) -> bool {
        self.addresses.iter().any(|known| known.ip == IpAddr::V6(ip))
    }

    /// Whether a message should use an address. IPv6 is not avoided where IPv4 is known to fail as well.
    pub(super) fn decide(
        &mut self,
        ip: Ipv6Addr,
        now: Timestamp,
        by: TrialBy,
        settings: &SteeringSettings,
    ) -> SteeringDecision {
        if self.fails_over_ipv4() {
            return SteeringDecision::Use;
        }
        let of_address = self.addresses.iter_mut().find(|known| known.ip == IpAddr::V6(ip));
        let of_address =
            of_address.map_or(SteeringDecision::Use, |known| known.path.decide(now, by, settings));
        match of_address {
            SteeringDecision::Avoid(_) => of_address,
            SteeringDecision::Use => self.refusals.decide(now, by, settings),
            // A trial of the address is one of the host too.
            SteeringDecision::Try(_) => match self.refusals.decide(now, by, settings) {
                SteeringDecision::Avoid(avoided) => SteeringDecision::Avoid(avoided),
                SteeringDecision::Use | SteeringDecision::Try(_) => of_address,
            },
        }
    }

    /// Whether the latest attempt over IPv4 came to no decision.
    fn fails_over_ipv4(&self) -> bool {
        self.last_over(Family::Ipv4).map(OutboundOutcome::effect) == Some(Effect::PathFailed)
    }

    /// Why its IPv6, as a whole or all known addresses, is avoided. The one that is tried again last.
    pub(super) fn avoided(&self) -> Option<Avoidance> {
        if self.fails_over_ipv4() {
            return None;
        }
        let addresses = self.addresses.iter().filter(|known| known.ip.is_ipv6());
        let paths: Option<Vec<_>> = addresses.map(|known| known.path.avoided()).collect();
        let addresses = paths.and_then(|paths| paths.into_iter().min_by_key(|one| one.until));
        self.refusals.avoided().into_iter().chain(addresses).max_by_key(|one| one.until)
    }

    /// Whether it refused our IPv6 mail for the sending address, and not our IPv4 mail, when it was last tried.
    pub(super) fn refuses_ipv6(&self) -> bool {
        let refuses = |family| self.last_over(family) == Some(OutboundOutcome::PolicyRefused);
        refuses(Family::Ipv6) && !refuses(Family::Ipv4)
    }

    /// When it was last tried over IPv4.
    pub(super) fn last_ipv4(&self) -> Option<Timestamp> {
        self.ipv4.last.as_ref().map(|last| last.at)
    }

    /// The outcome when it was last tried.
    pub(super) fn last_over(&self, family: Family) -> Option<OutboundOutcome> {
        self.family(family).last.as_ref().map(|last| last.outcome)
    }

    pub(super) fn is_of_domain(&self, domain: &DomainName) -> bool {
        self.domains.iter().any(|known| known.is_within(domain))
    }

    pub(super) fn report(
        &self,
        name: &DomainName,
        now: Timestamp,
        settings: &SteeringSettings,
    ) -> OutboundHostReport {
        let addresses = self.addresses.iter().map(|known| AddressReport {
            ip: known.ip,
            counts: known.counts,
            last: known.last.clone(),
            avoided: known.path.avoided(),
            on_trial: known.path.is_on_trial(settings, now),
        });
        OutboundHostReport {
            host: name.to_string(),
            domains: self.domains.iter().map(ToString::to_string).collect(),
            ipv6: self.ipv6.report(),
            ipv4: self.ipv4.report(),
            avoided: self.avoided(),
            ipv4_by_canary: false,
            addresses: addresses.collect(),
        }
    }

    const fn family(&self, family: Family) -> &FamilyRecord {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    const fn family_mut(&mut self, family: Family) -> &mut FamilyRecord {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }

    fn add_domain(&mut self, domain: &DomainName) {
        if self.domains.contains(domain) {
            return;
        }
        if self.domains.len() == MAX_DOMAINS {
            self.domains.pop_front();
        }
        self.domains.push_back(domain.clone());
    }

    /// The record of an address, with its latest attempt.
    fn address_mut(&mut self, ip: IpAddr, last: &LastAttempt) -> &mut AddressRecord {
        let found = self.addresses.iter().position(|known| known.ip == ip);
        let index = found.unwrap_or_else(|| {
            if self.addresses.len() == MAX_ADDRESSES {
                let last = |(_, known): &(usize, &AddressRecord)| known.last.at;
                let oldest = self.addresses.iter().enumerate().min_by_key(last);
                let oldest = oldest.map_or(0, |(index, _)| index);
                self.addresses.remove(oldest);
            }
            self.addresses.push(AddressRecord {
                ip,
                counts: OutcomeCounts::default(),
                last: last.clone(),
                path: PathHealth::default(),
            });
            self.addresses.len() - 1
        });
        let address = &mut self.addresses[index];
        if address.last.at <= last.at {
            address.last = last.clone();
        }
        address
    }
}

impl FamilyRecord {
    fn add(&mut self, attempt: &OutboundAttempt, last: &LastAttempt) {
        self.counts.add(attempt.outcome);
        if self.last.as_ref().is_none_or(|known| known.at <= last.at) {
            self.last = Some(last.clone());
        }
        if let (Some(delays), OutboundOutcome::Delivered) = (attempt.delays, attempt.outcome) {
            add_delay(&mut self.connection, delays.connection);
            add_delay(&mut self.transmission, delays.transmission);
        }
    }

    fn report(&self) -> FamilyReport {
        FamilyReport {
            counts: self.counts,
            last: self.last.clone(),
            connection: median(&self.connection),
            transmission: median(&self.transmission),
        }
    }
}

fn add_delay(delays: &mut VecDeque<Duration>, delay: Duration) {
    if delays.len() == MAX_DELAYS {
        delays.pop_front();
    }
    delays.push_back(delay);
}

fn median(delays: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<Duration> = delays.iter().copied().collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}
