//! DNS answers together with the resolver's validation of their signatures.
//!
//! RFC 4035 §3.2 (AD, CD), RFC 6840 §5.7 (AD in queries), RFC 8914 (extended errors).

use crate::label::labels;
use crate::policy::facts::{DomainName, Reason};
use crate::time::Timestamp;

labels! {
    /// The type of a record that is looked up with its validation.
    pub enum ValidatedType {
        /// Of any name: it leads to the zone that the name is in.
        Soa = "SOA",
        Ns = "NS",
        Tlsa = "TLSA",
        Caa = "CAA",
    }
}

/// What the resolver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedAnswer {
    pub outcome: ValidatedOutcome,
    /// The resolver has verified all signatures from the root on (AD).
    pub is_authentic: bool,
    /// There are signatures (RRSIG), verified or not.
    pub is_signed: bool,
    /// The owner of the SOA record in the answer or beside it.
    pub zone: Option<DomainName>,
    /// The name at the end of the aliases, or the name itself.
    pub canonical: DomainName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidatedOutcome {
    /// Those of the type that was asked for, without the SOA.
    Records(Vec<ValidatedRecord>),
    /// The name has no record of the type.
    NoRecord,
    NxDomain,
    Failed(ValidationFailure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationFailure {
    pub reason: Reason,
    /// The resolver's explanations, if it sends some.
    pub errors: Vec<ExtendedError>,
    /// With validation switched off (CD) the resolver has an answer: validation is what fails.
    pub answers_unchecked: bool,
    /// The end of a signature in that answer, if it is over.
    pub expired_at: Option<Timestamp>,
}

/// RFC 8914
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    pub code: u16,
    /// From the resolver, unescaped.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidatedRecord {
    NameServer(DomainName),
    Tlsa(TlsaRecord),
    Caa(CaaRecord),
}

/// RFC 6698 §2.1
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsaRecord {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

/// RFC 8659 §4.1
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaRecord {
    /// Authorities must not issue if they do not know the tag.
    pub is_critical: bool,
    pub tag: String,
    pub value: Vec<u8>,
}

impl ValidatedAnswer {
    /// An answer without data, as nothing came in time.
    pub fn failed(name: DomainName, reason: Reason) -> Self {
        let outcome = ValidatedOutcome::Failed(ValidationFailure::new(reason, Vec::new()));
        Self { outcome, is_authentic: false, is_signed: false, zone: None, canonical: name }
    }

    /// Why there is no answer, if validation is not the reason.
    pub(super) fn failure(&self) -> Option<Reason> {
        match &self.outcome {
            ValidatedOutcome::Failed(failure) if !failure.is_bogus() => Some(failure.reason),
            _ => None,
        }
    }
}

impl ExtendedError {
    /// Whether it means that signatures are wrong (RFC 8914 §4.6 to §4.13).
    const fn is_bogus(&self) -> bool {
        matches!(self.code, 5..=12)
    }

    /// What is wrong with the signatures.
    pub(super) const fn cause(&self) -> Option<&'static str> {
        Some(match self.code {
            7 => "a signature has expired",
            8 => "a signature is not valid yet",
            9 => {
                "no DNSKEY record is usable: none fits the DS record of the parent zone, or their signature is wrong"
            }
            10 => "signatures (RRSIG) are missing",
            11 => "a key is no zone key",
            12 => "the proof (NSEC) that a name or record does not exist is missing",
            _ => return None,
        })
    }
}

impl ValidationFailure {
    pub const fn new(reason: Reason, errors: Vec<ExtendedError>) -> Self {
        Self { reason, errors, answers_unchecked: false, expired_at: None }
    }

    pub(super) fn has_expired(&self) -> bool {
        self.expired_at.is_some() || self.errors.iter().any(|error| error.code == 7)
    }

    /// Whether validation is the reason, not the name servers or the path to them.
    pub(super) fn is_bogus(&self) -> bool {
        self.answers_unchecked || self.errors.iter().any(ExtendedError::is_bogus)
    }

    /// Such as `a signature has expired`, and what the resolver adds.
    pub(super) fn explanation(&self) -> String {
        if let Some(end) = self.expired_at {
            let end = end.to_string();
            return format!("a signature has expired, on {}", end.get(..10).unwrap_or(&end));
        }
        let cause = self.errors.iter().find_map(ExtendedError::cause);
        let cause = cause.unwrap_or(
            "the signatures, the keys and the DS record of the parent zone do not fit together",
        );
        let mut texts = self.errors.iter().map(|error| error.text.trim());
        match texts.find(|text| !text.is_empty()) {
            Some(text) => format!("{cause} (the resolver: {text})"),
            None => cause.to_owned(),
        }
    }
}
