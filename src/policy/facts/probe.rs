//! Whether a server responds at one of the addresses where mail for the sender goes.
//!
//! To limit the load on others, at most [`MAX_PROBED`] addresses are probed for one sender, one of each family at a time
//! (rule 12 of ARCHITECTURE.md).

use std::net::IpAddr;

use super::provenance::Provenance;
use super::{
    Answer, Answers, Detail, DomainName, Evaluation, Fact, Lookup, LookupResult, Reason,
    ReturnPathLevel,
};
use crate::addr::Family;

/// Addresses that are probed for one sender, those of the preferred exchanges first.
pub const MAX_PROBED: usize = 6;

/// The addresses where mail for the sender goes, as far as the DNS answers are available.
pub(super) struct ProbeTargets<'a> {
    /// The exchange and its address. Each address once, in order of preference.
    found: Vec<(&'a DomainName, IpAddr)>,
    /// Pending DNS lookups. [`Self::found`] holds only addresses that precede them in the order of preference.
    needed: Vec<Lookup>,
    /// A failed lookup: an address may be missing.
    unknown: Option<(Reason, Provenance)>,
    /// The first address that the Internet cannot reach.
    unsuitable: Option<(&'a DomainName, IpAddr)>,
    /// Of all answers used.
    provenance: Provenance,
}

impl<'a> ProbeTargets<'a> {
    const fn empty(provenance: Provenance) -> Self {
        Self { found: Vec::new(), needed: Vec::new(), unknown: None, unsuitable: None, provenance }
    }

    /// The `suitable` addresses of `exchanges` over `families`. Within one exchange the families alternate, so that many
    /// addresses of one family do not keep the other from being probed. `before` is the provenance of `exchanges`.
    pub(super) fn of(
        exchanges: &[&'a DomainName],
        families: &[Family],
        suitable: impl Fn(IpAddr) -> bool,
        before: Provenance,
        known: &Answers,
    ) -> Self {
        let mut targets = Self::empty(before);
        for &name in exchanges {
            if targets.found.len() == MAX_PROBED {
                break;
            }
            let mut columns = Vec::with_capacity(families.len());
            for &family in families {
                let lookup = Lookup::Addresses(name.clone(), family);
                match known.get(&lookup) {
                    Some(result) => columns.push(targets.column(name, result, &suitable)),
                    None => targets.needed.push(lookup),
                }
            }
            // Addresses behind a pending lookup may turn out to be beyond the limit.
            if targets.needed.is_empty() {
                targets.interleave(name, columns);
            }
        }
        targets
    }

    fn column(
        &mut self,
        name: &'a DomainName,
        result: &LookupResult,
        suitable: impl Fn(IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        self.provenance = self.provenance.and(Provenance::of(result));
        match result.answer.addresses() {
            Ok(addresses) => {
                let (mut usable, rest): (Vec<_>, Vec<_>) = addresses.partition(|ip| suitable(*ip));
                if let Some(address) = rest.first() {
                    self.unsuitable.get_or_insert((name, *address));
                }
                // DNS servers rotate records: sorted, the same records give the same fact.
                usable.sort_unstable();
                usable
            }
            Err(reason) => {
                self.unknown.get_or_insert((reason, Provenance::of(result)));
                Vec::new()
            }
        }
    }

    fn interleave(&mut self, name: &'a DomainName, columns: Vec<Vec<IpAddr>>) {
        let longest = columns.iter().map(Vec::len).max().unwrap_or_default();
        let rows = (0..longest).flat_map(|n| columns.iter().filter_map(move |c| c.get(n)));
        for address in rows {
            if self.found.len() == MAX_PROBED {
                return;
            }
            if self.found.iter().all(|(_, found)| found != address) {
                self.found.push((name, *address));
            }
        }
    }

    /// Whether one of the targets passes `level`, which is beyond [`ReturnPathLevel::Dns`]. One success is enough; the fact
    /// fails only if all of them fail.
    pub(super) fn probe(self, level: ReturnPathLevel, sender: &str, known: &Answers) -> Evaluation {
        let detail = |(name, address): (&DomainName, IpAddr)| Detail::host(name, address);
        let mut probes: Vec<(Family, Lookup)> = Vec::new();
        let mut unknown = self.unknown;
        let mut failed: Option<(Reason, Detail)> = None;
        let mut provenance = self.provenance;
        for &target in &self.found {
            let lookup = level.lookup(target.1, sender);
            let Some(result) = known.get(&lookup) else {
                let family = Family::of(target.1);
                if probes.iter().all(|(other, _)| *other != family) {
                    probes.push((family, lookup));
                }
                continue;
            };
            match level.outcome(&result.answer) {
                ProbeOutcome::Passed => {
                    let provenance = self.provenance.and(Provenance::of(result));
                    return Evaluation::Known(Fact::holds(provenance, Some(detail(target))));
                }
                ProbeOutcome::Failed(reason) => {
                    provenance = provenance.and(Provenance::of(result));
                    failed.get_or_insert_with(|| (reason, detail(target)));
                }
                ProbeOutcome::Unknown(reason) => {
                    unknown.get_or_insert((reason, Provenance::of(result)));
                }
            }
        }
        let needed: Vec<_> =
            probes.into_iter().map(|(_, lookup)| lookup).chain(self.needed).collect();
        if !needed.is_empty() {
            return Evaluation::NeedsLookups(needed);
        }
        Evaluation::Known(match (unknown, failed, self.unsuitable) {
            (Some((reason, provenance)), ..) => Fact::unknown(reason, provenance),
            (None, Some((reason, detail)), _) => Fact::fails(reason, provenance, Some(detail)),
            (None, None, unsuitable) => {
                let detail = unsuitable.map(|(name, address)| Detail::host(name, address));
                Fact::fails(Reason::NoUsableAddress, provenance, detail)
            }
        })
    }
}

enum ProbeOutcome {
    Passed,
    Failed(Reason),
    Unknown(Reason),
}

impl ReturnPathLevel {
    fn lookup(self, address: IpAddr, sender: &str) -> Lookup {
        match self {
            Self::Dns | Self::Tcp => Lookup::Connect(address),
            Self::Smtp => Lookup::Greet(address),
            Self::Rcpt => Lookup::Callout(address, sender.to_owned()),
        }
    }

    /// A callout disproves a mailbox only if the mailbox itself was rejected: earlier rejections and missing replies may be
    /// due to us.
    fn outcome(self, answer: &Answer) -> ProbeOutcome {
        match answer {
            Answer::Yes(_) => ProbeOutcome::Passed,
            Answer::No(reason, _) if self != Self::Rcpt || *reason == Reason::NoSuchMailbox => {
                ProbeOutcome::Failed(*reason)
            }
            Answer::No(reason, _) | Answer::Unknown(reason) => ProbeOutcome::Unknown(*reason),
            // Not an answer to a probe.
            Answer::Records(_) | Answer::NoData | Answer::NxDomain => {
                ProbeOutcome::Unknown(Reason::NoResolver)
            }
        }
    }
}
