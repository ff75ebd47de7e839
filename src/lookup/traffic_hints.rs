//! Reachability of other servers as observed in passing traffic: mostly our MTA's outbound mail.

use std::net::IpAddr;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};
use crate::time::Timestamp;
use crate::traffic::ConnectionResponse;

const MAX_SERVERS: u64 = 16_384;

/// The last response of each server, for a limited time.
#[derive(Clone, Debug)]
pub(super) struct ObservedServers {
    responses: Cache<IpAddr, (ConnectionResponse, Timestamp)>,
}

impl ObservedServers {
    pub(super) fn new(max_age: Duration) -> Self {
        let cache = Cache::builder().eviction_policy(EvictionPolicy::lru());
        Self { responses: cache.max_capacity(MAX_SERVERS).time_to_live(max_age).build() }
    }

    pub(super) fn on_response(&self, server: IpAddr, response: ConnectionResponse, at: Timestamp) {
        self.responses.insert(server.to_canonical(), (response, at));
    }

    /// The answer, if traffic gives one. A server that responds proves nothing about a mailbox; one that does not respond
    /// answers every probe.
    pub(super) fn answer(&self, lookup: &Lookup) -> Option<LookupResult> {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return None;
        };
        let (response, at) = self.responses.get(&ip.to_canonical())?;
        let no = |reason| Answer::No(reason, None);
        let answer = match (response, lookup) {
            (ConnectionResponse::Answered, Lookup::Callout(..)) => return None,
            (ConnectionResponse::Answered, _)
            | (ConnectionResponse::BlackHole, Lookup::Connect(_)) => Answer::Yes(None),
            (ConnectionResponse::Refused | ConnectionResponse::Unreachable, _) => {
                no(Reason::Refused)
            }
            (ConnectionResponse::NoResponse, _) => no(Reason::NoResponse),
            (ConnectionResponse::BlackHole, _) => no(Reason::EstablishedButStalled),
        };
        Some(LookupResult { answer, source: Source::Traffic, at: Some(at) })
    }
}
