//! One row of the latest lookups.

use super::masking::{AddressMasking, escaped};
use crate::addr::Family;
use crate::humanize::{counted, family};
use crate::policy::facts::{Answer, DnsRecord, Lookup, LookupResult, Reason, Source};
use crate::report::wording;
use crate::time::Timestamp;

/// Listed records of one answer.
const LISTED: usize = 3;

/// A lookup as text, not yet escaped for HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookupRow {
    pub(super) kind: &'static str,
    pub(super) subject: String,
    pub(super) result: String,
    pub(super) source: &'static str,
    pub(super) at: Option<Timestamp>,
}

impl LookupRow {
    pub(super) fn new(lookup: &Lookup, result: &LookupResult, masking: AddressMasking) -> Self {
        Self {
            kind: kind(lookup),
            subject: subject(lookup, masking),
            result: answer(&result.answer, masking),
            source: source(result.source),
            at: result.at,
        }
    }
}

const fn kind(lookup: &Lookup) -> &'static str {
    match lookup {
        Lookup::Reverse(_) => "host name (PTR)",
        Lookup::Addresses(_, Family::Ipv4) => "IPv4 addresses (A)",
        Lookup::Addresses(_, Family::Ipv6) => "IPv6 addresses (AAAA)",
        Lookup::MailExchanges(_) => "mail servers (MX)",
        Lookup::Texts(_) => "texts (TXT)",
        Lookup::Connect(_) => "TCP connection",
        Lookup::Greet(_) => "SMTP greeting",
        Lookup::Callout(..) => "sender callout",
        Lookup::Recipient(_) => "recipient at the upstream",
        Lookup::ReceivePath(_) => "receive path",
    }
}

fn subject(lookup: &Lookup, masking: AddressMasking) -> String {
    match lookup {
        Lookup::Reverse(ip) | Lookup::Connect(ip) | Lookup::Greet(ip) => masking.address(*ip),
        Lookup::Addresses(name, _) | Lookup::MailExchanges(name) | Lookup::Texts(name) => {
            masking.text(&name.to_string())
        }
        Lookup::Callout(ip, path) => {
            format!("{} at {}", masking.path(path), masking.address(*ip))
        }
        Lookup::Recipient(path) => masking.path(path),
        Lookup::ReceivePath(of) => family(*of).to_owned(),
    }
}

fn answer(answer: &Answer, masking: AddressMasking) -> String {
    let with_reason =
        |answer: &str, reason: Reason| format!("{answer}: {}", wording::fact_reason(reason));
    match answer {
        Answer::Records(records) => {
            let listed = records.iter().take(LISTED).filter_map(|known| record(known, masking));
            let listed: Vec<String> = listed.collect();
            match records.len().saturating_sub(LISTED) {
                _ if listed.is_empty() => counted(records.len() as u64, "record"),
                0 => listed.join(", "),
                more => format!("{} and {more} more", listed.join(", ")),
            }
        }
        Answer::NoData => "no records".to_owned(),
        Answer::NxDomain => "no such name".to_owned(),
        Answer::Yes(detail) => with_detail("yes".to_owned(), detail.as_deref(), masking),
        Answer::No(reason, detail) => {
            with_detail(with_reason("no", *reason), detail.as_deref(), masking)
        }
        Answer::Unknown(reason) => with_reason("unknown", *reason),
    }
}

/// The detail is remote text that may contain an address or a path, so it is hidden with them.
fn with_detail(answer: String, detail: Option<&str>, masking: AddressMasking) -> String {
    match detail.filter(|_| masking.show_addresses) {
        Some(detail) => format!("{answer} ({})", escaped(detail)),
        None => answer,
    }
}

/// A PTR name is hidden like an address, because it often contains the address.
fn record(record: &DnsRecord, masking: AddressMasking) -> Option<String> {
    match record {
        DnsRecord::Exchange { preference, host } => {
            Some(format!("{preference} {}", masking.text(&host.to_string())))
        }
        // A text may list addresses.
        DnsRecord::Name(_) | DnsRecord::Address(_) | DnsRecord::Text(_)
            if !masking.show_addresses =>
        {
            None
        }
        DnsRecord::Name(name) => Some(escaped(&name.to_string())),
        DnsRecord::Address(ip) => Some(ip.to_string()),
        DnsRecord::Text(text) => Some(escaped(&String::from_utf8_lossy(text))),
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Capture => "capture",
        Source::Zone => "zone file",
        Source::Dns => "DNS",
        Source::Traffic => "traffic",
        Source::Probe => "probe",
        Source::Upstream => "upstream",
        Source::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::DomainName;

    #[test]
    fn lookups_with_and_without_addresses() {
        let ip = "2001:db8::25".parse().unwrap();
        let name = |name| DomainName::parse(name).unwrap();
        let host = name("host-192-0-2-7.isp.example");
        let exchange = |preference| DnsRecord::Exchange { preference, host: name("mx.a.example") };
        let detail = Some("550 5.1.1 <joe@a.example>\u{1b}".to_owned());
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
                Answer::No(Reason::NoSuchMailbox, detail),
            ),
            (Lookup::Recipient("ann@b.example".to_owned()), Answer::Yes(Some("250 ok".to_owned()))),
            (Lookup::ReceivePath(Family::Ipv6), Answer::NoData),
        ] {
            let result = LookupResult { answer, source: Source::Probe, at: None };
            for show_addresses in [false, true] {
                let row = LookupRow::new(&lookup, &result, AddressMasking { show_addresses });
                rows += &format!("{} | {} | {}\n", row.kind, row.subject, row.result);
            }
        }
        insta::assert_snapshot!(rows);
    }
}
