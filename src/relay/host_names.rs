//! Host names of upstreams. Each name has one owner, a task that resolves it in the background; sessions read the addresses that
//! it found last and never look a name up themselves.
//!
//! A name without addresses is an answer and leaves the upstream without addresses; a failed lookup is none and leaves those that
//! are known in use (rule 6 of ARCHITECTURE.md). An address of the gateway's own listeners is never used: mail would go in
//! circles.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::lookups::{HostAnswer, LookupProvider};
use super::target::UpstreamHost;
use crate::addr::{Family, canonical};
use crate::policy::facts::Reason;

/// Least time between two lookups of a name, however many sessions find its addresses dead.
const SPACING: Duration = Duration::from_secs(1);

/// The host names in use. It survives a reload, with the addresses that are known.
#[derive(Default)]
pub(super) struct HostTable {
    hosts: Mutex<Vec<Weak<TrackedHost>>>,
    /// The listening addresses of the gateway.
    listening: Arc<ArcSwap<Vec<SocketAddr>>>,
}

/// One host name. It is resolved as long as a configuration or a session has it.
pub(super) struct TrackedHost {
    host: UpstreamHost,
    /// Longest time between two lookups.
    interval: Duration,
    /// `host` as the file has it.
    label: Arc<str>,
    resolved: watch::Sender<ResolvedHost>,
    wanted: Arc<Notify>,
    listening: Arc<ArcSwap<Vec<SocketAddr>>>,
}

/// What is known of a host name.
#[derive(Clone, Debug, Default)]
pub(super) struct ResolvedHost {
    /// Number of the last lookup; 0 before the first has ended.
    round: u64,
    by_family: [Vec<IpAddr>; Family::ALL.len()],
    /// Those that can be used, IPv4 first.
    addresses: Vec<SocketAddr>,
    /// Addresses of the gateway's own listeners.
    own: Vec<SocketAddr>,
    /// Why the last lookup brought nothing new, or no address.
    failure: Option<&'static str>,
    changed_at: Option<Instant>,
}

/// How far the addresses of a host name can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// The last lookup found them.
    Resolved,
    /// The last lookup failed: they are those of an earlier one.
    Stale,
    /// There are none.
    Unresolved,
}

/// State of one host name of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// `postfix:25`, as in the file.
    pub name: Arc<str>,
    pub state: HostState,
    /// Those in use.
    pub addresses: Vec<SocketAddr>,
    /// Addresses that are not used, because the gateway itself listens there.
    pub own: Vec<SocketAddr>,
    /// Why there are no addresses, or none of the last lookup.
    pub failure: Option<&'static str>,
    /// For how long the addresses or the failure have been the same.
    pub lasts: Duration,
}

impl HostTable {
    /// Sets the gateway's listening addresses, and checks the known addresses of all names against them. A reload looks all names up
    /// again.
    pub(super) fn set_listening(&self, listening: Vec<SocketAddr>) {
        self.listening.store(Arc::new(listening));
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        for host in hosts.iter().filter_map(Weak::upgrade) {
            host.resolved.send_modify(|known| known.set_addresses(&host));
            host.refresh();
        }
    }

    /// The owner of `host`; starts it if there is none.
    pub(super) fn track(
        &self,
        host: &UpstreamHost,
        interval: Duration,
        provider: &Arc<dyn LookupProvider>,
    ) -> Arc<TrackedHost> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|known| known.strong_count() > 0);
        let mut known = hosts.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|one| one.host == *host && one.interval == interval) {
            return known;
        }
        let tracked = Arc::new(TrackedHost {
            host: host.clone(),
            interval,
            label: host.to_string().into(),
            resolved: watch::Sender::default(),
            wanted: Arc::default(),
            listening: Arc::clone(&self.listening),
        });
        hosts.push(Arc::downgrade(&tracked));
        tokio::spawn(keep_resolved(Arc::downgrade(&tracked), Arc::clone(provider)));
        tracked
    }
}

/// Resolves a name until nobody needs it.
async fn keep_resolved(host: Weak<TrackedHost>, provider: Arc<dyn LookupProvider>) {
    loop {
        let Some(tracked) = host.upgrade() else { return };
        let answer = provider.resolve(Arc::clone(&tracked.host.name)).await;
        let pause = tracked.on_answer(answer);
        let wanted = Arc::clone(&tracked.wanted);
        drop(tracked);
        sleep(SPACING).await;
        let _until_due = timeout(pause.saturating_sub(SPACING), wanted.notified()).await;
    }
}

impl TrackedHost {
    /// As the file has it.
    pub(super) const fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.resolved.borrow().addresses.clone()
    }

    /// Number of the last lookup.
    pub(super) fn round(&self) -> u64 {
        self.resolved.borrow().round
    }

    /// Requests a lookup now.
    pub(super) fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// Waits for the end of a lookup after that with number `seen`, which it requests unless there was one.
    pub(super) async fn newer(&self, seen: u64) {
        let mut resolved = self.resolved.subscribe();
        let round = resolved.borrow_and_update().round;
        // The first is under way already.
        if round == seen && round > 0 {
            self.refresh();
        }
        let _sender_is_ours = resolved.wait_for(|known| known.round > seen).await;
    }

    pub(super) fn report(&self) -> HostReport {
        let known = self.resolved.borrow();
        HostReport {
            name: Arc::clone(&self.label),
            state: known.state(),
            addresses: known.addresses.clone(),
            own: known.own.clone(),
            failure: match known.round {
                0 => Some("not resolved yet"),
                _ => known.failure,
            },
            lasts: known.changed_at.map(|at| at.elapsed()).unwrap_or_default(),
        }
    }

    /// Returns the time until the next lookup.
    fn on_answer(&self, answer: HostAnswer) -> Duration {
        let ttl = answer.ttl.unwrap_or(Duration::MAX);
        self.resolved.send_modify(|known| known.update(answer, self));
        match self.resolved.borrow().state() {
            HostState::Unresolved => SPACING,
            HostState::Resolved | HostState::Stale => ttl.min(self.interval).max(SPACING),
        }
    }
}

impl ResolvedHost {
    fn state(&self) -> HostState {
        match self.failure {
            _ if self.addresses.is_empty() => HostState::Unresolved,
            Some(_) => HostState::Stale,
            None => HostState::Resolved,
        }
    }

    fn update(&mut self, answer: HostAnswer, host: &TrackedHost) {
        self.round += 1;
        let before = (std::mem::take(&mut self.addresses), self.failure);
        let all_failed = answer.addresses.iter().all(Result::is_err);
        self.failure = None;
        for (known, answer) in self.by_family.iter_mut().zip(answer.addresses) {
            match answer {
                Ok(addresses) => *known = addresses,
                // Without known addresses of this family, and with some of the other, nothing is missed.
                Err(reason) if all_failed || !known.is_empty() => {
                    self.failure = Some(describe_lookup_failure(reason));
                }
                Err(_) => {}
            }
        }
        self.set_addresses(host);
        if self.addresses.is_empty() && self.failure.is_none() {
            self.failure = Some(match self.own.is_empty() {
                true => "the name has no address",
                false => "the name leads to the gateway itself",
            });
        }
        if self.changed_at.is_none() || before != (self.addresses.clone(), self.failure) {
            self.changed_at = Some(Instant::now());
        }
    }

    fn set_addresses(&mut self, host: &TrackedHost) {
        let listening = host.listening.load();
        let all = self.by_family.iter().flatten();
        let all = all.map(|&ip| canonical(SocketAddr::new(ip, host.host.port)));
        let all = all.filter(|addr| !addr.ip().is_unspecified() && !addr.ip().is_multicast());
        (self.own, self.addresses) = all.partition(|&addr| is_own_listener(addr, &listening));
    }
}

/// Why the addresses of a host name are not known.
pub const fn describe_lookup_failure(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => "the DNS servers do not answer",
        Reason::Unreachable => "the DNS servers cannot be reached",
        Reason::NoResolver => "no DNS server is known, /etc/resolv.conf names none",
        _ => "the DNS servers fail to answer (SERVFAIL)",
    }
}

/// Whether a connection to `peer` ends at one of the listening addresses. `config` checks those in the file.
pub fn is_own_listener(peer: SocketAddr, listening: &[SocketAddr]) -> bool {
    let mut same_port = listening.iter().filter(|own| own.port() == peer.port());
    same_port.any(|own| {
        let same_family = Family::of(own.ip()) == Family::of(peer.ip());
        own.ip() == peer.ip() || own.ip().is_unspecified() && same_family && is_local(peer)
    })
}

/// Whether `peer` is on this host: then it is its own source. Connecting a UDP socket sends nothing (connect(2)).
fn is_local(peer: SocketAddr) -> bool {
    let any: IpAddr = match Family::of(peer.ip()) {
        Family::Ipv4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(peer)?;
        socket.local_addr()
    };
    peer.ip().is_loopback() || source().is_ok_and(|source| source.ip() == peer.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(listening: &[&str]) -> TrackedHost {
        let listening = listening.iter().map(|own| own.parse().unwrap()).collect();
        TrackedHost {
            host: UpstreamHost { name: "postfix".into(), port: 25 },
            interval: Duration::from_secs(10),
            label: "postfix:25".into(),
            resolved: watch::Sender::default(),
            wanted: Arc::default(),
            listening: Arc::new(ArcSwap::from_pointee(listening)),
        }
    }

    fn found(ips: &[&str]) -> Result<Vec<IpAddr>, Reason> {
        Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn answer(
        host: &TrackedHost,
        ipv4: Result<Vec<IpAddr>, Reason>,
        ipv6: Result<Vec<IpAddr>, Reason>,
    ) -> Duration {
        let ttl = Some(Duration::from_secs(4));
        host.on_answer(HostAnswer { addresses: [ipv4, ipv6], ttl })
    }

    /// State, addresses and failure.
    fn known(host: &TrackedHost) -> (HostState, String, Option<&'static str>) {
        let report = host.report();
        let addresses: Vec<_> = report.addresses.iter().map(ToString::to_string).collect();
        (report.state, addresses.join(" "), report.failure)
    }

    #[test]
    fn a_failed_lookup_leaves_the_known_addresses_in_use() {
        let host = tracked(&[]);
        assert_eq!(known(&host), (HostState::Unresolved, String::new(), Some("not resolved yet")));
        answer(&host, Err(Reason::Timeout), Err(Reason::Timeout));
        let silent = Some("the DNS servers do not answer");
        assert_eq!(known(&host), (HostState::Unresolved, String::new(), silent));
        answer(&host, found(&["192.0.2.1", "192.0.2.2"]), found(&["2001:db8::1"]));
        let both = "192.0.2.1:25 192.0.2.2:25 [2001:db8::1]:25".to_owned();
        assert_eq!(known(&host), (HostState::Resolved, both.clone(), None));
        answer(&host, Err(Reason::Timeout), Err(Reason::Timeout));
        assert_eq!(known(&host), (HostState::Stale, both, silent));
        // Of one family.
        answer(&host, found(&["192.0.2.3"]), Err(Reason::Servfail));
        let failed = Some("the DNS servers fail to answer (SERVFAIL)");
        let mixed = "192.0.2.3:25 [2001:db8::1]:25".to_owned();
        assert_eq!(known(&host), (HostState::Stale, mixed, failed));
    }

    #[test]
    fn a_family_without_addresses_that_always_fails_is_not_missed() {
        let host = tracked(&[]);
        answer(&host, found(&["192.0.2.1"]), Err(Reason::Timeout));
        assert_eq!(known(&host), (HostState::Resolved, "192.0.2.1:25".to_owned(), None));
    }

    #[test]
    fn a_name_that_loses_its_addresses_has_none() {
        let host = tracked(&[]);
        answer(&host, found(&["192.0.2.1"]), found(&[]));
        answer(&host, found(&[]), found(&[]));
        let none = Some("the name has no address");
        assert_eq!(known(&host), (HostState::Unresolved, String::new(), none));
    }

    #[test]
    fn the_next_lookup_is_due_by_ttl_and_soon_without_addresses() {
        let host = tracked(&[]);
        assert_eq!(answer(&host, found(&["192.0.2.1"]), found(&[])), Duration::from_secs(4));
        assert_eq!(answer(&host, found(&[]), found(&[])), SPACING);
        let ipv4 = found(&["192.0.2.1"]);
        let without_ttl = HostAnswer { addresses: [ipv4, found(&[])], ttl: None };
        assert_eq!(host.on_answer(without_ttl), host.interval);
    }

    #[test]
    fn the_gateways_own_listeners_are_not_used() {
        let host = tracked(&["0.0.0.0:25", "[2001:db8::25]:25"]);
        let ipv6 = found(&["2001:db8::25", "2001:db8::26"]);
        answer(&host, found(&["127.0.0.1", "127.3.2.1", "192.0.2.1", "0.0.0.0"]), ipv6);
        let used = "192.0.2.1:25 [2001:db8::26]:25".to_owned();
        assert_eq!(known(&host), (HostState::Resolved, used, None));
        let own: Vec<_> = host.report().own.iter().map(ToString::to_string).collect();
        assert_eq!(own, ["127.0.0.1:25", "127.3.2.1:25", "[2001:db8::25]:25"]);
        answer(&host, found(&["127.0.0.1"]), found(&[]));
        let circle = Some("the name leads to the gateway itself");
        assert_eq!(known(&host), (HostState::Unresolved, String::new(), circle));
        // Another port of this host is another server.
        let elsewhere = tracked(&["0.0.0.0:2525"]);
        answer(&elsewhere, found(&["127.0.0.1"]), found(&[]));
        assert_eq!(known(&elsewhere).0, HostState::Resolved);
    }
}
