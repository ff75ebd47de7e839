//! DNS64: a resolver that makes AAAA records up from A records, for hosts that have IPv6 only (RFC 6147).
//!
//! Such an address leads to a translator (NAT64) and from there over IPv4, so it says nothing of the domain's IPv6. The
//! resolver shows its prefixes in the addresses of `ipv4only.arpa`, which has A records only (RFC 7050 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::known::KnownAnswers;
use crate::addr::Family;
use crate::policy::facts::DomainName;

const WELL_KNOWN_NAME: &str = "ipv4only.arpa";
/// The A records of that name (RFC 7050 §2.2).
const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// RFC 6052 §2.2.
const PREFIX_LENGTHS: [u32; 6] = [32, 40, 48, 56, 64, 96];

/// The prefix of a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nat64Prefix {
    bits: u128,
    length: u32,
}

impl Nat64Prefix {
    /// The prefix with which `synthesised` embeds one of [`WELL_KNOWN`].
    fn of(synthesised: Ipv6Addr) -> Option<Self> {
        PREFIX_LENGTHS.into_iter().find_map(|length| {
            let embedded = embedded(synthesised, length)?;
            let prefix = Self { bits: u128::from(synthesised) & mask(length), length };
            WELL_KNOWN.contains(&embedded).then_some(prefix)
        })
    }

    fn contains(self, ip: Ipv6Addr) -> bool {
        u128::from(ip) & mask(self.length) == self.bits && embedded(ip, self.length).is_some()
    }
}

const fn mask(length: u32) -> u128 {
    u128::MAX << (128 - length)
}

/// The IPv4 address that follows a prefix of this length, around octet 8 (RFC 6052 §2.2); `None` if that octet or what
/// follows the address is not zero.
fn embedded(ip: Ipv6Addr, length: u32) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let behind = octets.iter().enumerate().skip(length as usize / 8);
    let mut suffix = behind.filter(|(at, _)| length == 96 || *at != 8).map(|(_, octet)| *octet);
    let mut next = || suffix.next();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    let is_padded = (length == 96 || octets[8] == 0) && suffix.all(|octet| octet == 0);
    is_padded.then_some(address)
}

/// The addresses of a host that its zone has, and those that the resolver made up. `None` while that is not known.
pub(super) fn separate(
    found: Vec<IpAddr>,
    known: &KnownAnswers,
) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
    if found.iter().all(IpAddr::is_ipv4) {
        return Some((found, Vec::new()));
    }
    // Without an answer the resolver is taken for an ordinary one.
    let shown = match DomainName::parse(WELL_KNOWN_NAME) {
        Some(name) => known.addresses(&name, Family::Ipv6)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let prefixes: Vec<Nat64Prefix> = shown.into_iter().filter_map(prefix).collect();
    let is_real = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !prefixes.iter().any(|prefix| prefix.contains(*v6)),
    };
    Some(found.into_iter().partition(is_real))
}

fn prefix(ip: IpAddr) -> Option<Nat64Prefix> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Nat64Prefix::of(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6052 §2.4, with the address of [`WELL_KNOWN`] in place of 192.0.2.33.
    #[test]
    fn prefixes_of_each_length_are_found() {
        for (shown, length, made_up) in [
            ("2001:db8:c000:aa::", 32, "2001:db8:c000:221::"),
            ("2001:db8:1c0:0:aa::", 40, "2001:db8:1c0:2:21::"),
            ("2001:db8:122:c000:0:aa00::", 48, "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:3c0:0:aa::", 56, "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344:c0:0:aa00:0", 64, "2001:db8:122:344:c0:2:2100:0"),
            ("2001:db8:122:344::c000:ab", 96, "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::c000:aa", 96, "64:ff9b::192.0.2.33"),
        ] {
            let shown: Ipv6Addr = shown.parse().unwrap();
            let prefix = Nat64Prefix::of(shown).unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(prefix.length, length, "{shown}");
            let made_up: Ipv6Addr = made_up.parse().unwrap();
            assert!(prefix.contains(made_up), "{made_up}");
            assert_eq!(embedded(made_up, length), Some(Ipv4Addr::new(192, 0, 2, 33)));
            assert!(!prefix.contains("2001:db9::25".parse().unwrap()));
        }
        assert_eq!(Nat64Prefix::of("2001:db8::25".parse().unwrap()), None);
    }
}
