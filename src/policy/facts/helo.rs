//! Whether the HELO name has an address (RFC 5321 §4.1.1.1 and §4.1.4).
//!
//! The address need not be the client's own: hosts behind address translation, and pools, use one name for many addresses.

use std::net::IpAddr;

use super::address_search::find_address;
use super::{Answers, Detail, DomainOrLiteral, Evaluation, Fact, Provenance, Reason};
use crate::addr::Family;

/// `helo` is the argument of HELO or EHLO. A domain passes with an address in either family, an address literal (RFC 5321
/// §4.1.3) by itself. Loopback and unspecified addresses do not count.
pub fn helo_resolves(helo: &str, known: &Answers) -> Evaluation {
    let name = helo.split_ascii_whitespace().next().unwrap_or_default();
    match DomainOrLiteral::parse(name) {
        None => Evaluation::Known(Fact::fails(Reason::NotADomain, Provenance::NO_LOOKUP, None)),
        Some(DomainOrLiteral::Literal(ip)) if is_host_address(ip) => {
            Evaluation::Known(Fact::holds(Provenance::NO_LOOKUP, Some(Detail::Address(ip))))
        }
        Some(DomainOrLiteral::Literal(ip)) => {
            let detail = Some(Detail::Address(ip));
            Evaluation::Known(Fact::fails(Reason::NoUsableAddress, Provenance::NO_LOOKUP, detail))
        }
        Some(DomainOrLiteral::Domain(domain)) => {
            find_address(known, [&domain], &Family::ALL, is_host_address).into_evaluation(
                Provenance::START,
                Detail::host,
                |unusable| {
                    let detail = unusable.map(|(name, address)| Detail::host(name, address));
                    (Reason::NoUsableAddress, detail)
                },
            )
        }
    }
}

fn is_host_address(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_loopback() && !ip.is_unspecified()
}
