//! Address families, address newtypes and network sets.
//!
//! Layer 0. An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is IPv4 (rule 8 of ARCHITECTURE.md). Every constructor here
//! canonicalises, so no list, label, log line or reverse lookup contains the mapped form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

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

/// IPv4 blocks of the IANA IPv4 Special-Purpose Address Registry (RFC 6890), without the documentation blocks, and multicast
/// (RFC 5771). First address and prefix length.
const SPECIAL_IPV4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),       // "this network", RFC 791
    ([10, 0, 0, 0], 8),      // private, RFC 1918
    ([100, 64, 0, 0], 10),   // shared address space of carrier-grade NAT, RFC 6598
    ([127, 0, 0, 0], 8),     // loopback, RFC 1122
    ([169, 254, 0, 0], 16),  // link-local, RFC 3927
    ([172, 16, 0, 0], 12),   // private, RFC 1918
    ([192, 0, 0, 0], 24),    // IETF protocol assignments, RFC 6890
    ([192, 31, 196, 0], 24), // AS112, RFC 7535
    ([192, 52, 193, 0], 24), // AMT, RFC 7450
    ([192, 88, 99, 0], 24),  // 6to4 relays, RFC 7526
    ([192, 168, 0, 0], 16),  // private, RFC 1918
    ([192, 175, 48, 0], 24), // AS112, RFC 7534
    ([198, 18, 0, 0], 15),   // benchmarks, RFC 2544
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, RFC 1112, and the limited broadcast, RFC 919
];

/// RFC 5737.
const DOCUMENTATION_IPV4: [([u8; 4], u32); 3] =
    [([192, 0, 2, 0], 24), ([198, 51, 100, 0], 24), ([203, 0, 113, 0], 24)];

/// IPv6 blocks of the IANA IPv6 Special-Purpose Address Registry within 2000::/3, without the documentation blocks. All of the
/// address space outside 2000::/3, the only part that is allocated for global unicast (RFC 4291 §2.4), is special as well:
/// loopback, v4-mapped and v4-compatible addresses, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only (100::/64), segment
/// routing (5f00::/16), unique local, link-local, site-local, multicast.
const SPECIAL_IPV6: [([u16; 3], u32); 3] = [
    ([0x2001, 0, 0], 23), // IETF protocol assignments: Teredo, benchmarks, AMT, AS112, ORCHID
    ([0x2002, 0, 0], 16), // 6to4, RFC 3056
    ([0x2620, 0x4f, 0x8000], 48), // AS112, RFC 7534
];

/// RFC 3849 and RFC 9637.
const DOCUMENTATION_IPV6: [([u16; 3], u32); 2] = [([0x2001, 0xdb8, 0], 32), ([0x3fff, 0, 0], 20)];

/// Whether the address has a special purpose: it stands in the IANA registries (RFC 6890), is multicast, embeds an IPv4 address
/// (v4-mapped, 6to4, NAT64, Teredo; ISATAP with a special IPv4 address), or is not allocated for unicast. No mail server of
/// another site has such an address, so none is probed (rule 11 of ARCHITECTURE.md).
pub fn is_special_purpose(ip: IpAddr) -> bool {
    is_documentation(ip) || is_special_but_documentation(ip)
}

/// Whether a host on the Internet can have this address: not one of [`is_special_purpose`]. Documentation addresses count as
/// global here, because examples, captures and tests use them in place of global ones.
pub fn is_global(ip: IpAddr) -> bool {
    !is_special_but_documentation(ip)
}

fn is_documentation(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => DOCUMENTATION_IPV4.iter().any(|block| in_ipv4(v4, *block)),
        IpAddr::V6(v6) => DOCUMENTATION_IPV6.iter().any(|block| in_ipv6(v6, *block)),
    }
}

fn is_special_but_documentation(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => SPECIAL_IPV4.iter().any(|block| in_ipv4(v4, *block)),
        IpAddr::V6(v6) => {
            let is_unicast = v6.segments()[0] & 0xe000 == 0x2000;
            !is_unicast
                || SPECIAL_IPV6.iter().any(|block| in_ipv6(v6, *block))
                || isatap(v6).is_some_and(|v4| is_special_purpose(IpAddr::V4(v4)))
        }
    }
}

fn in_ipv4(ip: Ipv4Addr, (first, length): ([u8; 4], u32)) -> bool {
    (u32::from(ip) ^ u32::from_be_bytes(first)) >> (32 - length) == 0
}

fn in_ipv6(ip: Ipv6Addr, ([a, b, c], length): ([u16; 3], u32)) -> bool {
    let first = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
    (u128::from(ip) ^ u128::from(first)) >> (128 - length) == 0
}

/// The IPv4 address in an ISATAP interface identifier (RFC 5214 §6.1).
fn isatap(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [.., 0 | 0x200, 0x5efe, high, low] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
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
    fn global_addresses() {
        for (ip, expected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("2a00::1", true),
            ("3fff::1", true),
            ("10.1.2.3", false),
            ("100.64.0.1", false),
            ("198.18.0.1", false),
            ("2002:808:808::1", false),
            ("64:ff9b::808:808", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("::ffff:192.0.2.1", false),
        ] {
            assert_eq!(is_global(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    /// The first and last address of each block of both IANA registries (as of 2025-10), and their neighbours outside.
    #[test]
    fn special_purpose_addresses() {
        for inside in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.8",
            "192.0.0.9",
            "192.0.0.170",
            "192.0.0.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "192.175.48.6",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::a00:1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:1::1",
            "2001:2::1",
            "2001:3::1",
            "2001:4:112::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "2620:4f:8000::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2a00:1::5efe:10.0.0.1",
            "2a00:1::200:5efe:127.0.0.1",
        ] {
            assert!(is_special_purpose(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.195.255",
            "192.88.98.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7::1",
            "2001:db9::1",
            "2003::1",
            "2620:4f:8001::1",
            "2a00:1450::1",
            "3ffe::1",
            "3fff:1000::1",
            "2a00:1::5efe:8.8.8.8",
        ] {
            assert!(!is_special_purpose(outside.parse().unwrap()), "{outside}");
        }
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
