//! `check_host()` (RFC 7208 §4): for one sending address, or without an address to count the record's costs.
//!
//! The evaluation does not wait: it ends with the lookups that it misses, and is done again with their answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::macros::{DomainSpec, MacroValues};
use super::record::{Mechanism, Qualifier, SpfRecord, is_spf};
use super::{POSTMASTER, SpfQuery};
use crate::addr::Family;
use crate::label::labels;
use crate::policy::facts::provenance::Provenance;
use crate::policy::facts::{Answer, Answers, DnsRecord, DomainName, Lookup, Reason};

/// RFC 7208 §4.6.4.
pub const MAX_LOOKUPS: usize = 10;
pub const MAX_VOID: usize = 2;
/// Exchanges of an `mx`, or PTR names of a `ptr`.
const MAX_NAMES: usize = 10;
/// Where a count stops.
const MAX_COUNTED: usize = 40;

labels! {
    /// The results of RFC 7208 §2.6, by their names in RFC 8601 §2.7.2.
    pub enum SpfResult {
        /// There is no record, or no domain.
        None = "none",
        Neutral = "neutral",
        Pass = "pass",
        Fail = "fail",
        Softfail = "softfail",
        /// A DNS lookup failed.
        Temperror = "temperror",
        /// A record cannot be interpreted.
        Permerror = "permerror",
    }
}

impl From<Qualifier> for SpfResult {
    fn from(qualifier: Qualifier) -> Self {
        match qualifier {
            Qualifier::Pass => Self::Pass,
            Qualifier::Fail => Self::Fail,
            Qualifier::SoftFail => Self::Softfail,
            Qualifier::Neutral => Self::Neutral,
        }
    }
}

/// The result of [`check_host`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfEvaluation {
    pub result: SpfResult,
    /// The term that matched.
    pub term: Option<String>,
    /// What is wrong with the record: of `permerror`.
    pub error: Option<String>,
    /// Why a lookup failed: of `temperror`.
    pub failure: Option<Reason>,
    pub(in crate::policy::facts) provenance: Provenance,
}

impl SpfEvaluation {
    /// The result, the domain, and the term or the error that decided: `spf=pass d=a.example by ip4:192.0.2.1`.
    pub(in crate::policy::facts) fn explanation(&self, domain: &DomainName) -> String {
        let by = match (&self.term, &self.error) {
            (Some(term), _) => format!(" by {term}"),
            (None, Some(error)) => format!(": {error}"),
            (None, None) => String::new(),
        };
        format!("spf={} d={domain}{by}", self.result)
    }
}

/// What a record costs receivers, for a sender that no term matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpfCosts {
    /// Terms with DNS lookups.
    pub lookups: usize,
    /// Void lookups, as text.
    pub voids: Vec<String>,
    /// Errors in the records, without those of the domain's own.
    pub errors: Vec<String>,
    /// A lookup failed.
    pub unknown: Option<Reason>,
    /// It depends on the sender's reverse name.
    pub uses_reverse_name: bool,
}

/// Evaluates the record of the sender's domain.
///
/// # Errors
/// The lookups that are missing, at least one.
pub fn check_host(
    query: &SpfQuery<'_>,
    known: &Answers,
) -> Result<SpfEvaluation, BTreeSet<Lookup>> {
    let mut evaluator = Evaluator::new(query, Family::of(query.ip), known);
    evaluator.ip = Some(query.ip);
    let ended = evaluator.check_host(&query.domain);
    let provenance = evaluator.provenance;
    let (result, term, error, failure) = match ended {
        Ok(Some(Matched { result, term })) => (result, term, None, None),
        Ok(None) => (SpfResult::None, None, None, None),
        Err(Interrupt::Permanent(why)) => (SpfResult::Permerror, None, Some(why), None),
        Err(Interrupt::Temporary(reason)) => (SpfResult::Temperror, None, None, Some(reason)),
        Err(Interrupt::Pending) => return Err(evaluator.missing),
    };
    Ok(SpfEvaluation { result, term, error, failure, provenance })
}

/// The costs of the record of `domain` over a family.
///
/// # Errors
/// The lookups that are missing, at least one.
pub fn costs(
    domain: &DomainName,
    helo: &str,
    family: Family,
    known: &Answers,
) -> Result<SpfCosts, BTreeSet<Lookup>> {
    let ip = match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let query = SpfQuery { ip, local_part: POSTMASTER, domain: domain.clone(), helo };
    let mut evaluator = Evaluator::new(&query, family, known);
    match evaluator.check_host(domain) {
        Ok(_) | Err(Interrupt::Pending) => {}
        Err(Interrupt::Permanent(why)) => evaluator.costs.errors.push(why),
        Err(Interrupt::Temporary(reason)) => evaluator.costs.unknown = Some(reason),
    }
    if evaluator.missing.is_empty() { Ok(evaluator.costs) } else { Err(evaluator.missing) }
}

/// A term that matched, or the end of a record.
#[derive(Debug)]
struct Matched {
    result: SpfResult,
    term: Option<String>,
}

/// No term matched (RFC 7208 §4.7).
const NEUTRAL: Matched = Matched { result: SpfResult::Neutral, term: None };

/// Why an evaluation has no result.
#[derive(Debug)]
enum Interrupt {
    /// An answer is missing.
    Pending,
    /// `permerror`, and why.
    Permanent(String),
    /// `temperror`: a DNS lookup failed.
    Temporary(Reason),
}

/// The evaluation of a record and those that it refers to.
#[derive(Debug)]
struct Evaluator<'a> {
    known: &'a Answers,
    query: &'a SpfQuery<'a>,
    family: Family,
    /// `None` while counting: then only `all` matches.
    ip: Option<IpAddr>,
    costs: SpfCosts,
    /// The domains whose records led to the one that is evaluated.
    path: Vec<DomainName>,
    missing: BTreeSet<Lookup>,
    provenance: Provenance,
}

impl<'a> Evaluator<'a> {
    fn new(query: &'a SpfQuery<'a>, family: Family, known: &'a Answers) -> Self {
        Self {
            known,
            query,
            family,
            ip: None,
            costs: SpfCosts::default(),
            path: Vec::new(),
            missing: BTreeSet::new(),
            provenance: Provenance::START,
        }
    }

    const fn is_counting(&self) -> bool {
        self.ip.is_none()
    }

    /// `Ok(None)` if there is no record.
    fn check_host(&mut self, domain: &DomainName) -> Result<Option<Matched>, Interrupt> {
        if let Some(start) = self.path.iter().position(|one| one == domain) {
            // It would end at the limit of lookups, with the same result.
            let names = self.path.iter().skip(start).chain([domain]).map(ToString::to_string);
            let names: Vec<String> = names.collect();
            return Err(Interrupt::Permanent(format!("a loop: {}", names.join(" → "))));
        }
        self.path.push(domain.clone());
        let result = self.evaluate(domain);
        self.path.pop();
        result
    }

    fn evaluate(&mut self, domain: &DomainName) -> Result<Option<Matched>, Interrupt> {
        let Some(record) = self.record(domain)? else { return Ok(None) };
        if let Some(error) = record.errors.first() {
            let why = format!("invalid record of {domain}: {error}");
            if !self.is_counting() {
                return Err(Interrupt::Permanent(why));
            }
            // The errors of the domain's own record have findings of their own.
            if *domain != self.query.domain {
                self.costs.errors.push(why);
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
                return Ok(Some(Matched { result: directive.qualifier.into(), term }));
            }
        }
        if let (Some(redirect), false) = (&record.redirect, has_all) {
            self.count_lookup()?;
            let Some(target) = self.expand(Some(redirect), domain)? else {
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
        if !self.is_counting() || self.costs.lookups >= MAX_COUNTED {
            return Err(interrupt);
        }
        match interrupt {
            Interrupt::Pending => {}
            Interrupt::Permanent(why) => self.costs.errors.push(why),
            Interrupt::Temporary(reason) => self.costs.unknown = Some(reason),
        }
        Ok(false)
    }

    fn record(&mut self, domain: &DomainName) -> Result<Option<SpfRecord>, Interrupt> {
        let texts = self.look_up(Lookup::Texts(domain.clone()))?.texts();
        let mut records = texts.map_err(Interrupt::Temporary)?.filter(|text| is_spf(text));
        let (first, second) = (records.next(), records.next());
        if second.is_some() {
            return Err(Interrupt::Permanent(format!("{domain} has more than one SPF record")));
        }
        Ok(first.map(SpfRecord::parse))
    }

    fn matches(&mut self, mechanism: &Mechanism, domain: &DomainName) -> Result<bool, Interrupt> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(self.ip.is_some_and(|ip| network.contains(&ip))),
            Mechanism::Include(spec) => {
                self.count_lookup()?;
                let Some(target) = self.expand(Some(spec), domain)? else { return Ok(false) };
                match self.check_host(&target)? {
                    Some(matched) => Ok(!self.is_counting() && matched.result == SpfResult::Pass),
                    None => Err(Interrupt::Permanent(format!(
                        "include names {target}, which has no SPF record"
                    ))),
                }
            }
            Mechanism::A(spec, lengths) => {
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain)? else { return Ok(false) };
                self.has_address(&target, *lengths)
            }
            Mechanism::Mx(spec, lengths) => {
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain)? else { return Ok(false) };
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
                self.costs.uses_reverse_name = true;
                self.count_lookup()?;
                let Some(target) = self.expand(spec.as_ref(), domain)? else { return Ok(false) };
                self.has_reverse_name_within(&target)
            }
            Mechanism::Exists(spec) => {
                self.count_lookup()?;
                let Some(target) = self.expand(Some(spec), domain)? else { return Ok(false) };
                // RFC 7208 §5.7: A, whatever the family.
                let found = self.addresses(&target, Family::Ipv4)?;
                Ok(!self.is_counting() && !found.is_empty())
            }
        }
    }

    /// Counts a term with DNS lookups.
    fn count_lookup(&mut self) -> Result<(), Interrupt> {
        self.costs.lookups += 1;
        let most = if self.is_counting() { MAX_COUNTED } else { MAX_LOOKUPS };
        if self.costs.lookups > most {
            return Err(Interrupt::Permanent(format!("more than {most} terms with DNS lookups")));
        }
        Ok(())
    }

    fn count_void(&mut self, lookup: String) -> Result<(), Interrupt> {
        let voids = &mut self.costs.voids;
        // A repeated lookup counts once.
        if !voids.contains(&lookup) {
            voids.push(lookup);
        }
        if self.ip.is_some() && voids.len() > MAX_VOID {
            let why = format!("more than {MAX_VOID} void lookups: {}", voids.join(", "));
            return Err(Interrupt::Permanent(why));
        }
        Ok(())
    }

    /// Without a spec, `domain` itself; `None` if the name depends on the sender or is invalid.
    fn expand(
        &mut self,
        spec: Option<&DomainSpec>,
        domain: &DomainName,
    ) -> Result<Option<DomainName>, Interrupt> {
        let Some(spec) = spec else { return Ok(Some(domain.clone())) };
        self.costs.uses_reverse_name |= spec.uses_reverse_name();
        let Some(ip) = self.ip else {
            let values = MacroValues { query: self.query, domain, reverse_name: None };
            return Ok(spec.is_fixed().then(|| spec.expand(&values)).flatten());
        };
        let reverse_name =
            if spec.uses_reverse_name() { self.reverse_name(ip, domain)? } else { None };
        let reverse_name = reverse_name.as_ref();
        Ok(spec.expand(&MacroValues { query: self.query, domain, reverse_name }))
    }

    fn has_address(&mut self, name: &DomainName, (v4, v6): (u8, u8)) -> Result<bool, Interrupt> {
        let length = if self.family == Family::Ipv6 { v6 } else { v4 };
        let found = self.addresses(name, self.family)?;
        let Some(ip) = self.ip else { return Ok(false) };
        let mut networks = found.into_iter().filter_map(|found| IpNet::new(found, length).ok());
        Ok(networks.any(|network| network.contains(&ip)))
    }

    fn addresses(&mut self, name: &DomainName, family: Family) -> Result<Vec<IpAddr>, Interrupt> {
        let answer = self.look_up(Lookup::Addresses(name.clone(), family))?;
        let found: Vec<IpAddr> = answer.addresses().map_err(Interrupt::Temporary)?.collect();
        if found.is_empty() {
            let record = if family == Family::Ipv6 { "AAAA" } else { "A" };
            self.count_void(format!("{record} of {name}"))?;
        }
        Ok(found)
    }

    fn exchanges(&mut self, domain: &DomainName) -> Result<Vec<DomainName>, Interrupt> {
        let answer = self.look_up(Lookup::MailExchanges(domain.clone()))?;
        let records = answer.records().map_err(Interrupt::Temporary)?;
        if records.is_empty() {
            self.count_void(format!("MX of {domain}"))?;
        }
        let hosts = records.iter().filter_map(DnsRecord::exchange).map(|(_, host)| host);
        Ok(hosts.filter(|host| !host.is_root()).cloned().collect())
    }

    /// RFC 7208 §5.5: a confirmed reverse name within the domain. A failed lookup does not match.
    fn has_reverse_name_within(&mut self, domain: &DomainName) -> Result<bool, Interrupt> {
        let Some(ip) = self.ip else { return Ok(false) };
        let answer = self.look_up(Lookup::Reverse(ip))?;
        if matches!(answer, Answer::NoData | Answer::NxDomain) {
            self.count_void(format!("PTR of {ip}"))?;
        }
        let names = reverse_names(answer).filter(|name| name.is_within(domain));
        Ok(self.confirmed(ip, names)?.is_some())
    }

    /// The value of `%{p}` (RFC 7208 §7.3): `domain` itself if it is a confirmed reverse name of the sender, else one below it,
    /// else any.
    fn reverse_name(
        &mut self,
        ip: IpAddr,
        domain: &DomainName,
    ) -> Result<Option<DomainName>, Interrupt> {
        let mut names: Vec<&DomainName> =
            reverse_names(self.look_up(Lookup::Reverse(ip))?).collect();
        names.sort_by_key(|name| (*name != domain, !name.is_within(domain)));
        self.confirmed(ip, names)
    }

    /// The first of `names` that has the address `ip`.
    fn confirmed<'n>(
        &mut self,
        ip: IpAddr,
        names: impl IntoIterator<Item = &'n DomainName>,
    ) -> Result<Option<DomainName>, Interrupt> {
        let mut pending = false;
        for name in names {
            match self.look_up(Lookup::Addresses(name.clone(), self.family)) {
                Err(_) => pending = true,
                Ok(answer) => {
                    let mut found = answer.addresses().into_iter().flatten();
                    if !pending && found.any(|found| found == ip) {
                        return Ok(Some(name.clone()));
                    }
                }
            }
        }
        if pending { Err(Interrupt::Pending) } else { Ok(None) }
    }

    fn look_up(&mut self, lookup: Lookup) -> Result<&'a Answer, Interrupt> {
        match self.known.get(&lookup) {
            Some(result) => {
                self.provenance = self.provenance.and(Provenance::of(result));
                Ok(&result.answer)
            }
            None => {
                self.missing.insert(lookup);
                Err(Interrupt::Pending)
            }
        }
    }
}

fn reverse_names(answer: &Answer) -> impl Iterator<Item = &DomainName> {
    let records = answer.records().unwrap_or_default();
    records.iter().filter_map(DnsRecord::name).take(MAX_NAMES)
}
