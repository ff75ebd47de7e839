//! The whole RFC 7208 test suite (`tests/spf`, with its licence): each result that the gateway gives is one that the suite
//! allows.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use gatepost::addr::Family;
use gatepost::policy::facts::spf::{SpfQuery, SpfResult, check_host};
use gatepost::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source,
};
use serde_json::Value;

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spf/rfc7208-tests.yml");
/// Cases in the file: none is left out.
const CASES: usize = 203;

/// One scenario's zone: by owner, the records in their order.
struct SuiteZone(BTreeMap<DomainName, Vec<Value>>);

impl SuiteZone {
    fn new(data: &Value) -> Self {
        let owners = data.as_object().unwrap().iter();
        let records = |list: &Value| list.as_array().cloned().unwrap_or_default();
        Self(owners.map(|(owner, list)| (host(owner), records(list))).collect())
    }

    fn answer(&self, lookup: &Lookup) -> Answer {
        let (owner, kind) = match lookup {
            Lookup::Texts(name) => (name.clone(), "TXT"),
            Lookup::Addresses(name, Family::Ipv4) => (name.clone(), "A"),
            Lookup::Addresses(name, Family::Ipv6) => (name.clone(), "AAAA"),
            Lookup::MailExchanges(name) => (name.clone(), "MX"),
            Lookup::Reverse(ip) => (DomainName::reverse(*ip), "PTR"),
            other => panic!("SPF needs no {other:?}"),
        };
        self.find(&owner, kind, 0)
    }

    fn find(&self, owner: &DomainName, kind: &str, aliases: usize) -> Answer {
        let Some(entries) = self.0.get(owner) else { return Answer::NxDomain };
        let of = |kind: &str| -> Vec<&Value> {
            entries.iter().filter_map(|entry| entry.get(kind)).collect()
        };
        let mut found = of(kind);
        // Records of the obsolete type SPF stand for TXT where the suite gives no TXT.
        if kind == "TXT" && found.is_empty() {
            found = of("SPF");
        }
        found.retain(|value| value.as_str() != Some("NONE"));
        if found.is_empty() {
            return match of("CNAME").first() {
                Some(target) if aliases < 10 => {
                    self.find(&host(target.as_str().unwrap()), kind, aliases + 1)
                }
                _ if entries.iter().any(|entry| entry.as_str() == Some("TIMEOUT")) => {
                    Answer::Unknown(Reason::Timeout)
                }
                _ => Answer::NoData,
            };
        }
        Answer::Records(found.into_iter().map(|value| record(kind, value)).collect())
    }
}

fn record(kind: &str, value: &Value) -> DnsRecord {
    match kind {
        "A" | "AAAA" => DnsRecord::Address(value.as_str().unwrap().parse().unwrap()),
        "PTR" => DnsRecord::Name(host(value.as_str().unwrap())),
        "MX" => DnsRecord::Exchange {
            preference: value[0].as_u64().unwrap().try_into().unwrap(),
            host: host(value[1].as_str().unwrap()),
        },
        _ => {
            let octet = |c: char| u8::try_from(c).unwrap();
            let strings =
                value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
            let joined = strings.into_iter().flat_map(|text| text.as_str().unwrap().chars());
            DnsRecord::Text(joined.map(octet).collect())
        }
    }
}

/// Any characters are allowed in it.
fn host(name: &str) -> DomainName {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let labels: Vec<&[u8]> = labels.map(str::as_bytes).collect();
    hickory_proto::rr::Name::from_labels(labels).unwrap().into()
}

fn result(zone: &SuiteZone, case: &Value) -> SpfResult {
    let text = |key: &str| case[key].as_str().unwrap();
    let ip: IpAddr = text("host").parse().unwrap();
    let Some(query) = SpfQuery::of_session(ip, text("helo"), text("mailfrom")) else {
        return SpfResult::None;
    };
    let mut known = Answers::default();
    for _ in 0..100 {
        let needed = match check_host(&query, &known) {
            Ok(evaluation) => return evaluation.result,
            Err(needed) => needed,
        };
        for lookup in needed {
            let answer = zone.answer(&lookup);
            known.insert(lookup, LookupResult { answer, source: Source::Zone, at: None });
        }
    }
    panic!("{case}: the evaluation does not end")
}

#[test]
fn every_result_of_the_rfc_7208_suite_is_allowed() {
    let suite = fs::read_to_string(SUITE).unwrap();
    let (mut cases, mut wrong) = (0, Vec::new());
    for scenario in suite.split("\n---\n").skip(1) {
        let scenario: Value = serde_saphyr::from_str(scenario).unwrap();
        let zone = SuiteZone::new(&scenario["zonedata"]);
        for (name, case) in scenario["tests"].as_object().unwrap() {
            cases += 1;
            let found = result(&zone, case);
            let allowed = match &case["result"] {
                Value::Array(several) => several.iter().any(|one| one == found.as_str()),
                one => one == found.as_str(),
            };
            if !allowed {
                wrong.push(format!("{name}: {found}, expected {}", case["result"]));
            }
        }
    }
    assert_eq!((cases, wrong), (CASES, Vec::new()));
}
