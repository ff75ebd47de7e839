//! Whether large packets arrive over IPv6, where routers do not fragment (RFC 8200 §5, RFC 8201).
//!
//! Known are the MTU of the interface, the kernel's path MTU, and whether the TLS handshake comes about, in which both sides send
//! full segments: a ClientHello with a post-quantum key share, and certificates. Rule 15 of ARCHITECTURE.md.

use std::net::IpAddr;

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::own_network::is_own;
use super::request::{CheckRequest, HostInterface};
use super::survey::{LargeProbe, NetworkPath};
use crate::addr::Family;
use crate::humanize::duration;

/// RFC 8200 §5: the minimum MTU of every link.
const IPV6_MINIMUM: u32 = 1280;

pub(super) fn check(
    hosts: &[MxHost],
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    for host in hosts {
        // Inside this host there is no path.
        for ip in host.of(Family::Ipv6).filter(|ip| !is_own(*ip, request)) {
            let Some(survey) = known.survey(ip, &host.name) else { continue };
            let Some(path) = &survey.path else { continue };
            let interface = interface(survey.from, request);
            check_path(&format!("{} {ip}", host.name), path, interface, request, findings);
        }
    }
}

fn check_path(
    about: &str,
    path: &NetworkPath,
    interface: Option<&HostInterface>,
    request: &CheckRequest,
    findings: &mut FindingList,
) {
    let check = CheckName::PathMtu;
    let sizes = sizes(path, interface);
    match path.large {
        LargeProbe::Stalled(after) => {
            let seen = format!(
                "path MTU black hole: a small ClientHello is answered, a large one got no reply in {} ({sizes})",
                duration(after)
            );
            let advice = "Let ICMPv6 \"packet too big\" pass on the whole path (RFC 4890 §4.3.1), or lower the MSS at \
                          the narrow link. Until then messages hang in DATA.";
            findings.fail(check, about, seen, advice);
        }
        LargeProbe::Answered { .. } if path.mtu.is_some_and(|mtu| mtu < IPV6_MINIMUM) => {
            let advice =
                "Give the link an MTU of at least 1280, which IPv6 requires (RFC 8200 §5).";
            findings.warn(check, about, sizes, advice);
        }
        LargeProbe::Answered { sent, received } => {
            let own = interface.and_then(|interface| interface.mtu);
            let narrow = path.mtu.zip(own).is_some_and(|(path, own)| path < own);
            let narrow = if narrow { "; path narrower than the interface" } else { "" };
            let mss = path.mss.and_then(|mss| usize::try_from(mss).ok());
            let is_less = |octets: usize| mss.is_some_and(|mss| mss > octets);
            let larger = if is_less(sent) { "; larger packets not tested" } else { "" };
            let reverse =
                if is_less(received) { "; large packets from the server not tested" } else { "" };
            let seen = format!(
                "ClientHello of {sent} bytes answered with {received} ({sizes}){narrow}{larger}{reverse}"
            );
            findings.pass(check, about, seen);
        }
        LargeProbe::NotTried => {
            let seen = format!("not tested: no TLS handshake ({sizes})");
            findings.unknown(check, about, seen, manual_test(request));
        }
        LargeProbe::OutOfTime => {
            let seen = format!("not tested: out of time ({sizes})");
            let advice = "Run this again with a longer --timeout.";
            findings.unknown(check, about, seen, advice);
        }
        LargeProbe::Closed => {
            let seen = format!("not tested: the server closed the connection ({sizes})");
            findings.unknown(check, about, seen, manual_test(request));
        }
    }
}

fn manual_test(request: &CheckRequest) -> String {
    let domain = &request.domain;
    format!("Send a message of 100 kB to postmaster@{domain} over IPv6, and check that it arrives.")
}

/// The outgoing interface.
fn interface(from: Option<IpAddr>, request: &CheckRequest) -> Option<&HostInterface> {
    let has = |one: &&HostInterface| one.addresses.iter().any(|net| Some(net.addr()) == from);
    request.interfaces.iter().find(has)
}

/// `interface eth0 MTU 1500, path MTU 1480, MSS 1420`
fn sizes(path: &NetworkPath, interface: Option<&HostInterface>) -> String {
    let interface =
        interface.and_then(|one| Some(format!("interface {} MTU {}", one.name, one.mtu?)));
    let path_mtu = path.mtu.map(|mtu| format!("path MTU {mtu}"));
    let mss = path.mss.map(|mss| format!("MSS {mss}"));
    let sizes: Vec<String> = [interface, path_mtu, mss].into_iter().flatten().collect();
    if sizes.is_empty() { "MTU unknown".to_owned() } else { sizes.join(", ") }
}
