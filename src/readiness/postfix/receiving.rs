//! Whether Postfix listens on IPv6.

use std::net::{IpAddr, Ipv6Addr};

use crate::addr::is_global;
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{CLIENT, MasterService, Postfix, list_items, parse_address};
use crate::readiness::request::{CheckRequest, HostInterface};

pub(super) fn check(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    check_protocols(postfix, findings);
    check_interfaces(postfix, request, findings);
}

fn check_protocols(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixProtocols;
    let has =
        |value: &str, protocol| list_items(value).any(|item| item == "all" || item == protocol);
    let value = postfix.main("inet_protocols");
    let seen = format!("inet_protocols = {value}");
    let all = || vec![postfix.set_main("inet_protocols", "all")];
    if !has(value, "ipv6") {
        let advice = "Enable both families. The change needs a restart of Postfix.";
        findings.fail(check, "main.cf", seen, advice).commands = all();
    } else if !has(value, "ipv4") {
        let advice = "Enable both families, unless another system handles IPv4 mail.";
        findings.warn(check, "main.cf", format!("{seen}: no IPv4"), advice).commands = all();
    } else {
        findings.pass(check, "main.cf", seen);
    }
    let (value, is_override) = postfix.of(CLIENT, "inet_protocols");
    if is_override && !has(value, "ipv6") {
        let seen = format!("-o inet_protocols={value}: sends over IPv4 only");
        let line = postfix.set(CLIENT, "inet_protocols", "all");
        let advice = "Enable both families for the SMTP client in master.cf.";
        findings.fail(check, CLIENT, seen, advice).commands = vec![line];
    }
}

fn literal(item: &str) -> Option<IpAddr> {
    if item == "localhost" { Some(Ipv6Addr::LOCALHOST.into()) } else { parse_address(item) }
}

fn check_interfaces(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    let check = CheckName::PostfixInterfaces;
    let value = postfix.main("inet_interfaces");
    let seen = format!("inet_interfaces = {value}");
    let depends =
        |service: &MasterService| service.receives_internet_mail() && service.host().is_none();
    if !postfix.services().any(depends) {
        findings.pass(check, "main.cf", format!("{seen}; port 25 does not depend on it"));
        return;
    }
    let literals: Vec<IpAddr> = list_items(value).filter_map(literal).collect();
    let only_literals = literals.len() == list_items(value).count();
    let is_loopback = |ip: &IpAddr| ip.is_loopback();
    if value == "loopback-only" || only_literals && literals.iter().all(is_loopback) {
        let seen = format!("{seen}: no mail from other hosts");
        let advice =
            "Let it listen on this host's addresses. The change needs a restart of Postfix.";
        let line = postfix.set_main("inet_interfaces", "all");
        findings.fail(check, "main.cf", seen, advice).commands = vec![line];
    } else if only_literals && !literals.iter().any(|ip| ip.is_ipv6() && !is_loopback(ip)) {
        let own = request.interfaces.iter().flat_map(HostInterface::senders);
        let mut missing: Vec<String> =
            own.filter(|ip| ip.is_ipv6() && is_global(*ip)).map(|ip| ip.to_string()).collect();
        let wanted = if missing.is_empty() {
            "all".to_owned()
        } else {
            let mut items: Vec<String> = list_items(value).map(str::to_owned).collect();
            items.append(&mut missing);
            items.join(", ")
        };
        let seen = format!("{seen}: no IPv6 address");
        let advice = "Let it listen on this host's IPv6 addresses too. The change needs a restart of Postfix.";
        let line = postfix.set_main("inet_interfaces", &wanted);
        findings.fail(check, "main.cf", seen, advice).commands = vec![line];
    } else {
        findings.pass(check, "main.cf", seen);
    }
}
