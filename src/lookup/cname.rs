//! CNAME chains (RFC 1034 §3.6.2), for sources that hold records rather than answers.

use hickory_proto::rr::RecordType;

use super::question;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};

/// CNAMEs followed for one lookup; resolvers stop at about as many. A loop ends here too.
pub(super) const MAX_ALIASES: usize = 8;

/// What a source holds at one name for one record type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Records(Vec<DnsRecord>),
    Alias(DomainName),
    NoData,
    NxDomain,
    Unknown(Reason),
}

/// The answer to `lookup`, through aliases. Too many of them are what a resolver calls SERVFAIL.
pub(super) fn follow(lookup: &Lookup, find: impl Fn(&DomainName, RecordType) -> Found) -> Answer {
    let Some((mut name, kind)) = question(lookup) else {
        return Answer::Unknown(Reason::NoResolver);
    };
    for _ in 0..=MAX_ALIASES {
        match find(&name, kind) {
            Found::Alias(target) => name = target,
            Found::Records(records) => return Answer::Records(records),
            Found::NoData => return Answer::NoData,
            Found::NxDomain => return Answer::NxDomain,
            Found::Unknown(reason) => return Answer::Unknown(reason),
        }
    }
    Answer::Unknown(Reason::Servfail)
}
