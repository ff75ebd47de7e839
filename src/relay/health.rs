//! Health of the configured upstreams, as connections and active checks show it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::target::UpstreamSocket;
use crate::engine::AttemptOutcome;

/// State of the configured upstreams.
#[derive(Debug, Default)]
pub(super) struct HealthTable {
    /// Addresses without an attempt are missing.
    entries: Mutex<HashMap<HealthKey, HealthEntry>>,
}

/// An upstream that is up or down by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HealthKey {
    Address(SocketAddr),
    Socket(UpstreamSocket),
}

impl From<SocketAddr> for HealthKey {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&UpstreamSocket> for HealthKey {
    fn from(socket: &UpstreamSocket) -> Self {
        Self::Socket(socket.clone())
    }
}

#[derive(Clone, Copy, Debug)]
struct HealthEntry {
    /// When the address last went up or down.
    since: Instant,
    /// Until when it is tried last; `None` if the last attempt succeeded.
    down_until: Option<Instant>,
    last_failure: Option<(AttemptOutcome, Instant)>,
    /// The last active check failed: a connection alone does not disprove it.
    failed_check: bool,
}

/// State of one upstream address or Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHealth {
    /// `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The configured host name that has the address, such as `postfix:25`, or the Unix socket: `unix:/run/smtpd`.
    pub name: Option<Arc<str>>,
    /// Whether the last attempt succeeded; `None` before the first.
    pub up: Option<bool>,
    /// For how long `up` has had this value.
    pub lasts: Duration,
    /// The last failure, and how long ago it was.
    pub failed: Option<(AttemptOutcome, Duration)>,
}

/// The address, behind the name if there is one: `postfix:25 (192.0.2.1:25)`.
impl fmt::Display for UpstreamHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.address) {
            (Some(name), Some(address)) => write!(f, "{name} ({address})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(address)) => address.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

impl HealthTable {
    pub(super) fn record_failure(
        &self,
        upstream: impl Into<HealthKey>,
        outcome: AttemptOutcome,
        retry_after: Duration,
    ) {
        self.update(upstream.into(), |entry, now| {
            if entry.down_until.is_none() {
                entry.since = now;
            }
            entry.down_until = Some(now + retry_after);
            entry.last_failure = Some((outcome, now));
        });
    }

    pub(super) fn record_success(&self, upstream: impl Into<HealthKey>) {
        self.update(upstream.into(), |entry, now| {
            if !entry.failed_check && entry.down_until.take().is_some() {
                entry.since = now;
            }
        });
    }

    /// The result of an active check; the next one follows within `valid`.
    pub(super) fn record_check(
        &self,
        upstream: impl Into<HealthKey>,
        result: Result<(), AttemptOutcome>,
        valid: Duration,
    ) {
        let upstream = upstream.into();
        self.update(upstream.clone(), |entry, _| entry.failed_check = result.is_err());
        match result {
            Ok(()) => self.record_success(upstream),
            Err(outcome) => self.record_failure(upstream, outcome, valid),
        }
    }

    fn update(&self, upstream: HealthKey, change: impl FnOnce(&mut HealthEntry, Instant)) {
        let now = Instant::now();
        let mut all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let new =
            HealthEntry { since: now, down_until: None, last_failure: None, failed_check: false };
        change(all.entry(upstream).or_insert(new), now);
    }

    pub(super) fn is_down(&self, upstream: impl Into<HealthKey>, now: Instant) -> bool {
        let all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&upstream.into())
            .and_then(|entry| entry.down_until)
            .is_some_and(|until| until > now)
    }

    /// Whether each of `addresses` failed lately; false without addresses.
    pub(super) fn all_down(&self, addresses: &[SocketAddr]) -> bool {
        let now = Instant::now();
        !addresses.is_empty() && addresses.iter().all(|&address| self.is_down(address, now))
    }

    /// Forgets the addresses that are not `used` any more: those of host names change.
    pub(super) fn retain(&self, used: &[SocketAddr]) {
        let mut all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // A reload that removes a socket is rare.
        all.retain(|upstream, _| match upstream {
            HealthKey::Address(address) => used.contains(address),
            HealthKey::Socket(_) => true,
        });
    }

    /// State of each of `addresses`, without names.
    pub(super) fn report(&self, addresses: &[SocketAddr]) -> Vec<UpstreamHealth> {
        let report = |&address: &SocketAddr| UpstreamHealth {
            address: Some(address),
            ..self.report_of(&address.into())
        };
        addresses.iter().map(report).collect()
    }

    /// State of a Unix socket.
    pub(super) fn report_socket(&self, socket: &UpstreamSocket) -> UpstreamHealth {
        let name = Some(socket.to_string().into());
        UpstreamHealth { name, ..self.report_of(&socket.into()) }
    }

    fn report_of(&self, upstream: &HealthKey) -> UpstreamHealth {
        let now = Instant::now();
        let all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.get(upstream);
        UpstreamHealth {
            address: None,
            name: None,
            up: entry.map(|entry| entry.down_until.is_none()),
            lasts: entry.map(|entry| now - entry.since).unwrap_or_default(),
            failed: entry
                .and_then(|entry| entry.last_failure)
                .map(|(outcome, at)| (outcome, now - at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_down_for_retry_after() {
        let health = HealthTable::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let now = Instant::now();
        let fails =
            || health.record_failure(address, AttemptOutcome::Refused, Duration::from_secs(10));
        fails();
        assert!(health.all_down(&[address]));
        assert!(!health.is_down(address, now + Duration::from_secs(11)));
        assert!(!health.all_down(&[]));
        fails();
        health.record_success(address);
        assert!(!health.all_down(&[address]));
    }

    #[test]
    fn a_connection_does_not_disprove_a_failed_check() {
        let health = HealthTable::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let valid = Duration::from_secs(60);
        health.record_check(address, Err(AttemptOutcome::Greeting), valid);
        health.record_success(address);
        assert_eq!(health.report(&[address])[0].up, Some(false));
        assert!(health.all_down(&[address]));
        health.record_check(address, Ok(()), valid);
        assert_eq!(health.report(&[address])[0].up, Some(true));
    }

    #[test]
    fn health_reports_state_and_last_failure() {
        let health = HealthTable::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let report = || {
            let one = &health.report(&[address])[0];
            (one.up, one.failed.map(|(outcome, _)| outcome))
        };
        assert_eq!(report(), (None, None));
        health.record_success(address);
        assert_eq!(report(), (Some(true), None));
        // With retry_after = 0 it is tried in order again, but it is still not up.
        health.record_failure(address, AttemptOutcome::Timeout, Duration::ZERO);
        assert!(!health.all_down(&[address]));
        assert_eq!(report(), (Some(false), Some(AttemptOutcome::Timeout)));
        let lasts = health.report(&[address])[0].lasts;
        health.record_failure(address, AttemptOutcome::Refused, Duration::ZERO);
        assert_eq!(report(), (Some(false), Some(AttemptOutcome::Refused)));
        assert!(health.report(&[address])[0].lasts >= lasts, "it was down before");
        health.record_success(address);
        assert_eq!(report(), (Some(true), Some(AttemptOutcome::Refused)));
    }
}
