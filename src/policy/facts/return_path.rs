//! Whether the sender can be mailed: MAIL FROM's domain to exchanges to usable addresses, and if asked for, to a server
//! that answers there.
//!
//! RFC 5321 §5.1 (MX, and the domain itself only where there is no MX), RFC 7505 (null MX).

use std::ops::ControlFlow::{self, Break, Continue};

use serde::{Deserialize, Serialize};

use super::probe::Places;
use super::search::addresses;
use super::{Answer, Answers, Basis, Detail, DomainName, Fact, Lookup, Reason, Record, Site, Step};
use crate::addr::{Family, Networks, is_global};

/// Exchanges that are looked at, the preferred first; RFC 7208 §4.6.4 stops there too.
pub const MAX_EXCHANGES: usize = 10;

/// Over which families mail must be able to go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// One of them is enough.
    #[default]
    Any,
    /// The family by which the client came.
    SameFamily,
    Ipv6,
    Ipv4,
}

impl Over {
    pub const ALL: [Self; 4] = [Self::Any, Self::SameFamily, Self::Ipv6, Self::Ipv4];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::SameFamily => "same-family",
            Self::Ipv6 => "ipv6",
            Self::Ipv4 => "ipv4",
        }
    }

    const fn families(self, client: Family) -> &'static [Family] {
        match (self, client) {
            (Self::Any, _) => &[Family::Ipv6, Family::Ipv4],
            (Self::Ipv6, _) | (Self::SameFamily, Family::Ipv6) => &[Family::Ipv6],
            (Self::Ipv4, _) | (Self::SameFamily, Family::Ipv4) => &[Family::Ipv4],
        }
    }
}

/// How far the return path is tried.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The DNS names an address where mail can go.
    #[default]
    Dns,
    /// A server there takes a connection.
    Tcp,
    /// It greets and answers EHLO.
    Smtp,
    /// It takes mail for the sender's address.
    Rcpt,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Dns, Self::Tcp, Self::Smtp, Self::Rcpt];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Smtp => "smtp",
            Self::Rcpt => "rcpt",
        }
    }
}

/// What is asked about a sender.
#[derive(Clone, Copy, Debug)]
pub struct ReturnPath<'a> {
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: &'a str,
    /// The family by which the client came.
    pub family: Family,
    pub over: Over,
    pub level: Level,
    /// Our own addresses: mail that would come back to us reaches no sender.
    pub ours: &'a Networks,
}

/// Mail for the sender has somewhere to go, and as far as `level` says it is taken there. `<>` never fails: a bounce has no
/// sender to reach.
pub fn return_path(ask: &ReturnPath<'_>, known: &Answers) -> Step {
    if ask.sender.is_empty() {
        let exempt = Fact::holds(Basis::NOBODY, None);
        return Step::Fact(Fact { reason: Some(Reason::NullSender), ..exempt });
    }
    let families = ask.over.families(ask.family);
    // An AAAA record with a v4-mapped address is of no use to anybody; private addresses are somebody else's.
    let fit = |address| is_global(address) && !ask.ours.contains(address);
    let domain = match Site::of_path(ask.sender) {
        Some(Site::Domain(domain)) => domain,
        Some(Site::Literal(address)) => {
            let detail = Some(Detail::Address(address));
            let good = fit(address) && families.contains(&Family::of(address));
            return match ask.level {
                _ if !good => {
                    Step::Fact(Fact::fails(Reason::NoUsableAddress, Basis::NOBODY, detail))
                }
                Level::Dns => Step::Fact(Fact::holds(Basis::NOBODY, detail)),
                level => Places::literal(address).probed(level, ask.sender, known),
            };
        }
        None => return Step::Fact(Fact::fails(Reason::NotADomain, Basis::NOBODY, None)),
    };
    let (exchanges, basis) = match exchanges(&domain, known) {
        Continue(found) => found,
        Break(step) => return step,
    };
    if ask.level > Level::Dns {
        let places = Places::of(&exchanges, families, fit, basis, known);
        return places.probed(ask.level, ask.sender, known);
    }
    addresses(known, exchanges, families, fit).into_step(basis, Detail::host, |unfit| {
        (Reason::NoUsableAddress, unfit.map(|(name, address)| Detail::host(name, address)))
    })
}

/// Where mail for `domain` goes, the preferred first, at most [`MAX_EXCHANGES`]; or how it stands without that.
fn exchanges<'a>(
    domain: &'a DomainName,
    known: &'a Answers,
) -> ControlFlow<Step, (Vec<&'a DomainName>, Basis)> {
    let lookup = Lookup::MailExchanges(domain.clone());
    let Some(answered) = known.get(&lookup) else {
        return Break(Step::Need(vec![lookup]));
    };
    let basis = Basis::of(answered);
    let fails = |reason| Break(Step::Fact(Fact::fails(reason, basis, None)));
    let unknown = |reason| Break(Step::Fact(Fact::unknown(reason, basis)));
    let mut found: Vec<_> = match &answered.answer {
        Answer::Records(records) => records.iter().filter_map(Record::exchange).collect(),
        Answer::NoData => return Continue((vec![domain], basis)),
        Answer::NxDomain => return fails(Reason::Nxdomain),
        Answer::Unknown(reason) => return unknown(*reason),
        // No answer to a question of this kind.
        Answer::Yes(_) | Answer::No(..) => return unknown(Reason::NoSource),
    };
    found.sort();
    // RFC 7505 §3: a null MX stands alone; beside others it is a mistake, and they count.
    found.retain(|(_, host)| !host.is_root());
    if found.is_empty() {
        return fails(Reason::NullMx);
    }
    let mut hosts: Vec<&DomainName> = Vec::new();
    for (_, host) in found {
        if hosts.len() < MAX_EXCHANGES && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Continue((hosts, basis))
}

impl Record {
    const fn exchange(&self) -> Option<(u16, &DomainName)> {
        match self {
            Self::Exchange { preference, host } => Some((*preference, host)),
            _ => None,
        }
    }
}
