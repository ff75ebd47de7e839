//! A handle to a running relay: opens and closes its doors, and reports its state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::clock::RelayClock;
use super::health::UpstreamHealth;
use super::host_names::HostReport;
use super::settings::{ListenerSettings, UpstreamIdentity};
use super::state::RelayState;
use super::tls::ClientTls;
use super::upstream_check;
use super::upstream_tls::UpstreamTlsConfigs;
use crate::addr::{Family, Networks};

#[derive(Clone)]
pub struct RelayHandle(pub(super) Arc<RelayState>);

impl RelayHandle {
    /// Opens or closes the door of `family`. A closed door answers new sessions with 421 in place of the greeting; sessions
    /// in progress go on.
    pub fn set_door(&self, family: Family, admits: bool) {
        self.0.doors[family as usize].store(admits, Ordering::Relaxed);
    }

    /// Sets the networks that no closed door refuses.
    pub fn set_exempt(&self, networks: Networks) {
        self.0.exempt.store(Arc::new(networks));
    }

    /// Whether every upstream that accepts sessions of `family` failed lately, or is a host name without an address, of every
    /// listener that has such sessions; always false if the original destination is one.
    pub fn is_without_upstream(&self, family: Family) -> bool {
        let active = self.0.active.load();
        let mut listeners = active.listeners.iter().filter(|one| listens_on(&one.settings, family));
        let mut any = false;
        let all_down = listeners.all(|listener| {
            any = true;
            let identity = listener.settings.upstream.identity;
            let only = (identity == UpstreamIdentity::Transparent).then_some(family);
            self.0.is_down(&listener.targets, only)
        });
        any && all_down
    }

    /// Whether it depends on the client if a session finds an upstream: on the destination that it chose, or on the way back to
    /// its address.
    pub fn upstream_depends_on_client(&self) -> bool {
        let active = self.0.active.load();
        active.settings.upstreams().into_iter().any(|upstream| {
            upstream.addresses.is_empty() || upstream.identity == UpstreamIdentity::Transparent
        })
    }

    /// State of the configured upstreams, in their order, with the present addresses of host names; empty if the original
    /// destination is the upstream.
    pub fn upstream_health(&self) -> Vec<UpstreamHealth> {
        let active = self.0.active.load();
        let mut report: Vec<UpstreamHealth> = Vec::new();
        for (_, targets) in active.upstreams() {
            if let Some(socket) = targets.socket() {
                let health = self.0.health.report_socket(socket);
                if report.iter().all(|known| known.name != health.name) {
                    report.push(health);
                }
            }
            for mut health in self.0.health.report(&targets.addresses()) {
                if report.iter().all(|known| known.address != health.address) {
                    let name = health.address.and_then(|address| targets.name_of(address));
                    health.name = name.cloned();
                    report.push(health);
                }
            }
        }
        report
    }

    /// State of the host names of upstreams, in their order.
    pub fn upstream_hosts(&self) -> Vec<HostReport> {
        let active = self.0.active.load();
        let mut reports: Vec<HostReport> = Vec::new();
        for host in active.upstreams().iter().flat_map(|(_, targets)| targets.hosts()) {
            let report = host.report();
            if reports.iter().all(|known| known.name != report.name) {
                reports.push(report);
            }
        }
        reports
    }

    /// The present addresses of the upstream of the listener with this name.
    pub fn upstream_addresses_of(&self, listener: &str) -> Vec<SocketAddr> {
        let active = self.0.active.load();
        let found = active.listeners.iter().find(|one| *one.settings.name == *listener);
        found.map(|one| one.targets.addresses().into_owned()).unwrap_or_default()
    }

    /// The present addresses of all upstreams, each once.
    pub fn upstream_addresses(&self) -> Vec<SocketAddr> {
        self.0.active.load().upstream_addresses()
    }

    /// Waits until each host name of an upstream was looked up once.
    pub async fn wait_for_first_lookups(&self) {
        let active = self.0.active.load_full();
        for (_, targets) in active.upstreams() {
            targets.newer(&vec![0; targets.hosts().count()]).await;
        }
    }

    /// Whether `upstream`, any MTA, accepts a connection from the gateway's own address. A fault of this host, such as a lack
    /// of descriptors, says nothing: then it counts as reached.
    pub async fn is_reached(&self, upstream: SocketAddr) -> bool {
        let mark = self.0.active.load().settings.mark;
        upstream_check::is_reached(upstream, mark).await
    }

    /// Whether a configured listening address is of `family`.
    pub fn listens_on(&self, family: Family) -> bool {
        let active = self.0.active.load();
        active.settings.listeners.iter().any(|listener| listens_on(listener, family))
    }

    /// Puts certificates and versions in force for handshakes of sessions that begin from now on.
    pub fn set_tls(&self, tls: ClientTls) {
        self.0.tls.store(Some(Arc::new(tls)));
    }

    /// Puts what is verified in TLS with upstreams in force for sessions that begin from now on.
    pub fn set_upstream_tls(&self, configs: UpstreamTlsConfigs) {
        self.0.upstream_tls.store(Arc::new(configs));
    }

    /// The clock that timestamps all records.
    pub fn clock(&self) -> RelayClock {
        self.0.clock
    }
}

fn listens_on(listener: &ListenerSettings, family: Family) -> bool {
    listener.addresses.iter().any(|own| Family::of(own.ip()) == family)
}
