//! Looks up routes, ip rules and interfaces over netlink. Changes nothing.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion};
use tokio::task::JoinHandle;

use crate::addr::Family;
use crate::intercept::error::InterceptError;

/// A netlink connection in the network namespace of the thread that opened it.
pub(super) struct RouteLookup {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for RouteLookup {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The route of a packet that this host would send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) is_local: bool,
    /// Blackhole, prohibit and the like.
    pub(super) is_reject: bool,
    pub(super) table: u32,
    /// Index of the interface.
    pub(super) outgoing: Option<u32>,
    pub(super) has_gateway: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_bridge: bool,
}

impl RouteLookup {
    pub(super) fn open() -> Result<Self, InterceptError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(InterceptError::Netlink)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The route to `address`; `None` if there is none.
    pub(super) async fn route(&self, address: IpAddr, mark: Option<u32>) -> Option<Route> {
        let mut message = RouteMessage::default();
        let (family, length, to) = match address {
            IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.header.flags = RouteFlags::LookupTable;
        message.attributes.push(RouteAttribute::Destination(to));
        message.attributes.extend(mark.map(RouteAttribute::Mark));
        let mut answers = Box::pin(self.handle.route().get(message).execute());
        let found = answers.try_next().await.ok()??;
        let mut route = Route {
            is_local: found.header.kind == RouteType::Local,
            is_reject: matches!(
                found.header.kind,
                RouteType::BlackHole | RouteType::Prohibit | RouteType::Unreachable
            ),
            table: found.header.table.into(),
            outgoing: None,
            has_gateway: false,
        };
        for attribute in found.attributes {
            match attribute {
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Oif(index) => route.outgoing = Some(index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.has_gateway = true,
                _ => {}
            }
        }
        Some(route)
    }

    pub(super) async fn rules(&self, family: Family) -> Vec<RuleMessage> {
        let version = match family {
            Family::Ipv4 => IpVersion::V4,
            Family::Ipv6 => IpVersion::V6,
        };
        self.handle.rule().get(version).execute().try_collect().await.unwrap_or_default()
    }

    pub(super) async fn links(&self) -> Vec<Link> {
        let links: Vec<_> =
            self.handle.link().get().execute().try_collect().await.unwrap_or_default();
        let link = |message: rtnetlink::packet_route::link::LinkMessage| {
            let mut link =
                Link { index: message.header.index, name: String::new(), is_bridge: false };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::LinkInfo(infos) => {
                        link.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                    }
                    _ => {}
                }
            }
            link
        };
        links.into_iter().map(link).collect()
    }
}
