//! What the checks know of this host: where clients arrive, and where the servers are.

use ipnet::IpNet;

use super::routes::{Link, Route, RouteLookup};
use crate::addr::Family;
use crate::intercept::error::InterceptError;
use crate::intercept::routing::Routing;
use crate::intercept::settings::InterceptSettings;

/// Where intercepted sessions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterceptUpstream {
    /// To their original destinations.
    Destinations,
    /// To `upstream.addresses`, which these checks do not look at.
    Configured,
}

pub(super) struct Host<'a> {
    pub(super) settings: &'a InterceptSettings,
    pub(super) upstream: InterceptUpstream,
    /// On which clients arrive, as configured or derived.
    pub(super) interfaces: Vec<String>,
    pub(super) links: Vec<Link>,
    /// Of the families that are intercepted.
    pub(super) destinations: Vec<MailServer>,
}

pub(super) struct MailServer {
    pub(super) network: IpNet,
    /// Of its first address.
    pub(super) route: Option<Route>,
    /// The interface of that route.
    pub(super) outgoing: Option<String>,
}

impl MailServer {
    pub(super) fn is_one_address(&self) -> bool {
        self.network.prefix_len() == self.network.max_prefix_len()
    }

    pub(super) fn is_local(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.is_local)
    }
}

impl<'a> Host<'a> {
    pub(super) async fn read(
        settings: &'a InterceptSettings,
        upstream: InterceptUpstream,
        routes: &RouteLookup,
    ) -> Result<Self, InterceptError> {
        let links = routes.links().await;
        let interfaces = match settings.interfaces.as_slice() {
            [] => Routing::open()?.default_interfaces().await?,
            named => named.to_vec(),
        };
        let mut destinations = Vec::new();
        for network in settings.destinations.iter() {
            if settings.listen(Family::of(network.addr())).is_none() {
                continue;
            }
            let first = network.hosts().next().unwrap_or_else(|| network.addr());
            let route = routes.route(first, None).await;
            let index = route.as_ref().and_then(|route| route.outgoing);
            let outgoing = links.iter().find(|link| Some(link.index) == index);
            let outgoing = outgoing.map(|link| link.name.clone());
            destinations.push(MailServer { network, route, outgoing });
        }
        Ok(Self { settings, upstream, interfaces, links, destinations })
    }

    /// Interfaces on which packets of intercepted mail arrive: those of clients and servers.
    pub(super) fn all_interfaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.interfaces.iter().map(String::as_str).collect();
        let servers = self.destinations.iter().filter_map(|one| one.outgoing.as_deref());
        for name in servers {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
