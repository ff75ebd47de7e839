//! The interfaces of clients, and the destinations behind this host.

use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::host::Host;
use super::remedy;
use crate::addr::Family;
use crate::humanize;
use crate::intercept::error::InterceptError;
use crate::readiness::CheckStatus;

pub(super) fn check(host: &Host<'_>, report: &mut InterceptCheckReport) {
    interfaces(host, report);
    destinations(host, report);
}

fn interfaces(host: &Host<'_>, report: &mut InterceptCheckReport) {
    const NAME: InterceptCheckName = InterceptCheckName::Interface;
    let exists = |name: &str| host.links.iter().any(|link| link.name == name);
    if host.interfaces.is_empty() {
        report.fail(NAME, InterceptError::NoDefaultRoute.to_string(), "ip -br link");
        return;
    }
    let missing = host.interfaces.iter().filter(|name| !exists(name));
    missing.for_each(|name| missing_interface(name, report));
    let present: Vec<&str> =
        host.interfaces.iter().map(String::as_str).filter(|name| exists(name)).collect();
    if !present.is_empty() {
        let from = if host.settings.interfaces.is_empty() {
            ", by the default routes: intercept.interfaces is not set"
        } else {
            ""
        };
        report.pass(NAME, format!("clients arrive on {}{from}", present.join(", ")));
    }
}

/// Also for an interception that is installed.
pub(super) fn missing_interface(name: &str, report: &mut InterceptCheckReport) {
    let seen = format!(
        "interface {name} does not exist: no connection can arrive on it; check intercept.interfaces"
    );
    report.warn(InterceptCheckName::Interface, seen, "ip -br link");
}

fn destinations(host: &Host<'_>, report: &mut InterceptCheckReport) {
    const NAME: InterceptCheckName = InterceptCheckName::Destination;
    for family in host.settings.families() {
        let none = !host.destinations.iter().any(|one| Family::of(one.network.addr()) == family);
        if none {
            let family = humanize::family(family);
            let seen = format!(
                "intercept.destinations has no {family} address: {family} mail passes the gateway by; leave \
                 the family out of listen.addresses, or add the servers' addresses"
            );
            report.add(NAME, CheckStatus::Warn, seen, []);
        }
    }
    let mut fine = Vec::new();
    for one in &host.destinations {
        let address = remedy::address(&one.network);
        let arrives_there = |name: &String| host.interfaces.contains(name);
        if one.is_local() && one.is_one_address() {
            let seen = format!(
                "{address} is an address of this host, whose mail is not intercepted: remove it from \
                 intercept.destinations, and use mode = \"proxy\" for it"
            );
            report.fail(NAME, seen, format!("ip route get {address}"));
        } else if one.route.as_ref().is_none_or(|route| route.is_reject) {
            let seen = format!("this host has no route to {address}: no server can be reached");
            let address = one.network.addr();
            report.warn(NAME, seen, format!("ip route get {address}"));
        } else if let Some(name) = one.outgoing.as_ref().filter(|name| arrives_there(name)) {
            let seen = format!(
                "{address} is reached through {name}, where clients arrive too: mail between hosts there does \
                 not pass this host, and mail of the servers themselves is intercepted"
            );
            report.warn(NAME, seen, format!("ip route get {}", one.network.addr()));
        } else if let Some(name) = &one.outgoing {
            fine.push(format!("{address} ({name})"));
        }
    }
    if !fine.is_empty() {
        report.pass(NAME, format!("servers behind this host: {}", fine.join(", ")));
    }
}
