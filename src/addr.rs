//! Address families, address newtypes and network sets.
//!
//! Layer 0. An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is IPv4 (rule 8 of ARCHITECTURE.md). Every constructor here
//! canonicalises, so no list, label, log line or reverse lookup contains the mapped form.

mod special_purpose;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

pub use self::special_purpose::{SpecialPurpose, is_global, is_special_purpose, special_purpose};
use crate::label::labels;

labels! {
    /// IP version of a connection.
    pub enum Family {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

impl Family {
    /// A v4-mapped IPv6 address is IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Ipv4 => Self::Ipv6,
            Self::Ipv6 => Self::Ipv4,
        }
    }
}

labels! {
    /// End of a TCP connection: the client opened it. For the relay the server is the upstream.
    pub enum Side {
        Client = "client",
        Server = "server",
    }
}

impl Side {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// `addr` with a v4-mapped IPv6 address converted to IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

macro_rules! socket_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            pub fn new(addr: SocketAddr) -> Self {
                Self(canonical(addr))
            }

            pub fn socket(self) -> SocketAddr {
                self.0
            }

            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            pub fn port(self) -> u16 {
                self.0.port()
            }

            pub fn family(self) -> Family {
                Family::of(self.0.ip())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

socket_newtype!(
    /// The SMTP client: the peer of the socket, or the source address in a PROXY header from a trusted peer.
    ClientAddr
);
socket_newtype!(
    /// An MTA behind the gateway.
    UpstreamAddr
);
socket_newtype!(
    /// Original destination of the client's connection: the gateway's listener in proxy mode, the MTA in transparent mode.
    OriginalDst
);

/// Key for limits per client: the /32 of an IPv4 address, the /64 of an IPv6 address, since one IPv6 host usually has a
/// whole /64 (rule 7 of ARCHITECTURE.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixKey(IpAddr);

impl PrefixKey {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(IpAddr::V4(v4)),
            IpAddr::V6(v6) => {
                let prefix = u128::from(v6) & !u128::from(u64::MAX);
                Self(IpAddr::V6(Ipv6Addr::from(prefix)))
            }
        }
    }
}

impl fmt::Display for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}/32"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

/// The network that evidence about our mail paths and shares of budgets are counted by: the /24 of an IPv4 address, the /48 of
/// an IPv6 address, which is the most that one site usually has (rules 7 and 14 of ARCHITECTURE.md). A 6to4 address (RFC 3056)
/// counts as the network of its IPv4 address, since the owner of an IPv4 /24 has 256 such /48s. All Teredo addresses (RFC 4380)
/// are one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkKey(IpAddr);

impl NetworkKey {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::of_ipv4(v4),
            IpAddr::V6(v6) => match v6.segments() {
                [0x2002, high, low, ..] => {
                    let [a, b] = high.to_be_bytes();
                    let [c, d] = low.to_be_bytes();
                    Self::of_ipv4(Ipv4Addr::new(a, b, c, d))
                }
                [0x2001, 0, ..] => Self(IpAddr::V6(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0))),
                [a, b, c, ..] => Self(IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))),
            },
        }
    }

    fn of_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        Self(IpAddr::V4(Ipv4Addr::new(a, b, c, 0)))
    }
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => write!(f, "{v4}/24"),
            IpAddr::V6(v6) => write!(f, "{v6}/48"),
        }
    }
}

/// Set of networks of both families. The empty set contains no address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// A network in v4-mapped form (`::ffff:192.0.2.0/120`) becomes an IPv4 network.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().map(canonical_network).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().copied()
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|net| net.contains(&ip))
    }
}

/// `net` with a v4-mapped network converted to IPv4.
pub fn canonical_network(net: IpNet) -> IpNet {
    let mapped: Option<Ipv4Addr> = match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    match mapped {
        Some(v4) => ipnet::Ipv4Net::new(v4, net.prefix_len() - 96).map_or(net, IpNet::V4),
        None => net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_mapped_addresses_become_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:25".parse().unwrap();
        let client = ClientAddr::new(mapped);
        assert_eq!(client.to_string(), "192.0.2.7:25");
        assert_eq!(client.family(), Family::Ipv4);
        assert_eq!(PrefixKey::of(mapped.ip()).to_string(), "192.0.2.7/32");

        let nets = Networks::new(["::ffff:192.0.2.0/120".parse().unwrap()]);
        assert!(nets.contains("192.0.2.200".parse().unwrap()));
        assert!(nets.contains(mapped.ip()));
        assert!(!nets.contains("192.0.3.1".parse().unwrap()));
    }

    #[test]
    fn client_networks() {
        for (ip, network) in [
            ("198.51.100.77", "198.51.100.0/24"),
            ("::ffff:198.51.100.7", "198.51.100.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
            ("2002:c633:6407::1", "198.51.100.0/24"),
            ("2001:0:4136:e378::1", "2001::/48"),
        ] {
            assert_eq!(NetworkKey::of(ip.parse().unwrap()).to_string(), network, "{ip}");
        }
    }

    #[test]
    fn prefix_key_of_ipv6_is_its_64() {
        let a = PrefixKey::of("2001:db8:1:2:3:4:5:6".parse().unwrap());
        let b = PrefixKey::of("2001:db8:1:2::1".parse().unwrap());
        let other = PrefixKey::of("2001:db8:1:3::1".parse().unwrap());
        assert_eq!(a, b);
        assert_ne!(a, other);
        assert_eq!(a.to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn network_key_of_ipv6_is_its_48() {
        let key = |ip: &str| NetworkKey::of(ip.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2::1"), "2001:db8:1::/48");
        assert_eq!(key("192.0.2.7"), "192.0.2.0/24");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.0/24");
    }
}
