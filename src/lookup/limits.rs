//! Limits of queries: of probes in all (concurrent, per second, per server and minute), and the share of each client network.
//!
//! A client chooses the subjects of its lookups: it can name any sender domain. Without shares, one client could use up all
//! probes, and others would get a 4xx for it. A network of clients ([`NetworkKey`]) that has used its share starts no more
//! queries of that kind: *its* lookups are unknown, unless the answer is cached or somebody else's query is in flight.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::{LookupSettings, ProbeSettings};
use super::single_flight::MAX_IN_FLIGHT;
use crate::addr::NetworkKey;
use crate::policy::facts::Lookup;

/// Probes of one server without a delay between them.
const BURST: u32 = 5;
/// One network's part of whatever is limited: the whole is divided by this.
const PARTS: u32 = 8;
/// The same for the budget of one server: a sender may have few servers, and many senders may have the same.
const SERVER_PARTS: u32 = 2;

#[derive(Debug)]
pub(super) struct ProbeLimits {
    concurrent: Arc<Semaphore>,
    total: DefaultDirectRateLimiter,
    per_server: DefaultKeyedRateLimiter<IpAddr>,
}

impl ProbeLimits {
    /// A zero in `settings` counts as one.
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let per_server = count(settings.per_server_per_minute);
        let burst = count(BURST).min(per_server);
        Self {
            concurrent: Arc::new(Semaphore::new(settings.max_concurrent.max(1))),
            total: RateLimiter::direct(Quota::per_second(count(settings.per_second))),
            per_server: RateLimiter::keyed(Quota::per_minute(per_server).allow_burst(burst)),
        }
    }

    /// A permit to probe `server` now, valid until it is dropped.
    pub(super) fn acquire(&self, server: IpAddr) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.concurrent).try_acquire_owned().ok()?;
        // The server's own limit first: a server over it must not use up the total.
        let allowed = self.per_server.check_key(&server).is_ok() && self.total.check().is_ok();
        allowed.then_some(permit)
    }

    /// Removes servers whose quota is full again.
    pub(super) fn maintain(&self) {
        self.per_server.retain_recent();
        self.per_server.shrink_to_fit();
    }
}

/// The shares of client networks.
#[derive(Debug)]
pub(super) struct ClientShares {
    queries: Arc<ConcurrencyShare>,
    probes: Arc<ConcurrencyShare>,
    recipients: Arc<ConcurrencyShare>,
    /// Probes per minute.
    probe_rate: DefaultKeyedRateLimiter<NetworkKey>,
    server_rate: DefaultKeyedRateLimiter<(NetworkKey, IpAddr)>,
}

impl ClientShares {
    pub(super) fn new(settings: &LookupSettings) -> Self {
        let probes = &settings.probes;
        let part = |all: usize| Arc::new(ConcurrencyShare::new(all / PARTS as usize));
        let per_minute = count(probes.per_client_per_minute);
        // A burst leaves the most of each second's probes to others.
        let burst = count(probes.per_second / PARTS).min(per_minute);
        let per_server = count(probes.per_server_per_minute / SERVER_PARTS);
        let server_burst = count(BURST / 2).min(per_server);
        Self {
            queries: part(MAX_IN_FLIGHT),
            probes: part(probes.max_concurrent),
            recipients: part(settings.max_pending_recipients),
            probe_rate: RateLimiter::keyed(Quota::per_minute(per_minute).allow_burst(burst)),
            server_rate: RateLimiter::keyed(
                Quota::per_minute(per_server).allow_burst(server_burst),
            ),
        }
    }

    /// A permit for `client` to start a query, valid until it is dropped. The gateway's own queries need none.
    ///
    /// # Errors
    /// The client's share is used up.
    pub(super) fn acquire(
        &self,
        lookup: &Lookup,
        client: Option<IpAddr>,
    ) -> Result<QueryPermit, ShareExceeded> {
        let Some(client) = client.map(NetworkKey::of) else {
            return Ok(QueryPermit { _shares: Vec::new() });
        };
        let mut shares = vec![self.queries.acquire(client)?];
        match lookup {
            Lookup::Connect(ip) | Lookup::Greet(ip) | Lookup::Callout(ip, _) => {
                shares.push(self.probes.acquire(client)?);
                // The server's part first: what it refuses is not taken from the client's.
                let server = ip.to_canonical();
                self.server_rate.check_key(&(client, server)).map_err(|_wait| ShareExceeded)?;
                self.probe_rate.check_key(&client).map_err(|_wait| ShareExceeded)?;
            }
            Lookup::Recipient(_) => shares.push(self.recipients.acquire(client)?),
            _ => {}
        }
        Ok(QueryPermit { _shares: shares })
    }

    /// Removes networks whose quota is full again.
    pub(super) fn maintain(&self) {
        self.probe_rate.retain_recent();
        self.probe_rate.shrink_to_fit();
        self.server_rate.retain_recent();
        self.server_rate.shrink_to_fit();
    }
}

/// A client network has used its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShareExceeded;

/// Counts a query towards the shares of its client until it is dropped.
#[derive(Debug)]
pub(super) struct QueryPermit {
    _shares: Vec<SharePermit>,
}

/// Concurrent use of one resource by each network.
#[derive(Debug)]
struct ConcurrencyShare {
    most: usize,
    used: Mutex<HashMap<NetworkKey, usize>>,
}

#[derive(Debug)]
struct SharePermit {
    share: Arc<ConcurrencyShare>,
    client: NetworkKey,
}

impl ConcurrencyShare {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), used: Mutex::default() }
    }

    fn acquire(self: &Arc<Self>, client: NetworkKey) -> Result<SharePermit, ShareExceeded> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let count = used.entry(client).or_default();
        if *count >= self.most {
            return Err(ShareExceeded);
        }
        *count += 1;
        Ok(SharePermit { share: Arc::clone(self), client })
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        let mut used = self.share.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                used.remove(&self.client);
            }
        }
    }
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn probe(n: u8) -> Lookup {
        Lookup::Connect(ip(&format!("203.0.113.{n}")))
    }

    #[test]
    fn one_network_leaves_probes_to_others() {
        let probes = ProbeSettings { per_client_per_minute: 120, ..ProbeSettings::default() };
        let settings = LookupSettings { probes, ..LookupSettings::default() };
        let (shares, limits) = (ClientShares::new(&settings), ProbeLimits::new(&probes));
        let mut held = Vec::new();
        // From all hosts of a /48, as fast as possible.
        for n in 0..=255 {
            let client = ip(&format!("2001:db8:66:{n:x}::{n:x}"));
            if let Ok(permit) = shares.acquire(&probe(n), Some(client)) {
                held.push((permit, limits.acquire(ip(&format!("203.0.113.{n}"))).unwrap()));
            }
        }
        assert_eq!(held.len(), 12, "an eighth of a second's probes");
        let other = Some(ip("2001:db8:67::1"));
        shares.acquire(&probe(1), other).unwrap();
        let _permit = limits.acquire(ip("198.51.100.1")).unwrap();
        // The gateway's own lookups have no share.
        shares.acquire(&probe(2), None).unwrap();
    }

    #[test]
    fn one_network_leaves_a_servers_probes_to_others() {
        let shares = ClientShares::new(&LookupSettings::default());
        let callout = |n| Lookup::Callout(ip("203.0.113.25"), format!("u{n}@a.example"));
        let (client, other) = (Some(ip("198.51.100.7")), Some(ip("192.0.2.7")));
        let allowed = (0..20).filter(|n| shares.acquire(&callout(*n), client).is_ok()).count();
        assert_eq!(allowed, 2, "half of the burst");
        shares.acquire(&callout(99), other).unwrap();
        // Its other probes are not affected.
        shares.acquire(&probe(9), client).unwrap();
    }

    #[test]
    fn concurrent_shares_are_given_back() {
        let settings = LookupSettings { max_pending_recipients: 24, ..LookupSettings::default() };
        let shares = ClientShares::new(&settings);
        let client = Some(ip("198.51.100.7"));
        let verify =
            |n: usize| shares.acquire(&Lookup::Recipient(format!("u{n}@a.example")), client);
        let held: Vec<_> = (0..10).map_while(|n| verify(n).ok()).collect();
        assert_eq!(held.len(), 3);
        drop(held);
        verify(11).unwrap();
    }
}
