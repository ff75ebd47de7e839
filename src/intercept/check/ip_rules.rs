//! ip rules of others that could take intercepted packets, or the gateway's own.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::host::Host;
use super::routes::RouteLookup;
use crate::addr::Family;
use crate::humanize;
use crate::intercept::routing::Routing;
use crate::intercept::settings::{PRIORITY, PROTOCOL};

const LOCAL: u32 = 255;
const NAME: InterceptCheckName = InterceptCheckName::Routing;

/// An ip rule, as far as it matters.
#[derive(Debug, Default)]
struct IpRule {
    priority: u32,
    mark: u32,
    mask: u32,
    table: u32,
    is_lookup: bool,
    is_ours: bool,
    is_inverted: bool,
    incoming: Option<String>,
    outgoing: Option<String>,
    to: Option<IpNet>,
    /// Such as a source: it holds for some packets.
    has_other_selector: bool,
}

impl IpRule {
    fn parse(message: &RuleMessage) -> Self {
        let header = &message.header;
        let mut rule = Self {
            table: header.table.into(),
            is_lookup: header.action == RuleAction::ToTable,
            is_inverted: header.flags.contains(RuleFlags::Invert),
            has_other_selector: header.tos != 0,
            ..Self::default()
        };
        let mut mask = None;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::FwMark(mark) => rule.mark = *mark,
                RuleAttribute::FwMask(bits) => mask = Some(*bits),
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)) => rule.is_ours = true,
                RuleAttribute::Iifname(name) => rule.incoming = Some(name.clone()),
                RuleAttribute::Oifname(name) => rule.outgoing = Some(name.clone()),
                RuleAttribute::Destination(address) => {
                    rule.to = IpNet::new(*address, header.dst_len).ok();
                }
                RuleAttribute::Source(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_)
                | RuleAttribute::TunId(_)
                | RuleAttribute::L3MDev(_) => rule.has_other_selector = true,
                _ => {}
            }
        }
        // All bits, unless the rule says which.
        rule.mask = mask.unwrap_or(if rule.mark == 0 { 0 } else { u32::MAX });
        rule
    }

    /// Whether packets with these bits of a mark match, whatever the others.
    const fn may_match_mark(&self, mark: u32, mask: u32) -> bool {
        (self.mark ^ mark) & self.mask & mask == 0
    }

    /// Whether it is about the bits of `mask`, and not about all packets.
    const fn names_mark(&self, mask: u32) -> bool {
        self.mask & mask != 0
    }
}

pub(super) async fn check(
    host: &Host<'_>,
    routes: &RouteLookup,
    report: &mut InterceptCheckReport,
) {
    let settings = host.settings;
    let mut is_fine = !table_is_used(host, report).await;
    for family in settings.families() {
        let rules = routes.rules(family).await;
        for rule in rules.iter().map(IpRule::parse).filter(|rule| !rule.is_ours) {
            let version = if family == Family::Ipv4 { 4 } else { 6 };
            let command = format!("ip -{version} rule show priority {}", rule.priority);
            let about =
                format!("{} rule with priority {}", humanize::family(family), rule.priority);
            if rule.priority < PRIORITY && !(rule.is_lookup && rule.table == LOCAL) {
                match takes(host, routes, family, &rule).await {
                    Taken::No => {}
                    Taken::Perhaps => {
                        is_fine = false;
                        let seen = format!(
                            "{about} precedes gatepost's ({PRIORITY}) and may take intercepted packets: give it \
                             a higher number"
                        );
                        report.warn(NAME, seen, command);
                    }
                    Taken::Yes => {
                        is_fine = false;
                        let seen = format!(
                            "{about} precedes gatepost's ({PRIORITY}) and takes intercepted packets, which \
                             would be lost: give it a higher number"
                        );
                        report.fail(NAME, seen, command);
                    }
                }
            } else if rule.names_mark(settings.mask)
                && !rule.is_inverted
                && (is_about(&rule, settings.mark) || is_about(&rule, settings.own_mark()))
            {
                is_fine = false;
                let seen = format!(
                    "{about} matches gatepost's marks (mask {:#x}): set intercept.mark and intercept.mask to \
                     bits that nothing else uses",
                    settings.mask
                );
                report.warn(NAME, seen, command);
            }
        }
    }
    if is_fine {
        let seen = format!(
            "no ip rule takes packets with gatepost's marks, and table {} has no routes of others",
            settings.table
        );
        report.pass(NAME, seen);
    }
}

async fn table_is_used(host: &Host<'_>, report: &mut InterceptCheckReport) -> bool {
    let table = host.settings.table;
    let Ok(routing) = Routing::open() else { return false };
    for family in host.settings.families() {
        if let Err(error) = routing.check_free(family, table).await {
            report.fail(NAME, error.to_string(), "ip route show table all");
            return true;
        }
    }
    false
}

/// Whether the rule asks for this mark, or for a part of it.
const fn is_about(rule: &IpRule, mark: u32) -> bool {
    rule.mark & mark != 0 && rule.mark & rule.mask & !mark == 0
}

enum Taken {
    No,
    Perhaps,
    Yes,
}

async fn takes(host: &Host<'_>, routes: &RouteLookup, family: Family, rule: &IpRule) -> Taken {
    let settings = host.settings;
    let is_about_clients =
        rule.incoming.as_ref().is_none_or(|name| host.all_interfaces().contains(&name.as_str()));
    if rule.is_inverted {
        return Taken::Perhaps;
    }
    if rule.outgoing.is_some()
        || !is_about_clients
        || !rule.may_match_mark(settings.mark, settings.mask)
    {
        return Taken::No;
    }
    let of_family = host.destinations.iter().filter(|one| Family::of(one.network.addr()) == family);
    let affected: Vec<IpAddr> = of_family
        .map(|one| one.network)
        .filter(|network| rule.to.is_none_or(|to| to.contains(network) || network.contains(&to)))
        .map(|network| network.addr())
        .collect();
    if affected.is_empty() {
        return Taken::No;
    }
    // The other bits of the mark are not known, nor are the clients.
    if rule.has_other_selector || rule.incoming.is_some() || rule.mask & !settings.mask != 0 {
        return Taken::Perhaps;
    }
    if !rule.is_lookup {
        return Taken::Yes;
    }
    for address in affected {
        let route = routes.route(address, Some(settings.mark)).await;
        if route.is_some_and(|route| route.table == rule.table) {
            return Taken::Yes;
        }
    }
    Taken::No
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_compared_under_both_masks() {
        let rule = |mark, mask| IpRule { mark, mask, ..IpRule::default() };
        assert!(rule(0, 0).may_match_mark(0x40, 0xc0), "every packet");
        assert!(rule(0x40, 0x40).may_match_mark(0x40, 0xc0));
        assert!(!rule(0x80, 0xc0).may_match_mark(0x40, 0xc0));
        assert!(rule(0x100, 0xff00).may_match_mark(0x40, 0xc0), "bits of others may be set");
        assert!(is_about(&rule(0x80, 0xff), 0x80) && !is_about(&rule(0x100, 0xff00), 0x40));
        assert!(!is_about(&rule(0xff, 0xff), 0x40), "needs bits that are not ours");
    }
}
