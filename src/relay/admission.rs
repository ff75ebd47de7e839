//! Limits that span sessions: open sessions in all, per client and per IPv6 network, and the rate of new sessions per client
//! and network.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::settings::RelayLimits;
use crate::addr::{ClientAddr, Family, NetworkKey, PrefixKey};
use crate::engine::Refusal;

/// Counts of the open sessions. They survive a reload; the rate limiter is replaced by it.
#[derive(Debug, Default)]
pub(super) struct Admission {
    sessions: AtomicUsize,
    open: Mutex<OpenSessions>,
}

/// Clients and networks without a session are missing.
#[derive(Debug, Default)]
struct OpenSessions {
    per_client: HashMap<PrefixKey, usize>,
    per_network: HashMap<NetworkKey, usize>,
}

/// Whose sessions count together.
#[derive(Clone, Copy, Debug)]
struct LimitKeys {
    client: PrefixKey,
    /// `None` over IPv4: neighbours in a /24 are often strangers.
    network: Option<NetworkKey>,
}

impl LimitKeys {
    fn of(client: ClientAddr) -> Self {
        let ip = client.ip();
        let network = (client.family() == Family::Ipv6).then(|| NetworkKey::of(ip));
        Self { client: PrefixKey::of(ip), network }
    }
}

/// Limits the rate at which each client, and each IPv6 network, opens sessions.
pub(super) struct RateLimit {
    per_client: Option<DefaultKeyedRateLimiter<PrefixKey>>,
    per_network: Option<DefaultKeyedRateLimiter<NetworkKey>>,
}

fn limiter<K: Hash + Eq + Clone>(per_minute: Option<u32>) -> Option<DefaultKeyedRateLimiter<K>> {
    let quota = per_minute.and_then(NonZeroU32::new).map(Quota::per_minute);
    quota.map(RateLimiter::keyed)
}

impl RateLimit {
    pub(super) fn new(limits: &RelayLimits) -> Self {
        Self {
            per_client: limiter(limits.new_sessions_per_client_per_minute),
            per_network: limiter(limits.new_sessions_per_network_per_minute),
        }
    }

    /// Removes clients and networks whose quota is full again.
    pub(super) fn forget_idle(&self) {
        if let Some(limiter) = &self.per_client {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        if let Some(limiter) = &self.per_network {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    fn check(&self, keys: LimitKeys) -> Result<(), Refusal> {
        if self.per_client.as_ref().is_some_and(|limit| limit.check_key(&keys.client).is_err()) {
            return Err(Refusal::LimitClientRate);
        }
        let network = self.per_network.as_ref().zip(keys.network);
        if network.is_some_and(|(limit, network)| limit.check_key(&network).is_err()) {
            return Err(Refusal::LimitNetworkRate);
        }
        Ok(())
    }
}

/// Counts one session until it is dropped.
#[derive(Debug)]
pub(super) struct SessionPermit {
    admission: Arc<Admission>,
    /// Whether it still counts towards `limits.sessions`: a refused session, which goes on until its last reply is read,
    /// does not.
    counted: bool,
    /// Set once the session is counted per client and network.
    keys: Option<LimitKeys>,
}

impl Admission {
    /// Counts a session, also one over the limit: its client still gets a reply.
    pub(super) fn acquire(self: &Arc<Self>) -> SessionPermit {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        SessionPermit { admission: Arc::clone(self), counted: true, keys: None }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether more than `percent` of `limit` sessions are open.
    pub(super) fn is_stressed(&self, limit: usize, percent: u8) -> bool {
        self.sessions().saturating_mul(100) > limit.saturating_mul(usize::from(percent))
    }
}

impl SessionPermit {
    /// Checks the session against the limits. One that exceeds a limit stops counting at once.
    ///
    /// # Errors
    /// The limit that is exceeded.
    pub(super) fn admit(
        &mut self,
        client: ClientAddr,
        limits: &RelayLimits,
        rate: &RateLimit,
    ) -> Result<(), Refusal> {
        let admitted = self.check_limits(client, limits, rate);
        if admitted.is_err() {
            self.release();
        }
        admitted
    }

    fn check_limits(
        &mut self,
        client: ClientAddr,
        limits: &RelayLimits,
        rate: &RateLimit,
    ) -> Result<(), Refusal> {
        if self.admission.sessions() > limits.sessions {
            return Err(Refusal::LimitSessions);
        }
        let keys = LimitKeys::of(client);
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = open.per_client.get(&keys.client).copied().unwrap_or_default();
        if of_client >= limits.sessions_per_client {
            return Err(Refusal::LimitClientSessions);
        }
        if let Some(network) = keys.network {
            let of_network = open.per_network.entry(network).or_default();
            if *of_network >= limits.sessions_per_network {
                return Err(Refusal::LimitNetworkSessions);
            }
            *of_network += 1;
        }
        open.per_client.insert(keys.client, of_client + 1);
        self.keys = Some(keys);
        drop(open);
        rate.check(keys)
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.admission.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(keys) = self.keys.take() else { return };
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        decrement(&mut open.per_client, keys.client);
        if let Some(network) = keys.network {
            decrement(&mut open.per_network, network);
        }
    }
}

fn decrement<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Limits as SessionLimits;

    fn limits(sessions: usize, sessions_per_client: usize) -> RelayLimits {
        RelayLimits {
            sessions,
            sessions_per_client,
            sessions_per_network: 2,
            new_sessions_per_client_per_minute: None,
            new_sessions_per_network_per_minute: None,
            session: SessionLimits::default(),
        }
    }

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::new(format!("{ip}:1000").parse().unwrap())
    }

    #[test]
    fn permits_are_counted_and_released() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(2, 10), RateLimit::new(&limits(1, 1)));
        let mut first = admission.acquire();
        let mut second = admission.acquire();
        let mut third = admission.acquire();
        assert_eq!(first.admit(client("192.0.2.1"), &limits, &rate), Err(Refusal::LimitSessions));
        assert_eq!(admission.sessions(), 2, "a refused session does not count");
        drop(first);
        assert_eq!(second.admit(client("192.0.2.1"), &limits, &rate), Ok(()));
        assert_eq!(third.admit(client("192.0.2.2"), &limits, &rate), Ok(()));
        drop((second, third));
        assert_eq!(admission.sessions(), 0);
        let open = admission.open.lock().unwrap();
        assert!(open.per_client.is_empty() && open.per_network.is_empty());
    }

    #[test]
    fn ipv6_clients_are_counted_by_64() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(100, 1), RateLimit::new(&limits(1, 1)));
        let (mut a, mut b, mut c) = (admission.acquire(), admission.acquire(), admission.acquire());
        let admit = |permit: &mut SessionPermit, ip: &str| {
            let ip = format!("[{ip}]");
            permit.admit(client(&ip), &limits, &rate)
        };
        assert_eq!(admit(&mut a, "2001:db8::1"), Ok(()));
        assert_eq!(admit(&mut b, "2001:db8::2"), Err(Refusal::LimitClientSessions));
        assert_eq!(admit(&mut c, "2001:db8:0:1::1"), Ok(()));
    }

    #[test]
    fn ipv6_clients_are_counted_by_48_too() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(100, 1), RateLimit::new(&limits(1, 1)));
        let admit = |ip: &str| {
            let mut permit = admission.acquire();
            let admitted = permit.admit(client(ip), &limits, &rate);
            (permit, admitted)
        };
        let held: Vec<_> = ["[2001:db8:0:1::1]", "[2001:db8:0:2::1]"].map(admit).into();
        assert!(held.iter().all(|(_, admitted)| admitted.is_ok()));
        assert_eq!(admit("[2001:db8:0:3::1]").1, Err(Refusal::LimitNetworkSessions));
        assert_eq!(admit("[2001:db8:1:1::1]").1, Ok(()), "another network");
        for number in 1..=3 {
            assert_eq!(admit(&format!("192.0.2.{number}")).1, Ok(()), "IPv4 has no such limit");
        }
        drop(held);
        assert_eq!(admit("[2001:db8:0:3::1]").1, Ok(()));
        assert!(admission.open.lock().unwrap().per_network.is_empty());
    }

    #[test]
    fn the_rate_of_an_ipv6_network_is_limited() {
        let admission = Arc::new(Admission::default());
        let limits =
            RelayLimits { new_sessions_per_network_per_minute: Some(2), ..limits(100, 100) };
        let rate = RateLimit::new(&limits);
        let admit = |ip: &str| admission.acquire().admit(client(ip), &limits, &rate).is_ok();
        let admitted = ["1", "2", "3"].map(|net| admit(&format!("[2001:db8:0:{net}::1]")));
        assert_eq!(admitted, [true, true, false]);
        assert!(admit("[2001:db8:1::1]") && admit("192.0.2.1"));
    }

    #[test]
    fn the_rate_limit_allows_a_burst_of_one_quota() {
        let admission = Arc::new(Admission::default());
        let limits =
            RelayLimits { new_sessions_per_client_per_minute: Some(2), ..limits(100, 100) };
        let rate = RateLimit::new(&limits);
        let mut permits: Vec<SessionPermit> = (0..4).map(|_| admission.acquire()).collect();
        let admitted: Vec<bool> = permits
            .iter_mut()
            .map(|permit| permit.admit(client("192.0.2.1"), &limits, &rate).is_ok())
            .collect();
        assert_eq!(admitted, [true, true, false, false]);
    }
}
