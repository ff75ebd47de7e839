//! Parsers of values that several commands share.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::Family;
use crate::policy::facts::DomainName;
use crate::readiness::Control;
use crate::smtp::{EnvelopeArgument, PathKind};

pub(super) fn family(text: &str) -> Result<Family, String> {
    let known = Family::ALL.into_iter().find(|family| family.as_str() == text);
    known.ok_or_else(|| "write ipv4 or ipv6".to_owned())
}

/// A bare address is a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| address());
    network.map_err(|_no_address_either| {
        "write an address or a network such as 192.0.2.0/24 or 2001:db8::/32".to_owned()
    })
}

pub(super) fn control(text: &str) -> Result<Control, String> {
    let wrong = "write a host name or an address, such as mx.example.net or 2001:db8::25";
    Control::parse(text).ok_or_else(|| wrong.to_owned())
}

pub(super) fn domain(text: &str) -> Result<DomainName, String> {
    DomainName::parse(text).ok_or_else(|| "write a domain such as example.org".to_owned())
}

pub(super) fn call_timeout(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(60);
    let parsed = humantime::parse_duration(text).ok().filter(|given| allowed.contains(given));
    parsed.ok_or_else(|| "write a duration from 1s to 1m, such as 8s".to_owned())
}

/// ASCII only, so that every server takes it.
pub(super) fn mailbox(text: &str) -> Result<String, String> {
    let argument = format!("FROM:<{text}>");
    let parsed = EnvelopeArgument::parse(PathKind::Reverse, argument.as_bytes());
    let is_mailbox = text.is_ascii()
        && text.contains('@')
        && parsed.is_ok_and(|parsed| parsed.mailbox() == text && parsed.rerouting().is_none());
    is_mailbox
        .then(|| text.to_owned())
        .ok_or_else(|| "write an address such as canary@example.org".to_owned())
}
