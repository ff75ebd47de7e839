//! The targets of one listener's sessions: the addresses in the file, and those that its host names have now.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;

use super::host_names::{HostTable, TrackedHost};
use super::lookups::LookupProvider;
use super::settings::UpstreamSettings;
use super::target::{UpstreamSocket, UpstreamTarget};

pub(super) struct UpstreamTargets {
    /// All, if there is no host name among them.
    literal: Vec<SocketAddr>,
    /// All in the order of the file, if there is.
    named: Vec<TargetSource>,
    /// Then it is the only one.
    socket: Option<UpstreamSocket>,
}

enum TargetSource {
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
        let targets = settings.addresses.iter();
        if !settings.has_names() {
            let literal = targets.filter_map(UpstreamTarget::address).collect();
            let socket = settings.addresses.iter().find_map(UpstreamTarget::socket).cloned();
            return Self { literal, named: Vec::new(), socket };
        }
        let named = targets.filter_map(|target| match target {
            UpstreamTarget::Address(address) => Some(TargetSource::Address(*address)),
            UpstreamTarget::Host(host) => {
                Some(TargetSource::Host(hosts.track(host, settings.resolve_interval, provider)))
            }
            UpstreamTarget::Socket(_) => None,
        });
        Self { literal: Vec::new(), named: named.collect(), socket: None }
    }

    /// Whether the original destination is the upstream.
    pub(super) const fn is_destination(&self) -> bool {
        self.literal.is_empty() && self.named.is_empty() && self.socket.is_none()
    }

    /// The Unix socket that is the upstream.
    pub(super) const fn socket(&self) -> Option<&UpstreamSocket> {
        self.socket.as_ref()
    }

    pub(super) const fn has_names(&self) -> bool {
        !self.named.is_empty()
    }

    /// The present addresses, each once; those of a name that has none are missing.
    pub(super) fn addresses(&self) -> Cow<'_, [SocketAddr]> {
        if !self.has_names() {
            return Cow::Borrowed(&self.literal);
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for source in &self.named {
            let of_source = match source {
                TargetSource::Address(address) => vec![*address],
                TargetSource::Host(host) => host.addresses(),
            };
            let new: Vec<_> = of_source.into_iter().filter(|a| !addresses.contains(a)).collect();
            addresses.extend(new);
        }
        Cow::Owned(addresses)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Arc<TrackedHost>> {
        self.named.iter().filter_map(|source| match source {
            TargetSource::Address(_) => None,
            TargetSource::Host(host) => Some(host),
        })
    }

    /// The configured name whose address this is; `None` if the address itself is configured.
    pub(super) fn name_of(&self, address: SocketAddr) -> Option<&Arc<str>> {
        let is_literal = |source: &TargetSource| matches!(source, TargetSource::Address(literal) if *literal == address);
        if self.named.iter().any(is_literal) {
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
