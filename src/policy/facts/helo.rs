//! Whether the name that the client gave itself has an address.
//!
//! RFC 5321 §4.1.1.1 and §4.1.4. That the address is the client's own is not asked for: hosts behind address translation and
//! pools name themselves as one of many.

use std::net::IpAddr;

use super::search::addresses;
use super::{Answers, Basis, Detail, Fact, Reason, Site, Step};
use crate::addr::Family;

/// `helo` is the argument of HELO or EHLO. A domain holds with an address in either family, an address literal (RFC 5321
/// §4.1.3) by itself; loopback and unspecified addresses name no host to us.
pub fn helo_resolves(helo: &str, known: &Answers) -> Step {
    let said = helo.split_ascii_whitespace().next().unwrap_or_default();
    match Site::parse(said) {
        None => Step::Fact(Fact::fails(Reason::NotADomain, Basis::NOBODY, None)),
        Some(Site::Literal(ip)) if names_a_host(ip) => {
            Step::Fact(Fact::holds(Basis::NOBODY, Some(Detail::Address(ip))))
        }
        Some(Site::Literal(ip)) => {
            let detail = Some(Detail::Address(ip));
            Step::Fact(Fact::fails(Reason::NoUsableAddress, Basis::NOBODY, detail))
        }
        Some(Site::Domain(domain)) => addresses(known, [&domain], &Family::ALL, names_a_host)
            .into_step(Basis::BEGIN, Detail::host, |unfit| {
                (Reason::NoUsableAddress, unfit.map(|(name, address)| Detail::host(name, address)))
            }),
    }
}

fn names_a_host(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_loopback() && !ip.is_unspecified()
}
