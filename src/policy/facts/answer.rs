//! Lookups that facts depend on, and their answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ClientCertificate, DomainName, PresentedCertificate, Reason, Source};
use crate::addr::Family;
use crate::time::Timestamp;

/// A question to the DNS, to another mail server, to our upstream, or about our own receive path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lookup {
    /// PTR of the address.
    Reverse(IpAddr),
    /// A or AAAA of the name.
    Addresses(DomainName, Family),
    /// MX of the domain.
    MailExchanges(DomainName),
    /// TXT of the name.
    Texts(DomainName),
    /// Whether a server accepts a connection to port 25 of the address.
    Connect(IpAddr),
    /// Whether it also sends a greeting and replies to our EHLO, which proves that data passes in both directions.
    Greet(IpAddr),
    /// Whether it accepts mail for this path, tested by MAIL FROM:<> and RCPT (a callout).
    Callout(IpAddr, String),
    /// Whether our upstream accepts mail for this path (call-ahead).
    Recipient(String),
    /// Whether mail from the Internet reaches us over this family.
    ReceivePath(Family),
}

impl Lookup {
    /// Whether it connects to a server of another site.
    pub const fn is_probe(&self) -> bool {
        self.kind().is_probe()
    }
}

/// One record of a DNS answer, of the queried type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsRecord {
    /// PTR
    Name(DomainName),
    /// A or AAAA. Not canonicalised, so that an AAAA record with a v4-mapped address can be recognised.
    Address(IpAddr),
    /// MX
    Exchange { preference: u16, host: DomainName },
    /// TXT, its strings joined: any octets. In JSON each octet is the character of its number.
    Text(#[serde(with = "octets")] Vec<u8>),
}

/// Octets as a string of the characters U+0000 to U+00FF: texts are nearly always ASCII, and none changes.
mod octets {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text.iter().copied().map(char::from).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let octet = |c: char| u8::try_from(c).map_err(|_beyond| D::Error::custom("not an octet"));
        text.chars().map(octet).collect()
    }
}

impl DnsRecord {
    pub const fn name(&self) -> Option<&DomainName> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }

    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// The octets of a TXT record.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Preference and host of an MX record.
    pub const fn exchange(&self) -> Option<(u16, &DomainName)> {
        match self {
            Self::Exchange { preference, host } => Some((*preference, host)),
            _ => None,
        }
    }
}

/// The answer to a [`Lookup`]. Whoever answers has followed CNAMEs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// DNS: at least one.
    Records(Vec<DnsRecord>),
    /// DNS: the name has no record of this type (NODATA, RFC 2308 §2.2).
    NoData,
    /// DNS: the name does not exist (NXDOMAIN).
    NxDomain,
    /// Yes, with the evidence for people.
    Yes(Option<String>),
    /// No, with the evidence for people.
    No(Reason, Option<String>),
    /// The lookup failed.
    Unknown(Reason),
}

impl Answer {
    /// The records of an answer of the DNS, possibly none.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub fn records(&self) -> Result<&[DnsRecord], Reason> {
        match self {
            Self::Records(records) => Ok(records),
            Self::NoData | Self::NxDomain => Ok(&[]),
            Self::Unknown(reason) => Err(*reason),
            // Not an answer to a DNS query.
            Self::Yes(_) | Self::No(..) => Err(Reason::NoResolver),
        }
    }

    /// The addresses in an answer to [`Lookup::Addresses`], possibly none.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub fn addresses(&self) -> Result<impl Iterator<Item = IpAddr>, Reason> {
        Ok(self.records()?.iter().filter_map(DnsRecord::address))
    }

    /// The texts in an answer to [`Lookup::Texts`], possibly none.
    ///
    /// # Errors
    /// Why the lookup failed.
    pub fn texts(&self) -> Result<impl Iterator<Item = &[u8]>, Reason> {
        Ok(self.records()?.iter().filter_map(DnsRecord::text))
    }
}

/// An answer with its source and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupResult {
    pub answer: Answer,
    pub source: Source,
    /// When it was obtained; `None` where that has no meaning, as for a master file.
    pub at: Option<Timestamp>,
}

/// The answers available so far, and the client's certificate: all that a decision depends on beside its question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    lookups: BTreeMap<Lookup, LookupResult>,
    client_certificate: PresentedCertificate,
}

/// One entry of the list in a recording.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RecordedAnswer {
    Lookup(Lookup, LookupResult),
    /// `null`: the client presented none.
    ClientCertificate {
        client_certificate: Option<Box<ClientCertificate>>,
    },
}

impl Answers {
    pub fn insert(&mut self, lookup: Lookup, result: LookupResult) {
        self.lookups.insert(lookup, result);
    }

    pub fn get(&self, lookup: &Lookup) -> Option<&LookupResult> {
        self.lookups.get(lookup)
    }

    pub const fn client_certificate(&self) -> &PresentedCertificate {
        &self.client_certificate
    }

    pub fn set_client_certificate(&mut self, presented: PresentedCertificate) {
        self.client_certificate = presented;
    }

    /// Removes all answers to lookups.
    pub fn clear_lookups(&mut self) {
        self.lookups.clear();
    }

    /// The form in a recording: a JSON list of pairs, each a lookup and its result, and of the client's certificate if it is
    /// known.
    pub fn to_json(&self) -> String {
        let lookups = self
            .iter()
            .map(|(lookup, result)| RecordedAnswer::Lookup(lookup.clone(), result.clone()));
        let certificate = match &self.client_certificate {
            PresentedCertificate::NotKnown => None,
            PresentedCertificate::None => Some(None),
            PresentedCertificate::Certificate(certificate) => Some(Some(certificate.clone())),
        };
        let certificate = certificate
            .map(|client_certificate| RecordedAnswer::ClientCertificate { client_certificate });
        let all: Vec<_> = lookups.chain(certificate).collect();
        // Cannot fail: strings, numbers and names only.
        serde_json::to_string(&all).unwrap_or_default()
    }

    /// Parses the output of [`Self::to_json`].
    ///
    /// # Errors
    /// The text has another form.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let recorded: Vec<RecordedAnswer> = serde_json::from_str(text)?;
        let mut answers = Self::default();
        for one in recorded {
            match one {
                RecordedAnswer::Lookup(lookup, result) => answers.insert(lookup, result),
                RecordedAnswer::ClientCertificate { client_certificate } => {
                    answers.client_certificate =
                        PresentedCertificate::of(client_certificate.as_deref());
                }
            }
        }
        Ok(answers)
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.lookups.is_empty() && self.client_certificate == PresentedCertificate::NotKnown
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Lookup, &LookupResult)> {
        self.lookups.iter()
    }
}
