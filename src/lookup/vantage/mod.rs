//! A prober on another network: whether the world can service us is not to be seen from here.
//!
//! One HTTP/1.1 POST of a question to `/probe`, answered by a report; both are JSON and each carries, in a header
//! `gatepost-signature`, an HMAC-SHA256 (RFC 2104) by a key that only the two know, over what it is and its octets. A question has a
//! time and a nonce: one that is more than [`MAX_CLOCK_SKEW`] from the vantage's clock, or was asked before, is refused. The report
//! repeats the nonce, so it answers this question and no other. Nothing is secret in them, so they are not encrypted.
//!
//! The vantage resolves by itself: what it tells is what any sender there would find.

mod client;
mod server;
mod signature;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::client::{Vantage, VantageError};
pub use self::server::{VantageServer, VantageServerSettings, serve};
pub use self::signature::{SharedKey, SharedKeyError};
use crate::addr::Family;
use crate::policy::facts::{Answer, DomainName, Reason};
use crate::time::Timestamp;

/// How far the two clocks may be apart.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How long the vantage may take, where nobody says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// Header with the signature in hexadecimal digits.
const SIGNATURE: &str = "gatepost-signature";
const PATH: &str = "/probe";
/// Octets of a report; of a question far fewer.
const MAX_RESPONSE: usize = 64 * 1024;

/// `[vantage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VantageSettings {
    pub address: SocketAddr,
    /// The file that holds the key.
    pub key: PathBuf,
    /// Ours; never empty.
    pub domains: Vec<DomainName>,
    pub timeout: Duration,
}

/// Can the exchanges of `domain` be reached over `family`?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeRequest {
    domain: DomainName,
    family: Family,
    at: Timestamp,
    nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProbeResponse {
    nonce: String,
    at: Timestamp,
    found: VantageResult,
}

/// What a vantage saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VantageResult {
    /// Each address of the domain's exchanges of that family; none if there is none.
    Addresses(Vec<ProbedAddress>),
    /// The DNS could not say which addresses there are.
    Unknown(Reason),
}

/// What became of a call of one address: [`crate::policy::facts::Lookup::Greet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbedAddress {
    pub host: DomainName,
    pub ip: IpAddr,
    pub answer: Answer,
}

impl VantageResult {
    /// What it says of the receive path: one address that can be reached is enough, as senders try each. That none was
    /// reached is only known if each one is known not to be.
    pub fn receive_path(&self) -> Answer {
        let probed = match self {
            Self::Addresses(probed) => probed,
            Self::Unknown(reason) => return Answer::Unknown(*reason),
        };
        let tell = |one: &ProbedAddress| Some(format!("{} {}", one.host, one.ip));
        if let Some(reached) = probed.iter().find(|one| matches!(one.answer, Answer::Yes(_))) {
            return Answer::Yes(tell(reached));
        }
        let unknown = probed.iter().find_map(|one| match &one.answer {
            Answer::No(..) => None,
            Answer::Unknown(reason) => Some(*reason),
            _ => Some(Reason::NoResolver),
        });
        match (unknown, probed.first()) {
            (Some(reason), _) => Answer::Unknown(reason),
            (None, Some(first)) => Answer::No(Reason::NotReached, tell(first)),
            (None, None) => Answer::No(Reason::NoUsableAddress, None),
        }
    }
}

#[cfg(test)]
mod tests;
