//! Requests and responses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::canary::{CanaryPair, CanaryReport, PairId};
use crate::policy::facts::{Answer, DomainName, Reason};
use crate::smtp::{EnvelopeArgument, PathKind};
use crate::time::Timestamp;

/// Limit of the difference between the clocks.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Default of [`VantageSettings::timeout`].
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// Header with the signature in hexadecimal digits.
pub(super) const SIGNATURE: &str = "gatepost-signature";
pub(super) const PATH: &str = "/probe";
pub(super) const CANARY_PATH: &str = "/canary";
pub(super) const REPORTS_PATH: &str = "/canary-reports";
/// Limits in bytes.
pub(super) const MAX_REQUEST: usize = 4096;
pub(super) const MAX_RESPONSE: usize = 64 * 1024;

/// `[vantage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VantageSettings {
    pub address: SocketAddr,
    /// The file with the key.
    pub key: PathBuf,
    /// Our domains; never empty.
    pub domains: Vec<DomainName>,
    pub timeout: Duration,
}

/// Requests a probe of the mail exchanges of `domain` over `family`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeRequest {
    pub(super) domain: DomainName,
    pub(super) family: Family,
    pub(super) at: Timestamp,
    pub(super) nonce: String,
}

/// Requests a pair of canaries to the mailbox `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanaryRequest {
    pub(super) to: String,
    pub(super) at: Timestamp,
    pub(super) nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CanaryResponse {
    pub(super) nonce: String,
    pub(super) at: Timestamp,
    pub(super) pair: CanaryPair,
}

/// The parts of every request that the vantage checks.
pub(super) trait SignedRequest: DeserializeOwned {
    fn at(&self) -> Timestamp;
    fn nonce(&self) -> &str;
    /// The domain that the request is about; `None` if it names no valid one.
    fn domain(&self) -> Option<DomainName>;

    /// Whether the request is about a domain at all.
    fn needs_domain(&self) -> bool {
        true
    }
}

impl SignedRequest for ProbeRequest {
    fn at(&self) -> Timestamp {
        self.at
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    fn domain(&self) -> Option<DomainName> {
        Some(self.domain.clone())
    }
}

/// Requests the reports about a pair that was sent to a mailbox of the vantage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportsRequest {
    pub(super) of: PairId,
    pub(super) at: Timestamp,
    pub(super) nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReportsResponse {
    pub(super) nonce: String,
    pub(super) at: Timestamp,
    pub(super) reports: Vec<CanaryReport>,
}

impl SignedRequest for ReportsRequest {
    fn at(&self) -> Timestamp {
        self.at
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    fn domain(&self) -> Option<DomainName> {
        None
    }

    fn needs_domain(&self) -> bool {
        false
    }
}

impl SignedRequest for CanaryRequest {
    fn at(&self) -> Timestamp {
        self.at
    }

    fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Only of a mailbox that every server reads as it is meant: it becomes a line of SMTP.
    fn domain(&self) -> Option<DomainName> {
        let argument = format!("TO:<{}>", self.to);
        let parsed = EnvelopeArgument::parse(PathKind::Forward, argument.as_bytes()).ok()?;
        let is_plain = parsed.mailbox() == self.to && parsed.rerouting().is_none();
        let (_, domain) = self.to.rsplit_once('@').filter(|_| is_plain && self.to.is_ascii())?;
        DomainName::parse(domain)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProbeResponse {
    pub(super) nonce: String,
    pub(super) at: Timestamp,
    #[serde(rename = "found")]
    pub(super) result: VantageResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VantageResult {
    /// All addresses of the domain's exchanges in the family; possibly none.
    Addresses(Vec<ProbedAddress>),
    /// The DNS lookup of the addresses failed.
    Unknown(Reason),
}

/// The result of probing one address: [`crate::policy::facts::Lookup::Greet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbedAddress {
    pub host: DomainName,
    pub ip: IpAddr,
    pub answer: Answer,
    /// A large segment arrived too (rule 15 of ARCHITECTURE.md). A server without PIPELINING is sent none.
    pub large: bool,
}

impl VantageResult {
    /// Whether a large segment arrived at each address that was reached.
    pub fn large_segment_arrived(&self) -> bool {
        let Self::Addresses(probed) = self else { return false };
        let mut reached = probed.iter().filter(|one| matches!(one.answer, Answer::Yes(_)));
        reached.clone().count() > 0 && reached.all(|one| one.large)
    }

    /// The answer about the receive path. One reachable address suffices, as senders try each. It is negative only if each
    /// address is known to be unreachable.
    pub fn receive_path(&self) -> Answer {
        let probed = match self {
            Self::Addresses(probed) => probed,
            Self::Unknown(reason) => return Answer::Unknown(*reason),
        };
        let detail = |one: &ProbedAddress| Some(format!("{} {}", one.host, one.ip));
        if let Some(reached) = probed.iter().find(|one| matches!(one.answer, Answer::Yes(_))) {
            return Answer::Yes(detail(reached));
        }
        let unknown = probed.iter().find_map(|one| match &one.answer {
            Answer::No(..) => None,
            Answer::Unknown(reason) => Some(*reason),
            _ => Some(Reason::NoResolver),
        });
        match (unknown, probed.first()) {
            (Some(reason), _) => Answer::Unknown(reason),
            (None, Some(first)) => Answer::No(Reason::NotReached, detail(first)),
            (None, None) => Answer::No(Reason::NoUsableAddress, None),
        }
    }
}
