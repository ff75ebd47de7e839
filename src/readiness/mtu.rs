//! Whether large packets get through over IPv6, where no router makes them smaller (RFC 8200 §5, RFC 8201).
//!
//! What is known: the MTU of the interface, what the kernel takes for the path's, and whether full segments of ours were
//! answered. Whether full segments *of theirs* reach us is not: nothing that a server says before a message is large.

use std::fmt::Write as _;

use super::finding::{CheckName, Findings};
use super::mx::Host;
use super::smtp::time;
use super::{CheckRequest, HostInterface, KnownAnswers, LargeProbe, NetworkPath};
use crate::addr::Family;

/// RFC 8200 §5: every link has at least that.
const IPV6_MINIMUM: u32 = 1280;

pub(super) fn judge(
    hosts: &[Host],
    asked: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut Findings,
) {
    for host in hosts {
        for ip in host.of(Family::Ipv6) {
            let Some(survey) = known.survey(ip) else { continue };
            let Some(path) = &survey.path else { continue };
            one(&format!("{} {ip}", host.name), path, asked, findings);
        }
    }
}

fn one(about: &str, path: &NetworkPath, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::PathMtu;
    let interface = interface(path, asked);
    let way = told(path, interface);
    match path.large {
        LargeProbe::Stalled(after) => {
            let seen = format!(
                "small packets pass, large ones get no answer in {} ({way}): a path MTU black hole",
                time(after)
            );
            let advice = "Let ICMPv6 \"packet too big\" pass on the whole way (RFC 4890 §4.3.1), or lower the MSS at \
                          the narrow link. Messages hang in DATA until then.";
            findings.fail(check, about, seen, advice);
        }
        LargeProbe::Answered(_) if path.mtu.is_some_and(|mtu| mtu < IPV6_MINIMUM) => {
            let advice = "Give the link an MTU of at least 1280: IPv6 needs that (RFC 8200 §5).";
            findings.warn(check, about, way, advice);
        }
        LargeProbe::Answered(octets) => {
            let own = interface.and_then(|interface| interface.mtu);
            let narrow = path.mtu.zip(own).filter(|(path, own)| path < own);
            let narrow = if narrow.is_some() { "; narrower than the interface" } else { "" };
            let larger =
                path.mss.is_some_and(|mss| usize::try_from(mss).is_ok_and(|mss| mss > octets));
            let larger = if larger { "; larger packets were not tried" } else { "" };
            let seen = format!(
                "{octets} octets at once were answered ({way}){narrow}{larger}; theirs to us: not seen"
            );
            findings.pass(check, about, seen);
        }
        LargeProbe::NotTried => {
            let seen = format!("nothing large could be said: it offers no PIPELINING ({way})");
            findings.unknown(check, about, seen, by_hand(asked));
        }
        LargeProbe::Closed => {
            let seen = format!("it hung up over something large ({way})");
            findings.unknown(check, about, seen, by_hand(asked));
        }
    }
}

fn by_hand(asked: &CheckRequest) -> String {
    format!(
        "Send a message of 100 kB to postmaster@{} over IPv6, and see that it arrives.",
        asked.domain
    )
}

/// By which it goes out.
fn interface<'a>(path: &NetworkPath, asked: &'a CheckRequest) -> Option<&'a HostInterface> {
    let has = |one: &&HostInterface| one.addresses.iter().any(|net| Some(net.addr()) == path.local);
    asked.interfaces.iter().find(has)
}

/// `interface eth0 has MTU 1500, the path 1480, MSS 1420`
fn told(path: &NetworkPath, interface: Option<&HostInterface>) -> String {
    let mut text = String::new();
    if let Some(HostInterface { name, mtu: Some(mtu), .. }) = interface {
        let _ = write!(text, "interface {name} has MTU {mtu}");
    }
    for (what, value) in [("the path", path.mtu), ("MSS", path.mss)] {
        if let Some(value) = value {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{what} {value}");
        }
    }
    if text.is_empty() { "the kernel tells no MTU".to_owned() } else { text }
}
