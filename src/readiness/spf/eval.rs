//! `check_host()` (RFC 7208 §4), for one sending address, or for nobody in particular to count what the record costs.
//!
//! The walk does not wait: what is not known yet is noted in [`KnownAnswers`], and [`Stop::Pending`] says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::macros::{Spec, Values};
use super::record::{Mechanism, Qualifier, Record, is_spf};
use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};
use crate::readiness::{KnownAnswers, TxtAnswer};

/// RFC 7208 §4.6.4.
pub(super) const MAX_LOOKUPS: usize = 10;
pub(super) const MAX_VOID: usize = 2;
/// Of an `mx`, or PTR names of a `ptr`.
const MAX_NAMES: usize = 10;
/// How far a count goes on beyond the limit.
const ENOUGH: usize = 40;

/// The result of an evaluation, and the term that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) qualifier: Option<Qualifier>,
    pub(super) term: Option<String>,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Something is not known yet.
    Pending,
    /// `permerror`, and why.
    Permanent(String),
    /// `temperror`: the DNS did not answer.
    Temporary(Reason),
}

/// One walk through a record and those that it names.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    known: &'a KnownAnswers,
    sender: &'a DomainName,
    helo: &'a str,
    family: Family,
    /// Without one nothing matches but `all`.
    ip: Option<IpAddr>,
    /// Terms that asked the DNS.
    pub(super) lookups: usize,
    /// Questions that had no answer, in words.
    pub(super) voids: Vec<String>,
    /// Of a count: records that are in no order, with what is wrong.
    pub(super) broken: Vec<String>,
    /// Of a count: something could not be learnt.
    pub(super) unknown: Option<Reason>,
    pub(super) asks_for_reverse_name: bool,
    pending: bool,
}

impl<'a> Walk<'a> {
    fn new(known: &'a KnownAnswers, sender: &'a DomainName, helo: &'a str, family: Family) -> Self {
        Self {
            known,
            sender,
            helo,
            family,
            ip: None,
            lookups: 0,
            voids: Vec::new(),
            broken: Vec::new(),
            unknown: None,
            asks_for_reverse_name: false,
            pending: false,
        }
    }

    /// What a receiver comes to for mail of `domain` that `ip` sends.
    pub(super) fn evaluate(
        known: &'a KnownAnswers,
        domain: &'a DomainName,
        helo: &'a str,
        ip: IpAddr,
    ) -> Result<Verdict, Stop> {
        let mut walk = Self::new(known, domain, helo, Family::of(ip));
        walk.ip = Some(ip);
        let verdict = walk.check_host(domain)?;
        verdict.ok_or_else(|| Stop::Permanent(format!("{domain} has no SPF record")))
    }

    /// What the record costs whom it does not name; `None` while something is not known yet.
    pub(super) fn count(
        known: &'a KnownAnswers,
        domain: &'a DomainName,
        helo: &'a str,
        family: Family,
    ) -> Option<Self> {
        let mut walk = Self::new(known, domain, helo, family);
        match walk.check_host(domain) {
            Ok(_) | Err(Stop::Pending) => {}
            Err(Stop::Permanent(why)) => walk.broken.push(why),
            Err(Stop::Temporary(reason)) => walk.unknown = Some(reason),
        }
        (!walk.pending).then_some(walk)
    }

    const fn counts(&self) -> bool {
        self.ip.is_none()
    }

    /// `Ok(None)` where there is no record.
    fn check_host(&mut self, domain: &DomainName) -> Result<Option<Verdict>, Stop> {
        let Some(record) = self.record(domain)? else { return Ok(None) };
        if let Some(mistake) = record.mistakes.first() {
            let why = format!("the record of {domain} is wrong: {mistake}");
            if !self.counts() {
                return Err(Stop::Permanent(why));
            }
            // Of the domain itself each mistake is told.
            if domain != self.sender {
                self.broken.push(why);
            }
        }
        let mut has_all = false;
        for directive in &record.directives {
            has_all |= directive.mechanism == Mechanism::All;
            let matches = match self.matches(&directive.mechanism, domain) {
                Ok(matches) => matches,
                Err(stop) => self.go_on(stop)?,
            };
            if matches {
                let term = Some(directive.text.clone());
                return Ok(Some(Verdict { qualifier: Some(directive.qualifier), term }));
            }
        }
        if let (Some(redirect), false) = (&record.redirect, has_all) {
            self.lookup()?;
            let Some(target) = self.name(Some(redirect), domain) else { return Ok(Some(NEUTRAL)) };
            let found = self.check_host(&target)?;
            let why =
                || Stop::Permanent(format!("redirect names {target}, which has no SPF record"));
            return found.map(Some).ok_or_else(why);
        }
        Ok(Some(NEUTRAL))
    }

    /// A count goes on where an evaluation ends: not matched.
    fn go_on(&mut self, stop: Stop) -> Result<bool, Stop> {
        if !self.counts() || self.lookups >= ENOUGH {
            return Err(stop);
        }
        match stop {
            Stop::Pending => {}
            Stop::Permanent(why) => self.broken.push(why),
            Stop::Temporary(reason) => self.unknown = Some(reason),
        }
        Ok(false)
    }

    fn record(&mut self, domain: &DomainName) -> Result<Option<Record>, Stop> {
        let texts = match self.known.texts(domain) {
            None => return Err(self.pending()),
            Some(TxtAnswer::Unknown(reason)) => return Err(Stop::Temporary(*reason)),
            Some(TxtAnswer::NoData | TxtAnswer::NxDomain) => return Ok(None),
            Some(TxtAnswer::Found(texts)) => texts,
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        let (first, second) = (records.next(), records.next());
        if second.is_some() {
            return Err(Stop::Permanent(format!("{domain} has more than one SPF record")));
        }
        Ok(first.map(|text| Record::parse(text)))
    }

    fn matches(&mut self, mechanism: &Mechanism, domain: &DomainName) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(self.ip.is_some_and(|ip| network.contains(&ip))),
            Mechanism::Include(spec) => {
                self.lookup()?;
                let Some(target) = self.name(Some(spec), domain) else { return Ok(false) };
                match self.check_host(&target)? {
                    Some(verdict) if self.counts() => {
                        let _of_nobody_in_particular = verdict;
                        Ok(false)
                    }
                    Some(verdict) => Ok(verdict.qualifier == Some(Qualifier::Pass)),
                    None => Err(Stop::Permanent(format!(
                        "include names {target}, which has no SPF record"
                    ))),
                }
            }
            Mechanism::A(spec, lengths) => {
                self.lookup()?;
                let Some(target) = self.name(spec.as_ref(), domain) else { return Ok(false) };
                self.has(&target, *lengths)
            }
            Mechanism::Mx(spec, lengths) => {
                self.lookup()?;
                let Some(target) = self.name(spec.as_ref(), domain) else { return Ok(false) };
                let hosts = self.exchanges(&target)?;
                if hosts.len() > MAX_NAMES {
                    return Err(Stop::Permanent(format!(
                        "mx: {target} has more than {MAX_NAMES} exchanges"
                    )));
                }
                let mut stopped = None;
                for host in hosts {
                    match self.has(&host, *lengths) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        // All of them are asked for at once.
                        Err(Stop::Pending) => stopped = Some(Stop::Pending),
                        Err(stop) => return Err(stop),
                    }
                }
                stopped.map_or(Ok(false), Err)
            }
            Mechanism::Ptr(spec) => {
                self.asks_for_reverse_name = true;
                self.lookup()?;
                let Some(target) = self.name(spec.as_ref(), domain) else { return Ok(false) };
                self.is_named_within(&target)
            }
            Mechanism::Exists(spec) => {
                self.lookup()?;
                let Some(target) = self.name(Some(spec), domain) else { return Ok(false) };
                // RFC 7208 §5.7: A, whatever the family is.
                let found = self.addresses(&target, Family::Ipv4)?;
                Ok(!self.counts() && !found.is_empty())
            }
        }
    }

    /// Counts a term that asks the DNS.
    fn lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        let most = if self.counts() { ENOUGH } else { MAX_LOOKUPS };
        if self.lookups > most {
            return Err(Stop::Permanent(format!("more than {most} terms ask the DNS")));
        }
        Ok(())
    }

    fn void(&mut self, what: String) -> Result<(), Stop> {
        // The same question is asked once.
        if !self.voids.contains(&what) {
            self.voids.push(what);
        }
        if !self.counts() && self.voids.len() > MAX_VOID {
            let told = self.voids.join(", ");
            return Err(Stop::Permanent(format!(
                "more than {MAX_VOID} questions have no answer: {told}"
            )));
        }
        Ok(())
    }

    /// The domain itself without a spec; `None` where there is nothing to ask for.
    fn name(&mut self, spec: Option<&Spec>, domain: &DomainName) -> Option<DomainName> {
        let Some(spec) = spec else { return Some(domain.clone()) };
        self.asks_for_reverse_name |= spec.asks_for_reverse_name();
        if self.counts() && !spec.is_fixed() {
            return None;
        }
        let nobody = match self.family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let ip = self.ip.unwrap_or(nobody);
        spec.name(&Values { sender: self.sender, domain, ip, helo: self.helo })
    }

    fn has(&mut self, name: &DomainName, (v4, v6): (u8, u8)) -> Result<bool, Stop> {
        let length = if self.family == Family::Ipv6 { v6 } else { v4 };
        let found = self.addresses(name, self.family)?;
        let Some(ip) = self.ip else { return Ok(false) };
        let mut networks = found.into_iter().filter_map(|found| IpNet::new(found, length).ok());
        Ok(networks.any(|network| network.contains(&ip)))
    }

    fn addresses(&mut self, name: &DomainName, family: Family) -> Result<Vec<IpAddr>, Stop> {
        match self.known.addresses(name, family) {
            None => Err(self.pending()),
            Some(Err(reason)) => Err(Stop::Temporary(reason)),
            Some(Ok(found)) => {
                if found.is_empty() {
                    let kind = if family == Family::Ipv6 { "AAAA" } else { "A" };
                    self.void(format!("{kind} of {name}"))?;
                }
                Ok(found)
            }
        }
    }

    fn exchanges(&mut self, domain: &DomainName) -> Result<Vec<DomainName>, Stop> {
        let answer = self.known.lookup(Lookup::MailExchanges(domain.clone()));
        match answer {
            None => Err(self.pending()),
            Some(Answer::Unknown(reason)) => Err(Stop::Temporary(*reason)),
            Some(Answer::Records(records)) => Ok(records
                .iter()
                .filter_map(|record| match record {
                    DnsRecord::Exchange { host, .. } if !host.is_root() => Some(host.clone()),
                    _ => None,
                })
                .collect()),
            Some(_) => {
                self.void(format!("MX of {domain}"))?;
                Ok(Vec::new())
            }
        }
    }

    /// RFC 7208 §5.5: a confirmed reverse name within the domain. An answer that fails only does not match.
    fn is_named_within(&mut self, domain: &DomainName) -> Result<bool, Stop> {
        let Some(ip) = self.ip else { return Ok(false) };
        let names: Vec<DomainName> = match self.known.lookup(Lookup::Reverse(ip)) {
            None => return Err(self.pending()),
            Some(Answer::Records(records)) => records
                .iter()
                .filter_map(|record| match record {
                    DnsRecord::Name(name) => Some(name.clone()),
                    _ => None,
                })
                .take(MAX_NAMES)
                .collect(),
            Some(Answer::Unknown(_)) => return Ok(false),
            Some(_) => {
                self.void(format!("PTR of {ip}"))?;
                return Ok(false);
            }
        };
        let mut pending = false;
        for name in names.into_iter().filter(|name| name.is_within(domain)) {
            match self.known.addresses(&name, self.family) {
                None => pending = true,
                Some(found) if found.as_ref().is_ok_and(|found| found.contains(&ip)) => {
                    return Ok(true);
                }
                Some(_) => {}
            }
        }
        if pending { Err(self.pending()) } else { Ok(false) }
    }

    const fn pending(&mut self) -> Stop {
        self.pending = true;
        Stop::Pending
    }
}

/// Nothing matched (RFC 7208 §4.7).
const NEUTRAL: Verdict = Verdict { qualifier: None, term: None };
