//! What passing traffic showed of other servers: our MTA's own mail to them, mostly.

use std::net::IpAddr;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};
use crate::time::Timestamp;
use crate::traffic::ConnectionResponse;

/// Servers that are remembered.
const SERVERS: u64 = 16_384;

/// The last thing that each server did, while it is fresh.
#[derive(Clone, Debug)]
pub(super) struct Board {
    seen: Cache<IpAddr, (ConnectionResponse, Timestamp)>,
}

impl Board {
    pub(super) fn new(fresh: Duration) -> Self {
        let seen = Cache::builder().eviction_policy(EvictionPolicy::lru());
        Self { seen: seen.max_capacity(SERVERS).time_to_live(fresh).build() }
    }

    pub(super) fn passed(&self, server: IpAddr, response: ConnectionResponse, at: Timestamp) {
        self.seen.insert(server.to_canonical(), (response, at));
    }

    /// The answer, if traffic gives it. That a server answers our MTA says nothing of a mailbox; that it does not is enough.
    pub(super) fn answer(&self, lookup: &Lookup) -> Option<LookupResult> {
        let (Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _)) = lookup else {
            return None;
        };
        let (response, at) = self.seen.get(&ip.to_canonical())?;
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
