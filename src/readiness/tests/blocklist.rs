//! Findings about blocklists.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{SENDER, SENDER4, Zone, faults, name, request};
use crate::readiness::{CheckName, CheckReport, CheckRequest};

const LIST: &str = "bl.example";

/// The name to query for an address, its last labels cut off.
fn owner(ip: &str) -> String {
    let mut labels = String::new();
    match ip.parse().unwrap() {
        IpAddr::V4(v4) => {
            v4.octets().iter().rev().for_each(|octet| write!(labels, "{octet}.").unwrap());
        }
        IpAddr::V6(v6) => {
            for octet in v6.octets().iter().rev() {
                write!(labels, "{:x}.{:x}.", octet & 15, octet >> 4).unwrap();
            }
        }
    }
    labels + LIST
}

const TEST6: &str = "::ffff:127.0.0.2";

/// Lines `ADDRESS TYPE VALUE`, after the test entries of a list that is in order.
fn records(changes: &str) -> String {
    let mut records = String::new();
    for line in format!("127.0.0.2 A 127.0.0.2\n{TEST6} A 127.0.0.2\n{changes}").lines() {
        let (address, rest) = line.split_once(' ').unwrap();
        writeln!(records, "{} {rest}", owner(address)).unwrap();
    }
    records
}

fn report(changes: &str) -> CheckReport {
    let mut zone = Zone::new("");
    // A later line replaces an earlier one.
    records(changes).lines().for_each(|line| zone.change(line));
    zone.evaluate(&CheckRequest { dnsbls: vec![name(LIST)], ..request() })
}

/// A test entry of each family.
fn tests(value: &str) -> String {
    format!("127.0.0.2 A {value}\n{TEST6} A {value}")
}

#[test]
fn findings_about_blocklists() {
    let both = "unknown dnsbl, unknown dnsbl";
    for (changes, expected) in [
        (String::new(), ""),
        (format!("{SENDER} A 127.0.0.4"), "fail sender_dnsbl"),
        (format!("{SENDER4} A 127.0.0.4"), "fail sender_dnsbl"),
        (
            format!("{SENDER} A 127.0.0.4\n{SENDER4} A 127.0.1.255"),
            "fail sender_dnsbl, fail sender_dnsbl",
        ),
        // The list is dead, in one part or in both, or unknown.
        (tests("-"), both),
        (format!("{TEST6} A -"), "unknown dnsbl"),
        (format!("{TEST6} A -\n{SENDER} A 127.0.0.4"), "unknown dnsbl"),
        ("127.0.0.2 A -".to_owned(), "unknown dnsbl"),
        (tests("!servfail"), both),
        (tests("!timeout"), both),
        ("127.0.0.1 A !timeout".to_owned(), "unknown dnsbl"),
        // It lists everything.
        ("127.0.0.1 A 127.0.0.2".to_owned(), "unknown dnsbl"),
        ("::ffff:127.0.0.1 A 127.0.0.2".to_owned(), "unknown dnsbl"),
        // It refuses.
        (tests("127.255.255.254"), both),
        (tests("127.0.0.1"), both),
        // Somebody else has the zone.
        (tests("198.51.100.80"), both),
        // The answer about the sender only.
        (format!("{SENDER} A 127.255.255.255"), "unknown sender_dnsbl"),
        (format!("{SENDER} A 198.51.100.80"), "unknown sender_dnsbl"),
        (format!("{SENDER} A !servfail"), "unknown sender_dnsbl"),
        (format!("{SENDER} A 127.0.0.4\n{SENDER} TXT !timeout"), "fail sender_dnsbl"),
    ] {
        assert_eq!(faults(&report(&changes)), expected, "{changes}");
    }
}

#[test]
fn a_listed_address_has_its_reason_and_network() {
    let long = "x".repeat(1000);
    for (changes, expected) in [
        (
            format!("{SENDER4} A 127.0.0.4\n{SENDER4} TXT see https://bl.example/"),
            "listed at bl.example (127.0.0.4): see https://bl.example/".to_owned(),
        ),
        (
            format!("{SENDER} A 127.0.0.4"),
            "listed at bl.example (127.0.0.4) by itself, not with its network 2001:db8::/64"
                .to_owned(),
        ),
        (
            format!("{SENDER} A 127.0.0.4\n2001:db8::8000:0:0:5 A 127.0.0.4"),
            "listed at bl.example (127.0.0.4) with its whole network 2001:db8::/64".to_owned(),
        ),
        (
            format!("{SENDER4} A 127.0.0.4\n{SENDER4} TXT {long}"),
            format!("listed at bl.example (127.0.0.4): {}…", &long[..300]),
        ),
    ] {
        let report = report(&changes);
        let mut findings = report.findings.iter();
        let listed = |one: &&crate::readiness::Finding| {
            one.check == CheckName::SenderDnsbl && one.seen.starts_with("listed")
        };
        assert_eq!(findings.find(listed).unwrap().seen, expected);
    }
}

/// Nobody's list is asked unless it is named.
#[test]
fn lists_are_asked_on_request_only() {
    let report = Zone::new("").evaluate(&request());
    let is_about_lists = |check| matches!(check, CheckName::Dnsbl | CheckName::SenderDnsbl);
    assert!(!report.findings.iter().any(|one| is_about_lists(one.check)));
}
