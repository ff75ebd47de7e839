//! The return path: outcomes of our own connections to other servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::addr::Family;
use crate::time::Timestamp;
use crate::traffic::flow_summary::FlowSummary;
use crate::traffic::per::PerFamily;
use crate::traffic::response::{ConnectionResponse, PerResponse};

/// Destinations that are kept, about 500 bytes each. The least recently tried is evicted first, with its counts.
pub const MAX_DESTINATIONS: usize = 4096;
/// Longer names are not used as a key; RFC 1035 §2.3.4 allows no longer ones.
const MAX_NAME: usize = 255;

/// A server, by name if DNS answers contained one, so that both its families are one destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationKey {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

impl Serialize for DestinationKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often a response was seen, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResponseCount {
    pub count: u64,
    pub last: Option<Timestamp>,
}

/// The responses of a destination over one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyResponses {
    /// The latest response. Of several at the same time the best counts: it is possible.
    pub state: ConnectionResponse,
    #[serde(flatten)]
    pub counts: PerResponse<ResponseCount>,
}

impl FamilyResponses {
    fn first(state: ConnectionResponse) -> Self {
        Self { state, counts: PerResponse::default() }
    }

    /// When it was last tried.
    pub fn last(&self) -> Option<Timestamp> {
        self.counts.of(self.state).last
    }

    fn add(&mut self, response: ConnectionResponse, at: Timestamp) {
        let seen = self.counts.of_mut(response);
        seen.count += 1;
        seen.last = seen.last.max(Some(at));
        // `max_by_key` returns the last of equal elements: `Answered`.
        let responses = ConnectionResponse::ALL.into_iter().rev();
        let latest = responses.max_by_key(|response| self.counts.of(*response).last);
        self.state = latest.unwrap_or(response);
    }
}

/// The responses of one destination over each family; null if not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    pub server: DestinationKey,
    pub ipv4: Option<FamilyResponses>,
    pub ipv6: Option<FamilyResponses>,
}

impl Destination {
    pub const fn of(&self, family: Family) -> Option<&FamilyResponses> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// When it was last tried, over any family.
    pub fn last(&self) -> Option<Timestamp> {
        let last = |responses: &Option<FamilyResponses>| responses.and_then(|r| r.last());
        last(&self.ipv4).max(last(&self.ipv6))
    }

    /// The latest response over each family.
    pub fn pair(&self) -> PerFamily<Option<ConnectionResponse>> {
        let state = |responses: &Option<FamilyResponses>| responses.map(|r| r.state);
        PerFamily { ipv4: state(&self.ipv4), ipv6: state(&self.ipv6) }
    }
}

/// Destinations of our own mail, and their responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReturnPathEvidence<'a> {
    /// Destinations by their latest response over IPv4.
    pub ipv4: PerResponse<u64>,
    pub ipv6: PerResponse<u64>,
    /// All known destinations; the list may be shorter.
    pub destinations_total: u64,
    /// Evicted destinations.
    pub forgotten: u64,
    /// The last tried first.
    pub destinations: Vec<&'a Destination>,
}

impl ReturnPathEvidence<'_> {
    pub const fn of(&self, family: Family) -> &PerResponse<u64> {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// Combinations of the latest responses over both families, with the number of destinations; the most frequent first.
    pub fn pairs(&self) -> Vec<(PerFamily<Option<ConnectionResponse>>, u64)> {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for destination in &self.destinations {
            let PerFamily { ipv4, ipv6 } = destination.pair();
            *counts.entry((ipv6, ipv4)).or_default() += 1;
        }
        let mut pairs: Vec<_> = counts
            .into_iter()
            .map(|((ipv6, ipv4), count)| (PerFamily { ipv4, ipv6 }, count))
            .collect();
        pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        pairs
    }
}

/// All known destinations.
#[derive(Clone, Debug, Default)]
pub(in crate::traffic) struct Destinations {
    known: BTreeMap<DestinationKey, Destination>,
    evicted: u64,
}

impl Destinations {
    pub(in crate::traffic) fn add(&mut self, summary: &FlowSummary<'_>) {
        let Some(response) = summary.response() else {
            return;
        };
        let name = summary.name.as_ref().filter(|name| name.len() <= MAX_NAME);
        let server = match name {
            Some(name) => DestinationKey::Name(name.clone()),
            None => DestinationKey::Address(summary.flow.start.server.ip().to_canonical()),
        };
        if !self.known.contains_key(&server) && self.known.len() >= MAX_DESTINATIONS {
            self.evict_oldest();
        }
        let destination = self.known.entry(server).or_insert_with_key(|server| Destination {
            server: server.clone(),
            ipv4: None,
            ipv6: None,
        });
        let responses = match summary.family() {
            Family::Ipv4 => &mut destination.ipv4,
            Family::Ipv6 => &mut destination.ipv6,
        };
        let responses = responses.get_or_insert(FamilyResponses::first(response));
        responses.add(response, summary.flow.end);
    }

    fn evict_oldest(&mut self) {
        let oldest = self.known.values().min_by_key(|destination| destination.last());
        if let Some(server) = oldest.map(|destination| destination.server.clone()) {
            self.known.remove(&server);
            self.evicted += 1;
        }
    }

    pub(in crate::traffic) fn evidence(&self) -> ReturnPathEvidence<'_> {
        let mut totals = PerFamily::<PerResponse<u64>>::default();
        for destination in self.known.values() {
            for family in Family::ALL {
                if let Some(responses) = destination.of(family) {
                    *totals.of_mut(family).of_mut(responses.state) += 1;
                }
            }
        }
        let mut destinations: Vec<&Destination> = self.known.values().collect();
        destinations.sort_by_key(|destination| std::cmp::Reverse(destination.last()));
        ReturnPathEvidence {
            ipv4: totals.ipv4,
            ipv6: totals.ipv6,
            destinations_total: destinations.len() as u64,
            forgotten: self.evicted,
            destinations,
        }
    }
}
