//! Findings about name servers. Lines `address SERVER REPLY`, with `lame`, `silent`, `unrouted` or `late`; others answer.

use std::net::IpAddr;

use super::dns::SIGNED;
use super::{Zone, faults, request};
use crate::readiness::NameServerReply;

impl Zone {
    pub(super) fn name_server(&self, server: IpAddr) -> NameServerReply {
        let reply = self.find(&server.to_string(), "SERVER").unwrap();
        match reply.map(|reply| reply[0].as_str()) {
            None => NameServerReply::Answers,
            Some("lame") => NameServerReply::Lame("it answers REFUSED".to_owned()),
            Some("silent") => NameServerReply::NoResponse,
            Some("unrouted") => NameServerReply::NoRoute,
            Some("late") => NameServerReply::OutOfTime,
            Some(other) => panic!("{other}"),
        }
    }
}

#[test]
fn findings_about_name_servers() {
    const TWO: &str =
        "a.example NS ns.a.example\na.example NS ns2.a.example\nns2.a.example AAAA 2001:db8::54\n";
    let mut wrong = Vec::new();
    for (changes, expected) in [
        (String::new(), ""),
        ("a.example NS -".to_owned(), "unknown name_servers"),
        ("a.example NS !timeout".to_owned(), "unknown name_servers"),
        ("ns.a.example AAAA -".to_owned(), "warn name_servers"),
        ("ns.a.example AAAA -\nns.a.example A 192.0.2.53".to_owned(), "warn name_servers"),
        ("ns.a.example AAAA !servfail".to_owned(), "unknown name_servers"),
        (TWO.to_owned(), ""),
        // One of them has IPv6.
        (format!("{TWO}ns.a.example AAAA -"), ""),
        (format!("{TWO}ns.a.example AAAA !servfail"), ""),
        (format!("{TWO}2001:db8::53 SERVER lame"), "warn name_servers"),
        (format!("{TWO}2001:db8::53 SERVER silent"), "warn name_servers"),
        (
            format!("{TWO}2001:db8::53 SERVER lame\n2001:db8::54 SERVER lame"),
            "warn name_servers, warn name_servers",
        ),
        (
            format!("{TWO}2001:db8::53 SERVER lame\n2001:db8::54 SERVER silent"),
            "warn name_servers, warn name_servers",
        ),
        // None responds: over IPv4 neither, or it does.
        (
            format!("{TWO}2001:db8::53 SERVER silent\n2001:db8::54 SERVER silent"),
            "unknown name_servers",
        ),
        (
            "ns.a.example A 192.0.2.53\n2001:db8::53 SERVER silent\n192.0.2.53 SERVER silent"
                .to_owned(),
            "unknown name_servers",
        ),
        ("ns.a.example A 192.0.2.53\n2001:db8::53 SERVER silent".to_owned(), "warn name_servers"),
        // This host.
        ("2001:db8::53 SERVER unrouted".to_owned(), "unknown name_servers"),
        ("2001:db8::53 SERVER late".to_owned(), "unknown name_servers"),
        (format!("{TWO}2001:db8::53 SERVER unrouted"), ""),
        // The zone is the parent, and asked for.
        ("a.example SOA unsigned example\nexample NS ns.a.example\na.example NS -".to_owned(), ""),
        ("a.example SOA !servfail".to_owned(), "unknown name_servers"),
        // Reported elsewhere.
        ("a.example SOA !timeout\na.example MX !timeout".to_owned(), "unknown mx_records"),
        (format!("{SIGNED}a.example SOA bogus 7"), "fail dns_signatures"),
        (format!("{SIGNED}a.example SOA !servfail"), "unknown dns_signatures"),
    ] {
        let mut zone = Zone::new("");
        changes.split_inclusive('\n').for_each(|line| {
            // A later line replaces an earlier one, except in a set of records.
            match line.contains(" NS ns2") {
                true => zone
                    .records
                    .get_mut(&("a.example".into(), "NS".into()))
                    .unwrap()
                    .push("ns2.a.example".into()),
                false => zone.change(line),
            }
        });
        let found = faults(&zone.evaluate(&request()));
        if found != expected {
            wrong.push(format!("{changes}\n    expected: {expected}\n    found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
