//! What the facts ask, and what they are told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{DomainName, Reason, Source};
use crate::addr::Family;

/// A question to the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lookup {
    /// PTR of the address.
    Reverse(IpAddr),
    /// A or AAAA of the name.
    Addresses(DomainName, Family),
    /// MX of the domain.
    MailExchanges(DomainName),
}

/// One record of an answer, of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Record {
    /// PTR
    Name(DomainName),
    /// A or AAAA; not canonicalised, so that an AAAA that holds a v4-mapped address is seen as one.
    Address(IpAddr),
    /// MX
    Exchange { preference: u16, host: DomainName },
}

/// What is known about a [`Lookup`]. CNAMEs are followed by whoever answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one.
    Records(Vec<Record>),
    /// The name has no record of this type (NODATA, RFC 2308 §2.2).
    NoData,
    /// There is no such name (NXDOMAIN).
    NxDomain,
    /// [`Reason::Servfail`], [`Reason::Timeout`], [`Reason::Unreachable`] or [`Reason::NoSource`].
    Unknown(Reason),
}

/// An answer and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub answer: Answer,
    pub source: Source,
}

/// All that is known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Lookup, Answered>);

impl Answers {
    pub fn insert(&mut self, lookup: Lookup, answered: Answered) {
        self.0.insert(lookup, answered);
    }

    pub fn get(&self, lookup: &Lookup) -> Option<&Answered> {
        self.0.get(lookup)
    }
}
