//! Whether it listens over IPv6.

use std::net::{IpAddr, Ipv6Addr};

use super::{CLIENT, Postfix, bare, words};
use crate::addr::is_global;
use crate::readiness::CheckRequest;
use crate::readiness::finding::{CheckName, Findings};

pub(super) fn judge(postfix: &Postfix, asked: &CheckRequest, findings: &mut Findings) {
    protocols(postfix, findings);
    interfaces(postfix, asked, findings);
}

fn protocols(postfix: &Postfix, findings: &mut Findings) {
    let check = CheckName::PostfixProtocols;
    let has = |value: &str, protocol| words(value).any(|word| word == "all" || word == protocol);
    let value = postfix.main("inet_protocols");
    let seen = format!("inet_protocols = {value}");
    let all = || vec![postfix.set_main("inet_protocols", "all")];
    if !has(value, "ipv6") {
        let advice =
            "Let it use both families. Postfix reads this when it starts, so start it anew.";
        findings.fail(check, "main.cf", seen, advice).commands = all();
    } else if !has(value, "ipv4") {
        let advice =
            "Let it use both families, unless something else takes and sends mail over IPv4.";
        findings.warn(check, "main.cf", format!("{seen}: no IPv4"), advice).commands = all();
    } else {
        findings.pass(check, "main.cf", seen);
    }
    let (own, is_own) = postfix.of(CLIENT, "inet_protocols");
    if is_own && !has(own, "ipv6") {
        let seen = format!("-o inet_protocols={own}: mail leaves over IPv4 only");
        let line = postfix.set(CLIENT, "inet_protocols", "all");
        let advice = "Let the client of master.cf use both families.";
        findings.fail(check, CLIENT, seen, advice).commands = vec![line];
    }
}

fn literal(word: &str) -> Option<IpAddr> {
    if word == "localhost" { Some(Ipv6Addr::LOCALHOST.into()) } else { bare(word) }
}

fn interfaces(postfix: &Postfix, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::PostfixInterfaces;
    let value = postfix.main("inet_interfaces");
    let seen = format!("inet_interfaces = {value}");
    if !postfix
        .services
        .iter()
        .any(|service| service.takes_mail_of_others() && service.host().is_none())
    {
        findings.pass(check, "main.cf", format!("{seen}; port 25 is not left to it"));
        return;
    }
    let literals: Vec<IpAddr> = words(value).filter_map(literal).collect();
    let only_literals = literals.len() == words(value).count();
    let is_local = |ip: &IpAddr| ip.is_loopback();
    let advice = "Let it listen on this host's IPv6 addresses too. Postfix reads this when it starts, so start it anew.";
    if value == "loopback-only" || only_literals && literals.iter().all(is_local) {
        let line = postfix.set_main("inet_interfaces", "all");
        let advice = "Let it listen on this host's addresses. Postfix reads this when it starts, so start it anew.";
        findings
            .fail(check, "main.cf", format!("{seen}: no mail from elsewhere"), advice)
            .commands = vec![line];
    } else if only_literals && !literals.iter().any(|ip| ip.is_ipv6() && !is_local(ip)) {
        let own = asked.interfaces.iter().flat_map(|one| &one.addresses).map(ipnet::IpNet::addr);
        let mut wanted: Vec<String> =
            own.filter(|ip| ip.is_ipv6() && is_global(*ip)).map(|ip| ip.to_string()).collect();
        let listed = if wanted.is_empty() {
            "all".to_owned()
        } else {
            let mut listed: Vec<String> = words(value).map(str::to_owned).collect();
            listed.append(&mut wanted);
            listed.join(", ")
        };
        let line = postfix.set_main("inet_interfaces", &listed);
        findings.fail(check, "main.cf", format!("{seen}: no IPv6 address"), advice).commands =
            vec![line];
    } else {
        findings.pass(check, "main.cf", seen);
    }
}
