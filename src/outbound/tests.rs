//! Steering by hosts: which attempts lead to the avoidance of which addresses, and what ends it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

const V6: [&str; 3] = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
const V4: &str = "192.0.2.1";

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000) + Duration::from_secs(second)
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn attempt(second: u64, ip: &str, outcome: OutboundOutcome) -> OutboundAttempt {
    OutboundAttempt {
        at: at(second),
        host: Some(name("mx.example.net")),
        address: SocketAddr::new(ip.parse().unwrap(), 25),
        domain: Some(name("example.net")),
        outcome,
        reply: None,
        delays: None,
        queue_id: Some("4X1".to_owned()),
    }
}

struct Site(Hosts);

impl Site {
    fn new() -> Self {
        Self(Hosts::new(SteeringSettings::default()))
    }

    fn add(&mut self, second: u64, ip: &str, outcome: OutboundOutcome) -> &mut Self {
        self.0.add(&attempt(second, ip, outcome));
        self
    }

    /// Of [`V6`]: those that a message at that second uses.
    fn used(&mut self, second: u64) -> Vec<&'static str> {
        let host = name("MX.example.net.");
        let is_used = |ip: &&str| {
            let decision = self.0.decide(&host, ip.parse().unwrap(), at(second), TrialBy::Message);
            !matches!(decision, SteeringDecision::Avoid(_))
        };
        V6.into_iter().filter(is_used).collect()
    }
}

#[test]
fn only_the_address_that_failed_is_avoided() {
    use OutboundOutcome::{
        GreetingRefused, Lost, Refused, Stalled, TimedOut, TlsFailed, Unreachable,
    };
    for outcome in [TimedOut, Refused, Unreachable, GreetingRefused, Stalled, Lost, TlsFailed] {
        let mut site = Site::new();
        assert_eq!(site.used(0), V6);
        site.add(1, V6[1], outcome);
        assert_eq!(site.used(2), [V6[0], V6[2]], "{outcome}");
        site.add(3, V6[1], OutboundOutcome::Delivered);
        assert_eq!(site.used(4), V6, "{outcome}");
    }
}

#[test]
fn a_refusal_for_the_sending_address_is_of_all_ipv6_addresses() {
    let mut site = Site::new();
    site.add(0, V6[0], OutboundOutcome::Delivered);
    site.add(1, V6[0], OutboundOutcome::PolicyRefused);
    assert!(site.used(2).is_empty());
    assert!(site.0.avoided(&name("mx.example.net")).is_some());
    // One message tries the host again, at one address.
    assert_eq!(site.used(601), [V6[0]]);
    assert!(site.used(602).is_empty());
    site.add(603, V6[0], OutboundOutcome::Delivered);
    assert_eq!(site.used(604), V6);
}

#[test]
fn a_reply_about_the_message_condemns_nothing() {
    let mut site = Site::new();
    site.add(1, V6[0], OutboundOutcome::TimedOut);
    site.add(2, V6[0], OutboundOutcome::Rejected);
    site.add(3, V6[1], OutboundOutcome::Deferred);
    assert_eq!(site.used(4), V6);
}

#[test]
fn other_replies_do_not_end_a_refusal_for_the_sending_address() {
    let mut site = Site::new();
    site.add(1, V6[0], OutboundOutcome::PolicyRefused);
    site.add(2, V6[1], OutboundOutcome::Rejected);
    assert!(site.used(3).is_empty());
}

#[test]
fn ipv6_is_not_avoided_where_ipv4_fails_as_well() {
    let mut site = Site::new();
    for ip in V6 {
        site.add(1, ip, OutboundOutcome::TimedOut);
    }
    assert!(site.used(2).is_empty());
    site.add(3, V4, OutboundOutcome::TimedOut);
    assert_eq!(site.used(4), V6);
    assert!(site.0.avoided(&name("mx.example.net")).is_none());
    site.add(5, V4, OutboundOutcome::Delivered);
    assert!(site.used(6).is_empty());
}

#[test]
fn a_path_that_works_is_used_again_and_counts_as_no_attempt() {
    let mut site = Site::new();
    site.add(1, V6[0], OutboundOutcome::TimedOut).add(1, V6[1], OutboundOutcome::TimedOut);
    let host = name("mx.example.net");
    let path = |second, ip: &str| WorkingPath {
        at: at(second),
        host: host.clone(),
        ip: ip.parse().unwrap(),
    };
    site.0.on_working_path(&path(0, V6[0]));
    assert_eq!(site.used(2), [V6[2]], "before the failure");
    site.0.on_working_path(&path(3, V6[0]));
    assert_eq!(site.used(4), [V6[0], V6[2]]);
    site.0.on_working_path(&WorkingPath { host: name("mx.example.org"), ..path(5, V6[1]) });
    assert_eq!(site.used(6), [V6[0], V6[2]]);
    assert_eq!(site.0.summary(at(6)).ipv6.total(), 2);
    assert_eq!(site.0.summary(at(6)).hosts_total, 1);
}

/// A message whose content is refused over IPv4 as well must not send others back to IPv6, where all are refused.
#[test]
fn a_refusal_over_ipv4_changes_nothing() {
    let mut site = Site::new();
    site.add(1, V6[0], OutboundOutcome::PolicyRefused);
    site.add(2, V4, OutboundOutcome::PolicyRefused);
    assert!(site.used(3).is_empty());
}

#[test]
fn hosts_are_found_by_name_and_by_recipient_domain() {
    let mut site = Site::new();
    site.add(1, V6[0], OutboundOutcome::TimedOut).add(31, V4, OutboundOutcome::Delivered);
    let mut other = attempt(40, "2001:db8:1::1", OutboundOutcome::Delivered);
    other.host = Some(name("mail.example.org"));
    other.delays =
        Some(Delays { connection: Duration::from_millis(40), transmission: Duration::ZERO });
    site.0.add(&other);
    let hosts = |pattern: Option<&str>| {
        let report = site.0.report(pattern.map(name).as_ref(), at(50));
        report.hosts.into_iter().map(|host| host.host).collect::<Vec<_>>()
    };
    assert_eq!(hosts(None), ["mx.example.net", "mail.example.org"]);
    assert_eq!(hosts(Some("example.org")), ["mail.example.org"]);
    assert_eq!(hosts(Some("example.net")).len(), 2);
    assert!(hosts(Some("example.com")).is_empty());
    let report = site.0.report(None, at(50));
    assert_eq!((report.hosts_avoided, report.hosts_ipv6_failed), (1, 1));
    assert_eq!(report.hosts[0].addresses[0].ip, V6[0].parse::<IpAddr>().unwrap());
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<OutboundReport>(&json).unwrap(), report);
}

#[test]
fn an_address_is_listed_with_every_host_that_has_it() {
    let mut site = Site::new();
    let other = |ip| {
        let mut other = attempt(1, ip, OutboundOutcome::Delivered);
        other.host = Some(name("mail.example.org"));
        other
    };
    site.0.add(&other(V6[0]));
    site.0.add(&other(V6[2]));
    let listed = |site: &Site, is_pinned: fn(&DomainName) -> bool| {
        let addresses = site.0.ipv6_addresses_to_decide(is_pinned).into_iter();
        let hosts = |hosts: Vec<DomainName>| {
            let mut hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            hosts.sort();
            hosts.join(" ")
        };
        addresses.map(|(ip, of)| (ip.to_string(), hosts(of))).collect::<Vec<_>>()
    };
    let expected = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(ip, hosts)| ((*ip).to_owned(), (*hosts).to_owned())).collect()
    };
    assert!(listed(&site, |_| false).is_empty());
    site.add(2, V6[0], OutboundOutcome::TimedOut).add(3, V4, OutboundOutcome::Delivered);
    let both = "mail.example.org mx.example.net";
    assert_eq!(listed(&site, |_| false), expected(&[(V6[0], both)]));
    let all = [(V6[0], both), (V6[2], "mail.example.org")];
    assert_eq!(listed(&site, |host| host.to_string() == "mail.example.org"), expected(&all));
    assert_eq!(site.0.last_ipv4(&name("mx.example.net")), Some(at(3)));
    assert_eq!(site.0.last_ipv4(&name("mail.example.org")), None);
}

#[test]
fn memory_is_bounded() {
    let mut hosts = Hosts::new(SteeringSettings::default());
    for number in 0..2 * MAX_HOSTS as u64 {
        let mut one = attempt(number, V6[0], OutboundOutcome::Delivered);
        one.host = Some(name(&format!("mx{number}.example.net")));
        hosts.add(&one);
    }
    let mut one = attempt(9999, V6[0], OutboundOutcome::Delivered);
    for number in 0..1000 {
        one.address = format!("[2001:db8::{number:x}]:25").parse().unwrap();
        one.domain = Some(name(&format!("d{number}.example")));
        one.reply = Some("é".repeat(5000));
        hosts.add(&one);
    }
    let report = hosts.report(None, at(9999));
    assert!(report.hosts_total <= MAX_HOSTS && report.hosts_total > MAX_HOSTS / 2);
    let host = &report.hosts[0];
    assert_eq!((host.addresses.len(), host.domains.len()), (16, 8));
    assert!(
        host.addresses.iter().all(|one| one.last.reply.as_ref().unwrap().chars().count() <= 512)
    );
    hosts.forget_old(at(9999) + Duration::from_secs(15 * 24 * 3600));
    assert_eq!(hosts.report(None, at(0)).hosts_total, 0);
}

#[test]
fn a_refused_message_is_retried_once_and_returned_after_four_refusals() {
    let mut messages = RefusedMessages::default();
    let refused = attempt(0, V6[0], OutboundOutcome::PolicyRefused);
    assert_eq!(messages.add(&refused, false), RefusedMessage::Wait);
    assert_eq!(messages.add(&refused, true), RefusedMessage::Retry);
    assert_eq!(messages.add(&refused, true), RefusedMessage::Retried);
    let deferred = attempt(0, V4, OutboundOutcome::Deferred);
    assert_eq!(messages.add(&deferred, true), RefusedMessage::Retried);
    assert!(messages.due().is_empty());
    assert_eq!(messages.add(&refused, true), RefusedMessage::Return);
    assert_eq!(messages.add(&refused, true), RefusedMessage::Retried);
    assert_eq!(messages.due(), ["4X1"]);
    assert!(messages.remove("4X1"));
    assert!(!messages.remove("4X1"));
    assert!(messages.due().is_empty());
    // Only over IPv6, and only for the sending address.
    for other in [
        attempt(0, V4, OutboundOutcome::PolicyRefused),
        attempt(0, V6[0], OutboundOutcome::Rejected),
    ] {
        (0..9).for_each(|_| assert_eq!(messages.add(&other, true), RefusedMessage::Wait));
    }
}

#[test]
fn the_history_of_the_log_requests_no_retry_and_uses_none_up() {
    let refused = |queue_id: &str| OutboundAttempt {
        queue_id: Some(queue_id.to_owned()),
        ..attempt(0, V6[0], OutboundOutcome::PolicyRefused)
    };
    let over_ipv4 = |queue_id: &str| OutboundAttempt {
        queue_id: Some(queue_id.to_owned()),
        ..attempt(1, V4, OutboundOutcome::Deferred)
    };
    let mut messages = RefusedMessages::with_history();
    for queue_id in ["4X2", "4X1", "4GONE", "4TRIED", "4DUE"] {
        assert_eq!(messages.add(&refused(queue_id), true), RefusedMessage::Wait);
    }
    assert_eq!(messages.add(&refused("4KEPT"), false), RefusedMessage::Wait);
    assert!(!messages.remove("4GONE"), "it was not retried");
    assert_eq!(messages.add(&over_ipv4("4TRIED"), true), RefusedMessage::Wait);
    for _ in 1..MAX_REFUSALS {
        messages.add(&refused("4DUE"), true);
    }
    assert_eq!(messages.end_history(), ["4X1", "4X2"]);
    assert!(messages.end_history().is_empty());
    assert_eq!(messages.add(&refused("4X1"), true), RefusedMessage::Retried);
    assert_eq!(messages.add(&refused("4TRIED"), true), RefusedMessage::Retry);
}
