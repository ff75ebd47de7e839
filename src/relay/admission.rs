//! Limits that span sessions: open sessions in all and per client, and the rate of new sessions per client.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::settings::RelayLimits;
use crate::addr::{ClientAddr, PrefixKey};
use crate::engine::Refusal;

/// Counts of the open sessions. They survive a reload; the rate limiter is replaced by it.
#[derive(Debug, Default)]
pub(super) struct Admission {
    sessions: AtomicUsize,
    per_client: Mutex<HashMap<PrefixKey, usize>>,
}

/// Limits the rate at which each client opens sessions.
pub(super) struct RateLimit(Option<DefaultKeyedRateLimiter<PrefixKey>>);

impl RateLimit {
    pub(super) fn new(per_minute: Option<u32>) -> Self {
        let quota = per_minute.and_then(NonZeroU32::new).map(Quota::per_minute);
        Self(quota.map(RateLimiter::keyed))
    }

    /// Removes clients whose quota is full again.
    pub(super) fn forget_idle(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    fn admits(&self, key: PrefixKey) -> bool {
        self.0.as_ref().is_none_or(|limiter| limiter.check_key(&key).is_ok())
    }
}

/// Counts one session until it is dropped.
#[derive(Debug)]
pub(super) struct SessionPermit {
    admission: Arc<Admission>,
    /// Whether it still counts towards `limits.sessions`: a refused session, which goes on until its last reply is read,
    /// does not.
    counted: bool,
    /// Set once the session is counted per client.
    key: Option<PrefixKey>,
}

impl Admission {
    /// Counts a session, also one over the limit: its client still gets a reply.
    pub(super) fn acquire(self: &Arc<Self>) -> SessionPermit {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        SessionPermit { admission: Arc::clone(self), counted: true, key: None }
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
        let key = PrefixKey::of(client.ip());
        let mut per_client =
            self.admission.per_client.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_client.entry(key).or_default();
        if *count >= limits.sessions_per_client {
            return Err(Refusal::LimitClientSessions);
        }
        *count += 1;
        self.key = Some(key);
        drop(per_client);
        if rate.admits(key) { Ok(()) } else { Err(Refusal::LimitClientRate) }
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.admission.sessions.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(key) = self.key.take() else { return };
        let mut per_client =
            self.admission.per_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = per_client.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                per_client.remove(&key);
            }
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
            new_sessions_per_client_per_minute: None,
            session: SessionLimits::default(),
        }
    }

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::new(format!("{ip}:1000").parse().unwrap())
    }

    #[test]
    fn permits_are_counted_and_released() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(2, 10), RateLimit::new(None));
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
        assert!(admission.per_client.lock().unwrap().is_empty());
    }

    #[test]
    fn ipv6_clients_are_counted_by_64() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(100, 1), RateLimit::new(None));
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
    fn the_rate_limit_allows_a_burst_of_one_quota() {
        let admission = Arc::new(Admission::default());
        let (limits, rate) = (limits(100, 100), RateLimit::new(Some(2)));
        let mut permits: Vec<SessionPermit> = (0..4).map(|_| admission.acquire()).collect();
        let admitted: Vec<bool> = permits
            .iter_mut()
            .map(|permit| permit.admit(client("192.0.2.1"), &limits, &rate).is_ok())
            .collect();
        assert_eq!(admitted, [true, true, false, false]);
    }
}
