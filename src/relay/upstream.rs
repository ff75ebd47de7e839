//! Connections to upstream: addresses raced in the manner of RFC 8305, health remembered.

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

use super::{UpstreamIdentity, UpstreamSettings};
use crate::addr::{ClientAddr, Family, OriginalDst, UpstreamAddr};
use crate::engine::{AttemptOutcome, Event};

/// How the configured upstreams answered.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Those that were tried.
    of: Mutex<HashMap<SocketAddr, Tried>>,
}

/// How one address answered.
#[derive(Clone, Copy, Debug)]
struct Tried {
    /// Since when it has answered as it did last.
    since: Instant,
    /// Until when it is tried last; `None` if it took the last connection.
    down: Option<Instant>,
    failed: Option<(AttemptOutcome, Instant)>,
}

/// How an upstream answered when it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamHealth {
    pub address: SocketAddr,
    /// Whether it took the last connection; `None` before the first.
    pub up: Option<bool>,
    /// For how long that has been so.
    pub lasts: Duration,
    /// What went wrong last, and how long ago.
    pub failed: Option<(AttemptOutcome, Duration)>,
}

impl Health {
    fn failed(&self, address: SocketAddr, outcome: AttemptOutcome, retry_after: Duration) {
        let now = Instant::now();
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = all.entry(address).or_insert(Tried { since: now, down: None, failed: None });
        if tried.down.is_none() {
            tried.since = now;
        }
        (tried.down, tried.failed) = (Some(now + retry_after), Some((outcome, now)));
    }

    fn answered(&self, address: SocketAddr) {
        let now = Instant::now();
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = all.entry(address).or_insert(Tried { since: now, down: None, failed: None });
        if tried.down.take().is_some() {
            tried.since = now;
        }
    }

    fn is_down(&self, address: SocketAddr, now: Instant) -> bool {
        let all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&address).and_then(|tried| tried.down).is_some_and(|until| until > now)
    }

    /// Whether every one of `addresses` failed lately; no addresses are never down.
    pub(super) fn all_down(&self, addresses: &[SocketAddr]) -> bool {
        let now = Instant::now();
        !addresses.is_empty() && addresses.iter().all(|&address| self.is_down(address, now))
    }

    /// How each of `addresses` answered.
    pub(super) fn told(&self, addresses: &[SocketAddr]) -> Vec<UpstreamHealth> {
        let now = Instant::now();
        let all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |&address: &SocketAddr| {
            let tried = all.get(&address);
            UpstreamHealth {
                address,
                up: tried.map(|tried| tried.down.is_none()),
                lasts: tried.map(|tried| now - tried.since).unwrap_or_default(),
                failed: tried.and_then(|tried| tried.failed).map(|(what, at)| (what, now - at)),
            }
        };
        addresses.iter().map(told).collect()
    }
}

/// The order of attempts: healthy addresses before those that failed lately, the client's family first, then alternating
/// families (RFC 8305 §4); within a family as configured.
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

/// Connects to upstream for one client, telling `report` of every attempt.
///
/// # Errors
/// No address took the connection in time.
pub(super) async fn connect(
    settings: &UpstreamSettings,
    health: &Health,
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
        // From the client's own address only its own family can be reached.
        .filter(|a| source.is_none() || Family::of(a.ip()) == client.family());

    // Original destinations are as many as there are; among one there is nothing to choose.
    let remembers = !settings.addresses.is_empty();
    let answered = |address| {
        if remembers {
            health.answered(address);
        }
    };
    let failed = |address, outcome| {
        if remembers {
            health.failed(address, outcome, settings.retry_after);
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
                            answered(address);
                            // They had a head start and are still silent; the next session shall not wait for them too.
                            let silent = unfinished.iter().take(earlier);
                            silent.for_each(|&silent| failed(silent, AttemptOutcome::Timeout));
                            report(Event::Attempt { family, outcome: AttemptOutcome::Connected });
                            return Some((stream, UpstreamAddr::new(address)));
                        }
                        Err(error) => {
                            let outcome = outcome_of(&error);
                            failed(address, outcome);
                            report(Event::Attempt { family, outcome });
                        }
                    }
                }
                () = sleep(settings.attempt_delay), if another.is_some() => {}
                else => return None,
            }
        }
    };
    let won = timeout(settings.connect_timeout, race).await;
    let outcome = if won.is_ok() { AttemptOutcome::Lost } else { AttemptOutcome::Timeout };
    for address in unfinished {
        if outcome == AttemptOutcome::Timeout {
            failed(address, outcome);
        }
        report(Event::Attempt { family: Family::of(address.ip()), outcome });
    }
    won.ok().flatten().ok_or(NoUpstream)
}

/// No upstream took the connection; each attempt was reported.
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

/// A socket for `address`, from the client's own address if `source` is given (IP_TRANSPARENT; the port is the kernel's
/// choice, since the client's own may collide in conntrack).
fn socket(address: SocketAddr, source: Option<IpAddr>, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    if let Some(mark) = mark {
        options.set_mark(mark)?;
    }
    if let Some(source) = source {
        // Linux hands SOL_IP options of an IPv6 TCP socket to the same code: this is IPV6_TRANSPARENT as well.
        options.set_ip_transparent_v4(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_first_then_the_clients_family_then_alternating() {
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
    fn a_failure_counts_for_its_time() {
        let health = Health::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let now = Instant::now();
        let fails = || health.failed(address, AttemptOutcome::Refused, Duration::from_secs(10));
        fails();
        assert!(health.all_down(&[address]));
        assert!(!health.is_down(address, now + Duration::from_secs(11)));
        assert!(!health.all_down(&[]));
        fails();
        health.answered(address);
        assert!(!health.all_down(&[address]));
    }

    #[test]
    fn what_is_told_of_an_upstream() {
        let health = Health::default();
        let address: SocketAddr = "192.0.2.1:25".parse().unwrap();
        let told = || {
            let one = health.told(&[address])[0];
            (one.up, one.failed.map(|(what, _)| what))
        };
        assert_eq!(told(), (None, None));
        health.answered(address);
        assert_eq!(told(), (Some(true), None));
        // Its time is over at once: it is tried again, and still it did not answer last.
        health.failed(address, AttemptOutcome::Timeout, Duration::ZERO);
        assert!(!health.all_down(&[address]));
        assert_eq!(told(), (Some(false), Some(AttemptOutcome::Timeout)));
        let lasts = health.told(&[address])[0].lasts;
        health.failed(address, AttemptOutcome::Refused, Duration::ZERO);
        assert_eq!(told(), (Some(false), Some(AttemptOutcome::Refused)));
        assert!(health.told(&[address])[0].lasts >= lasts, "it was down before");
        health.answered(address);
        assert_eq!(told(), (Some(true), Some(AttemptOutcome::Refused)));
    }
}
