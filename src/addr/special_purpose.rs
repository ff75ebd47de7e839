//! Addresses with a special purpose: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The purpose of an address that no mail server on the Internet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialPurpose {
    /// A noun with its source, such as `loopback address (RFC 1122)`.
    pub name: &'static str,
    /// "Globally Reachable" of the registries: packets reach it, but no host of one's own.
    pub is_reachable: bool,
}

/// First address, prefix length, name.
type Ipv4Block = ([u8; 4], u32, &'static str);
type Ipv6Block = ([u16; 8], u32, &'static str);

const AS112: &str = "address of AS112, which answers reverse lookups only (RFC 7534, RFC 7535)";
const PCP: &str = "anycast address of PCP servers (RFC 7723)";
const TURN: &str = "anycast address of TURN servers (RFC 8155)";
const AMT: &str = "address of multicast relays (AMT, RFC 7450)";
const PRIVATE: &str = "private address (RFC 1918)";
const UNSPECIFIED: &str = "unspecified address";
const NOT_ALLOCATED: &str = "address outside the space for hosts (RFC 4291 §2.4)";
const ISATAP: &str = "ISATAP address of a special IPv4 address (RFC 5214)";

/// Blocks of the registry as of 2025-10, without the documentation blocks, and multicast. The first match counts.
const SPECIAL_IPV4: &[Ipv4Block] = &[
    ([0, 0, 0, 0], 32, UNSPECIFIED),
    ([0, 0, 0, 0], 8, "address of \"this network\" (RFC 791)"),
    ([10, 0, 0, 0], 8, PRIVATE),
    ([100, 64, 0, 0], 10, "shared address of carrier-grade NAT (RFC 6598)"),
    ([127, 0, 0, 0], 8, "loopback address (RFC 1122)"),
    ([169, 254, 0, 0], 16, "link-local address (RFC 3927)"),
    ([172, 16, 0, 0], 12, PRIVATE),
    ([192, 0, 0, 0], 29, "address of IPv4 over IPv6 (DS-Lite, RFC 7335)"),
    ([192, 0, 0, 8], 32, "dummy address (RFC 7600)"),
    ([192, 0, 0, 170], 31, "address that shows DNS64 (RFC 7050)"),
    ([192, 0, 0, 0], 24, "address of IETF protocols (RFC 6890)"),
    ([192, 88, 99, 2], 32, "anycast address of 6a44 relays (RFC 6751)"),
    ([192, 88, 99, 0], 24, "anycast address of 6to4 relays, deprecated (RFC 7526)"),
    ([192, 168, 0, 0], 16, PRIVATE),
    ([198, 18, 0, 0], 15, "benchmark address (RFC 2544)"),
    ([224, 0, 0, 0], 4, "multicast address (RFC 5771)"),
    ([255, 255, 255, 255], 32, "broadcast address (RFC 919)"),
    ([240, 0, 0, 0], 4, "reserved address (RFC 1112)"),
];

const REACHABLE_IPV4: &[Ipv4Block] = &[
    ([192, 0, 0, 9], 32, PCP),
    ([192, 0, 0, 10], 32, TURN),
    ([192, 31, 196, 0], 24, AS112),
    ([192, 52, 193, 0], 24, AMT),
    ([192, 175, 48, 0], 24, AS112),
];

/// RFC 5737.
const DOCUMENTATION_IPV4: &[Ipv4Block] = &[
    ([192, 0, 2, 0], 24, "documentation address (RFC 5737)"),
    ([198, 51, 100, 0], 24, "documentation address (RFC 5737)"),
    ([203, 0, 113, 0], 24, "documentation address (RFC 5737)"),
];

/// As for IPv4, with blocks that are no longer in the registry and stay unused. Outside 2000::/3, the only part that is
/// allocated for hosts (RFC 4291 §2.4), all addresses are special.
const SPECIAL_IPV6: &[Ipv6Block] = &[
    ([0; 8], 128, UNSPECIFIED),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback address (RFC 4291)"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped address (RFC 4291)"),
    ([0; 8], 96, "IPv4-compatible address, deprecated (RFC 4291)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "address of a local NAT64 translator (RFC 8215)"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard address (RFC 6666)"),
    ([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy address (RFC 9780)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo address (RFC 4380)"),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmark address (RFC 5180)"),
    ([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "ORCHID, deprecated (RFC 4843)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "address of IETF protocols (RFC 2928)"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4 address, deprecated (RFC 3056, RFC 7526)"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing identifier (RFC 9602)"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local address (ULA, RFC 4193)"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local address (RFC 4291)"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local address, deprecated (RFC 3879)"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast address (RFC 4291)"),
];

const REACHABLE_IPV6: &[Ipv6Block] = &[
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "address of a NAT64 translator (RFC 6052)"),
    ([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, PCP),
    ([0x2001, 1, 0, 0, 0, 0, 0, 2], 128, TURN),
    ([0x2001, 1, 0, 0, 0, 0, 0, 3], 128, "anycast address of service registration (RFC 9665)"),
    ([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, AMT),
    ([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, AS112),
    ([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "ORCHID, which no packet has as its address (RFC 7343)"),
    ([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, "identifier of a drone (DET, RFC 9374)"),
    ([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, AS112),
];

/// RFC 3849 and RFC 9637.
const DOCUMENTATION_IPV6: &[Ipv6Block] = &[
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation address (RFC 3849)"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation address (RFC 9637)"),
];

/// Whether the address has a special purpose: it stands in the IANA registries (RFC 6890), is multicast, embeds an IPv4 address
/// (v4-mapped, 6to4, NAT64, Teredo; ISATAP with a special IPv4 address), or is not allocated for unicast. No mail server of
/// another site has such an address, so none is probed (rule 11 of ARCHITECTURE.md).
pub fn is_special_purpose(ip: IpAddr) -> bool {
    is_documentation(ip) || special_purpose(ip).is_some()
}

/// Whether a host on the Internet can have this address: not one of [`is_special_purpose`]. Documentation addresses count as
/// global here, because examples, captures and tests use them in place of global ones.
pub fn is_global(ip: IpAddr) -> bool {
    special_purpose(ip).is_none()
}

/// The purpose of an address that is not global in the sense of [`is_global`].
pub fn special_purpose(ip: IpAddr) -> Option<SpecialPurpose> {
    let reachable = |name| SpecialPurpose { name, is_reachable: true };
    let special = |name| SpecialPurpose { name, is_reachable: false };
    match ip {
        IpAddr::V4(v4) => {
            let found = || find_ipv4(v4, SPECIAL_IPV4).map(special);
            find_ipv4(v4, REACHABLE_IPV4).map(reachable).or_else(found)
        }
        IpAddr::V6(v6) => {
            let is_unicast = v6.segments()[0] & 0xe000 == 0x2000;
            let rest = || {
                let v4 = isatap(v6).map(IpAddr::V4);
                match v4.is_some_and(is_special_purpose) {
                    _ if !is_unicast => Some(special(NOT_ALLOCATED)),
                    true => Some(special(ISATAP)),
                    false => None,
                }
            };
            let found = || find_ipv6(v6, SPECIAL_IPV6).map(special);
            find_ipv6(v6, REACHABLE_IPV6).map(reachable).or_else(found).or_else(rest)
        }
    }
}

fn is_documentation(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => find_ipv4(v4, DOCUMENTATION_IPV4).is_some(),
        IpAddr::V6(v6) => find_ipv6(v6, DOCUMENTATION_IPV6).is_some(),
    }
}

fn find_ipv4(ip: Ipv4Addr, blocks: &[Ipv4Block]) -> Option<&'static str> {
    let ip = u32::from(ip);
    let is_in =
        |(first, length, _): &&Ipv4Block| (ip ^ u32::from_be_bytes(*first)) >> (32 - length) == 0;
    blocks.iter().find(is_in).map(|(.., name)| *name)
}

fn find_ipv6(ip: Ipv6Addr, blocks: &[Ipv6Block]) -> Option<&'static str> {
    let ip = u128::from(ip);
    let is_in = |(first, length, _): &&Ipv6Block| {
        (ip ^ u128::from(Ipv6Addr::from(*first))) >> (128 - length) == 0
    };
    blocks.iter().find(is_in).map(|(.., name)| *name)
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

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A block inside another has its own name.
    #[test]
    fn purposes_have_names() {
        for (ip, name, is_reachable) in [
            ("0.0.0.0", "unspecified", false),
            ("0.1.2.3", "\"this network\"", false),
            ("100.64.0.1", "carrier-grade NAT", false),
            ("192.0.0.7", "DS-Lite", false),
            ("192.0.0.8", "dummy", false),
            ("192.0.0.9", "PCP", true),
            ("192.0.0.10", "TURN", true),
            ("192.0.0.11", "IETF protocols", false),
            ("192.0.0.171", "DNS64", false),
            ("192.31.196.1", "AS112", true),
            ("192.52.193.1", "AMT", true),
            ("192.88.99.1", "6to4", false),
            ("192.88.99.2", "6a44", false),
            ("198.19.0.1", "benchmark", false),
            ("240.0.0.1", "reserved", false),
            ("255.255.255.255", "broadcast", false),
            ("::", "unspecified", false),
            ("::1", "loopback", false),
            ("::192.0.2.1", "IPv4-compatible", false),
            ("::ffff:192.0.2.1", "IPv4-mapped", false),
            ("64:ff9b::192.0.2.1", "NAT64", true),
            ("64:ff9b:1::1", "local NAT64", false),
            ("64:ff9b:2::1", "outside the space", false),
            ("100::1", "discard", false),
            ("100:0:0:1::1", "dummy", false),
            ("2001::1", "Teredo", false),
            ("2001:1::1", "PCP", true),
            ("2001:1::2", "TURN", true),
            ("2001:1::3", "service registration", true),
            ("2001:1::4", "IETF protocols", false),
            ("2001:2::1", "benchmark", false),
            ("2001:2:1::1", "IETF protocols", false),
            ("2001:3::1", "AMT", true),
            ("2001:4:112::1", "AS112", true),
            ("2001:4:113::1", "IETF protocols", false),
            ("2001:1f::1", "ORCHID, deprecated", false),
            ("2001:2f::1", "ORCHID, which", true),
            ("2001:3f::1", "drone", true),
            ("2001:40::1", "IETF protocols", false),
            ("2002:c000:201::1", "6to4", false),
            ("2620:4f:8000::1", "AS112", true),
            ("2a00:1::5efe:10.0.0.1", "ISATAP", false),
            ("4000::1", "outside the space", false),
            ("5f00::1", "segment routing", false),
            ("fd00::1", "unique local", false),
            ("febf::1", "link-local", false),
            ("fec0::1", "site-local", false),
            ("ff0e::1", "multicast", false),
        ] {
            let purpose = special_purpose(ip.parse().unwrap()).unwrap_or_else(|| panic!("{ip}"));
            assert!(purpose.name.contains(name), "{ip}: {}", purpose.name);
            assert_eq!(purpose.is_reachable, is_reachable, "{ip}");
        }
        for ip in ["192.0.2.1", "2001:db8::1", "3fff::1", "2001:200::1", "8.8.8.8"] {
            assert_eq!(special_purpose(ip.parse().unwrap()), None, "{ip}");
        }
    }
}
