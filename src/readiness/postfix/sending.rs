//! How its client sends over IPv6.

use std::net::IpAddr;

use super::{CLIENT, Postfix, bare};
use crate::addr::{Family, is_global};
use crate::policy::facts::{DomainName, FactState, fcrdns};
use crate::readiness::finding::{CheckName, Findings};
use crate::readiness::sender;
use crate::readiness::{CheckRequest, KnownAnswers};

pub(super) fn judge(
    postfix: &Postfix,
    asked: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut Findings,
) {
    preference(postfix, findings);
    bind(postfix, asked, findings);
    helo(postfix, asked, known, findings);
}

fn preference(postfix: &Postfix, findings: &mut Findings) {
    let check = CheckName::PostfixPreference;
    let (value, own) = postfix.of(CLIENT, "smtp_address_preference");
    let seen = format!("smtp_address_preference = {value}");
    if value == "ipv4" {
        let advice = "Let it choose: with ipv4 nothing leaves over IPv6 while IPv4 works, and faults go unseen.";
        let line = postfix.set(CLIENT, "smtp_address_preference", "any");
        findings.warn(check, place(own), seen, advice).commands = vec![line];
    } else {
        findings.pass(check, place(own), seen);
    }
}

fn bind(postfix: &Postfix, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::PostfixBind;
    let (value, own) = postfix.of(CLIENT, "smtp_bind_address6");
    let (ipv4, _) = postfix.of(CLIENT, "smtp_bind_address");
    let seen = format!("smtp_bind_address6 = {value}");
    let first = beside(asked, bare(ipv4));
    let set = |value: &str| vec![postfix.set(CLIENT, "smtp_bind_address6", value)];
    let better = first.map_or_else(String::new, |ip| ip.to_string());
    if value.is_empty() {
        match first {
            Some(ip) if !ipv4.is_empty() => {
                let seen = format!(
                    "smtp_bind_address = {ipv4}, but smtp_bind_address6 is empty: the kernel chooses"
                );
                let advice = "Choose the IPv6 address too: the kernel's choice may be a temporary one, without PTR and SPF.";
                findings.warn(check, place(own), seen, advice).commands = set(&ip.to_string());
            }
            _ => {
                findings.pass(check, place(own), "smtp_bind_address6 is empty: the kernel chooses")
            }
        }
        return;
    }
    let addresses =
        || asked.interfaces.iter().flat_map(|one| &one.addresses).map(ipnet::IpNet::addr);
    let advice = "Bind to a global address of this host, or to none.";
    match bare(value) {
        Some(ip) if !ip.is_ipv6() || !is_global(ip) => {
            let what = if ip.is_ipv6() { "not a global address" } else { "not an IPv6 address" };
            findings.fail(check, place(own), format!("{seen}: {what}"), advice).commands =
                set(&better);
        }
        Some(ip) if !addresses().any(|own| own == ip) => {
            let what = "not an address of this host: nothing leaves over IPv6";
            findings.fail(check, place(own), format!("{seen}: {what}"), advice).commands =
                set(&better);
        }
        Some(_) => findings.pass(check, place(own), seen),
        None => {
            findings.fail(check, place(own), format!("{seen}: no address"), advice).commands =
                set(&better);
        }
    }
}

/// A global IPv6 address of the interface that has `ipv4`, or of any.
fn beside(asked: &CheckRequest, ipv4: Option<IpAddr>) -> Option<IpAddr> {
    let has = |one: &&crate::readiness::HostInterface| {
        one.addresses.iter().any(|net| Some(net.addr()) == ipv4)
    };
    let same = asked.interfaces.iter().filter(has);
    let mut candidates =
        same.chain(&asked.interfaces).flat_map(|one| &one.addresses).map(ipnet::IpNet::addr);
    candidates.find(|ip| ip.is_ipv6() && is_global(*ip))
}

/// The name in EHLO beside the confirmed reverse name of the IPv6 senders.
fn helo(postfix: &Postfix, asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    let check = CheckName::PostfixHelo;
    let (value, own) = postfix.helo_name();
    let seen = format!("smtp_helo_name = {value}");
    let mut names: Vec<DomainName> = Vec::new();
    for sender in sender::of(asked, Family::Ipv6).filter(|ip| is_global(*ip)) {
        let Some(fact) = known.fact(|answers| fcrdns(sender, answers)) else { return };
        let name =
            fact.detail.filter(|_| fact.state == FactState::True).map(|name| name.to_string());
        names.extend(name.as_deref().and_then(DomainName::parse));
    }
    names.sort();
    names.dedup();
    let said = DomainName::parse(value).filter(|name| name.to_string().contains('.'));
    match (said, names.as_slice()) {
        (Some(said), names) if names.is_empty() || names.contains(&said) => {
            findings.pass(check, place(own), seen);
        }
        // Each of several senders wants another: an address of the one name is what counts then.
        (Some(_), [_, _, ..]) => findings.pass(check, place(own), seen),
        (_, [name, ..]) => {
            let line = postfix.set(CLIENT, "smtp_helo_name", &name.to_string());
            let advice =
                format!("Let EHLO say {name}, the confirmed reverse name of the IPv6 sender.");
            findings.warn(check, place(own), format!("{seen}, not {name}"), advice).commands =
                vec![line];
        }
        (None, []) => {
            let advice = "Set myhostname to this host's full name, which has AAAA and A records.";
            findings.warn(check, place(own), format!("{seen} is not a full name"), advice);
        }
        (Some(_), []) => {}
    }
}

const fn place(own: bool) -> &'static str {
    if own { "master.cf" } else { "main.cf" }
}
