//! What the facts ask, and what they are told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{DomainName, Reason, Source};
use crate::addr::Family;
use crate::time::Timestamp;

/// A question: to the DNS, to another mail server, to our own upstream, or about our own receive path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    /// PTR of the address.
    Reverse(IpAddr),
    /// A or AAAA of the name.
    Addresses(DomainName, Family),
    /// MX of the domain.
    MailExchanges(DomainName),
    /// Whether a server at the address, port 25, takes a connection.
    Connect(IpAddr),
    /// Whether it greets us and answers our EHLO, so that octets cross both ways.
    Greet(IpAddr),
    /// Whether it takes mail for this path, asked by MAIL FROM:<> and RCPT (a callout).
    Callout(IpAddr, String),
    /// Whether our upstream takes mail for this path (call-ahead).
    Recipient(String),
    /// Whether mail from the world reaches us over this family.
    ReceivePath(Family),
}

/// One record of an answer, of the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// PTR
    Name(DomainName),
    /// A or AAAA; not canonicalised, so that an AAAA that holds a v4-mapped address is seen as one.
    Address(IpAddr),
    /// MX
    Exchange { preference: u16, host: DomainName },
}

/// What is known about a [`Lookup`]. CNAMEs are followed by whoever answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// DNS: at least one.
    Records(Vec<Record>),
    /// DNS: the name has no record of this type (NODATA, RFC 2308 §2.2).
    NoData,
    /// DNS: there is no such name (NXDOMAIN).
    NxDomain,
    /// What was asked about is so; with what it rests on, for people.
    Yes(Option<String>),
    /// It is not so.
    No(Reason, Option<String>),
    /// Nobody could say.
    Unknown(Reason),
}

/// An answer, who gave it, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupResult {
    pub answer: Answer,
    pub source: Source,
    /// When it was learnt; `None` where that has no meaning, as in a master file.
    pub at: Option<Timestamp>,
}

/// All that is known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Lookup, LookupResult>);

impl Answers {
    pub fn insert(&mut self, lookup: Lookup, answered: LookupResult) {
        self.0.insert(lookup, answered);
    }

    pub fn get(&self, lookup: &Lookup) -> Option<&LookupResult> {
        self.0.get(lookup)
    }

    /// As a recording carries them: a JSON list of pairs, each a lookup and its answer.
    pub fn to_json(&self) -> String {
        let pairs: Vec<_> = self.iter().collect();
        // Strings, numbers and names only: that does not fail.
        serde_json::to_string(&pairs).unwrap_or_default()
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// It did not write this.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let pairs: Vec<(Lookup, LookupResult)> = serde_json::from_str(text)?;
        Ok(Self(pairs.into_iter().collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Lookup, &LookupResult)> {
        self.0.iter()
    }
}
