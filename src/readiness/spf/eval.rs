//! `check_host()` (RFC 7208 §4): for one sending address, or without an address to count the record's costs.
//!
//! The evaluation does not wait: missing answers are recorded in [`KnownAnswers`] and end it with
//! [`Interrupt::Pending`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::macros::{DomainSpec, MacroValues};
use super::record::{Mechanism, Qualifier, SpfRecord, is_spf};
use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};
use crate::readiness::known::{KnownAnswers, TxtAnswer};
use crate::readiness::mx::record_type;

/// RFC 7208 §4.6.4.
pub(super) const MAX_LOOKUPS: usize = 10;
pub(super) const MAX_VOID: usize = 2;
/// Exchanges of an `mx`, or PTR names of a `ptr`.
const MAX_NAMES: usize = 10;
/// Where a count stops.
const MAX_COUNTED: usize = 40;

/// The result of an evaluation, and the term that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpfResult {
    pub(super) qualifier: Option<Qualifier>,
    pub(super) term: Option<String>,
}

/// No term matched (RFC 7208 §4.7).
const NEUTRAL: SpfResult = SpfResult { qualifier: None, term: None };

/// Why an evaluation has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// An answer is missing.
    Pending,
    /// `permerror`, and why.
    Permanent(String),
    /// `temperror`: a DNS lookup failed.
    Temporary(Reason),
}

/// The evaluation of a record and those that it refers to.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    known: &'a KnownAnswers,
    sender: &'a DomainName,
    helo: &'a str,
    family: Family,
    /// `None` while counting: then only `all` matches.
    ip: Option<IpAddr>,
    /// Terms with DNS lookups.
    pub(super) lookups: usize,
    /// Void lookups, as text.
    pub(super) voids: Vec<String>,
    /// While counting: errors in the records.
    pub(super) errors: Vec<String>,
    /// While counting: a lookup failed.
    pub(super) unknown: Option<Reason>,
    pub(super) uses_reverse_name: bool,
    pending: bool,
}

impl<'a> Evaluator<'a> {
    fn new(known: &'a KnownAnswers, sender: &'a DomainName, helo: &'a str, family: Family) -> Self {
        Self {
            known,
            sender,
            helo,
            family,
            ip: None,
            lookups: 0,
            voids: Vec::new(),
            errors: Vec::new(),
            unknown: None,
            uses_reverse_name: false,
            pending: false,
        }
    }

    /// The result for mail of `domain` sent by `ip`.
    pub(super) fn evaluate(
        known: &'a KnownAnswers,
        domain: &'a DomainName,
        helo: &'a str,
        ip: IpAddr,
    ) -> Result<SpfResult, Interrupt> {
        let mut evaluator = Self::new(known, domain, helo, Family::of(ip));
        evaluator.ip = Some(ip);
        let result = evaluator.check_host(domain)?;
        result.ok_or_else(|| Interrupt::Permanent(format!("{domain} has no SPF record")))
    }

    /// The costs of the record for a sender that no term matches; `None` while answers are missing.
    pub(super) fn count(
        known: &'a KnownAnswers,
        domain: &'a DomainName,
        helo: &'a str,
        family: Family,
    ) -> Option<Self> {
        let mut evaluator = Self::new(known, domain, helo, family);
        match evaluator.check_host(domain) {
            Ok(_) | Err(Interrupt::Pending) => {}
            Err(Interrupt::Permanent(why)) => evaluator.errors.push(why),
            Err(Interrupt::Temporary(reason)) => evaluator.unknown = Some(reason),
        }
        (!evaluator.pending).then_some(evaluator)
    }

    const fn is_counting(&self) -> bool {
        self.ip.is_none()
    }

    /// `Ok(None)` if there is no record.
    fn check_host(&mut self, domain: &DomainName) -> Result<Option<SpfResult>, Interrupt> {
        let Some(record) = self.record(domain)? else { return Ok(None) };
        if let Some(error) = record.errors.first() {
            let why = format!("invalid record of {domain}: {error}");
            if !self.is_counting() {
                return Err(Interrupt::Permanent(why));
            }
            // The errors of the domain's own record have findings of their own.
            if domain != self.sender {
                self.errors.push(why);
            }
        }
        let mut has_all = false;
        for directive in &record.directives {
            has_all |= directive.mechanism == Mechanism::All;
            let matches = match self.matches(&directive.mechanism, domain) {
                Ok(matches) => matches,
                Err(interrupt) => self.skip_if_counting(interrupt)?,
            };
            if matches {
                let term = Some(directive.text.clone());
                return Ok(Some(SpfResult { qualifier: Some(directive.qualifier), term }));
            }
        }
        if let (Some(redirect), false) = (&record.redirect, has_all) {
            self.count_lookup()?;
            let Some(target) = self.expand(Some(redirect), domain) else {
                return Ok(Some(NEUTRAL));
            };
            let found = self.check_host(&target)?;
            let why = || {
                Interrupt::Permanent(format!("redirect names {target}, which has no SPF record"))
            };
            return found.map(Some).ok_or_else(why);
        }
        Ok(Some(NEUTRAL))
    }

    /// A count continues after an error, as if the term did not match.
    fn skip_if_counting(&mut self, interrupt: Interrupt) -> Result<bool, Interrupt> {
        if !self.is_counting() || self.lookups >= MAX_COUNTED {
            return Err(interrupt);
        }
        match interrupt {
            Interrupt::Pending => {}
            Interrupt::Permanent(why) => self.errors.push(why),
            Interrupt::Temporary(reason) => self.unknown = Some(reason),
        }
        Ok(false)
    }

    fn record(&mut self, domain: &DomainName) -> Result<Option<SpfRecord>, Interrupt> {
        let texts = match self.known.txt(domain) {
            None => return Err(self.pending()),
            Some(TxtAnswer::Unknown(reason)) => return Err(Interrupt::Temporary(*reason)),
            Some(TxtAnswer::NoData | TxtAnswer::NxDomain) => return Ok(None),
            Some(TxtAnswer::Found(texts)) => texts,
        };
        let mut records = texts.iter().filter(|text| is_spf(text));
        let (first, second) = (records.next(), records.next());
        if second.is_some() {
            return Err(Interrupt::Permanent(format!("{domain} has more than one SPF record")));
        }
        Ok(first.map(|text| SpfRecord::parse(text)))
    }

    fn matches(&mut self, mechanism: &Mechanism, domain: &DomainName) -> Result<bool, Interrupt> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(self.ip.is_some_and(|ip| network.contains(&ip))),
            Mechanism::Include(spec) => {
                self.count_lookup()?;
                let Some(target) = self.expand(Some(spec), domain) else { return Ok(false) };
                match self.check_host(&target)? {
                    Some(result) => {
                        Ok(!self.is_counting() && result.qualifier == Some(Qualifier::Pass))
                    }
                    None => Err(Interrupt::Permanent(format!(
                        "include names {target}, which has no SPF record"
                    ))),
                }
            }
            Mechanism::A(spec, lengths) => {
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain) else { return Ok(false) };
                self.has_address(&target, *lengths)
            }
            Mechanism::Mx(spec, lengths) => {
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain) else { return Ok(false) };
                let hosts = self.exchanges(&target)?;
                if hosts.len() > MAX_NAMES {
                    return Err(Interrupt::Permanent(format!(
                        "mx: {target} has more than {MAX_NAMES} exchanges"
                    )));
                }
                let mut pending = false;
                for host in hosts {
                    match self.has_address(&host, *lengths) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        // Continue, so that all are looked up in parallel.
                        Err(Interrupt::Pending) => pending = true,
                        Err(interrupt) => return Err(interrupt),
                    }
                }
                if pending { Err(Interrupt::Pending) } else { Ok(false) }
            }
            Mechanism::Ptr(spec) => {
                self.uses_reverse_name = true;
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain) else { return Ok(false) };
                self.has_reverse_name_within(&target)
            }
            Mechanism::Exists(spec) => {
                self.count_lookup()?;
                let Some(target) = self.expand(Some(spec), domain) else { return Ok(false) };
                // RFC 7208 §5.7: A, whatever the family.
                let found = self.addresses(&target, Family::Ipv4)?;
                Ok(!self.is_counting() && !found.is_empty())
            }
        }
    }

    /// Counts a term with DNS lookups.
    fn count_lookup(&mut self) -> Result<(), Interrupt> {
        self.lookups += 1;
        let most = if self.is_counting() { MAX_COUNTED } else { MAX_LOOKUPS };
        if self.lookups > most {
            return Err(Interrupt::Permanent(format!("more than {most} terms with DNS lookups")));
        }
        Ok(())
    }

    fn count_void(&mut self, lookup: String) -> Result<(), Interrupt> {
        // A repeated lookup counts once.
        if !self.voids.contains(&lookup) {
            self.voids.push(lookup);
        }
        if !self.is_counting() && self.voids.len() > MAX_VOID {
            let voids = self.voids.join(", ");
            let why = format!("more than {MAX_VOID} void lookups: {voids}");
            return Err(Interrupt::Permanent(why));
        }
        Ok(())
    }

    /// Without a spec, `domain` itself; `None` if the name depends on the sender or is invalid.
    fn expand(&mut self, spec: Option<&DomainSpec>, domain: &DomainName) -> Option<DomainName> {
        let Some(spec) = spec else { return Some(domain.clone()) };
        self.uses_reverse_name |= spec.uses_reverse_name();
        if self.is_counting() && !spec.is_fixed() {
            return None;
        }
        let unspecified = match self.family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let ip = self.ip.unwrap_or(unspecified);
        spec.expand(&MacroValues { sender: self.sender, domain, ip, helo: self.helo })
    }

    fn has_address(&mut self, name: &DomainName, (v4, v6): (u8, u8)) -> Result<bool, Interrupt> {
        let length = if self.family == Family::Ipv6 { v6 } else { v4 };
        let found = self.addresses(name, self.family)?;
        let Some(ip) = self.ip else { return Ok(false) };
        let mut networks = found.into_iter().filter_map(|found| IpNet::new(found, length).ok());
        Ok(networks.any(|network| network.contains(&ip)))
    }

    fn addresses(&mut self, name: &DomainName, family: Family) -> Result<Vec<IpAddr>, Interrupt> {
        match self.known.addresses(name, family) {
            None => Err(self.pending()),
            Some(Err(reason)) => Err(Interrupt::Temporary(reason)),
            Some(Ok(found)) => {
                if found.is_empty() {
                    self.count_void(format!("{} of {name}", record_type(family)))?;
                }
                Ok(found)
            }
        }
    }

    fn exchanges(&mut self, domain: &DomainName) -> Result<Vec<DomainName>, Interrupt> {
        let answer = self.known.lookup(Lookup::MailExchanges(domain.clone()));
        match answer {
            None => Err(self.pending()),
            Some(Answer::Unknown(reason)) => Err(Interrupt::Temporary(*reason)),
            Some(Answer::Records(records)) => {
                let hosts = records.iter().filter_map(DnsRecord::exchange).map(|(_, host)| host);
                Ok(hosts.filter(|host| !host.is_root()).cloned().collect())
            }
            Some(_) => {
                self.count_void(format!("MX of {domain}"))?;
                Ok(Vec::new())
            }
        }
    }

    /// RFC 7208 §5.5: a confirmed reverse name within the domain. A failed lookup does not match.
    fn has_reverse_name_within(&mut self, domain: &DomainName) -> Result<bool, Interrupt> {
        let Some(ip) = self.ip else { return Ok(false) };
        let names: Vec<DomainName> = match self.known.lookup(Lookup::Reverse(ip)) {
            None => return Err(self.pending()),
            Some(Answer::Records(records)) => {
                records.iter().filter_map(DnsRecord::name).take(MAX_NAMES).cloned().collect()
            }
            Some(Answer::Unknown(_)) => return Ok(false),
            Some(_) => {
                self.count_void(format!("PTR of {ip}"))?;
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

    const fn pending(&mut self) -> Interrupt {
        self.pending = true;
        Interrupt::Pending
    }
}
