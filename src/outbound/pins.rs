//! Hosts whose family the operator decides.

use crate::policy::facts::DomainName;
use crate::policy::rules::Domains;

/// `[outbound] ipv4_only` and `keep_ipv6`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    pub ipv4_only: Domains,
    pub keep_ipv6: Domains,
}

/// The operator's decision on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Mail goes over IPv4, if the host has it.
    Ipv4Only,
    /// IPv6 is never avoided.
    KeepIpv6,
}

impl Pins {
    /// The pin of an exchange host. A name decides before a parent domain; of two parent domains `keep_ipv6` decides.
    pub fn of(&self, host: &DomainName) -> Option<Pin> {
        let is_exact = |domains: &Domains| domains.exact.contains(host);
        if is_exact(&self.keep_ipv6) {
            Some(Pin::KeepIpv6)
        } else if is_exact(&self.ipv4_only) {
            Some(Pin::Ipv4Only)
        } else if self.keep_ipv6.contain(host) {
            Some(Pin::KeepIpv6)
        } else {
            self.ipv4_only.contain(host).then_some(Pin::Ipv4Only)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_decides_before_a_parent_domain() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let domains = |exact: &[&str], below: &[&str]| Domains {
            exact: exact.iter().map(|text| name(text)).collect(),
            below: below.iter().map(|text| name(text)).collect(),
        };
        let pins = Pins {
            ipv4_only: domains(&["mx.a.example", "mx1.c.example"], &["b.example", "d.example"]),
            keep_ipv6: domains(&["mx1.b.example"], &["c.example", "d.example"]),
        };
        for (host, expected) in [
            ("mx.a.example", Some(Pin::Ipv4Only)),
            ("MX.A.example.", Some(Pin::Ipv4Only)),
            ("a.example", None),
            ("x.mx.a.example", None),
            ("mx.b.example", Some(Pin::Ipv4Only)),
            ("b.example", None),
            ("notb.example", None),
            ("mx1.b.example", Some(Pin::KeepIpv6)),
            ("mx1.c.example", Some(Pin::Ipv4Only)),
            ("mx2.c.example", Some(Pin::KeepIpv6)),
            ("mx.d.example", Some(Pin::KeepIpv6)),
        ] {
            assert_eq!(pins.of(&name(host)), expected, "{host}");
        }
    }
}
