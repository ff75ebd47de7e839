//! Among the addresses of several names, one that will do.

use std::net::IpAddr;

use super::basis::Basis;
use super::{Answer, Answers, Detail, DomainName, Fact, Lookup, Reason, Record, Step};
use crate::addr::Family;

/// What the search came to.
pub(super) enum Search<'a> {
    Found {
        name: &'a DomainName,
        address: IpAddr,
        basis: Basis,
    },
    /// One may turn up there.
    Need(Vec<Lookup>),
    /// One may be there, but the answer is not to be had.
    Unknown {
        reason: Reason,
        basis: Basis,
    },
    /// There is none; the first address that would not do, if there was one.
    Absent {
        unfit: Option<(&'a DomainName, IpAddr)>,
        basis: Basis,
    },
}

/// Looks for an address that is `fit`. What is found wins over what is not known yet, that over what cannot be known, and
/// that over absence.
pub(super) fn addresses<'a>(
    known: &Answers,
    names: impl IntoIterator<Item = &'a DomainName>,
    families: &[Family],
    fit: impl Fn(IpAddr) -> bool,
) -> Search<'a> {
    let mut needed = Vec::new();
    let mut unknown = None;
    let mut unfit = None;
    let mut basis = Basis::BEGIN;
    for name in names {
        for &family in families {
            let lookup = Lookup::Addresses(name.clone(), family);
            let Some(answered) = known.get(&lookup) else {
                needed.push(lookup);
                continue;
            };
            basis = basis.and(Basis::of(answered));
            match answered.answer.addresses() {
                Ok(addresses) => {
                    for address in addresses {
                        if fit(address) {
                            return Search::Found { name, address, basis: Basis::of(answered) };
                        }
                        unfit.get_or_insert((name, address));
                    }
                }
                Err(reason) => {
                    unknown.get_or_insert((reason, Basis::of(answered)));
                }
            }
        }
    }
    match unknown {
        _ if !needed.is_empty() => Search::Need(needed),
        Some((reason, basis)) => Search::Unknown { reason, basis },
        None => Search::Absent { unfit, basis },
    }
}

impl<'a> Search<'a> {
    /// The fact that rests on this search and on what led to it.
    pub(super) fn into_step(
        self,
        before: Basis,
        found: impl FnOnce(&DomainName, IpAddr) -> Detail,
        absent: impl FnOnce(Option<(&'a DomainName, IpAddr)>) -> (Reason, Option<Detail>),
    ) -> Step {
        Step::Fact(match self {
            Self::Need(lookups) => return Step::Need(lookups),
            Self::Found { name, address, basis } => {
                Fact::holds(before.and(basis), Some(found(name, address)))
            }
            Self::Unknown { reason, basis } => Fact::unknown(reason, basis),
            Self::Absent { unfit, basis } => {
                let (reason, detail) = absent(unfit);
                Fact::fails(reason, before.and(basis), detail)
            }
        })
    }
}

impl Answer {
    /// The addresses of an answer to [`Lookup::Addresses`], maybe none; or why nobody knows.
    pub(super) fn addresses(&self) -> Result<impl Iterator<Item = IpAddr>, Reason> {
        let records: &[Record] = match self {
            Self::Records(records) => records,
            Self::NoData | Self::NxDomain => &[],
            Self::Unknown(reason) => return Err(*reason),
            // No answer to a question of this kind.
            Self::Yes(_) | Self::No(..) => return Err(Reason::NoSource),
        };
        Ok(records.iter().filter_map(Record::address))
    }
}

impl Record {
    const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }
}
