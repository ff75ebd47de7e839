//! What the vantage reports about each connection.

use std::fmt;
use std::net::SocketAddr;

use super::protocol::VantageResult;
use crate::addr::Family;
use crate::canary::{CanaryPair, PairId};
use crate::policy::facts::{Answer, DomainName};

/// Receives one event for each request, and for each connection that brought none.
pub trait RequestLog: Send + Sync {
    fn log(&self, peer: SocketAddr, event: RequestEvent<'_>);
}

/// Discards everything.
impl RequestLog for () {
    fn log(&self, _: SocketAddr, _: RequestEvent<'_>) {}
}

/// The outcome of a connection. As text it is one line without control characters.
#[derive(Clone, Copy, Debug)]
pub enum RequestEvent<'a> {
    Probed {
        domain: &'a DomainName,
        family: Family,
        result: &'a VantageResult,
    },
    SentCanaries {
        domain: &'a DomainName,
        pair: &'a CanaryPair,
    },
    /// So many reports about a pair.
    Reported {
        pair: PairId,
        reports: usize,
    },
    /// HTTP status and reason.
    Rejected(u16, &'a str),
    /// No complete HTTP request.
    NoRequest(&'a str),
    /// The network of the client has too many connections.
    TooManyConnections,
}

impl RequestEvent<'_> {
    /// Whether the client got nothing.
    pub const fn is_rejection(&self) -> bool {
        matches!(self, Self::Rejected(..) | Self::NoRequest(_) | Self::TooManyConnections)
    }
}

impl fmt::Display for RequestEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probed { domain, family, result } => {
                write!(f, "probed {domain} over {family}: ")?;
                match result {
                    VantageResult::Unknown(reason) => write!(f, "unknown ({})", reason.as_str()),
                    VantageResult::Addresses(probed) if probed.is_empty() => {
                        f.write_str("no address")
                    }
                    VantageResult::Addresses(probed) => {
                        for (n, one) in probed.iter().enumerate() {
                            let comma = if n == 0 { "" } else { ", " };
                            let found = match &one.answer {
                                Answer::Yes(_) if one.large => "reached, large segment passed",
                                Answer::Yes(_) => "reached",
                                Answer::No(reason, _) | Answer::Unknown(reason) => reason.as_str(),
                                Answer::Records(_) | Answer::NoData | Answer::NxDomain => "unknown",
                            };
                            write!(f, "{comma}{} {} {found}", one.host, one.ip)?;
                        }
                        Ok(())
                    }
                }
            }
            Self::SentCanaries { domain, pair } => {
                write!(f, "sent canaries {} to {domain}:", pair.id)?;
                for family in Family::ALL {
                    let delivery = pair.half(family).delivery.as_ref();
                    let code = delivery.and_then(|delivery| delivery.code);
                    let stage = delivery.map_or("none", |delivery| delivery.stage.as_str());
                    match code {
                        Some(code) => write!(f, " {family} {code} ({stage})")?,
                        None => write!(f, " {family} no reply ({stage})")?,
                    }
                }
                Ok(())
            }
            Self::Reported { pair, reports } => {
                write!(f, "handed out {reports} of the reports about canaries {pair}")
            }
            Self::Rejected(status, why) => {
                write!(f, "rejected with {status}: {}", why.escape_debug())
            }
            Self::NoRequest(why) => write!(f, "closed without a request: {}", why.escape_debug()),
            Self::TooManyConnections => f.write_str("closed: its network has too many connections"),
        }
    }
}
