//! Tests of the sources, alone and combined, and of the lookup service.

mod disk_cache;
mod dns;
mod passive_dns;
mod probe;
mod redis_store;
mod resolver;
mod service;
mod validated;
mod vantage;
mod zone_file;

use std::path::Path;

use super::*;
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, FactState, Lookup, Source, fcrdns,
};
use crate::time::Timestamp;

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
        ("TXT", owner) => Lookup::Texts(name(owner)),
        _ => panic!("no lookup: {text}"),
    }
}

/// An answer as text: `192.0.2.1`, `10 mx.a.example`, `nxdomain`, `unknown servfail`.
fn brief(answer: &Answer) -> String {
    let record = |record: &DnsRecord| match record {
        DnsRecord::Name(name) => name.to_string(),
        DnsRecord::Address(ip) => ip.to_string(),
        DnsRecord::Exchange { preference, host } => format!("{preference} {host}"),
        DnsRecord::Text(text) => String::from_utf8_lossy(text).into_owned(),
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
async fn a_capture_precedes_a_zone_file() {
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

    // At the time of the capture the answer was unknown.
    let lame = sources.answer(&lookup("AAAA lame.example")).await;
    assert_eq!((brief(&lame.answer).as_str(), lame.source), ("unknown servfail", Source::Capture));
    let unanswered = sources.answer(&lookup("AAAA a.elsewhere")).await;
    assert_eq!(
        (brief(&unanswered.answer).as_str(), unanswered.source),
        ("unknown no_resolver", Source::None)
    );
    let missing = sources.answer(&lookup("MX b.example")).await;
    assert_eq!((brief(&missing.answer).as_str(), missing.source), ("nxdomain", Source::Zone));
}
