//! Exchanges with addresses of the special-purpose registries beside one that works.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;

use serde_json::Value;

use super::site::{SENDERS, SITE};
use super::{AT_ONCE, check, not_passed};
use crate::support::Lab;
use crate::support::world::KNOT;

/// A name, an address, and words of the sentence about it.
const ADDRESSES: [(&str, &str, &str); 20] = [
    ("srv6", "5f00::25", "segment routing identifier"),
    ("nat64", "64:ff9b::198.51.100.25", "NAT64"),
    ("local-nat64", "64:ff9b:1::25", "local NAT64"),
    ("teredo", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
    ("pcp", "2001:1::1", "PCP"),
    ("benchmark6", "2001:2::25", "benchmark"),
    ("amt", "2001:3::25", "AMT"),
    ("as112", "2001:4:112::25", "AS112"),
    ("orchid", "2001:20::25", "ORCHID"),
    ("drone", "2001:30::25", "drone"),
    ("ietf", "2001:100::25", "IETF protocols"),
    ("sixtofour", "2002:c633:6419::25", "6to4"),
    ("discard", "100::25", "discard"),
    ("site-local", "fec0::25", "site-local"),
    ("cgnat", "100.64.0.25", "carrier-grade NAT"),
    ("turn", "192.0.0.10", "TURN"),
    ("relay", "192.88.99.1", "6to4 relays"),
    ("benchmark4", "198.18.0.25", "benchmark"),
    ("class-e", "240.0.0.25", "reserved"),
    ("link-local4", "169.254.0.25", "link-local"),
];

/// The records of these domains in the zone of the site.
pub(super) fn zone() -> String {
    let mut zone = String::new();
    for (name, address, _) in ADDRESSES {
        let domain = format!("special-{name}");
        let record = if address.contains(':') { "AAAA" } else { "A" };
        writeln!(zone, "{domain} MX 10 {domain}-mx").unwrap();
        writeln!(zone, "{domain} TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"").unwrap();
        writeln!(zone, "{domain}-mx A 198.51.100.25\n{domain}-mx AAAA 2001:db8:2::25").unwrap();
        writeln!(zone, "{domain}-mx {record} {address}").unwrap();
    }
    zone
}

/// Each is the only fault, under its name.
pub(super) fn have_their_names(lab: &Lab) {
    let differs = |(name, address, words): &(&str, &str, &str)| {
        let domain = format!("special-{name}.{SITE}");
        let words_of_all = [&domain, "--dns", KNOT, "--timeout=4s", "--format=json"];
        let from = SENDERS.iter().flat_map(|sender| ["--from", *sender]);
        let checked = check(lab, &words_of_all.into_iter().chain(from).collect::<Vec<_>>());
        let json: Value = serde_json::from_str(&checked.printed).unwrap();
        let found = not_passed(&json);
        let mut findings = json["findings"].as_array().unwrap().iter();
        let is_named = findings.any(|one| {
            one["outcome"] == "fail"
                && one["address"].as_str().is_some_and(|ip| ip.parse() == address.parse::<IpAddr>())
                && one["seen"].as_str().unwrap().contains(words)
        });
        (found != ["fail mx_address"] || !is_named || checked.status != 1)
            .then(|| format!("{name}: {found:?}\n{}", checked.printed))
    };
    let mut wrong = Vec::new();
    for addresses in ADDRESSES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> =
                addresses.iter().map(|one| scope.spawn(|| differs(one))).collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
