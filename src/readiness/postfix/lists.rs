//! Lists of trusted hosts: `mynetworks`, and hosts that may override the client address by XCLIENT or XFORWARD.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::is_global;
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{Postfix, list_items, parse_address};
use crate::readiness::request::CheckRequest;

/// A shorter prefix cannot be one site's own network.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 20;

pub(super) fn check(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    check_mynetworks(postfix, request, findings);
    for parameter in ["smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts"] {
        check_xclient(postfix, parameter, findings);
    }
}

/// An item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListItem {
    Network(IpNet),
    /// IPv6 without brackets, which Postfix parses as a table.
    Unbracketed(IpNet),
    /// A table, a name, an exception.
    Other,
}

fn parse_item(text: &str) -> ListItem {
    let network = |text: &str| {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_without_length| single()).ok()
    };
    if text.starts_with('[') {
        let plain: String = text.chars().filter(|c| !matches!(c, '[' | ']')).collect();
        return network(&plain).map_or(ListItem::Other, ListItem::Network);
    }
    match network(text) {
        Some(net @ IpNet::V4(_)) => ListItem::Network(net),
        Some(net @ IpNet::V6(_)) => ListItem::Unbracketed(net),
        None => ListItem::Other,
    }
}

/// In the syntax of Postfix.
fn format_network(net: IpNet) -> String {
    match net {
        IpNet::V4(net) => net.to_string(),
        IpNet::V6(net) => format!("[{}]/{}", net.addr(), net.prefix_len()),
    }
}

const fn is_too_wide(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() < SHORTEST_V4,
        IpNet::V6(net) => net.prefix_len() < SHORTEST_V6,
    }
}

/// The list without networks that are too wide, and with the missing brackets.
fn corrected(list: &str) -> Vec<String> {
    let correct = |item: &str| match parse_item(item) {
        ListItem::Network(net) if is_too_wide(net) => None,
        ListItem::Unbracketed(net) => (!is_too_wide(net)).then(|| format_network(net)),
        ListItem::Other if item == "static:all" => None,
        ListItem::Network(_) | ListItem::Other => Some(item.to_owned()),
    };
    list_items(list).filter_map(correct).collect()
}

fn too_wide(list: &str) -> Vec<&str> {
    let matches = |item: &&str| match parse_item(item) {
        ListItem::Network(net) | ListItem::Unbracketed(net) => is_too_wide(net),
        ListItem::Other => *item == "static:all",
    };
    list_items(list).filter(matches).collect()
}

fn first_unbracketed(list: &str) -> Option<&str> {
    list_items(list).find(|item| matches!(parse_item(item), ListItem::Unbracketed(_)))
}

fn check_mynetworks(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    let check = CheckName::PostfixMynetworks;
    let list = postfix.main("mynetworks");
    let seen = format!("mynetworks = {list}");
    let wide = too_wide(list);
    let missing = missing_ipv6(list, request);
    let set = || vec![postfix.set_main("mynetworks", &corrected(list).join(" "))];
    if !wide.is_empty() {
        let seen = format!(
            "mynetworks has {}: any host there may relay through this host",
            wide.join(" ")
        );
        let advice = "Remove it: this is an open relay.";
        findings.fail(check, "main.cf", seen, advice).commands = set();
    } else if let Some(item) = first_unbracketed(list) {
        let seen = format!(
            "mynetworks has {item}: without brackets Postfix reads it as a table, and rejects mail"
        );
        let advice = "Write IPv6 addresses in brackets.";
        findings.fail(check, "main.cf", seen, advice).commands = set();
    } else if !missing.is_empty() {
        let seen = format!("{seen}: no IPv6 addresses of the trusted hosts on the same link");
        // No command: the network of the link has this host too, and gatepost on it. An MTA that trusts gatepost's address relays
        // for every client of gatepost.
        let advice = "Add the IPv6 address of each of these hosts, or they cannot send through this host over IPv6. Never add \
                      an address of this host or of gatepost: strangers could relay through it.";
        findings.warn(check, "main.cf", seen, advice);
    } else {
        findings.pass(check, "main.cf", seen);
    }
}

/// The IPv6 counterparts of trusted IPv4 networks on the same link. That of loopback is not missed: gatepost may connect from there.
fn missing_ipv6(list: &str, request: &CheckRequest) -> Vec<IpNet> {
    let networks: Vec<IpNet> = list_items(list)
        .filter_map(|item| match parse_item(item) {
            ListItem::Network(net) | ListItem::Unbracketed(net) => Some(net),
            ListItem::Other => None,
        })
        .collect();
    // The contents of tables are not known.
    if list_items(list).any(|item| parse_item(item) == ListItem::Other) {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for interface in &request.interfaces {
        let is_trusted = interface.addresses.iter().any(|net| {
            let host = IpNet::from(net.addr());
            // Its network is trusted, not only its own address.
            matches!(net, IpNet::V4(net) if net.prefix_len() < 32 && !net.addr().is_loopback())
                && networks
                    .iter()
                    .any(|network| network.contains(&host) && network.prefix_len() < 32)
        });
        let v6 =
            interface.addresses.iter().filter(|net| net.addr().is_ipv6() && is_global(net.addr()));
        wanted.extend(v6.filter(|_| is_trusted).map(IpNet::trunc));
    }
    wanted.dedup();
    wanted.retain(|net| !networks.iter().any(|network| network.contains(net)));
    wanted
}

fn check_xclient(postfix: &Postfix, parameter: &str, findings: &mut FindingList) {
    let check = CheckName::PostfixXclient;
    for (place, list) in postfix.everywhere(parameter) {
        let wide = too_wide(list);
        let set = || vec![postfix.set(place, parameter, &corrected(list).join(" "))];
        if !wide.is_empty() {
            let seen = format!(
                "{parameter} has {}: any host there may claim any client address",
                wide.join(" ")
            );
            let advice = "List the gateway's addresses only.";
            findings.fail(check, place, seen, advice).commands = set();
        } else if let Some(item) = first_unbracketed(list) {
            let seen =
                format!("{parameter} has {item}: without brackets Postfix reads it as a table");
            let advice = "Write IPv6 addresses in brackets.";
            findings.fail(check, place, seen, advice).commands = set();
        } else if list.is_empty() {
            findings.pass(check, place, format!("{parameter} is empty"));
        } else {
            findings.pass(check, place, format!("{parameter} = {list}"));
        }
    }
}

/// This host, by loopback, may override the client address.
pub(super) fn trusts_loopback(list: &str) -> bool {
    list_items(list).any(|item| {
        let is_network =
            matches!(parse_item(item), ListItem::Network(net) if net.addr().is_loopback());
        is_network || parse_address(item).is_some_and(|ip| ip.is_loopback() && ip.is_ipv4())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_items_are_classified() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (item, expected) in [
            ("192.0.2.0/24", ListItem::Network(net("192.0.2.0/24"))),
            ("192.0.2.1", ListItem::Network(net("192.0.2.1/32"))),
            ("[::1]", ListItem::Network(net("::1/128"))),
            ("[2001:db8::]/32", ListItem::Network(net("2001:db8::/32"))),
            ("[2001:db8::/32]", ListItem::Network(net("2001:db8::/32"))),
            ("2001:db8::/32", ListItem::Unbracketed(net("2001:db8::/32"))),
            ("::1", ListItem::Unbracketed(net("::1/128"))),
            ("hash:/etc/postfix/nets", ListItem::Other),
            ("!192.0.2.1", ListItem::Other),
            ("[::1", ListItem::Network(net("::1/128"))),
            ("example.org", ListItem::Other),
        ] {
            assert_eq!(parse_item(item), expected, "{item}");
        }
        assert_eq!(
            corrected("::1, [::]/0 10.0.0.0/8 static:all hash:x").join(" "),
            "[::1]/128 10.0.0.0/8 hash:x"
        );
    }
}
