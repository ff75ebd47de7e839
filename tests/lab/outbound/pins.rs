//! Pinned hosts get mail over IPv4; nothing else changes.

use super::destinations::{Destination, Sender, warnings};
use crate::harness::tests;
use crate::support::{Family, Lab};

// Alone, since the helper answers by itself after 300 ms.
tests![
    Alone: pinned_hosts_get_mail_over_ipv4, pins_change_by_a_reload
];

#[track_caller]
fn assert_sent(line: &str, destination: &str, family: Family) {
    assert!(line.contains(&Destination::of(destination).relay(family)), "{line}");
    assert!(line.contains("status=sent"), "{line}");
}

fn pinned_hosts_get_mail_over_ipv4() {
    let lab = Lab::new();
    let sender = Sender::new(&lab, "");
    // Without the filter.
    assert_sent(&sender.send("before", "pinned"), "pinned", Family::Ipv6);
    sender.filter();
    let _gateway = sender.gateway(&["pinned", "silent", "only6"]);
    assert_sent(&sender.send("a", "healthy"), "healthy", Family::Ipv6);
    assert_sent(&sender.send("a", "pinned"), "pinned", Family::Ipv4);
    assert_sent(&sender.send("a", "silent"), "silent", Family::Ipv4);
    // It has no other address.
    assert_sent(&sender.send("a", "only6"), "only6", Family::Ipv6);
    let log = sender.postfix.log();
    assert!(!log.contains("Connection timed out"), "{log}");
    assert!(warnings(&log).is_empty(), "{log}");
}

fn pins_change_by_a_reload() {
    let lab = Lab::new();
    let sender = Sender::new(&lab, "");
    sender.filter();
    let gateway = sender.gateway(&["pinned"]);
    assert_sent(&sender.send("a", "pinned"), "pinned", Family::Ipv4);
    let toml = std::fs::read_to_string(gateway.file()).unwrap();
    gateway.reload(&toml.replace("ipv4_only = [\"mx.pinned", "ipv4_only = [\"mx.healthy"));
    gateway.wait_for_log("configuration reloaded");
    assert_sent(&sender.send("b", "pinned"), "pinned", Family::Ipv6);
    assert_sent(&sender.send("b", "healthy"), "healthy", Family::Ipv4);
}
