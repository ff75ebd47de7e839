//! The return path: what became of our own connections to other servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::addr::Family;
use crate::label::labels;
use crate::time::Timestamp;
use crate::traffic::flow_summary::FlowSummary;
use crate::traffic::per::PerFamily;

/// Destinations that are remembered, some 500 octets each. The least recently tried goes first, with its counts.
pub const MAX_DESTINATIONS: usize = 4096;
/// Octets of a name that are kept; RFC 1035 §2.3.4 allows no more.
const MAX_NAME: usize = 255;

labels! {
    /// What a server did when we called.
    pub enum ServerResponse {
        /// It spoke.
        Answered = "answered",
        /// RST in answer to the SYN.
        Refused = "refused",
        /// Nothing came, to the SYN or after the handshake.
        NoResponse = "no_response",
        /// An ICMP error in answer to the SYN.
        Unreachable = "unreachable",
        /// It spoke, and large segments were lost again and again; nothing was accepted.
        BlackHole = "black_hole",
    }
}

/// Who was called: by name where the DNS gave one, so that both families of a server are one destination.
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

/// How often something was seen, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResponseCount {
    pub count: u64,
    pub last: Option<Timestamp>,
}

/// What a destination did over one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyResponses {
    /// What it did last. Of several at the same time the best counts: it is possible.
    pub state: ServerResponse,
    pub answered: ResponseCount,
    pub refused: ResponseCount,
    pub no_response: ResponseCount,
    pub unreachable: ResponseCount,
    pub black_hole: ResponseCount,
}

impl FamilyResponses {
    const fn first(state: ServerResponse) -> Self {
        let none = ResponseCount { count: 0, last: None };
        Self {
            state,
            answered: none,
            refused: none,
            no_response: none,
            unreachable: none,
            black_hole: none,
        }
    }

    pub const fn of(&self, response: ServerResponse) -> &ResponseCount {
        match response {
            ServerResponse::Answered => &self.answered,
            ServerResponse::Refused => &self.refused,
            ServerResponse::NoResponse => &self.no_response,
            ServerResponse::Unreachable => &self.unreachable,
            ServerResponse::BlackHole => &self.black_hole,
        }
    }

    /// When it was tried last.
    pub fn last(&self) -> Option<Timestamp> {
        self.of(self.state).last
    }

    fn tried(&mut self, response: ServerResponse, at: Timestamp) {
        let seen = match response {
            ServerResponse::Answered => &mut self.answered,
            ServerResponse::Refused => &mut self.refused,
            ServerResponse::NoResponse => &mut self.no_response,
            ServerResponse::Unreachable => &mut self.unreachable,
            ServerResponse::BlackHole => &mut self.black_hole,
        };
        seen.count += 1;
        seen.last = seen.last.max(Some(at));
        // Of equals the last is taken: `LookupResult`.
        let latest =
            ServerResponse::ALL.into_iter().rev().max_by_key(|response| self.of(*response).last);
        self.state = latest.unwrap_or(response);
    }
}

/// What one destination did over either family; null where it was not tried.
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

    /// When it was tried last, over any family.
    pub fn last(&self) -> Option<Timestamp> {
        let of = |tries: &Option<FamilyResponses>| tries.and_then(|tries| tries.last());
        of(&self.ipv4).max(of(&self.ipv6))
    }

    /// What it did last over IPv4 and over IPv6.
    pub fn pair(&self) -> PerFamily<Option<ServerResponse>> {
        let state = |tries: &Option<FamilyResponses>| tries.map(|tries| tries.state);
        PerFamily { ipv4: state(&self.ipv4), ipv6: state(&self.ipv6) }
    }
}

/// How many destinations did what when they were last tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResponseTotals {
    pub answered: u64,
    pub refused: u64,
    pub no_response: u64,
    pub unreachable: u64,
    pub black_hole: u64,
}

impl ResponseTotals {
    pub const fn of(&self, response: ServerResponse) -> u64 {
        match response {
            ServerResponse::Answered => self.answered,
            ServerResponse::Refused => self.refused,
            ServerResponse::NoResponse => self.no_response,
            ServerResponse::Unreachable => self.unreachable,
            ServerResponse::BlackHole => self.black_hole,
        }
    }

    const fn count(&mut self, response: ServerResponse) {
        *match response {
            ServerResponse::Answered => &mut self.answered,
            ServerResponse::Refused => &mut self.refused,
            ServerResponse::NoResponse => &mut self.no_response,
            ServerResponse::Unreachable => &mut self.unreachable,
            ServerResponse::BlackHole => &mut self.black_hole,
        } += 1;
    }
}

/// Where our own mail goes, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReturnPathEvidence<'a> {
    pub ipv4: ResponseTotals,
    pub ipv6: ResponseTotals,
    /// All that are remembered; the list may be shortened.
    pub destinations_total: u64,
    /// Destinations that were forgotten for want of room.
    pub forgotten: u64,
    /// The last tried first.
    pub destinations: Vec<&'a Destination>,
}

impl ReturnPathEvidence<'_> {
    pub const fn of(&self, family: Family) -> &ResponseTotals {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// Pairs of what destinations did over the two families, with how many did so; the most frequent first.
    pub fn pairs(&self) -> Vec<(PerFamily<Option<ServerResponse>>, u64)> {
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

/// Remembers destinations.
#[derive(Clone, Debug, Default)]
pub(in crate::traffic) struct Destinations {
    known: BTreeMap<DestinationKey, Destination>,
    forgotten: u64,
}

impl Destinations {
    pub(in crate::traffic) fn passed(&mut self, passed: &FlowSummary<'_>) {
        let Some(response) = passed.response() else {
            return;
        };
        let name = passed.name.as_ref().filter(|name| name.len() <= MAX_NAME);
        let server = match name {
            Some(name) => DestinationKey::Name(name.clone()),
            None => DestinationKey::Address(passed.flow.start.server.ip().to_canonical()),
        };
        if !self.known.contains_key(&server) && self.known.len() >= MAX_DESTINATIONS {
            self.forget_one();
        }
        let destination = self.known.entry(server).or_insert_with_key(|server| Destination {
            server: server.clone(),
            ipv4: None,
            ipv6: None,
        });
        let tries = match passed.family() {
            Family::Ipv4 => &mut destination.ipv4,
            Family::Ipv6 => &mut destination.ipv6,
        };
        tries.get_or_insert(FamilyResponses::first(response)).tried(response, passed.flow.end);
    }

    fn forget_one(&mut self) {
        let oldest = self.known.values().min_by_key(|destination| destination.last());
        if let Some(server) = oldest.map(|destination| destination.server.clone()) {
            self.known.remove(&server);
            self.forgotten += 1;
        }
    }

    pub(in crate::traffic) fn told(&self) -> ReturnPathEvidence<'_> {
        let mut responses = PerFamily::<ResponseTotals>::default();
        for destination in self.known.values() {
            for family in Family::ALL {
                if let Some(tries) = destination.of(family) {
                    responses.of_mut(family).count(tries.state);
                }
            }
        }
        let mut destinations: Vec<&Destination> = self.known.values().collect();
        destinations.sort_by_key(|destination| std::cmp::Reverse(destination.last()));
        ReturnPathEvidence {
            ipv4: responses.ipv4,
            ipv6: responses.ipv6,
            destinations_total: destinations.len() as u64,
            forgotten: self.forgotten,
            destinations,
        }
    }
}
