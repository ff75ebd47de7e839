//! Conversion between lookups and DNS questions, DNS records and facts.

use hickory_proto::rr::{RData, RecordType};

use crate::addr::Family;
use crate::policy::facts::{DnsRecord, DomainName, Lookup};

/// The owner name and the type of the records that answer `lookup`; `None` if it is not a DNS lookup.
pub(super) fn question(lookup: &Lookup) -> Option<(DomainName, RecordType)> {
    Some(match lookup {
        Lookup::Reverse(ip) => (DomainName::reverse(*ip), RecordType::PTR),
        Lookup::Addresses(name, Family::Ipv4) => (name.clone(), RecordType::A),
        Lookup::Addresses(name, Family::Ipv6) => (name.clone(), RecordType::AAAA),
        Lookup::MailExchanges(domain) => (domain.clone(), RecordType::MX),
        Lookup::Texts(name) => (name.clone(), RecordType::TXT),
        Lookup::Connect(_)
        | Lookup::Greet(_)
        | Lookup::Callout(..)
        | Lookup::Recipient(_)
        | Lookup::ReceivePath(_) => return None,
    })
}

/// The record, if it is of a type that a [`Lookup`] uses.
pub(super) fn record(data: &RData) -> Option<DnsRecord> {
    Some(match data {
        RData::A(a) => DnsRecord::Address(a.0.into()),
        RData::AAAA(aaaa) => DnsRecord::Address(aaaa.0.into()),
        RData::PTR(ptr) => DnsRecord::Name(ptr.0.clone().into()),
        RData::MX(mx) => {
            DnsRecord::Exchange { preference: mx.preference, host: mx.exchange.clone().into() }
        }
        RData::TXT(text) => DnsRecord::Text(text.txt_data.concat()),
        _ => return None,
    })
}
