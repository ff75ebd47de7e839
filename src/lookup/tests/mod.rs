//! The three sources, each by itself and one after the other; and the live answerer.

mod disk_cache;
mod dns;
mod passive_dns;
mod probe;
mod redis_store;
mod resolver;
mod service;
mod vantage;
mod zone_file;

use std::path::Path;

use super::*;
use crate::policy::facts::{FactState, fcrdns};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// `TYPE NAME`, as in `AAAA mx.a.example`.
fn lookup(text: &str) -> Lookup {
    match text.split_once(' ').unwrap() {
        ("PTR", ip) => Lookup::Reverse(ip.parse().unwrap()),
        ("A", host) => Lookup::Addresses(name(host), Family::Ipv4),
        ("AAAA", host) => Lookup::Addresses(name(host), Family::Ipv6),
        ("MX", domain) => Lookup::MailExchanges(name(domain)),
        _ => panic!("no lookup: {text}"),
    }
}

/// An answer in words: `192.0.2.1`, `10 mx.a.example`, `nxdomain`, `unknown servfail`.
fn told(answer: &Answer) -> String {
    let record = |record: &DnsRecord| match record {
        DnsRecord::Name(name) => name.to_string(),
        DnsRecord::Address(ip) => ip.to_string(),
        DnsRecord::Exchange { preference, host } => format!("{preference} {host}"),
    };
    match answer {
        Answer::Records(records) => records.iter().map(record).collect::<Vec<_>>().join(", "),
        Answer::NoData => String::from("nodata"),
        Answer::NxDomain => String::from("nxdomain"),
        Answer::Unknown(reason) => format!("unknown {}", reason.as_str()),
        Answer::Yes(_) | Answer::No(..) => panic!("no answer of the DNS: {answer:?}"),
    }
}

const AT: Timestamp = Timestamp::from_nanos(1_000);

#[tokio::test]
async fn the_capture_is_asked_first_then_the_zone() {
    let mut capture = PassiveDns::default();
    capture.on_message(
        &passive_dns::response("PTR 2001:db8::25", "NOERROR", "PTR a.example.", ""),
        AT,
    );
    capture.on_message(&passive_dns::response("AAAA lame.example", "SERVFAIL", "", ""), AT);
    let text = "$ORIGIN example.\na AAAA 2001:db8::25\nlame AAAA 2001:db8::25\n";
    let zone = ZoneFile::parse(text, Path::new("z")).unwrap();
    let sources = Sources { passive_dns: Some((&capture, AT)), zone: Some(&zone), dns: None };

    let mut known = Answers::default();
    let client = "2001:db8::25".parse().unwrap();
    let fact = sources.resolve(&mut known, |known| fcrdns(client, known)).await;
    assert_eq!((fact.state, fact.source), (FactState::True, Source::Zone));
    assert_eq!(fact.detail.unwrap().to_string(), "a.example");
    assert_eq!(known.get(&lookup("PTR 2001:db8::25")).unwrap().source, Source::Capture);

    // The failure that the capture shows is what was known then.
    let lame = sources.answer(&lookup("AAAA lame.example")).await;
    assert_eq!((told(&lame.answer).as_str(), lame.source), ("unknown servfail", Source::Capture));
    let nobody = sources.answer(&lookup("AAAA a.elsewhere")).await;
    assert_eq!(
        (told(&nobody.answer).as_str(), nobody.source),
        ("unknown no_resolver", Source::None)
    );
    let missing = sources.answer(&lookup("MX b.example")).await;
    assert_eq!((told(&missing.answer).as_str(), missing.source), ("nxdomain", Source::Zone));
}
