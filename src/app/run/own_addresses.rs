//! This host's own addresses, which no probe may go to: found without `[site]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::config::Config;

/// The addresses of all interfaces, the listeners and the upstreams of `config`. Interfaces change, so it is called regularly.
pub(super) fn own_addresses(config: &Config) -> BTreeSet<IpAddr> {
    let relay = &config.relay;
    let configured = relay.listen.addresses.iter().chain(&relay.upstream.addresses);
    let mut addresses: BTreeSet<IpAddr> =
        configured.map(|address| address.ip().to_canonical()).collect();
    // Without them the configured ones remain.
    for interface in getifaddrs().into_iter().flatten() {
        let address = interface.address.as_ref();
        let ip = address.and_then(|address| {
            let ipv4 = address.as_sockaddr_in().map(|ipv4| IpAddr::V4(ipv4.ip()));
            ipv4.or_else(|| address.as_sockaddr_in6().map(|ipv6| IpAddr::V6(ipv6.ip())))
        });
        addresses.extend(ip.map(|ip| ip.to_canonical()));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_listeners_and_upstreams_are_ours() {
        let text = "[listen]\naddresses = [\"[2001:db8::1]:25\"]\n[upstream]\naddresses = [\"192.0.2.25:25\"]\n";
        let config = Config::parse(text, "test").unwrap();
        let own = own_addresses(&config);
        for ip in ["2001:db8::1", "192.0.2.25", "127.0.0.1"] {
            assert!(own.contains(&ip.parse().unwrap()), "{ip}: {own:?}");
        }
        assert!(!own.contains(&"192.0.2.26".parse().unwrap()));
    }
}
