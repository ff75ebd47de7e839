//! Whether the upstream of a family accepts connections, from the sessions that needed it.
//!
//! Where the gateway connects to each session's original destination, or from the client's own address, a failed connection may
//! be the client's fault: it chose a destination where nothing listens, or the way back to its address is broken. Several
//! networks must have failed at the same destination, and none succeeded since (rule 14 of ARCHITECTURE.md).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::NetworkKey;
use crate::time::Timestamp;

/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(600);
/// How long a destination that was reached is known to be an upstream.
const KNOWN: Duration = Duration::from_secs(24 * 3_600);
const MAX_KNOWN: usize = 8;
/// The gateway's own connections in a row that must fail.
const CHECKS: u32 = 2;
/// Failures that are remembered, one for each destination and network.
const MAX_FAILURES: usize = 4096;

/// What a session showed about its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamContact {
    Connected,
    /// No connection was possible.
    Failed,
    /// None was tried, or the client left before the result.
    Unknown,
}

/// The connections to upstreams of one family.
#[derive(Debug, Default)]
pub(super) struct UpstreamTracker {
    /// By destination and network: when the last failed session began.
    failures: BTreeMap<(SocketAddr, NetworkKey), Timestamp>,
    known: BTreeMap<SocketAddr, KnownUpstream>,
}

#[derive(Clone, Copy, Debug)]
struct KnownUpstream {
    /// When the last session that reached it began.
    reached: Timestamp,
    /// The gateway's own connections that failed in a row.
    failed_checks: u32,
}

impl UpstreamTracker {
    /// A session that began at `start`.
    pub(super) fn on_session(
        &mut self,
        contact: UpstreamContact,
        destination: SocketAddr,
        network: NetworkKey,
        start: Timestamp,
    ) {
        match contact {
            UpstreamContact::Connected => {
                self.on_reached(start);
                let new = KnownUpstream { reached: start, failed_checks: 0 };
                let known = self.known.entry(destination).or_insert(new);
                known.reached = known.reached.max(start);
                if self.known.len() > MAX_KNOWN {
                    let oldest = self.known.iter().min_by_key(|(_, known)| known.reached);
                    if let Some(oldest) = oldest.map(|(destination, _)| *destination) {
                        self.known.remove(&oldest);
                    }
                }
            }
            UpstreamContact::Failed => {
                if self.failures.len() >= MAX_FAILURES {
                    self.failures.retain(|_, failed| start.since(*failed) <= WINDOW);
                }
                if self.failures.len() < MAX_FAILURES {
                    let failed = self.failures.entry((destination, network)).or_insert(start);
                    *failed = (*failed).max(start);
                }
            }
            UpstreamContact::Unknown => {}
        }
    }

    /// The gateway's own connection to one of [`Self::check_targets`] succeeded or failed.
    pub(super) fn on_check(&mut self, destination: SocketAddr, reached: bool, at: Timestamp) {
        if reached {
            self.on_reached(at);
        }
        if let Some(known) = self.known.get_mut(&destination) {
            known.failed_checks = if reached { 0 } else { known.failed_checks.saturating_add(1) };
        }
    }

    /// An upstream was reachable at `at`. Later failures stay: of sessions that ended earlier.
    fn on_reached(&mut self, at: Timestamp) {
        self.failures.retain(|_, failed| *failed > at);
        if self.failures.is_empty() {
            self.known.values_mut().for_each(|known| known.failed_checks = 0);
        }
    }

    /// The known upstreams, if a session failed at one of them lately: the gateway connects to them itself.
    pub(super) fn check_targets(&self, now: Timestamp) -> Vec<SocketAddr> {
        let is_current = |known: &KnownUpstream| now.since(known.reached) <= KNOWN;
        let failed = self.failures.iter().any(|((destination, _), failed)| {
            now.since(*failed) <= WINDOW && self.known.get(destination).is_some_and(is_current)
        });
        let current = self.known.iter().filter(|(_, known)| failed && is_current(known));
        current.map(|(destination, _)| *destination).collect()
    }

    /// Whether sessions from at least `agreeing` networks failed at one destination, or the gateway itself reaches no known
    /// upstream, and no session succeeded since.
    pub(super) fn is_down(&self, agreeing: u32, now: Timestamp) -> bool {
        let mut networks: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for ((destination, _), failed) in &self.failures {
            if now.since(*failed) <= WINDOW {
                *networks.entry(*destination).or_default() += 1;
            }
        }
        let targets = self.check_targets(now);
        let fails = |target: &SocketAddr| {
            self.known.get(target).is_some_and(|known| known.failed_checks >= CHECKS)
        };
        networks.values().any(|count| *count >= agreeing)
            || !targets.is_empty() && targets.iter().all(fails)
    }
}
