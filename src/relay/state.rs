//! State that all sessions of a relay share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use super::admission::{Admission, RateLimit};
use super::capture_tap::Taps;
use super::clock::RelayClock;
use super::failed_handshakes::FailedHandshakes;
use super::health::HealthTable;
use super::host_names::HostTable;
use super::lookups::LookupProvider;
use super::settings::{ListenerSettings, RelaySettings, UpstreamSettings};
use super::tls::ClientTls;
use super::upstream_targets::UpstreamTargets;
use super::upstream_tls::{FailedTls, UpstreamTlsConfigs};
use crate::addr::{ClientAddr, Family, Networks};
use crate::engine::{Observe, Profile};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifecycle {
    Running,
    /// A session ends after its current transaction.
    Draining,
    /// All sessions end now.
    Aborting,
}

/// The configuration in force; a session keeps the one that it began with.
pub(super) struct ActiveConfig {
    pub(super) settings: RelaySettings,
    /// By listener, in the order of the settings.
    pub(super) listeners: Vec<Arc<ActiveListener>>,
    pub(super) rate: RateLimit,
}

/// A listener's part of it. Its sockets have it in a cell, so that a connection that is accepted while the listener is
/// removed still has its settings.
pub(super) struct ActiveListener {
    pub(super) settings: ListenerSettings,
    pub(super) targets: UpstreamTargets,
    pub(super) profile: Arc<Profile>,
}

/// The listener that a socket belongs to: a reload may give an address to another one.
pub(super) type ListenerCell = Arc<ArcSwap<ActiveListener>>;

impl ActiveConfig {
    fn new(settings: RelaySettings, hosts: &HostTable, provider: &Arc<dyn LookupProvider>) -> Self {
        hosts.set_listening(settings.listen_addresses().collect());
        let active = |listener: &ListenerSettings| {
            let profile = Arc::new(settings.profile(Some(listener)));
            let targets = UpstreamTargets::new(&listener.upstream, hosts, provider);
            Arc::new(ActiveListener { settings: listener.clone(), targets, profile })
        };
        let listeners = settings.listeners.iter().map(active).collect();
        let rate = RateLimit::new(&settings.limits);
        Self { settings, listeners, rate }
    }

    /// The upstreams of all listeners with their present targets; those that listeners share once.
    pub(super) fn upstreams(&self) -> Vec<(&UpstreamSettings, &UpstreamTargets)> {
        let mut distinct: Vec<(&UpstreamSettings, &UpstreamTargets)> = Vec::new();
        for listener in &self.listeners {
            let upstream = &listener.settings.upstream;
            if !distinct.iter().any(|(known, _)| *known == upstream) {
                distinct.push((upstream, &listener.targets));
            }
        }
        distinct
    }

    /// The present addresses of all upstreams, each once.
    pub(super) fn upstream_addresses(&self) -> Vec<SocketAddr> {
        let mut distinct = Vec::new();
        for (_, targets) in self.upstreams() {
            for &address in targets.addresses().iter() {
                if !distinct.contains(&address) {
                    distinct.push(address);
                }
            }
        }
        distinct
    }

    /// The listener with the configured address `address`.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<&Arc<ActiveListener>> {
        self.listeners.iter().find(|listener| listener.settings.addresses.contains(&address))
    }
}

/// The gateway's own TLS on both sides, each if it is used.
#[derive(Clone, Debug, Default)]
pub struct TlsConfigs {
    /// With clients.
    pub clients: Option<ClientTls>,
    pub upstreams: UpstreamTlsConfigs,
}

pub(super) struct RelayState {
    pub(super) active: ArcSwap<ActiveConfig>,
    pub(super) admission: Arc<Admission>,
    pub(super) health: HealthTable,
    hosts: HostTable,
    pub(super) observer: Arc<dyn Observe>,
    pub(super) lookups: Arc<dyn LookupProvider>,
    /// By family: whether the door is open to new sessions.
    pub(super) doors: [AtomicBool; Family::ALL.len()],
    /// Clients that are admitted even while the door of their family is closed.
    pub(super) exempt: ArcSwap<Networks>,
    pub(super) taps: Arc<Taps>,
    /// Certificates and versions in force, if the gateway ends TLS.
    pub(super) tls: ArcSwapOption<ClientTls>,
    /// What is verified in TLS with upstreams, if the gateway may use it.
    pub(super) upstream_tls: ArcSwap<UpstreamTlsConfigs>,
    pub(super) failed_tls: Arc<FailedTls>,
    /// Of clients, for `tls.after_failures`.
    pub(super) failed_handshakes: Arc<FailedHandshakes>,
    pub(super) clock: RelayClock,
    pub(super) lifecycle: watch::Sender<Lifecycle>,
}

impl RelayState {
    /// With both doors open.
    pub(super) fn new(
        settings: RelaySettings,
        tls: TlsConfigs,
        observer: Arc<dyn Observe>,
        lookups: Arc<dyn LookupProvider>,
    ) -> Self {
        let hosts = HostTable::default();
        Self {
            active: ArcSwap::from_pointee(ActiveConfig::new(settings, &hosts, &lookups)),
            admission: Arc::default(),
            health: HealthTable::default(),
            hosts,
            observer,
            lookups,
            doors: [const { AtomicBool::new(true) }; Family::ALL.len()],
            exempt: ArcSwap::default(),
            taps: Arc::default(),
            tls: ArcSwapOption::from_pointee(tls.clients),
            upstream_tls: ArcSwap::from_pointee(tls.upstreams),
            failed_tls: Arc::default(),
            failed_handshakes: Arc::default(),
            clock: RelayClock::start(),
            lifecycle: watch::Sender::new(Lifecycle::Running),
        }
    }

    /// `settings`, ready to be put in force: host names of upstreams that are new are being resolved.
    pub(super) fn activate(&self, settings: RelaySettings) -> ActiveConfig {
        ActiveConfig::new(settings, &self.hosts, &self.lookups)
    }

    /// Whether each address of the upstream, or each of `family`, failed lately, or its names have none. Never if the original
    /// destination is the upstream.
    pub(super) fn is_down(&self, targets: &UpstreamTargets, family: Option<Family>) -> bool {
        if let Some(socket) = targets.socket() {
            return self.health.is_down(socket, Instant::now());
        }
        let addresses = targets.addresses();
        if addresses.is_empty() {
            return targets.has_names();
        }
        let usable = |address: &SocketAddr| family.is_none_or(|of| Family::of(address.ip()) == of);
        match addresses.iter().all(usable) {
            true => self.health.all_down(&addresses),
            false => {
                let of_family: Vec<_> = addresses.iter().copied().filter(usable).collect();
                self.health.all_down(&of_family)
            }
        }
    }

    pub(super) fn door_admits(&self, client: ClientAddr) -> bool {
        self.doors[client.family() as usize].load(Ordering::Relaxed)
            || self.exempt.load().contains(client.ip())
    }
}
