//! Selection of the watched interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use pnet::datalink::{self, NetworkInterface};

use super::error::LiveError;
use crate::source::interface::WatchedInterface;

/// The interfaces with these names, in that order without duplicates; without names, all that are up and have a global
/// address.
pub(super) fn select(names: &[String]) -> Result<Vec<WatchedInterface>, LiveError> {
    select_from(&datalink::interfaces(), names)
}

fn select_from(
    all: &[NetworkInterface],
    names: &[String],
) -> Result<Vec<WatchedInterface>, LiveError> {
    let available = || all.iter().map(|interface| interface.name.clone()).collect();
    let mut selected: Vec<WatchedInterface> = Vec::new();
    if names.is_empty() {
        selected
            .extend(all.iter().filter(|one| one.is_up() && has_global_address(one)).map(convert));
        if selected.is_empty() {
            return Err(LiveError::NoDefaultInterface { available: available() });
        }
    }
    for name in names {
        let Some(found) = all.iter().find(|one| one.name == *name) else {
            return Err(LiveError::UnknownInterface { name: name.clone(), available: available() });
        };
        if !found.is_up() {
            return Err(LiveError::Down { name: name.clone() });
        }
        if selected.iter().all(|one| one.name != *name) {
            selected.push(convert(found));
        }
    }
    Ok(selected)
}

fn convert(interface: &NetworkInterface) -> WatchedInterface {
    let net = |net: &pnet::ipnetwork::IpNetwork| IpNet::new(net.ip(), net.prefix()).ok();
    WatchedInterface {
        name: interface.name.clone(),
        index: interface.index,
        addresses: interface.ips.iter().filter_map(net).collect(),
    }
}

/// Whether an address is reachable beyond the link. Private and unique local addresses count: whole sites have no others.
fn has_global_address(interface: &NetworkInterface) -> bool {
    interface.ips.iter().any(|net| match net.ip() {
        address if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
            false
        }
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: u32 = 1;

    fn one(name: &str, flags: u32, ips: &[&str]) -> NetworkInterface {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let (name, description) = (name.to_owned(), String::new());
        NetworkInterface { name, description, index: 3, mac: None, ips, flags }
    }

    fn names(selected: Result<Vec<WatchedInterface>, LiveError>) -> String {
        match selected {
            Ok(selected) => selected.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn interfaces_with_a_global_address_are_the_default() {
        let all = [
            one("lo", UP, &["127.0.0.1/8", "::1/128"]),
            one("eth0", UP, &["198.51.100.1/24", "fe80::1/64"]),
            one("eth1", UP, &["fe80::1/64"]),
            one("eth2", UP, &["169.254.7.7/16"]),
            one("eth3", 0, &["192.0.2.1/24"]),
            one("eth4", UP, &["10.0.0.1/8"]),
            one("eth5", UP, &["fd00::1/64"]),
            one("eth6", UP, &["fe80::1/64", "2001:db8::1/64"]),
            one("eth7", UP, &[]),
        ];
        let name = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let results = [
            names(select_from(&all, &[])),
            names(select_from(&all, &name(&["eth7", "lo", "eth7"]))),
            names(select_from(&all, &name(&["lo", "eth33"]))),
            names(select_from(&all, &name(&["eth3"]))),
            names(select_from(&all[..4][2..], &[])),
        ];
        insta::assert_snapshot!(results.join("\n"));
        let eth6 = select_from(&all, &name(&["eth6"])).unwrap().remove(0);
        let addresses = ["fe80::1/64", "2001:db8::1/64"].map(|net| net.parse().unwrap());
        assert_eq!((eth6.index, &eth6.addresses[..]), (3, &addresses[..]));
    }
}
