//! One row of what was learnt.

use super::masking::{AddressMasking, shown};
use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, Lookup, LookupResult, Reason, Source};
use crate::report::replay::words::{self, several};
use crate::time::Timestamp;

/// Records of one answer that are named.
const NAMED: usize = 3;

/// An answer as the page shows it, but for what HTML needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FactRow {
    pub(super) kind: &'static str,
    pub(super) about: String,
    pub(super) result: String,
    pub(super) source: &'static str,
    pub(super) at: Option<Timestamp>,
}

impl FactRow {
    pub(super) fn new(lookup: &Lookup, answered: &LookupResult, masking: AddressMasking) -> Self {
        Self {
            kind: kind(lookup),
            about: about(lookup, masking),
            result: result(&answered.answer, masking),
            source: source(answered.source),
            at: answered.at,
        }
    }
}

const fn kind(lookup: &Lookup) -> &'static str {
    match lookup {
        Lookup::Reverse(_) => "name of an address (PTR)",
        Lookup::Addresses(_, Family::Ipv4) => "addresses of a name (A)",
        Lookup::Addresses(_, Family::Ipv6) => "addresses of a name (AAAA)",
        Lookup::MailExchanges(_) => "mail servers of a domain (MX)",
        Lookup::Connect(_) => "takes connections",
        Lookup::Greet(_) => "greets and answers",
        Lookup::Callout(..) => "takes mail for a sender",
        Lookup::Recipient(_) => "our MTA takes a recipient",
        Lookup::ReceivePath(_) => "mail reaches us",
    }
}

fn about(lookup: &Lookup, masking: AddressMasking) -> String {
    match lookup {
        Lookup::Reverse(ip) | Lookup::Connect(ip) | Lookup::Greet(ip) => masking.address(*ip),
        Lookup::Addresses(name, _) | Lookup::MailExchanges(name) => {
            masking.words(&name.to_string())
        }
        Lookup::Callout(ip, path) => {
            format!("{} at {}", masking.path(path), masking.address(*ip))
        }
        Lookup::Recipient(path) => masking.path(path),
        Lookup::ReceivePath(family) => words::family(*family).to_owned(),
    }
}

fn result(answer: &Answer, masking: AddressMasking) -> String {
    let why = |word: &str, reason: Reason| format!("{word}: {}", words::why(reason));
    match answer {
        Answer::Records(records) => {
            let named = records.iter().take(NAMED).filter_map(|record| named(record, masking));
            let named: Vec<String> = named.collect();
            match records.len().saturating_sub(NAMED) {
                _ if named.is_empty() => several(records.len() as u64, "record"),
                0 => named.join(", "),
                more => format!("{} and {more} more", named.join(", ")),
            }
        }
        Answer::NoData => "none".to_owned(),
        Answer::NxDomain => "no such name".to_owned(),
        Answer::Yes(said) => with("yes".to_owned(), said.as_deref(), masking),
        Answer::No(reason, said) => with(why("no", *reason), said.as_deref(), masking),
        Answer::Unknown(reason) => why("not known", *reason),
    }
}

/// What it rests on, in the words of others: they may quote an address or a path.
fn with(word: String, said: Option<&str>, masking: AddressMasking) -> String {
    match said.filter(|_| masking.open) {
        Some(said) => format!("{word} ({})", shown(said)),
        None => word,
    }
}

/// A name that an address has often is that address in other words.
fn named(record: &DnsRecord, masking: AddressMasking) -> Option<String> {
    match record {
        DnsRecord::Exchange { preference, host } => {
            Some(format!("{preference} {}", masking.words(&host.to_string())))
        }
        DnsRecord::Name(_) | DnsRecord::Address(_) if !masking.open => None,
        DnsRecord::Name(name) => Some(shown(&name.to_string())),
        DnsRecord::Address(ip) => Some(ip.to_string()),
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Capture => "a capture",
        Source::Zone => "a zone file",
        Source::Dns => "DNS",
        Source::Traffic => "traffic",
        Source::Probe => "a probe",
        Source::Upstream => "our MTA",
        Source::None => "nobody",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::DomainName;

    #[test]
    fn with_addresses_and_without() {
        let ip = "2001:db8::25".parse().unwrap();
        let name = |name| DomainName::parse(name).unwrap();
        let host = name("host-192-0-2-7.isp.example");
        let exchange = |preference| DnsRecord::Exchange { preference, host: name("mx.a.example") };
        let said = Some("550 5.1.1 <joe@a.example>\u{1b}".to_owned());
        let mut rows = String::new();
        for (lookup, answer) in [
            (Lookup::Reverse(ip), Answer::Records(vec![DnsRecord::Name(host.clone())])),
            (Lookup::Reverse(ip), Answer::NxDomain),
            (
                Lookup::Addresses(host, Family::Ipv4),
                Answer::Records(vec![DnsRecord::Address(ip); 4]),
            ),
            (
                Lookup::MailExchanges(name("a.example")),
                Answer::Records([10, 20, 30, 40, 50].map(exchange).to_vec()),
            ),
            (Lookup::Connect(ip), Answer::Yes(None)),
            (Lookup::Greet(ip), Answer::Unknown(Reason::Timeout)),
            (
                Lookup::Callout(ip, "joe@a.example".to_owned()),
                Answer::No(Reason::NoSuchMailbox, said),
            ),
            (Lookup::Recipient("ann@b.example".to_owned()), Answer::Yes(Some("250 ok".to_owned()))),
            (Lookup::ReceivePath(Family::Ipv6), Answer::NoData),
        ] {
            let answered = LookupResult { answer, source: Source::Probe, at: None };
            for open in [false, true] {
                let row = FactRow::new(&lookup, &answered, AddressMasking { open });
                rows += &format!("{} | {} | {}\n", row.kind, row.about, row.result);
            }
        }
        insta::assert_snapshot!(rows);
    }
}
