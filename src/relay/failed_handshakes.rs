//! Clients whose TLS handshakes fail again and again: the owner of the state of `tls.after_failures`.
//!
//! A client that can do none of the versions or algorithms offered, and does not try without TLS by itself, could never deliver.
//! Without STARTTLS in the EHLO reply it falls back to plaintext. Only for it, and not for long: it may be upgraded, and others
//! may send from its address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::addr::{ClientAddr, PrefixKey};

/// Failures in a row from which on STARTTLS is hidden.
const HIDING_FAILURES: u32 = 3;
/// Longest time between two of them. Senders try again after half an hour or more (RFC 5321 §4.5.4.1), ever later.
const WITHIN: Duration = Duration::from_secs(4 * 3600);
/// How long STARTTLS is hidden. Every further failure begins it again.
const HIDDEN: Duration = Duration::from_secs(3600);
/// More clients are not remembered, and are offered STARTTLS.
const MOST_CLIENTS: usize = 16_384;

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn is_relevant(self, now: Instant) -> bool {
        now < self.last + WITHIN
    }
}

/// Survives a reload. By IPv4 address or IPv6 /64, as other state of clients.
#[derive(Debug, Default)]
pub(super) struct FailedHandshakes(Mutex<HashMap<PrefixKey, Failures>>);

impl FailedHandshakes {
    /// A handshake failed as that of an old client does. Returns the number of failures in a row if STARTTLS is hidden from now
    /// on, and was not before.
    pub(super) fn on_failure(&self, client: ClientAddr, now: Instant) -> Option<u32> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = clients.len() >= MOST_CLIENTS;
        match clients.entry(PrefixKey::of(client.ip())) {
            Entry::Occupied(mut known) => {
                let before = *known.get();
                let count =
                    if before.is_relevant(now) { before.count.saturating_add(1) } else { 1 };
                known.insert(Failures { count, last: now });
                let was_hidden = is_hidden(before, now);
                (count >= HIDING_FAILURES && !was_hidden).then_some(count)
            }
            Entry::Vacant(new) => {
                if !is_full {
                    new.insert(Failures { count: 1, last: now });
                }
                None
            }
        }
    }

    /// A handshake was complete: this client, or another one at its address, can do it.
    pub(super) fn on_success(&self, client: ClientAddr) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.remove(&PrefixKey::of(client.ip()));
    }

    /// Whether the client is offered no STARTTLS.
    pub(super) fn hide_from(&self, client: ClientAddr, now: Instant) -> bool {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(&PrefixKey::of(client.ip())).is_some_and(|&failures| is_hidden(failures, now))
    }

    /// Removes clients whose failures do not count any more.
    pub(super) fn forget_old(&self, now: Instant) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, failures| failures.is_relevant(now));
        clients.shrink_to_fit();
    }
}

fn is_hidden(failures: Failures, now: Instant) -> bool {
    failures.count >= HIDING_FAILURES && now < failures.last + HIDDEN
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::new(format!("{ip}:1000").parse().unwrap())
    }

    #[test]
    fn the_third_failure_hides_starttls_for_an_hour() {
        let (failed, start) = (FailedHandshakes::default(), Instant::now());
        let old = client("192.0.2.1");
        assert_eq!(failed.on_failure(old, start), None);
        assert_eq!(failed.on_failure(old, start + 30 * MINUTE), None);
        assert!(!failed.hide_from(old, start + 30 * MINUTE));
        let third = start + 60 * MINUTE;
        assert_eq!(failed.on_failure(old, third), Some(3));
        assert!(failed.hide_from(old, third + 59 * MINUTE));
        assert!(!failed.hide_from(client("192.0.2.2"), third));
        assert!(!failed.hide_from(old, third + 60 * MINUTE));
    }

    /// It had its chance after the hour: one more failure is enough.
    #[test]
    fn a_failure_after_the_hour_hides_it_again() {
        let (failed, start) = (FailedHandshakes::default(), Instant::now());
        let old = client("192.0.2.1");
        for _ in 0..3 {
            failed.on_failure(old, start);
        }
        assert_eq!(failed.on_failure(old, start + MINUTE), None, "hidden already");
        assert_eq!(failed.on_failure(old, start + 90 * MINUTE), Some(5));
        assert!(failed.hide_from(old, start + 100 * MINUTE));
    }

    #[test]
    fn a_complete_handshake_or_a_long_time_in_between_begins_anew() {
        let (failed, start) = (FailedHandshakes::default(), Instant::now());
        let (upgraded, rare) = (client("192.0.2.1"), client("192.0.2.2"));
        failed.on_failure(upgraded, start);
        failed.on_failure(upgraded, start);
        failed.on_success(upgraded);
        assert_eq!(failed.on_failure(upgraded, start), None);
        for n in 0..5 {
            assert_eq!(failed.on_failure(rare, start + n * WITHIN), None);
        }
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        let (failed, now) = (FailedHandshakes::default(), Instant::now());
        for ip in ["[2001:db8::1]", "[2001:db8::2]", "[2001:db8::3]"] {
            failed.on_failure(client(ip), now);
        }
        assert!(failed.hide_from(client("[2001:db8::4]"), now));
        assert!(!failed.hide_from(client("[2001:db8:0:1::1]"), now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (failed, now) = (FailedHandshakes::default(), Instant::now());
        let numbered = |n: u32| client(&format!("{}", std::net::Ipv4Addr::from(n)));
        for n in 0..20_000 {
            failed.on_failure(numbered(n), now);
        }
        let count = |failed: &FailedHandshakes| failed.0.lock().unwrap().len();
        assert_eq!(count(&failed), MOST_CLIENTS);
        failed.on_failure(numbered(0), now + MINUTE);
        failed.forget_old(now + WITHIN);
        assert_eq!(count(&failed), 1);
    }
}
