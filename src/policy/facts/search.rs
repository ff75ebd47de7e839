//! Among the addresses of several names, one that will do.

use std::net::IpAddr;

use super::{Answer, Answers, DomainName, Fact, Lookup, Reason, Record, Source, Step};
use crate::addr::Family;

/// What the search came to.
pub(super) enum Search {
    Found {
        name: DomainName,
        address: IpAddr,
        source: Source,
    },
    /// One may turn up there.
    Need(Vec<Lookup>),
    /// One may be there, but the answer is not to be had.
    Unknown {
        reason: Reason,
        source: Source,
    },
    /// There is none; the first address that would not do, if there was one.
    Absent {
        unfit: Option<(DomainName, IpAddr)>,
        source: Source,
    },
}

/// Looks for an address that is `fit`. What is found wins over what is not known yet, that over what cannot be known, and
/// that over absence.
pub(super) fn addresses<'a>(
    known: &Answers,
    names: impl IntoIterator<Item = &'a DomainName>,
    families: &[Family],
    fit: impl Fn(IpAddr) -> bool,
) -> Search {
    let mut needed = Vec::new();
    let mut unknown = None;
    let mut unfit = None;
    let mut source = Source::Capture;
    for name in names {
        for &family in families {
            let lookup = Lookup::Addresses(name.clone(), family);
            let Some(answered) = known.get(&lookup) else {
                needed.push(lookup);
                continue;
            };
            source = source.max(answered.source);
            match &answered.answer {
                Answer::Records(records) => {
                    for address in records.iter().filter_map(Record::address) {
                        if fit(address) {
                            let (name, source) = (name.clone(), answered.source);
                            return Search::Found { name, address, source };
                        }
                        unfit.get_or_insert_with(|| (name.clone(), address));
                    }
                }
                Answer::Unknown(reason) => {
                    unknown.get_or_insert((*reason, answered.source));
                }
                Answer::NoData | Answer::NxDomain | Answer::Yes(_) | Answer::No(..) => {}
            }
        }
    }
    match unknown {
        _ if !needed.is_empty() => Search::Need(needed),
        Some((reason, source)) => Search::Unknown { reason, source },
        None => Search::Absent { unfit, source },
    }
}

impl Search {
    /// The fact that rests on this search and on an answer of `before` that led to it.
    pub(super) fn into_step(
        self,
        before: Source,
        found: impl FnOnce(&DomainName, IpAddr) -> String,
        absent: impl FnOnce(Option<(DomainName, IpAddr)>) -> (Reason, Option<String>),
    ) -> Step {
        Step::Fact(match self {
            Self::Need(lookups) => return Step::Need(lookups),
            Self::Found { name, address, source } => {
                Fact::holds(source.max(before), Some(found(&name, address)))
            }
            Self::Unknown { reason, source } => Fact::unknown(reason, source),
            Self::Absent { unfit, source } => {
                let (reason, detail) = absent(unfit);
                Fact::fails(reason, source.max(before), detail)
            }
        })
    }
}

impl Record {
    pub(super) const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }
}
