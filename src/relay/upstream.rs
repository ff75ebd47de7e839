//! Connections to upstream: addresses are raced (RFC 8305).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::client_source;
use super::health::HealthTable;
use super::settings::{UpstreamIdentity, UpstreamSettings};
use super::upstream_targets::UpstreamTargets;
use crate::addr::{ClientAddr, Family, OriginalDst, UpstreamAddr};
use crate::engine::{AttemptOutcome, Event, UpstreamFailure};

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

/// The upstream of one session.
#[derive(Clone, Copy)]
pub(super) struct UpstreamChoice<'a> {
    pub(super) settings: &'a UpstreamSettings,
    pub(super) targets: &'a UpstreamTargets,
    /// Firewall mark of the sockets.
    pub(super) mark: Option<u32>,
}

/// Connects to upstream for one client; `report` receives the outcome of every attempt. Once every known address was tried, host
/// names are looked up again, and their new addresses join the race.
///
/// # Errors
/// No address accepted the connection in time; each with its error.
pub(super) async fn connect(
    UpstreamChoice { settings, targets, mark }: UpstreamChoice<'_>,
    health: &HealthTable,
    client: ClientAddr,
    destination: OriginalDst,
    mut report: impl FnMut(Event),
) -> Result<(TcpStream, UpstreamAddr), UpstreamFailure> {
    let original = [destination.socket()];
    let rounds = targets.rounds();
    let known = targets.addresses();
    let addresses: &[SocketAddr] = if targets.is_destination() { &original } else { &known };
    let source = (settings.identity == UpstreamIdentity::Transparent).then(|| client.ip());
    let in_order = |addresses: &[SocketAddr]| {
        let now = Instant::now();
        let mut ordered = order(addresses, client.family(), |a| health.is_down(a, now));
        // The client's own address reaches only its own family.
        ordered.retain(|a| source.is_none() || Family::of(a.ip()) == client.family());
        ordered.into_iter()
    };
    let mut waiting = in_order(addresses);

    // There may be any number of original destinations, and with one address there is no choice.
    let records_health = !targets.is_destination();
    let on_success = |address| {
        if records_health {
            health.record_success(address);
        }
    };
    let on_failure = |address, outcome| {
        // A lack of resources here says nothing about the upstream.
        if records_health && outcome != AttemptOutcome::Resources {
            health.record_failure(address, outcome, settings.retry_after);
        }
    };
    let mut unfinished = Vec::new();
    let mut failures: Vec<(SocketAddr, AttemptOutcome, String)> = Vec::new();
    let race = async {
        let mut attempts = FuturesUnordered::new();
        let mut may_resolve = targets.has_names();
        let mut resolved_again = pin!(targets.newer(&rounds));
        loop {
            let another = waiting.next();
            unfinished.extend(another);
            attempts.extend(
                another.map(async |address| (address, connect_to(address, source, mark).await)),
            );
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
                            let outcome = outcome_of(address, &error);
                            on_failure(address, outcome);
                            report(Event::Attempt { family, outcome });
                            failures.push((address, outcome, describe(&error)));
                        }
                    }
                }
                () = sleep(settings.attempt_delay), if another.is_some() => {}
                () = &mut resolved_again, if another.is_none() && may_resolve => {
                    may_resolve = false;
                    let present = targets.addresses();
                    let new: Vec<_> =
                        present.iter().copied().filter(|new| !known.contains(new)).collect();
                    waiting = in_order(&new);
                }
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
        if outcome == AttemptOutcome::Timeout {
            failures.push((address, outcome, "no response".to_owned()));
        }
    }
    winner.ok().flatten().ok_or_else(|| failure(&failures, targets))
}

fn failure(
    failures: &[(SocketAddr, AttemptOutcome, String)],
    targets: &UpstreamTargets,
) -> UpstreamFailure {
    let each = failures.iter().map(|(address, _, error)| match targets.name_of(*address) {
        Some(name) => format!("{name} ({address}): {error}"),
        None => format!("{address}: {error}"),
    });
    let detail = each.chain(targets.unresolved()).collect::<Vec<_>>().join("; ");
    UpstreamFailure {
        is_local: !failures.is_empty()
            && failures.iter().all(|(_, outcome, _)| *outcome == AttemptOutcome::Resources),
        detail: if detail.is_empty() {
            "no address of the client's family".to_owned()
        } else {
            detail
        },
    }
}

/// The error in lower case, without its number.
pub(super) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

/// Whether this host lacks descriptors, memory or ports.
pub(super) fn is_lack_of_resources(error: &io::Error) -> bool {
    use Errno as E;
    let errno = E::from_io_error(error);
    matches!(errno, Some(E::MFILE | E::NFILE | E::NOBUFS | E::NOMEM | E::ADDRINUSE))
}

/// The outcome of an attempt to connect to `address` that failed with `error`.
pub(super) fn outcome_of(address: SocketAddr, error: &io::Error) -> AttemptOutcome {
    if is_lack_of_resources(error) {
        return AttemptOutcome::Resources;
    }
    match Errno::from_io_error(error) {
        // The local ports are used up, or there is no address to connect from: IPv6 is disabled here.
        Some(Errno::ADDRNOTAVAIL) if has_source(address) => return AttemptOutcome::Resources,
        Some(Errno::ADDRNOTAVAIL) => return AttemptOutcome::Unreachable,
        _ => {}
    }
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

/// Whether this host has an address from which it can connect to `to`. Connecting a UDP socket sends nothing (connect(2)).
fn has_source(to: SocketAddr) -> bool {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(to).is_ok())
}

/// Connects from the client's address `source`, if given.
async fn connect_to(
    address: SocketAddr,
    source: Option<IpAddr>,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    let open = || socket(address, mark);
    match source {
        Some(client) => client_source::connect(client, address, open).await,
        None => open()?.connect(address).await,
    }
}

/// A socket for `address`.
pub(super) fn socket(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_nodelay(true)?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_source_address_is_no_lack_of_ports() {
        let error = io::Error::from(Errno::ADDRNOTAVAIL);
        let loopback = "127.0.0.1:25".parse().unwrap();
        assert_eq!(outcome_of(loopback, &error), AttemptOutcome::Resources);
        // Nothing connects to it without SO_BROADCAST.
        let broadcast = "255.255.255.255:25".parse().unwrap();
        assert_eq!(outcome_of(broadcast, &error), AttemptOutcome::Unreachable);
    }

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
}
