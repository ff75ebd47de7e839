//! Facts about a client, a sender and our own receive path, as pure functions of what others answered.
//!
//! Layer 2. Each function takes [`Answers`], all that is known so far, and is either a [`Fact`] or says which lookups it
//! needs; a driver (`lookup::Sources`) answers them and asks again. So nothing here awaits, the order in which answers come
//! does not matter, and a capture, a master file and a live resolver serve the same code.
//!
//! NXDOMAIN and NODATA are answers. SERVFAIL, a time-out and a lookup that nobody can answer leave a fact unknown, unless
//! another answer decides it.

mod answer;
mod asked;
mod basis;
mod detail;
mod helo;
mod name;
mod probe;
mod return_path;
mod reverse;
mod search;
mod told;

use serde::{Deserialize, Serialize};

use self::basis::Basis;
use crate::time::Timestamp;

pub use answer::{Answer, Answers, Lookup, LookupResult, Record};
pub use asked::{LookupKind, ObserveLookups, Obtained, Told};
pub use detail::Detail;
pub use helo::helo_resolves;
pub use name::{DomainName, Site};
pub use probe::MAX_PROBED;
pub use return_path::{Level, MAX_EXCHANGES, Over, ReturnPath, return_path};
pub use reverse::{MAX_NAMES, fcrdns, reverse_name};
pub use told::{receive_path, recipient};

/// Something about a session that policy rules build on. The serde form is part of the public JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    pub state: State,
    /// Why it is not true; [`Reason::NullSender`] where it is true without being looked at.
    pub reason: Option<Reason>,
    pub source: Source,
    /// What it rests on, for people: the confirmed name, the exchange and its address.
    pub detail: Option<Detail>,
    /// When the oldest answer that it rests on was given; null where that has no meaning.
    pub at: Option<Timestamp>,
}

impl Fact {
    const fn holds(Basis { source, at }: Basis, detail: Option<Detail>) -> Self {
        Self { state: State::True, reason: None, source, detail, at }
    }

    const fn fails(reason: Reason, Basis { source, at }: Basis, detail: Option<Detail>) -> Self {
        Self { state: State::False, reason: Some(reason), source, detail, at }
    }

    const fn unknown(reason: Reason, Basis { source, at }: Basis) -> Self {
        Self { state: State::Unknown, reason: Some(reason), source, detail: None, at }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    True,
    False,
    Unknown,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a fact is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The address has no PTR record.
    NoPtr,
    /// No PTR name has the address.
    NotConfirmed,
    /// The domain does not exist.
    Nxdomain,
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// No address at all, none of the family asked for, or only such as cannot be reached from the Internet.
    NoUsableAddress,
    /// Neither a domain name nor an address literal.
    NotADomain,
    /// `<>`: nothing to reach.
    NullSender,
    /// The DNS server failed or refused to answer.
    Servfail,
    Timeout,
    /// The DNS server cannot be reached.
    Unreachable,
    /// Nobody was there to ask.
    NoSource,
    /// A server resets the connection, or an ICMP error comes in its place.
    Refused,
    /// Nothing comes back to a SYN.
    Silent,
    /// The connection stands and nothing comes over it in time: no greeting, or no answer to what was said.
    Stalled,
    /// What comes is no SMTP, or a greeting or reply that turns us away before the question.
    TurnedAway,
    /// The mailbox was refused with a 5xx.
    NoSuchMailbox,
    /// The mailbox was refused for now, with a 4xx.
    Deferred,
    /// A limit on probes or questions is reached.
    Limited,
    /// Nothing proved it lately.
    NoProof,
    /// A prober elsewhere did not reach us.
    NotReached,
    /// Our upstream does not take connections.
    UpstreamDown,
}

impl Reason {
    pub const ALL: [Self; 21] = [
        Self::NoPtr,
        Self::NotConfirmed,
        Self::Nxdomain,
        Self::NullMx,
        Self::NoUsableAddress,
        Self::NotADomain,
        Self::NullSender,
        Self::Servfail,
        Self::Timeout,
        Self::Unreachable,
        Self::NoSource,
        Self::Refused,
        Self::Silent,
        Self::Stalled,
        Self::TurnedAway,
        Self::NoSuchMailbox,
        Self::Deferred,
        Self::Limited,
        Self::NoProof,
        Self::NotReached,
        Self::UpstreamDown,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPtr => "no_ptr",
            Self::NotConfirmed => "not_confirmed",
            Self::Nxdomain => "nxdomain",
            Self::NullMx => "null_mx",
            Self::NoUsableAddress => "no_usable_address",
            Self::NotADomain => "not_a_domain",
            Self::NullSender => "null_sender",
            Self::Servfail => "servfail",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoSource => "no_source",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::TurnedAway => "turned_away",
            Self::NoSuchMailbox => "no_such_mailbox",
            Self::Deferred => "deferred",
            Self::Limited => "limited",
            Self::NoProof => "no_proof",
            Self::NotReached => "not_reached",
            Self::UpstreamDown => "upstream_down",
        }
    }
}

/// Who answered. A fact that rests on several answers has the last of their sources in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// DNS answers in the capture.
    Capture,
    /// A master file.
    Zone,
    /// A resolver, now.
    Dns,
    /// What passed by itself: somebody else's mail, or our MTA's.
    Traffic,
    /// A server that we called, or a prober elsewhere that called us.
    Probe,
    /// Our own MTA.
    Upstream,
    /// Nobody: there was nothing to ask, or nobody who could say.
    None,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Zone => "zone",
            Self::Dns => "dns",
            Self::Traffic => "traffic",
            Self::Probe => "probe",
            Self::Upstream => "upstream",
            Self::None => "none",
        }
    }
}

/// Where the making of a fact stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Fact(Fact),
    /// Answer all of these and ask again; never empty.
    Need(Vec<Lookup>),
}

/// What is known of a session; null is what nobody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The client's address has a PTR record.
    pub reverse_name: Option<Fact>,
    /// One of its PTR names has that address.
    pub fcrdns: Option<Fact>,
    /// The last HELO or EHLO names a domain with an address, or is an address literal.
    pub helo_resolves: Option<Fact>,
    /// The domain of MAIL FROM can be mailed.
    pub return_path: Option<Fact>,
    /// Upstream takes mail for the recipient.
    pub recipient: Option<Fact>,
    /// Mail from the world reaches us over the session's family.
    pub receive_path: Option<Fact>,
}

impl Facts {
    /// Those that somebody asked for, with their names for people.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Fact)> {
        let all = [
            ("reverse name", &self.reverse_name),
            ("forward-confirmed reverse name", &self.fcrdns),
            ("HELO resolves", &self.helo_resolves),
            ("return path", &self.return_path),
            ("recipient", &self.recipient),
            ("receive path", &self.receive_path),
        ];
        all.into_iter().filter_map(|(name, fact)| Some((name, fact.as_ref()?)))
    }
}

#[cfg(test)]
mod tests;
