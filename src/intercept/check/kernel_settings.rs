//! Kernel settings that prevent interception. Each was found by experiment (see the module `intercept`); suspected ones are not
//! reported, nor those that turned out harmless: rp_filter alone, fwmark_reflect, tcp_tw_reuse, route_localnet, early demux, and
//! tcp_fwmark_accept, since the gateway's listeners have a mark of their own.

use std::fs;

use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::routes::Link;
use crate::addr::Family;
use crate::humanize;
use crate::readiness::CheckStatus;

/// For clients on `clients`, and packets of both sides on `interfaces`.
pub(super) fn check(
    families: &[Family],
    clients: &[&str],
    interfaces: &[&str],
    links: &[Link],
    report: &mut InterceptCheckReport,
) {
    let mut forwarding = Vec::new();
    for &family in families {
        if let Some(name) = disabled_on(family) {
            let seen = format!(
                "{} is disabled ({name}.disable_ipv6): leave it out of listen.addresses, or enable it",
                humanize::family(family)
            );
            report.fail(
                InterceptCheckName::Family,
                seen,
                format!("sysctl -w {name}.disable_ipv6=0"),
            );
            continue;
        }
        let key = forwarding_key(family);
        match read(&path(key)).as_deref() {
            Some("0") => {
                let seen = format!(
                    "{key} is 0: this host does not forward {}, so no mail passes while the gateway is \
                     stopped",
                    humanize::family(family)
                );
                report.warn(InterceptCheckName::Forwarding, seen, format!("sysctl -w {key}=1"));
            }
            Some(_) => forwarding.push(humanize::family(family)),
            None => report.unknown(InterceptCheckName::Forwarding, format!("cannot read {key}")),
        }
    }
    if !forwarding.is_empty() {
        let seen = format!("this host forwards {}", forwarding.join(" and "));
        report.pass(InterceptCheckName::Forwarding, seen);
    }
    if families.contains(&Family::Ipv4) {
        source_validation(interfaces, report);
    }
    bridges(families, clients, links, report);
}

/// The route by which intercepted packets reach the gateway leads to `lo`.
fn disabled_on(family: Family) -> Option<&'static str> {
    let names = ["net.ipv6.conf.all", "net.ipv6.conf.lo"];
    names.into_iter().filter(|_| family == Family::Ipv6).find(|name| {
        // Without IPv6 in the kernel the file does not exist.
        read(&path(&format!("{name}.disable_ipv6"))).is_none_or(|value| value != "0")
    })
}

const fn forwarding_key(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "net.ipv4.ip_forward",
        Family::Ipv6 => "net.ipv6.conf.all.forwarding",
    }
}

/// Of rp_filter.
const STRICT: u8 = 1;

/// With `src_valid_mark` the kernel looks up the source of a marked packet with its mark, and finds it to be local, which only
/// `accept_local` without a strict rp_filter allows.
fn source_validation(interfaces: &[&str], report: &mut InterceptCheckReport) {
    // Interface names may have dots.
    let value = |key: &str, name: &str| {
        let file = format!("/proc/sys/net/ipv4/conf/{name}/{key}");
        read(&file).and_then(|value| value.parse::<u8>().ok()).unwrap_or_default()
    };
    // The kernel takes the higher of both.
    let in_force = |key: &str, name: &str| value(key, "all").max(value(key, name));
    let affected: Vec<&str> = interfaces
        .iter()
        .copied()
        .filter(|name| {
            let spared =
                in_force("accept_local", name) > 0 && in_force("rp_filter", name) != STRICT;
            in_force("src_valid_mark", name) > 0 && !spared
        })
        .collect();
    if affected.is_empty() {
        let seen = "the kernel accepts the sources of intercepted packets (src_valid_mark)";
        report.pass(InterceptCheckName::Kernel, seen);
        return;
    }
    let seen = format!(
        "net.ipv4.conf.*.src_valid_mark is 1 for {}: the kernel drops intercepted IPv4 packets \
         (WireGuard's wg-quick sets it)",
        affected.join(", ")
    );
    let commands = ["all"].into_iter().chain(affected).map(|name| {
        let name = name.replace('.', "/");
        format!("sysctl -w net.ipv4.conf.{name}.src_valid_mark=0")
    });
    report.add(InterceptCheckName::Kernel, CheckStatus::Fail, seen, commands);
}

/// With br_netfilter, frames that arrive on a bridge pass the rules of IP before the host receives them, and the kernel then
/// forgets the socket that `tproxy` found. Replies of servers pass: their socket is found again.
fn bridges(
    families: &[Family],
    clients: &[&str],
    links: &[Link],
    report: &mut InterceptCheckReport,
) {
    let is_bridge = |name: &&str| links.iter().any(|link| link.is_bridge && link.name == *name);
    let bridges: Vec<&str> = clients.iter().copied().filter(is_bridge).collect();
    if bridges.is_empty() {
        return;
    }
    let bridges = bridges.join(", ");
    let keys = families.iter().map(|family| match family {
        Family::Ipv4 => "net.bridge.bridge-nf-call-iptables",
        Family::Ipv6 => "net.bridge.bridge-nf-call-ip6tables",
    });
    let on: Vec<&str> =
        keys.filter(|key| read(&path(key)).is_some_and(|value| value != "0")).collect();
    if on.is_empty() {
        let seen = format!("frames on bridge {bridges} do not pass the rules of IP (br_netfilter)");
        report.pass(InterceptCheckName::Bridge, seen);
        return;
    }
    let seen = format!(
        "clients arrive on bridge {bridges}, whose frames pass the rules of IP (br_netfilter, which Docker \
         loads): the kernel loses intercepted mail"
    );
    let commands = on.into_iter().map(|key| format!("sysctl -w {key}=0"));
    report.add(InterceptCheckName::Bridge, CheckStatus::Fail, seen, commands);
}

fn path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn read(file: &str) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}
