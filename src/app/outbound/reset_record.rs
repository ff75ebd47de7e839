//! The addresses, connections to which the kernel resets: for the report, and to recognise our own resets, which are no
//! evidence of the paths to others.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbound::{OutboundAttempt, OutboundOutcome, OutboundResetReport};
use crate::time::Timestamp;

/// An element expires so much later than its time, at most: that of a run of nft.
const MARGIN: Duration = Duration::from_secs(2);
/// A reset is reported so much later, at most.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct ResetRecord(Mutex<ResetState>);

#[derive(Debug, Default)]
struct ResetState {
    /// Whether the configuration asks for resets.
    is_configured: bool,
    /// With the time at which each expires, or was removed.
    addresses: HashMap<Ipv6Addr, Timestamp>,
    connections: u64,
    problem: Option<String>,
}

impl ResetRecord {
    pub(super) fn set_configured(&self, is_configured: bool) {
        let mut state = self.state();
        state.is_configured = is_configured;
        if !is_configured {
            state.problem = None;
        }
    }

    /// Replaces the addresses: each with the time until it is reset.
    pub(super) fn set_addresses(&self, new: &BTreeMap<Ipv6Addr, Timestamp>, now: Timestamp) {
        let addresses = &mut self.state().addresses;
        for (ip, until) in addresses.iter_mut() {
            *until = new.get(ip).copied().unwrap_or((*until).min(now));
        }
        addresses.extend(new);
        addresses.retain(|_, until| now.since(*until) < KEPT);
    }

    pub(super) fn add_connections(&self, number: u64) {
        self.state().connections += number;
    }

    /// Why no connection is reset. Returns whether this is new.
    pub(super) fn set_problem(&self, problem: Option<String>) -> bool {
        let known = &mut self.state().problem;
        let is_new = *known != problem;
        *known = problem;
        is_new
    }

    /// Whether a connection to `ip` that was refused at that time was reset by this host.
    pub(super) fn resets(&self, ip: IpAddr, at: Timestamp) -> bool {
        let IpAddr::V6(ip) = ip else { return false };
        self.state().addresses.get(&ip).is_some_and(|until| at <= *until + MARGIN)
    }

    /// Whether this host made an attempt fail.
    pub(super) fn explains(&self, attempt: &OutboundAttempt) -> bool {
        attempt.outcome == OutboundOutcome::Refused && self.resets(attempt.address.ip(), attempt.at)
    }

    /// `None` if resets are not configured.
    pub(super) fn report(&self, now: Timestamp) -> Option<OutboundResetReport> {
        let state = self.state();
        state.is_configured.then(|| OutboundResetReport {
            addresses: state.addresses.values().filter(|until| **until > now).count(),
            connections: state.connections,
            problem: state.problem.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, ResetState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000) + Duration::from_secs(second)
    }

    #[test]
    fn a_refusal_is_ours_until_the_element_has_expired_or_was_removed() {
        let ip = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        let record = ResetRecord::default();
        let resets = |last, second| record.resets(ip(last).into(), at(second));
        record.set_addresses(&BTreeMap::from([(ip(1), at(600)), (ip(2), at(600))]), at(0));
        assert!(resets(1, 5) && resets(1, 602) && !resets(1, 603) && !resets(3, 5));
        assert!(!record.resets("192.0.2.1".parse().unwrap(), at(5)));
        // Tried again, failed, and avoided for longer; the other one recovered.
        record.set_addresses(&BTreeMap::from([(ip(1), at(1200))]), at(100));
        assert!(resets(1, 1200) && resets(2, 102) && !resets(2, 103));
        record.set_addresses(&BTreeMap::new(), at(200));
        assert!(!resets(2, 100), "forgotten");
        record.set_addresses(&BTreeMap::new(), at(300));
        assert!(record.state().addresses.is_empty());
    }

    #[test]
    fn it_reports_only_what_is_configured() {
        let record = ResetRecord::default();
        assert_eq!(record.report(at(0)), None);
        record.set_configured(true);
        record.set_addresses(&BTreeMap::from([(Ipv6Addr::LOCALHOST, at(60))]), at(0));
        record.add_connections(2);
        record.add_connections(3);
        assert!(record.set_problem(Some("no nft".to_owned())));
        assert!(!record.set_problem(Some("no nft".to_owned())), "known");
        let report = record.report(at(59)).unwrap();
        assert_eq!((report.addresses, report.connections), (1, 5));
        assert_eq!(report.problem.as_deref(), Some("no nft"));
        assert_eq!(record.report(at(60)).unwrap().addresses, 0);
        record.set_configured(false);
        record.set_configured(true);
        assert_eq!(record.report(at(60)).unwrap().problem, None);
    }
}
