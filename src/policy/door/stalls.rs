//! Stalled sessions by the network that they came from.
//!
//! One network cannot make a path look broken, whatever it sends: sessions are counted by [`NetworkKey`], and several
//! networks must agree (rule 14 of ARCHITECTURE.md).

use std::collections::BTreeMap;
use std::time::Duration;

use super::signals::StalledSessions;
use super::state::DoorSettings;
use crate::addr::NetworkKey;
use crate::time::Timestamp;

/// Networks that are remembered; beyond it the one that stalled longest ago is forgotten.
const MAX_NETWORKS: usize = 1024;
/// Stalls of a network count for this many times [`DoorSettings::stall_duration`] after its last, and at least for
/// [`MIN_WINDOW`]: senders of different networks retry at different times.
const WINDOW: u32 = 6;
const MIN_WINDOW: Duration = Duration::from_secs(600);

/// The stalled sessions of one family.
#[derive(Debug, Default)]
pub(super) struct StallTracker {
    networks: BTreeMap<NetworkKey, NetworkStalls>,
    /// Sessions that began before say nothing new: large messages passed since, or the door turned because of them.
    counts_from: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct NetworkStalls {
    sessions: u32,
    /// Begin of the first session.
    since: Timestamp,
    /// End of the last session.
    last: Timestamp,
}

impl StallTracker {
    pub(super) fn on_stall(&mut self, network: NetworkKey, start: Timestamp, end: Timestamp) {
        if self.counts_from.is_some_and(|from| start < from) {
            return;
        }
        if !self.networks.contains_key(&network) && self.networks.len() >= MAX_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, stalls)| stalls.last);
            if let Some(oldest) = oldest.map(|(network, _)| *network) {
                self.networks.remove(&oldest);
            }
        }
        let new = NetworkStalls { sessions: 0, since: start, last: end };
        let stalls = self.networks.entry(network).or_insert(new);
        stalls.sessions = stalls.sessions.saturating_add(1);
        stalls.since = stalls.since.min(start);
        stalls.last = stalls.last.max(end);
    }

    /// Forgets all sessions that began before `at`, also those that end later.
    pub(super) fn clear(&mut self, at: Timestamp) {
        self.counts_from = self.counts_from.max(Some(at));
        self.networks.retain(|_, stalls| stalls.since >= at);
    }

    /// The stalls that count at `now`. Each network adds no more than its part of the sessions that are needed.
    pub(super) fn report(
        &self,
        settings: &DoorSettings,
        now: Timestamp,
    ) -> Option<StalledSessions> {
        let window = window(settings);
        let most = settings.stall_threshold.div_ceil(settings.agreeing_networks.max(1)).max(1);
        let current = self.networks.values().filter(|stalls| now.since(stalls.last) <= window);
        current.fold(None, |all: Option<StalledSessions>, stalls| {
            let sessions = stalls.sessions.min(most);
            Some(match all {
                None => StalledSessions {
                    sessions,
                    networks: 1,
                    since: stalls.since,
                    last: stalls.last,
                },
                Some(all) => StalledSessions {
                    sessions: all.sessions.saturating_add(sessions),
                    networks: all.networks.saturating_add(1),
                    since: all.since.min(stalls.since),
                    last: all.last.max(stalls.last),
                },
            })
        })
    }
}

fn window(settings: &DoorSettings) -> Duration {
    settings.stall_duration.saturating_mul(WINDOW).max(MIN_WINDOW)
}
