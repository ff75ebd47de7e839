//! Resource records as Postfix writes them in keys: `name ttl class type data` (dns_strrecord.c).

use std::net::IpAddr;

use crate::addr::Family;
use crate::policy::facts::DomainName;

/// An A or AAAA record. Records of other types are not decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilteredRecord {
    /// The owner of the record: of a host that is an alias (CNAME), the name that it stands for.
    pub host: DomainName,
    pub address: IpAddr,
}

impl FilteredRecord {
    /// `None` for another type or class, and for anything that is no record.
    pub fn parse(key: &str) -> Option<Self> {
        let words: Vec<&str> = key.split_ascii_whitespace().collect();
        let [host, ttl, class, kind, data] = words.as_slice() else { return None };
        let address = match *kind {
            "A" => IpAddr::V4(data.parse().ok()?),
            "AAAA" => IpAddr::V6(data.parse().ok()?),
            _ => return None,
        };
        let is_record = class.eq_ignore_ascii_case("IN") && ttl.parse::<u32>().is_ok();
        is_record.then_some(Self { host: DomainName::parse(host)?, address })
    }

    pub const fn family(&self) -> Family {
        match self.address {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_records_are_parsed() {
        let record = FilteredRecord::parse("MX.Example.COM. 3600 IN AAAA 2001:db8::1").unwrap();
        assert_eq!(record.host, DomainName::parse("mx.example.com").unwrap());
        assert_eq!(record.address, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(record.family(), Family::Ipv6);
        let record = FilteredRecord::parse("mx.example.com. 0 IN A 192.0.2.1").unwrap();
        assert_eq!(record.family(), Family::Ipv4);
        for key in [
            "example.com. 3600 IN MX 10 mx.example.com.",
            "mx.example.com. 3600 IN A 2001:db8::1",
            "mx.example.com. 3600 IN AAAA 192.0.2.1",
            "mx.example.com. 3600 CH AAAA 2001:db8::1",
            "mx.example.com. soon IN AAAA 2001:db8::1",
            "mx.example.com. 3600 IN AAAA 2001:db8::1 x",
            "192.0.2.1 3600 IN A 192.0.2.1",
            "mx.example.com. 3600 IN AAAA",
            "",
        ] {
            assert_eq!(FilteredRecord::parse(key), None, "{key}");
        }
    }
}
