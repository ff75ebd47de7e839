//! Connections to upstream: addresses are raced (RFC 8305), and their health is recorded.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::settings::{UpstreamIdentity, UpstreamSettings};
use crate::addr::{ClientAddr, Family, OriginalDst, UpstreamAddr};
use crate::engine::{AttemptOutcome, Event};

/// State of the configured upstreams.
#[derive(Debug, Default)]
pub(super) struct HealthTable {
    /// Addresses without an attempt are missing.
    entries: Mutex<HashMap<SocketAddr, HealthEntry>>,
}

#[derive(Clone, Copy, Debug)]
struct HealthEntry {
    /// When the address last went up or down.
    since: Instant,
    /// Until when it is tried last; `None` if the last attempt succeeded.
    down_until: Option<Instant>,
    last_failure: Option<(AttemptOutcome, Instant)>,
}

/// State of one upstream address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamHealth {
    pub address: SocketAddr,
    /// Whether the last attempt succeeded; `None` before the first.
    pub up: Option<bool>,
    /// For how long `up` has had this value.
    pub lasts: Duration,
    /// The last failure, and how long ago it was.
    pub failed: Option<(AttemptOutcome, Duration)>,
}

impl HealthTable {
    fn record_failure(&self, address: SocketAddr, outcome: AttemptOutcome, retry_after: Duration) {
        self.update(address, |entry, now| {
            if entry.down_until.is_none() {
                entry.since = now;
            }
            entry.down_until = Some(now + retry_after);
            entry.last_failure = Some((outcome, now));
        });
    }

    fn record_success(&self, address: SocketAddr) {
        self.update(address, |entry, now| {
            if entry.down_until.take().is_some() {
                entry.since = now;
            }
        });
    }

    fn update(&self, address: SocketAddr, change: impl FnOnce(&mut HealthEntry, Instant)) {
        let now = Instant::now();
        let mut all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let new = HealthEntry { since: now, down_until: None, last_failure: None };
        change(all.entry(address).or_insert(new), now);
    }

    fn is_down(&self, address: SocketAddr, now: Instant) -> bool {
        let all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&address).and_then(|entry| entry.down_until).is_some_and(|until| until > now)
    }

    /// Whether each of `addresses` failed lately; false without addresses.
    pub(super) fn all_down(&self, addresses: &[SocketAddr]) -> bool {
        let now = Instant::now();
        !addresses.is_empty() && addresses.iter().all(|&address| self.is_down(address, now))
    }

    /// State of each of `addresses`.
    pub(super) fn report(&self, addresses: &[SocketAddr]) -> Vec<UpstreamHealth> {
        let now = Instant::now();
        let all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |&address: &SocketAddr| {
            let entry = all.get(&address);
            UpstreamHealth {
                address,
                up: entry.map(|entry| entry.down_until.is_none()),
                lasts: entry.map(|entry| now - entry.since).unwrap_or_default(),
                failed: entry
                    .and_then(|entry| entry.last_failure)
                    .map(|(outcome, at)| (outcome, now - at)),
            }
        };
        addresses.iter().map(report).collect()
    }
}

/// The order of attempts: healthy addresses before those that failed lately; the client's family first, then alternating
/// (RFC 8305 §4); within a family in the configured order.
fn order(
    addresses: &[SocketAddr],
    family: Family,
    is_down: impl Fn(SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let of = |down: bool, same: bool| {
        addresses
            .iter()
            .copied()
            .filter(|&a| is_down(a) == down && (Family::of(a.ip()) == family) == same)
            .collect::<Vec<_>>()
    };
    let mut ordered = Vec::with_capacity(addresses.len());
    for down in [false, true] {
        let (mut same, mut other) = (of(down, true).into_iter(), of(down, false).into_iter());
        loop {
            let (a, b) = (same.next(), other.next());
            if a.is_none() && b.is_none() {
                break;
            }
            ordered.extend(a.into_iter().chain(b));
        }
    }
    ordered
}

/// Connects to upstream for one client; `report` receives the outcome of every attempt.
///
/// # Errors
/// No address accepted the connection in time.
pub(super) async fn connect(
    settings: &UpstreamSettings,
    health: &HealthTable,
    client: ClientAddr,
    destination: OriginalDst,
    mut report: impl FnMut(Event),
) -> Result<(TcpStream, UpstreamAddr), NoUpstream> {
    let original = [destination.socket()];
    let addresses: &[SocketAddr] =
        if settings.addresses.is_empty() { &original } else { &settings.addresses };
    let source = (settings.identity == UpstreamIdentity::Transparent).then(|| client.ip());
    let now = Instant::now();
    let mut waiting = order(addresses, client.family(), |a| health.is_down(a, now))
        .into_iter()
        // The client's own address reaches only its own family.
        .filter(|a| source.is_none() || Family::of(a.ip()) == client.family());

    // There may be any number of original destinations, and with one address there is no choice.
    let records_health = !settings.addresses.is_empty();
    let on_success = |address| {
        if records_health {
            health.record_success(address);
        }
    };
    let on_failure = |address, outcome| {
        if records_health {
            health.record_failure(address, outcome, settings.retry_after);
        }
    };
    let mut unfinished = Vec::new();
    let race = async {
        let mut attempts = FuturesUnordered::new();
        loop {
            let another = waiting.next();
            unfinished.extend(another);
            attempts.extend(another.map(async |address| {
                let connecting =
                    async { socket(address, source, settings.mark)?.connect(address).await };
                (address, connecting.await)
            }));
            tokio::select! {
                biased;
                Some((address, result)) = attempts.next() => {
                    let earlier = unfinished.iter().take_while(|&&other| other != address).count();
                    unfinished.retain(|&other| other != address);
                    let family = Family::of(address.ip());
                    match result {
                        Ok(stream) => {
                            on_success(address);
                            // Earlier attempts without a response: the next session does not try them first.
                            let slower = unfinished.iter().take(earlier);
                            slower.for_each(|&slower| on_failure(slower, AttemptOutcome::Timeout));
                            report(Event::Attempt { family, outcome: AttemptOutcome::Connected });
                            return Some((stream, UpstreamAddr::new(address)));
                        }
                        Err(error) => {
                            let outcome = outcome_of(&error);
                            on_failure(address, outcome);
                            report(Event::Attempt { family, outcome });
                        }
                    }
                }
                () = sleep(settings.attempt_delay), if another.is_some() => {}
                else => return None,
            }
        }
    };
    let winner = timeout(settings.connect_timeout, race).await;
    let outcome = if winner.is_ok() { AttemptOutcome::Lost } else { AttemptOutcome::Timeout };
    for address in unfinished {
        if outcome == AttemptOutcome::Timeout {
            on_failure(address, outcome);
        }
        report(Event::Attempt { family: Family::of(address.ip()), outcome });
    }
    winner.ok().flatten().ok_or(NoUpstream)
}

/// No upstream accepted the connection; each attempt was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoUpstream;

fn outcome_of(error: &io::Error) -> AttemptOutcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            AttemptOutcome::Refused
        }
        io::ErrorKind::TimedOut => AttemptOutcome::Timeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            AttemptOutcome::Unreachable
        }
        _ => AttemptOutcome::Error,
    }
}

/// A socket for `address`, bound to `source` if given (IP_TRANSPARENT). The kernel chooses the port: the client's own may
/// collide in conntrack.
fn socket(address: SocketAddr, source: Option<IpAddr>, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    if let Some(mark) = mark {
        options.set_mark(mark)?;
    }
    if let Some(source) = source {
        // On an IPv6 TCP socket Linux handles SOL_IP options by the same code: this sets IPV6_TRANSPARENT as well.
        options.set_ip_transparent_v4(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_prefer_healthy_addresses_and_the_clients_family() {
        let addresses: Vec<SocketAddr> =
            ["192.0.2.1:25", "192.0.2.2:25", "[2001:db8::1]:25", "[2001:db8::2]:25"]
                .map(|a| a.parse().unwrap())
                .to_vec();
        let ordered = |family, down: &[usize]| {
            order(&addresses, family, |a| down.iter().any(|&d| addresses[d] == a))
                .into_iter()
                .map(|a| addresses.iter().position(|&b| b == a).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(ordered(Family::Ipv6, &[]), [2, 0, 3, 1]);
        assert_eq!(ordered(Family::Ipv4, &[]), [0, 2, 1, 3]);
        assert_eq!(ordered(Family::Ipv6, &[2]), [3, 0, 1, 2]);
        assert_eq!(ordered(Family::Ipv6, &[2, 3]), [0, 1, 2, 3]);
    }

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
    fn health_reports_state_and_last_failure() {
        let health = HealthTable::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let report = || {
            let one = health.report(&[address])[0];
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
