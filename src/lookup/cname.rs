//! CNAME chains (RFC 1034 §3.6.2), for sources that hold records rather than answers.

use hickory_proto::rr::RecordType;

use super::dns_data::question;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};

/// Limit of the chain's length, as in most resolvers; ends loops, too.
pub(super) const MAX_ALIASES: usize = 8;

/// The data of a source at one name for one record type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordSet {
    Records(Vec<DnsRecord>),
    Alias(DomainName),
    NoData,
    NxDomain,
    Unknown(Reason),
}

/// The answer to `lookup`, through aliases. A chain that is too long is a failure (SERVFAIL), as in a resolver.
pub(super) fn follow(
    lookup: &Lookup,
    find: impl Fn(&DomainName, RecordType) -> RecordSet,
) -> Answer {
    let Some((mut name, kind)) = question(lookup) else {
        return Answer::Unknown(Reason::NoResolver);
    };
    for _ in 0..=MAX_ALIASES {
        match find(&name, kind) {
            RecordSet::Alias(target) => name = target,
            RecordSet::Records(records) => return Answer::Records(records),
            RecordSet::NoData => return Answer::NoData,
            RecordSet::NxDomain => return Answer::NxDomain,
            RecordSet::Unknown(reason) => return Answer::Unknown(reason),
        }
    }
    Answer::Unknown(Reason::Servfail)
}
