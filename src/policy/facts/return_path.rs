//! Whether the sender can be reached: from MAIL FROM's domain to its exchanges, to usable addresses, and optionally to a
//! server that responds there.
//!
//! RFC 5321 §5.1 (MX, and the domain itself only where there is no MX), RFC 7505 (null MX); rule 11 of ARCHITECTURE.md.

use std::ops::ControlFlow::{self, Break, Continue};

use super::address_search::find_address;
use super::probe::ProbeTargets;
use super::return_path_options::{FamilyRequirement, ReturnPathLevel};
use super::{
    Answer, Answers, Detail, DnsRecord, DomainName, DomainOrLiteral, Evaluation, Fact, Lookup,
    Provenance, Reason,
};
use crate::addr::{Family, Networks, is_global};

/// Exchanges that are considered, the preferred first; the limit of RFC 7208 §4.6.4.
pub const MAX_EXCHANGES: usize = 10;

/// The arguments of [`return_path`].
#[derive(Clone, Copy, Debug)]
pub struct ReturnPathCheck<'a> {
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: &'a str,
    /// The client's family.
    pub family: Family,
    pub over: FamilyRequirement,
    pub level: ReturnPathLevel,
    /// Our own addresses: mail that would return to us reaches no sender.
    pub ours: &'a Networks,
}

/// The DNS names a destination for mail to the sender, and it passes `level`. `<>` always holds: a bounce has no sender to
/// reach (rule 10 of ARCHITECTURE.md).
pub fn return_path(check: &ReturnPathCheck<'_>, known: &Answers) -> Evaluation {
    if check.sender.is_empty() {
        let exempt = Fact::holds(Provenance::NO_LOOKUP, None);
        return Evaluation::Known(Fact { reason: Some(Reason::NullSender), ..exempt });
    }
    let families = check.over.families(check.family);
    // Not v4-mapped addresses in AAAA records, nor private addresses, which belong to some other network.
    let suitable = |address| is_global(address) && !check.ours.contains(address);
    let without_lookup =
        |reason, detail| Evaluation::Known(Fact::fails(reason, Provenance::NO_LOOKUP, detail));
    let domain = match DomainOrLiteral::of_path(check.sender) {
        Some(DomainOrLiteral::Domain(domain)) => domain,
        Some(DomainOrLiteral::Literal(address)) => {
            let detail = Some(Detail::Address(address));
            let usable = suitable(address) && families.contains(&Family::of(address));
            return match check.level {
                _ if !usable => without_lookup(Reason::NoUsableAddress, detail),
                ReturnPathLevel::Dns => {
                    Evaluation::Known(Fact::holds(Provenance::NO_LOOKUP, detail))
                }
                // A client could aim our connections at any address.
                _ => Evaluation::Known(Fact::unknown(Reason::NotProbed, Provenance::NO_LOOKUP)),
            };
        }
        None => return without_lookup(Reason::NotADomain, None),
    };
    let (exchanges, provenance) = match exchanges(&domain, known) {
        Continue(found) => found,
        Break(evaluation) => return evaluation,
    };
    if check.level > ReturnPathLevel::Dns {
        let targets = ProbeTargets::of(&exchanges, families, suitable, provenance, known);
        return targets.probe(check.level, check.sender, known);
    }
    find_address(known, exchanges, families, suitable).into_evaluation(
        provenance,
        Detail::host,
        |unsuitable| {
            let detail = unsuitable.map(|(name, address)| Detail::host(name, address));
            (Reason::NoUsableAddress, detail)
        },
    )
}

/// The exchanges of `domain`, the preferred first, at most [`MAX_EXCHANGES`]; or the result without them.
pub(super) fn exchanges<'a>(
    domain: &'a DomainName,
    known: &'a Answers,
) -> ControlFlow<Evaluation, (Vec<&'a DomainName>, Provenance)> {
    let lookup = Lookup::MailExchanges(domain.clone());
    let Some(result) = known.get(&lookup) else {
        return Break(Evaluation::NeedsLookups(vec![lookup]));
    };
    let provenance = Provenance::of(result);
    let fails = |reason| Break(Evaluation::Known(Fact::fails(reason, provenance, None)));
    let unknown = |reason| Break(Evaluation::Known(Fact::unknown(reason, provenance)));
    let mut found: Vec<_> = match &result.answer {
        Answer::Records(records) => records.iter().filter_map(DnsRecord::exchange).collect(),
        Answer::NoData => return Continue((vec![domain], provenance)),
        Answer::NxDomain => return fails(Reason::Nxdomain),
        Answer::Unknown(reason) => return unknown(*reason),
        // Not an answer to a DNS query.
        Answer::Yes(_) | Answer::No(..) => return unknown(Reason::NoResolver),
    };
    found.sort();
    // RFC 7505 §3: a null MX stands alone. Beside other records it is a mistake and ignored.
    found.retain(|(_, host)| !host.is_root());
    if found.is_empty() {
        return fails(Reason::NullMx);
    }
    let mut hosts: Vec<&DomainName> = Vec::new();
    for (_, host) in found {
        if hosts.len() < MAX_EXCHANGES && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Continue((hosts, provenance))
}
