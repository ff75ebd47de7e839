//! Checks of this host before and during an interception: what of a router's own set-up would lose intercepted mail.
//!
//! Reads kernel settings, interfaces, routes, ip rules and the nftables rules of everyone. [`filters`] follows hypothetical
//! packets of intercepted mail through the chains of others, in three-valued logic: what a rule depends on may be unknown
//! (`truth`). A finding that fails is certain: mail would be lost. [`InterceptCheck::before_start`] changes nothing;
//! [`InterceptCheck::full`] also connects to the servers (`return_route`).

mod chain_order;
mod evaluator;
mod expression;
mod filters;
mod finding;
mod host;
mod interfaces;
mod ip_rules;
mod kernel_settings;
mod listener;
mod listing;
mod packet;
mod remedy;
mod return_route;
mod routes;
mod rule_text;
#[cfg(test)]
mod tests;
mod truth;

use std::fs::read_to_string;
use std::io::ErrorKind;

pub use self::finding::{InterceptCheckName, InterceptCheckReport, InterceptFinding};
use self::host::Host;
pub use self::host::InterceptUpstream;
use self::listing::Listing;
pub use self::return_route::remove_leftovers;
use self::routes::RouteLookup;
use super::error::InterceptError;
use super::outbound_reset::OUTBOUND_TABLE;
use super::settings::{InterceptSettings, TABLE};
use super::{nft, ownership, report::InterceptReport};
use crate::addr::Family;
use crate::readiness::CheckStatus;

/// Checks this host before anything is installed: fast, and without sending a packet.
///
/// # Errors
/// Netlink is not available.
pub async fn before_start(
    settings: &InterceptSettings,
    upstream: InterceptUpstream,
) -> Result<InterceptCheckReport, InterceptError> {
    let routes = RouteLookup::open()?;
    let mut report = InterceptCheckReport::default();
    examine(settings, upstream, &routes, &mut report).await?;
    Ok(report)
}

/// The same, then what a gateway has installed, and a connection to each server.
///
/// # Errors
/// Netlink is not available.
pub async fn full(
    settings: &InterceptSettings,
    upstream: InterceptUpstream,
) -> Result<InterceptCheckReport, InterceptError> {
    let routes = RouteLookup::open()?;
    let mut report = InterceptCheckReport::default();
    let runs = gateway(&mut report).await;
    let host = examine(settings, upstream, &routes, &mut report).await?;
    legacy_unreadable(&mut report);
    if upstream == InterceptUpstream::Configured {
        let seen = "replies of the servers: not tested, since sessions go to upstream.addresses";
        report.unknown(InterceptCheckName::ReturnRoute, seen);
    } else if report.has_failed() {
        let seen = "replies of the servers: not tested until the failed checks pass";
        report.unknown(InterceptCheckName::ReturnRoute, seen);
    } else {
        return_route::check(&host, &routes, runs, &mut report).await;
    }
    Ok(report)
}

/// Returns what is known of the host.
async fn examine<'a>(
    settings: &'a InterceptSettings,
    upstream: InterceptUpstream,
    routes: &RouteLookup,
    report: &mut InterceptCheckReport,
) -> Result<Host<'a>, InterceptError> {
    let host = Host::read(settings, upstream, routes).await?;
    let families: Vec<Family> = host.settings.families().collect();
    let clients: Vec<&str> = host.interfaces.iter().map(String::as_str).collect();
    kernel_settings::check(&families, &clients, &host.all_interfaces(), &host.links, report);
    interfaces::check(&host, report);
    ip_rules::check(&host, routes, report).await;
    legacy(report);
    match ruleset().await {
        Ok(listing) => {
            filters::check(&host, &listing, report);
            chain_order::check(&families, &listing, report);
        }
        Err(error) => report.unknown(
            InterceptCheckName::Firewall,
            format!("the rules of this host's firewall: {error}"),
        ),
    }
    Ok(host)
}

/// The rules of others.
async fn ruleset() -> Result<Listing, InterceptError> {
    let own = [TABLE, OUTBOUND_TABLE, return_route::TABLE];
    let mut listing = Listing::parse(&nft::list_all().await?, &own);
    if listing.uses(&["xt"]) {
        listing.add_texts(&nft::list_all_as_text().await?);
    }
    Ok(listing)
}

/// Tables of iptables-legacy, which nft does not list.
fn legacy(report: &mut InterceptCheckReport) {
    for (file, program) in nft::LEGACY {
        let names = read_to_string(file).unwrap_or_default();
        if names.lines().next().is_none() {
            continue;
        }
        let names = names.lines().collect::<Vec<_>>().join(", ");
        let seen = format!(
            "{program} has tables ({names}), which nft cannot read: see whether INPUT accepts intercepted mail, \
             and FORWARD mail to the servers"
        );
        let command = format!("{program}-save");
        report.add(InterceptCheckName::Firewall, CheckStatus::Unknown, seen, [command]);
    }
}

/// Only root may see whether there are such tables. The gateway itself need not be root, and would log this at each start.
fn legacy_unreadable(report: &mut InterceptCheckReport) {
    for (file, program) in nft::LEGACY {
        if read_to_string(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            let seen = format!("whether {program} has rules: run this as root");
            report.unknown(InterceptCheckName::Firewall, seen);
        }
    }
}

/// Returns whether a gateway intercepts here.
async fn gateway(report: &mut InterceptCheckReport) -> bool {
    const NAME: InterceptCheckName = InterceptCheckName::Gateway;
    let holder = ownership::holder();
    match (holder, super::installed().await) {
        (Some(pid), Ok(installed)) if installed.chains.is_some() => {
            report.pass(NAME, format!("a gateway intercepts (process {pid})"));
            listener::check(&installed, report);
            for warning in installed.warnings {
                report.add(NAME, CheckStatus::Fail, warning, []);
            }
        }
        (Some(pid), Ok(_)) => {
            let seen = format!("the gateway (process {pid}) has not installed its rules");
            report.warn(NAME, seen, "gatepost intercept show");
        }
        (None, Ok(installed)) if installed.is_empty() => {
            report.pass(NAME, "no gateway runs: mail is not intercepted");
        }
        (None, Ok(_)) => {
            let seen =
                "no gateway runs, and the rules of an earlier one are left: mail passes by it";
            report.warn(NAME, seen, "gatepost intercept clean");
        }
        (_, Err(error)) => report.unknown(NAME, format!("what is installed: {error}")),
    }
    holder.is_some()
}

/// Warnings about an interception that is installed, for those of its interfaces.
pub(super) async fn of_installed(installed: &InterceptReport) -> InterceptCheckReport {
    let mut report = InterceptCheckReport::default();
    let mut families: Vec<Family> = installed.tproxies().map(|tproxy| tproxy.family).collect();
    families.sort_unstable();
    families.dedup();
    if families.is_empty() {
        return report;
    }
    listener::check(installed, &mut report);
    let links = match RouteLookup::open() {
        Ok(routes) => routes.links().await,
        Err(_) => Vec::new(),
    };
    let mut names: Vec<&str> = installed.interfaces().collect();
    names.sort_unstable();
    names.dedup();
    for name in names.iter().filter(|name| !links.iter().any(|link| link.name == **name)) {
        interfaces::missing_interface(name, &mut report);
    }
    // The servers' are not known here.
    let all: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    kernel_settings::check(&families, &names, &all, &links, &mut report);
    report
}
