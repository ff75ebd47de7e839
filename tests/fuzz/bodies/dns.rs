//! DNS responses, as a capture holds them.

use gatepost::addr::Family;
use gatepost::lookup::PassiveDns;
use gatepost::policy::facts::{Answer, DnsRecord, DomainName, Lookup};
use gatepost::time::Timestamp;

/// DNS responses, each after two octets of length (as over TCP), to a capture with little room.
pub(crate) fn dns(input: &[u8]) {
    let mut capture = PassiveDns::with_limit(2048);
    let (mut rest, mut nanos) = (input, 0);
    while let Some((&[high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        capture.on_message(&after[..length], Timestamp::from_nanos(nanos));
        (rest, nanos) = (&after[length..], nanos + 1);
    }
    let client = "2001:db8::25".parse().unwrap();
    for name in ["a.example", "mx.a.example"].map(|name| DomainName::parse(name).unwrap()) {
        for lookup in [
            Lookup::Reverse(client),
            Lookup::MailExchanges(name.clone()),
            Lookup::Texts(name.clone()),
            Lookup::Addresses(name.clone(), Family::Ipv4),
            Lookup::Addresses(name, Family::Ipv6),
        ] {
            let Answer::Records(records) = capture.answer(&lookup, Timestamp::from_nanos(nanos))
            else {
                continue;
            };
            assert!(!records.is_empty());
            let asked_for = |record: &DnsRecord| match (&lookup, record) {
                (Lookup::Reverse(_), DnsRecord::Name(_)) => true,
                (Lookup::MailExchanges(_), DnsRecord::Exchange { .. }) => true,
                (Lookup::Texts(_), DnsRecord::Text(_)) => true,
                (Lookup::Addresses(_, family), DnsRecord::Address(ip)) => {
                    ip.is_ipv4() == (*family == Family::Ipv4)
                }
                _ => false,
            };
            assert!(records.iter().all(asked_for), "{lookup:?}: {records:?}");
        }
    }
    assert!(capture.server_names().of(client).count() <= 64);
}
