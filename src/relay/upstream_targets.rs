//! The targets of one listener's sessions: the addresses in the file, and those that its host names have now.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;

use super::health::HealthKey;
use super::host_names::{HostTable, TrackedHost};
use super::lookups::LookupProvider;
use super::settings::UpstreamSettings;
use super::target::{UpstreamSocket, UpstreamTarget};

pub(super) enum UpstreamTargets {
    /// The original destination of each session.
    Destination,
    Addresses(Vec<SocketAddr>),
    /// At least one host name, in the order of the file.
    Named(Vec<TargetSource>),
    Socket(UpstreamSocket),
}

pub(super) enum TargetSource {
    Address(SocketAddr),
    Host(Arc<TrackedHost>),
}

impl UpstreamTargets {
    /// Starts to resolve the names that are new.
    pub(super) fn new(
        settings: &UpstreamSettings,
        hosts: &HostTable,
        provider: &Arc<dyn LookupProvider>,
    ) -> Self {
        let targets = &settings.addresses;
        if targets.is_empty() {
            return Self::Destination;
        }
        // The configuration has it alone.
        if let Some(socket) = targets.iter().find_map(UpstreamTarget::socket) {
            return Self::Socket(socket.clone());
        }
        if !settings.has_names() {
            return Self::Addresses(targets.iter().filter_map(UpstreamTarget::address).collect());
        }
        let sources = targets.iter().filter_map(|target| match target {
            UpstreamTarget::Address(address) => Some(TargetSource::Address(*address)),
            UpstreamTarget::Host(host) => {
                Some(TargetSource::Host(hosts.track(host, settings.resolve_interval, provider)))
            }
            UpstreamTarget::Socket(_) => None,
        });
        Self::Named(sources.collect())
    }

    /// Whether the original destination is the upstream.
    pub(super) const fn is_destination(&self) -> bool {
        matches!(self, Self::Destination)
    }

    /// The Unix socket that is the upstream.
    pub(super) const fn socket(&self) -> Option<&UpstreamSocket> {
        match self {
            Self::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    pub(super) const fn has_names(&self) -> bool {
        matches!(self, Self::Named(_))
    }

    fn sources(&self) -> &[TargetSource] {
        match self {
            Self::Named(sources) => sources,
            _ => &[],
        }
    }

    /// The present addresses, each once; those of a name that has none are missing. A Unix socket has none.
    pub(super) fn addresses(&self) -> Cow<'_, [SocketAddr]> {
        if let Self::Addresses(literal) = self {
            return Cow::Borrowed(literal);
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for source in self.sources() {
            let of_source = match source {
                TargetSource::Address(address) => vec![*address],
                TargetSource::Host(host) => host.addresses(),
            };
            let new: Vec<_> = of_source.into_iter().filter(|a| !addresses.contains(a)).collect();
            addresses.extend(new);
        }
        Cow::Owned(addresses)
    }

    /// What is up or down by itself: the present addresses, or the Unix socket.
    pub(super) fn health_keys(&self) -> Vec<HealthKey> {
        match self {
            Self::Socket(socket) => vec![socket.into()],
            _ => self.addresses().iter().map(|&address| address.into()).collect(),
        }
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Arc<TrackedHost>> {
        self.sources().iter().filter_map(|source| match source {
            TargetSource::Address(_) => None,
            TargetSource::Host(host) => Some(host),
        })
    }

    /// The configured name whose address this is; `None` if the address itself is configured.
    pub(super) fn name_of(&self, address: SocketAddr) -> Option<&Arc<str>> {
        let is_literal = |source: &TargetSource| matches!(source, TargetSource::Address(literal) if *literal == address);
        if self.sources().iter().any(is_literal) {
            return None;
        }
        self.hosts().find(|host| host.addresses().contains(&address)).map(|host| host.label())
    }

    /// Numbers of the lookups that led to the present addresses.
    pub(super) fn rounds(&self) -> Vec<u64> {
        self.hosts().map(|host| host.round()).collect()
    }

    /// Waits until every name was looked up after `rounds`.
    pub(super) async fn newer(&self, rounds: &[u64]) {
        join_all(self.hosts().zip(rounds).map(|(host, &seen)| host.newer(seen))).await;
    }

    /// Requests a lookup of every name now.
    pub(super) fn refresh(&self) {
        self.hosts().for_each(|host| host.refresh());
    }

    /// The names without an address, each with the reason.
    pub(super) fn unresolved(&self) -> Vec<String> {
        let reports = self.hosts().map(|host| host.report());
        let without = reports.filter(|report| report.addresses.is_empty());
        without.map(|one| format!("{}: {}", one.name, one.failure.unwrap_or_default())).collect()
    }
}
