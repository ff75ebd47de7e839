//! Policy routing over netlink: our ip rules and `local` routes.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use nix::net::if_::if_indextoname;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, IpVersion, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::error::InterceptError;
use super::settings::{InterceptSettings, PRIORITY, PROTOCOL};
use crate::addr::Family;
use crate::humanize;

/// Index of `lo`, the same in every network namespace.
const LOOPBACK: u32 = 1;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;

/// An ip rule or a route of ours.
#[derive(Clone, Debug)]
pub(super) enum RoutingEntry {
    Rule(RuleMessage),
    Route(RouteMessage),
}

/// A netlink connection in the network namespace of the thread that opened it.
pub(super) struct Routing {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Routing {
    pub(super) fn open() -> Result<Self, InterceptError> {
        // With the strict check the kernel filters: the table of a router may be very long.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(InterceptError::Netlink)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Our entries, with any mark and table. Rules come first, so that deletion in this order never leaves a rule for an empty
    /// table.
    pub(super) async fn ours(&self) -> Result<Vec<RoutingEntry>, InterceptError> {
        let mut entries = Vec::new();
        for family in Family::ALL {
            entries.extend(self.rules(family).await?.into_iter().map(RoutingEntry::Rule));
        }
        for family in Family::ALL {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = address_family(family);
            wanted.header.protocol = RouteProtocol::Other(PROTOCOL);
            let routes = self.routes(wanted).await?;
            entries.extend(routes.into_iter().map(RoutingEntry::Route));
        }
        entries.retain(RoutingEntry::is_ours);
        Ok(entries)
    }

    /// Adds the missing entries of `settings`, and appends them to `added`, also on an error.
    pub(super) async fn add(
        &self,
        settings: &InterceptSettings,
        added: &mut Vec<RoutingEntry>,
    ) -> Result<(), InterceptError> {
        for family in settings.families() {
            self.check_free(family, settings.table).await?;
        }
        let present = self.ours().await?;
        for family in settings.families() {
            for entry in [route(family, settings.table), rule(family, settings)] {
                if !present.iter().any(|ours| ours.is_equivalent(&entry))
                    && self.create(&entry).await?
                {
                    added.push(entry);
                }
            }
        }
        Ok(())
    }

    /// The entries of `settings` that the kernel has not, whoever added them.
    pub(super) async fn missing(
        &self,
        settings: &InterceptSettings,
    ) -> Result<Vec<RoutingEntry>, InterceptError> {
        let mut missing = Vec::new();
        for family in settings.families() {
            let rules = self.rules(family).await?.into_iter().map(RoutingEntry::Rule);
            let routes = self.routes_of(family, settings.table).await?;
            let mut present = rules.collect::<Vec<_>>();
            present.extend(routes.into_iter().map(RoutingEntry::Route).filter(is_local_default));
            for entry in [rule(family, settings), route(family, settings.table)] {
                if !present.iter().any(|other| other.is_equivalent(&entry)) {
                    missing.push(entry);
                }
            }
        }
        Ok(missing)
    }

    /// Deletes `entry`; not an error if it is missing.
    pub(super) async fn delete(&self, entry: RoutingEntry) -> Result<(), InterceptError> {
        let action = format!("delete {entry}");
        let result = match entry {
            RoutingEntry::Rule(rule) => self.handle.rule().del(rule).execute().await,
            RoutingEntry::Route(route) => self.handle.route().del(route).execute().await,
        };
        match result {
            Err(error) if matches!(errno(&error), Some(ENOENT | ESRCH)) => Ok(()),
            result => result.map_err(|error| refused(action, &error)),
        }
    }

    /// False if an equivalent entry exists that is not ours: it is used and left alone.
    async fn create(&self, entry: &RoutingEntry) -> Result<bool, InterceptError> {
        let result = match entry {
            RoutingEntry::Route(route) => self.handle.route().add(route.clone()).execute().await,
            RoutingEntry::Rule(rule) => {
                let mut request = self.handle.rule().add();
                *request.message_mut() = rule.clone();
                request.execute().await
            }
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(EEXIST) => Ok(false),
            Err(error) => Err(refused(format!("add {entry}"), &error)),
        }
    }

    /// Rejects a table with foreign routes: they would misroute intercepted packets, and ours their packets.
    pub(super) async fn check_free(
        &self,
        family: Family,
        table: u32,
    ) -> Result<(), InterceptError> {
        let routes = self.routes_of(family, table).await?;
        let foreign =
            routes.into_iter().find(|route| !RoutingEntry::Route(route.clone()).is_ours());
        match foreign {
            None => Ok(()),
            Some(route) => Err(InterceptError::TableInUse {
                table,
                found: format!(
                    "an {} route of protocol {} with a prefix of {} bits",
                    humanize::family(family),
                    u8::from(route.header.protocol),
                    route.header.destination_prefix_length
                ),
            }),
        }
    }

    /// The interfaces of the default routes in the main table, of both families.
    pub(super) async fn default_interfaces(&self) -> Result<Vec<String>, InterceptError> {
        let mut names = Vec::new();
        for family in Family::ALL {
            let routes = self.routes_of(family, RouteHeader::RT_TABLE_MAIN.into()).await?;
            let defaults = routes.iter().filter(|route| {
                route.header.destination_prefix_length == 0
                    && route.header.kind == RouteType::Unicast
            });
            for index in defaults.flat_map(interfaces_of) {
                let Ok(name) = if_indextoname(index) else { continue };
                let name = name.to_string_lossy().into_owned();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    async fn rules(&self, family: Family) -> Result<Vec<RuleMessage>, InterceptError> {
        let version = match family {
            Family::Ipv4 => IpVersion::V4,
            Family::Ipv6 => IpVersion::V6,
        };
        let rules = self.handle.rule().get(version).execute().try_collect().await;
        listed_or_empty(rules).map_err(|error| {
            refused(format!("list the {} rules", humanize::family(family)), &error)
        })
    }

    async fn routes_of(
        &self,
        family: Family,
        table: u32,
    ) -> Result<Vec<RouteMessage>, InterceptError> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = address_family(family);
        wanted.attributes.push(RouteAttribute::Table(table));
        let mut routes = self.routes(wanted).await?;
        routes.retain(|route| route_table(route) == table);
        Ok(routes)
    }

    async fn routes(&self, wanted: RouteMessage) -> Result<Vec<RouteMessage>, InterceptError> {
        let routes = self.handle.route().get(wanted).execute().try_collect().await;
        listed_or_empty(routes).map_err(|error| refused("list the routes".to_owned(), &error))
    }
}

/// For the kernel an empty table does not exist, nor does a disabled family.
fn listed_or_empty<T>(listed: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    const EAFNOSUPPORT: i32 = 97;
    const EOPNOTSUPP: i32 = 95;
    match listed {
        Err(error) if matches!(errno(&error), Some(ENOENT | ESRCH | EAFNOSUPPORT | EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

impl RoutingEntry {
    pub(super) fn family(&self) -> Family {
        let family = match self {
            Self::Rule(rule) => rule.header.family,
            Self::Route(route) => route.header.address_family,
        };
        if family == AddressFamily::Inet { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The mark of a rule.
    pub(super) fn mark(&self) -> Option<u32> {
        let Self::Rule(rule) = self else { return None };
        rule.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::FwMark(mark) => Some(*mark),
            _ => None,
        })
    }

    /// The bits of the mark that a rule looks at; all without an attribute.
    pub(super) fn mask(&self) -> Option<u32> {
        let Self::Rule(rule) = self else { return None };
        let mask = rule.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::FwMask(mask) => Some(*mask),
            _ => None,
        });
        Some(mask.unwrap_or(u32::MAX))
    }

    pub(super) fn table(&self) -> u32 {
        match self {
            Self::Route(route) => route_table(route),
            Self::Rule(rule) => rule
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Table(table) => Some(*table),
                    _ => None,
                })
                .unwrap_or(rule.header.table.into()),
        }
    }

    pub(super) fn is_required_by(&self, settings: &InterceptSettings) -> bool {
        let family = self.family();
        settings.listen(family).is_some()
            && (self.is_equivalent(&route(family, settings.table))
                || self.is_equivalent(&rule(family, settings)))
    }

    /// Whether it has our protocol number and our shape.
    fn is_ours(&self) -> bool {
        match self {
            Self::Rule(rule) => {
                rule.header.action == RuleAction::ToTable
                    && self.mark().is_some()
                    && rule
                        .attributes
                        .contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
            }
            Self::Route(route) => {
                route.header.protocol == RouteProtocol::Other(PROTOCOL) && is_local_default(self)
            }
        }
    }

    fn priority(&self) -> Option<u32> {
        let Self::Rule(rule) = self else { return None };
        rule.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        })
    }

    /// Ignores the attributes that the kernel adds.
    fn is_equivalent(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.family() == other.family()
            && self.table() == other.table()
            && self.mark() == other.mark()
            && self.mask() == other.mask()
            && self.priority() == other.priority()
    }
}

impl fmt::Display for RoutingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, table) = (humanize::family(self.family()), self.table());
        match self {
            Self::Rule(_) => {
                let mark = self.mark().unwrap_or_default();
                let mask = self.mask().unwrap_or_default();
                write!(f, "{family} rule: fwmark {mark:#x}/{mask:#x} lookup table {table}")
            }
            Self::Route(_) => write!(f, "{family} route: local default dev lo table {table}"),
        }
    }
}

fn rule(family: Family, settings: &InterceptSettings) -> RoutingEntry {
    let mut rule = RuleMessage::default();
    rule.header.family = address_family(family);
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(settings.mark),
        RuleAttribute::FwMask(settings.mask),
        RuleAttribute::Table(settings.table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    RoutingEntry::Rule(rule)
}

fn route(family: Family, table: u32) -> RoutingEntry {
    let mut route = match family {
        Family::Ipv4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        Family::Ipv6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.header.protocol = RouteProtocol::Other(PROTOCOL);
    route.header.scope = RouteScope::Host;
    route.header.kind = RouteType::Local;
    route.attributes.extend([RouteAttribute::Table(table), RouteAttribute::Oif(LOOPBACK)]);
    RoutingEntry::Route(route)
}

fn route_table(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(route.header.table.into())
}

/// `local default dev lo`
fn is_local_default(entry: &RoutingEntry) -> bool {
    let RoutingEntry::Route(route) = entry else { return false };
    route.header.kind == RouteType::Local
        && route.header.destination_prefix_length == 0
        && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK))
}

/// The indices of its outgoing interfaces: several with several next hops.
fn interfaces_of(route: &RouteMessage) -> Vec<u32> {
    let one = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(one).collect()
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => Some(message.raw_code().abs()),
        _ => None,
    }
}

fn refused(action: String, error: &Error) -> InterceptError {
    const EINVAL: i32 = 22;
    const EAFNOSUPPORT: i32 = 97;
    const EOPNOTSUPP: i32 = 95;
    let hint = match errno(error) {
        Some(EPERM) => {
            return InterceptError::NotPermitted { what: "policy routing" };
        }
        Some(EAFNOSUPPORT | EOPNOTSUPP | EINVAL) => {
            "; the kernel needs CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES, and IPv6 must \
             not be disabled (leave the family out of listen.addresses)"
        }
        _ => "",
    };
    let reason = match errno(error) {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    };
    InterceptError::Routing { what: action, reason, hint }
}
