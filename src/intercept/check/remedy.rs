//! The commands that make a filter let mail through, for plain nftables, iptables and firewalld.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::evaluator::Cause;
use super::listing::{Hook, TableName};
use crate::addr::Family;
use crate::intercept::settings::InterceptSettings;

/// Lets through what the gateway takes (INPUT) or sends (OUTPUT).
pub(super) fn accept_marked(
    settings: &InterceptSettings,
    cause: &Cause,
    hook: Hook,
    family: Family,
    ports: &BTreeSet<u16>,
) -> Vec<String> {
    let (mask, mark) = match hook {
        Hook::Output => (settings.mask, settings.own_mark()),
        _ => (settings.mask, settings.mark),
    };
    if is_of_firewalld(&cause.table) && hook == Hook::Input {
        // Rules of others do not outrank firewalld's; its own cannot match a mark.
        let zone =
            cause.chain.strip_prefix("filter_IN_").map(|rest| rest.trim_end_matches("_post"));
        let zone = zone.map(|zone| format!(" --zone={zone}")).unwrap_or_default();
        let mut commands: Vec<String> = ports
            .iter()
            .map(|port| format!("firewall-cmd --permanent{zone} --add-port={port}/tcp"))
            .collect();
        commands.push("firewall-cmd --reload".to_owned());
        return commands;
    }
    if cause.table.is_of_iptables() {
        let chain = hook.as_str().to_ascii_uppercase();
        let table = iptables_table(&cause.table);
        let program = iptables(family);
        return vec![format!(
            "{program}{table} -I {chain} -m mark --mark {mark:#x}/{mask:#x} -j ACCEPT"
        )];
    }
    vec![insert(cause, &format!("meta mark and {mask:#x} == {mark:#x} accept"))]
}

/// Forwards mail to these destinations.
pub(super) fn forward(
    cause: &Cause,
    destinations: &BTreeSet<IpNet>,
    ports: &BTreeSet<u16>,
) -> Vec<String> {
    let mut commands = Vec::new();
    if is_of_firewalld(&cause.table) {
        commands.push("firewall-cmd --permanent --new-policy=mail".to_owned());
        commands.push(
            "firewall-cmd --permanent --policy=mail --add-ingress-zone=ANY --add-egress-zone=ANY"
                .to_owned(),
        );
        for (destination, port) in pairs(destinations, ports) {
            let family = Family::of(destination.addr());
            commands.push(format!(
                "firewall-cmd --permanent --policy=mail --add-rich-rule='rule family={family} destination \
                 address={} port port={port} protocol=tcp accept'",
                address(destination)
            ));
        }
        commands.push("firewall-cmd --reload".to_owned());
        return commands;
    }
    for (destination, port) in pairs(destinations, ports) {
        let family = Family::of(destination.addr());
        let to = address(destination);
        commands.push(if cause.table.is_of_iptables() {
            let (program, table) = (iptables(family), iptables_table(&cause.table));
            format!("{program}{table} -I FORWARD -d {to} -p tcp --dport {port} -j ACCEPT")
        } else {
            let protocol = if family == Family::Ipv4 { "ip" } else { "ip6" };
            insert(cause, &format!("{protocol} daddr {to} tcp dport {port} accept"))
        });
    }
    commands
}

/// Shows the chain of a rule, with handles.
pub(super) fn list(cause: &Cause) -> String {
    let TableName { family, name } = &cause.table;
    format!("nft -a list chain {family} {name} {}", cause.chain)
}

/// An address without the length of its prefix, or a network.
pub(super) fn address(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

fn insert(cause: &Cause, rule: &str) -> String {
    let TableName { family, name } = &cause.table;
    format!("nft insert rule {family} {name} {} {rule}", cause.base)
}

fn pairs<'a>(
    destinations: &'a BTreeSet<IpNet>,
    ports: &'a BTreeSet<u16>,
) -> impl Iterator<Item = (&'a IpNet, u16)> {
    destinations.iter().flat_map(|destination| ports.iter().map(move |&port| (destination, port)))
}

fn is_of_firewalld(table: &TableName) -> bool {
    table.name == "firewalld"
}

const fn iptables(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    }
}

/// The option for another table than `filter`.
fn iptables_table(table: &TableName) -> String {
    if table.name == "filter" { String::new() } else { format!(" -t {}", table.name) }
}
