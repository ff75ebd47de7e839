//! Search for a suitable address among those of several names.

use std::net::IpAddr;

use super::provenance::Provenance;
use super::{Answers, Detail, DomainName, Evaluation, Fact, Lookup, Reason};
use crate::addr::Family;

pub(super) enum AddressSearch<'a> {
    Found {
        name: &'a DomainName,
        address: IpAddr,
        provenance: Provenance,
    },
    NeedsLookups(Vec<Lookup>),
    /// A lookup failed, so there may be one.
    Unknown {
        reason: Reason,
        provenance: Provenance,
    },
    /// There is none; `unsuitable` is the first address that did not qualify.
    Absent {
        unsuitable: Option<(&'a DomainName, IpAddr)>,
        provenance: Provenance,
    },
}

/// Finds an address that is `suitable`. A suitable address takes precedence over pending lookups, those over failed
/// lookups, and those over absence.
pub(super) fn find_address<'a>(
    known: &Answers,
    names: impl IntoIterator<Item = &'a DomainName>,
    families: &[Family],
    suitable: impl Fn(IpAddr) -> bool,
) -> AddressSearch<'a> {
    let mut needed = Vec::new();
    let mut unknown = None;
    let mut unsuitable = None;
    let mut provenance = Provenance::START;
    for name in names {
        for &family in families {
            let lookup = Lookup::Addresses(name.clone(), family);
            let Some(result) = known.get(&lookup) else {
                needed.push(lookup);
                continue;
            };
            provenance = provenance.and(Provenance::of(result));
            match result.answer.addresses() {
                Ok(addresses) => {
                    for address in addresses {
                        if suitable(address) {
                            let provenance = Provenance::of(result);
                            return AddressSearch::Found { name, address, provenance };
                        }
                        unsuitable.get_or_insert((name, address));
                    }
                }
                Err(reason) => {
                    unknown.get_or_insert((reason, Provenance::of(result)));
                }
            }
        }
    }
    match unknown {
        _ if !needed.is_empty() => AddressSearch::NeedsLookups(needed),
        Some((reason, provenance)) => AddressSearch::Unknown { reason, provenance },
        None => AddressSearch::Absent { unsuitable, provenance },
    }
}

impl<'a> AddressSearch<'a> {
    /// The fact that rests on this search and on `before`, the answers that led to it.
    pub(super) fn into_evaluation(
        self,
        before: Provenance,
        found: impl FnOnce(&DomainName, IpAddr) -> Detail,
        absent: impl FnOnce(Option<(&'a DomainName, IpAddr)>) -> (Reason, Option<Detail>),
    ) -> Evaluation {
        Evaluation::Known(match self {
            Self::NeedsLookups(lookups) => return Evaluation::NeedsLookups(lookups),
            Self::Found { name, address, provenance } => {
                Fact::holds(before.and(provenance), Some(found(name, address)))
            }
            Self::Unknown { reason, provenance } => Fact::unknown(reason, provenance),
            Self::Absent { unsuitable, provenance } => {
                let (reason, detail) = absent(unsuitable);
                Fact::fails(reason, before.and(provenance), detail)
            }
        })
    }
}
