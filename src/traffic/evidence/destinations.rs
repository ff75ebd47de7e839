//! The return path: what became of our own connections to other servers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::addr::Family;
use crate::time::Timestamp;
use crate::traffic::by::ByFamily;
use crate::traffic::passed::Passed;

/// Destinations that are remembered, some 500 octets each. The least recently tried goes first, with its counts.
pub const MAX_DESTINATIONS: usize = 4096;
/// Octets of a name that are kept; RFC 1035 §2.3.4 allows no more.
const MAX_NAME: usize = 255;

/// What a server did when we called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It spoke.
    LookupResult,
    /// RST in answer to the SYN.
    Refused,
    /// Nothing came, to the SYN or after the handshake.
    Silent,
    /// An ICMP error in answer to the SYN.
    Unreachable,
    /// It spoke, and large segments were lost again and again; nothing was accepted.
    BlackHole,
}

impl Response {
    pub const ALL: [Self; 5] =
        [Self::LookupResult, Self::Refused, Self::Silent, Self::Unreachable, Self::BlackHole];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LookupResult => "answered",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::BlackHole => "black_hole",
        }
    }
}

/// Who was called: by name where the DNS gave one, so that both families of a server are one destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(ip) => ip.fmt(f),
        }
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often something was seen, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub count: u64,
    pub last: Option<Timestamp>,
}

/// What a destination did over one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tries {
    /// What it did last. Of several at the same time the best counts: it is possible.
    pub state: Response,
    pub answered: Seen,
    pub refused: Seen,
    pub silent: Seen,
    pub unreachable: Seen,
    pub black_hole: Seen,
}

impl Tries {
    const fn first(state: Response) -> Self {
        let none = Seen { count: 0, last: None };
        Self {
            state,
            answered: none,
            refused: none,
            silent: none,
            unreachable: none,
            black_hole: none,
        }
    }

    pub const fn of(&self, response: Response) -> &Seen {
        match response {
            Response::LookupResult => &self.answered,
            Response::Refused => &self.refused,
            Response::Silent => &self.silent,
            Response::Unreachable => &self.unreachable,
            Response::BlackHole => &self.black_hole,
        }
    }

    /// When it was tried last.
    pub fn last(&self) -> Option<Timestamp> {
        self.of(self.state).last
    }

    fn tried(&mut self, response: Response, at: Timestamp) {
        let seen = match response {
            Response::LookupResult => &mut self.answered,
            Response::Refused => &mut self.refused,
            Response::Silent => &mut self.silent,
            Response::Unreachable => &mut self.unreachable,
            Response::BlackHole => &mut self.black_hole,
        };
        seen.count += 1;
        seen.last = seen.last.max(Some(at));
        // Of equals the last is taken: `LookupResult`.
        let latest = Response::ALL.into_iter().rev().max_by_key(|response| self.of(*response).last);
        self.state = latest.unwrap_or(response);
    }
}

/// What one destination did over either family; null where it was not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    pub server: Server,
    pub ipv4: Option<Tries>,
    pub ipv6: Option<Tries>,
}

impl Destination {
    pub const fn of(&self, family: Family) -> Option<&Tries> {
        match family {
            Family::Ipv4 => self.ipv4.as_ref(),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// When it was tried last, over any family.
    pub fn last(&self) -> Option<Timestamp> {
        let of = |tries: &Option<Tries>| tries.and_then(|tries| tries.last());
        of(&self.ipv4).max(of(&self.ipv6))
    }

    /// What it did last over IPv4 and over IPv6.
    pub fn pair(&self) -> ByFamily<Option<Response>> {
        let state = |tries: &Option<Tries>| tries.map(|tries| tries.state);
        ByFamily { ipv4: state(&self.ipv4), ipv6: state(&self.ipv6) }
    }
}

/// How many destinations did what when they were last tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Responses {
    pub answered: u64,
    pub refused: u64,
    pub silent: u64,
    pub unreachable: u64,
    pub black_hole: u64,
}

impl Responses {
    pub const fn of(&self, response: Response) -> u64 {
        match response {
            Response::LookupResult => self.answered,
            Response::Refused => self.refused,
            Response::Silent => self.silent,
            Response::Unreachable => self.unreachable,
            Response::BlackHole => self.black_hole,
        }
    }

    const fn count(&mut self, response: Response) {
        *match response {
            Response::LookupResult => &mut self.answered,
            Response::Refused => &mut self.refused,
            Response::Silent => &mut self.silent,
            Response::Unreachable => &mut self.unreachable,
            Response::BlackHole => &mut self.black_hole,
        } += 1;
    }
}

/// Where our own mail goes, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReturnPath<'a> {
    pub ipv4: Responses,
    pub ipv6: Responses,
    /// All that are remembered; the list may be shortened.
    pub destinations_total: u64,
    /// Destinations that were forgotten for want of room.
    pub forgotten: u64,
    /// The last tried first.
    pub destinations: Vec<&'a Destination>,
}

impl ReturnPath<'_> {
    pub const fn of(&self, family: Family) -> &Responses {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    /// Pairs of what destinations did over the two families, with how many did so; the most frequent first.
    pub fn pairs(&self) -> Vec<(ByFamily<Option<Response>>, u64)> {
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for destination in &self.destinations {
            let ByFamily { ipv4, ipv6 } = destination.pair();
            *counts.entry((ipv6, ipv4)).or_default() += 1;
        }
        let mut pairs: Vec<_> = counts
            .into_iter()
            .map(|((ipv6, ipv4), count)| (ByFamily { ipv4, ipv6 }, count))
            .collect();
        pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        pairs
    }
}

/// Remembers destinations.
#[derive(Clone, Debug, Default)]
pub(in crate::traffic) struct Destinations {
    known: BTreeMap<Server, Destination>,
    forgotten: u64,
}

impl Destinations {
    pub(in crate::traffic) fn passed(&mut self, passed: &Passed<'_>) {
        let Some(response) = passed.response() else {
            return;
        };
        let name = passed.name.as_ref().filter(|name| name.len() <= MAX_NAME);
        let server = match name {
            Some(name) => Server::Name(name.clone()),
            None => Server::Address(passed.flow.start.server.ip().to_canonical()),
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
        tries.get_or_insert(Tries::first(response)).tried(response, passed.flow.end);
    }

    fn forget_one(&mut self) {
        let oldest = self.known.values().min_by_key(|destination| destination.last());
        if let Some(server) = oldest.map(|destination| destination.server.clone()) {
            self.known.remove(&server);
            self.forgotten += 1;
        }
    }

    pub(in crate::traffic) fn told(&self) -> ReturnPath<'_> {
        let mut responses = ByFamily::<Responses>::default();
        for destination in self.known.values() {
            for family in Family::ALL {
                if let Some(tries) = destination.of(family) {
                    responses.of_mut(family).count(tries.state);
                }
            }
        }
        let mut destinations: Vec<&Destination> = self.known.values().collect();
        destinations.sort_by_key(|destination| std::cmp::Reverse(destination.last()));
        ReturnPath {
            ipv4: responses.ipv4,
            ipv6: responses.ipv6,
            destinations_total: destinations.len() as u64,
            forgotten: self.forgotten,
            destinations,
        }
    }
}
