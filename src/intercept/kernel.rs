//! Kernel settings and state that prevent an installed interception from working. Each was found by experiment (see the
//! parent module); suspected ones are not reported.

use std::fs;

use super::report::{InterceptReport, TproxyReport};
use crate::addr::Family;

/// Warnings about the network namespace of the calling thread; empty if nothing is intercepted.
pub(super) fn warnings(report: &InterceptReport) -> Vec<String> {
    let mut warnings = Vec::new();
    for tproxy in report.tproxies() {
        warnings.extend(not_listening(tproxy));
        warnings.extend(not_forwarding(tproxy.family));
    }
    if report.tproxies().next().is_none() {
        return warnings;
    }
    if report.tproxies().any(|tproxy| tproxy.family == Family::Ipv4) {
        warnings.extend(src_valid_mark());
    }
    if is_on("/proc/sys/net/ipv4/tcp_fwmark_accept") {
        warnings.push(
            "net.ipv4.tcp_fwmark_accept is 1: replies to clients are routed back to this host unless \
             the listener has a mark of its own; set it to 0"
                .to_owned(),
        );
    }
    let existing = interfaces();
    for name in report.interfaces().filter(|name| !existing.iter().any(|other| other == name)) {
        warnings.push(format!(
            "interface {name} does not exist: no connection can arrive on it; check intercept.interfaces"
        ));
    }
    warnings
}

fn not_listening(tproxy: &TproxyReport) -> Option<String> {
    // /proc/net belongs to the first thread of the process, which may be in another namespace.
    let (file, any) = match tproxy.family {
        Family::Ipv4 => ("/proc/thread-self/net/tcp", "00000000"),
        Family::Ipv6 => ("/proc/thread-self/net/tcp6", "00000000000000000000000000000000"),
    };
    let sockets = fs::read_to_string(file).ok()?;
    let wanted = format!("{any}:{:04X}", tproxy.listen);
    let listens = sockets.lines().any(|line| {
        // sl local_address rem_address st; state 0A is LISTEN
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&wanted) && words.nth(1) == Some("0A")
    });
    (!listens).then(|| {
        format!(
            "no socket listens on port {} of the {} wildcard address: mail bypasses the gateway and goes \
             to the servers directly; start the gateway, or run `gatepost intercept clean`",
            tproxy.listen, tproxy.family
        )
    })
}

fn not_forwarding(family: Family) -> Option<String> {
    let key = match family {
        Family::Ipv4 => "net.ipv4.ip_forward",
        Family::Ipv6 => "net.ipv6.conf.all.forwarding",
    };
    let off = read(&format!("/proc/sys/{}", key.replace('.', "/")))? == "0";
    off.then(|| {
        format!(
            "{key} is 0: this host does not forward {family}, so no mail passes while the gateway is \
             stopped; set it to 1"
        )
    })
}

fn src_valid_mark() -> Option<String> {
    let names: Vec<String> = fs::read_dir("/proc/sys/net/ipv4/conf")
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name() != "default")
        .filter(|entry| is_on(&entry.path().join("src_valid_mark").to_string_lossy()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "net.ipv4.conf.*.src_valid_mark is 1 for {}: the kernel drops intercepted IPv4 packets; \
             set it to 0 (WireGuard's wg-quick sets it to 1)",
            names.join(", ")
        )
    })
}

fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn is_on(file: &str) -> bool {
    read(file).is_some_and(|value| value != "0")
}

fn read(file: &str) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}
