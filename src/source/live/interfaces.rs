//! Which interfaces are watched.

use std::net::IpAddr;

use ipnet::IpNet;
use pnet::datalink::{self, NetworkInterface};

use super::{Interface, LiveError};

/// Those with these names, in that order and each once; without any, all that are up and have a global address.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Interface>, LiveError> {
    choose(&datalink::interfaces(), names)
}

fn choose(all: &[NetworkInterface], names: &[String]) -> Result<Vec<Interface>, LiveError> {
    let there = || all.iter().map(|interface| interface.name.clone()).collect();
    let mut chosen: Vec<Interface> = Vec::new();
    if names.is_empty() {
        chosen.extend(all.iter().filter(|one| one.is_up() && is_global(one)).map(read));
        if chosen.is_empty() {
            return Err(LiveError::NoInterface { there: there() });
        }
    }
    for name in names {
        let Some(found) = all.iter().find(|one| one.name == *name) else {
            return Err(LiveError::NoSuchInterface { name: name.clone(), there: there() });
        };
        if !found.is_up() {
            return Err(LiveError::Down { name: name.clone() });
        }
        if chosen.iter().all(|one| one.name != *name) {
            chosen.push(read(found));
        }
    }
    Ok(chosen)
}

fn read(interface: &NetworkInterface) -> Interface {
    let net = |net: &pnet::ipnetwork::IpNetwork| IpNet::new(net.ip(), net.prefix()).ok();
    Interface {
        name: interface.name.clone(),
        index: interface.index,
        addresses: interface.ips.iter().filter_map(net).collect(),
    }
}

/// One address is enough that others than the neighbours may use. Private and unique local ones count: whole sites have
/// no others.
fn is_global(interface: &NetworkInterface) -> bool {
    interface.ips.iter().any(|net| match net.ip() {
        address if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
            false
        }
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}
