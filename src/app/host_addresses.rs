//! The addresses of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;

use crate::config::HostAddresses;

/// This host, as it is now.
pub(super) struct ThisHost {
    /// Of its interfaces, whether they are up or not.
    addresses: Vec<IpAddr>,
}

impl ThisHost {
    pub(super) fn new() -> Self {
        let interfaces = getifaddrs().into_iter().flatten();
        let address = |interface: nix::ifaddrs::InterfaceAddress| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        };
        Self { addresses: interfaces.filter_map(address).map(|ip| ip.to_canonical()).collect() }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }
}

impl HostAddresses for ThisHost {
    fn contains(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip.to_canonical())
    }

    /// As the routing table chooses it. The address of a `local` route, which no interface needs to have, is its own source.
    fn source_to(&self, ip: IpAddr) -> Option<IpAddr> {
        let ip = ip.to_canonical();
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a UDP socket sends nothing.
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        socket.connect(SocketAddr::new(ip, 25)).ok()?;
        socket.local_addr().ok().map(|source| source.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_address_of_this_host_and_its_own_source() {
        let host = ThisHost::new();
        let loopback = Ipv4Addr::LOCALHOST.into();
        assert!(host.contains(loopback));
        assert!(!host.contains("192.0.2.1".parse().unwrap()), "reserved for documentation");
        assert_eq!(host.source_to(loopback), Some(loopback));
        // All of 127.0.0.0/8 is local by a route; lo has one address of it.
        let other: IpAddr = "127.3.2.1".parse().unwrap();
        assert_eq!((host.contains(other), host.source_to(other).is_some()), (false, true));
    }
}
