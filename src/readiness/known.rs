//! Questions and the answers available so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::name_server_reply::NameServerReply;
use super::outside_view::OutsideView;
use super::policy_fetch::PolicyFetch;
use super::survey::{ConnectResult, Survey};
use super::validated::{ValidatedAnswer, ValidatedType};
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DomainName, Evaluation, Fact, Lookup, LookupResult, Reason,
};

/// A DNS query, the survey of a mail server, or a request to a web server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckQuestion {
    Lookup(Lookup),
    /// CNAME of the name.
    Cname(DomainName),
    /// Records of the name, with the resolver's validation.
    Validated(DomainName, ValidatedType),
    /// SOA of the zone, from the name server at this address.
    NameServer(IpAddr, DomainName),
    /// Whether an address of a control answers on port 25.
    Control(IpAddr),
    /// What the vantage sees of the domain's exchanges.
    Outside(Family),
    /// Greeting, EHLO, large segments and TLS at port 25 of an address of the exchange.
    Survey(IpAddr, DomainName),
    /// The policy of MTA-STS at an address of the policy host.
    Policy(IpAddr, DomainName),
}

/// The CNAME record of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CnameAnswer {
    Target(DomainName),
    None,
    Unknown(Reason),
}

/// The answers available so far. Reading a missing one records its question, for [`super::CheckEvaluation::Needs`].
#[derive(Clone, Debug, Default)]
pub struct KnownAnswers {
    answers: Answers,
    cnames: BTreeMap<DomainName, CnameAnswer>,
    validated: BTreeMap<(DomainName, ValidatedType), ValidatedAnswer>,
    name_servers: BTreeMap<(IpAddr, DomainName), NameServerReply>,
    controls: BTreeMap<IpAddr, ConnectResult>,
    outside: BTreeMap<Family, OutsideView>,
    surveys: BTreeMap<(IpAddr, DomainName), Survey>,
    policies: BTreeMap<(IpAddr, DomainName), PolicyFetch>,
    missing: RefCell<BTreeSet<CheckQuestion>>,
}

impl KnownAnswers {
    pub fn insert(&mut self, lookup: Lookup, result: LookupResult) {
        self.answers.insert(lookup, result);
    }

    pub fn insert_cname(&mut self, name: DomainName, answer: CnameAnswer) {
        self.cnames.insert(name, answer);
    }

    pub fn insert_validated(
        &mut self,
        name: DomainName,
        kind: ValidatedType,
        answer: ValidatedAnswer,
    ) {
        self.validated.insert((name, kind), answer);
    }

    pub fn insert_name_server(&mut self, server: IpAddr, zone: DomainName, reply: NameServerReply) {
        self.name_servers.insert((server, zone), reply);
    }

    pub fn insert_control(&mut self, address: IpAddr, reached: ConnectResult) {
        self.controls.insert(address, reached);
    }

    pub fn insert_outside(&mut self, family: Family, view: OutsideView) {
        self.outside.insert(family, view);
    }

    pub fn insert_survey(&mut self, address: IpAddr, exchange: DomainName, survey: Survey) {
        self.surveys.insert((address, exchange), survey);
    }

    pub fn insert_policy(&mut self, address: IpAddr, host: DomainName, fetch: PolicyFetch) {
        self.policies.insert((address, host), fetch);
    }

    /// The TXT records of `name`, possibly none; or why the lookup failed.
    pub(super) fn texts(&self, name: &DomainName) -> Option<Result<Vec<&[u8]>, Reason>> {
        let answer = self.lookup(Lookup::Texts(name.clone()))?;
        Some(answer.texts().map(Iterator::collect))
    }

    pub(super) fn cname(&self, name: &DomainName) -> Option<&CnameAnswer> {
        let found = self.cnames.get(name);
        self.or_missing(found, || CheckQuestion::Cname(name.clone()))
    }

    pub(super) fn validated(
        &self,
        name: &DomainName,
        kind: ValidatedType,
    ) -> Option<&ValidatedAnswer> {
        let found = self.validated.get(&(name.clone(), kind));
        self.or_missing(found, || CheckQuestion::Validated(name.clone(), kind))
    }

    pub(super) fn name_server(
        &self,
        server: IpAddr,
        zone: &DomainName,
    ) -> Option<&NameServerReply> {
        let found = self.name_servers.get(&(server, zone.clone()));
        self.or_missing(found, || CheckQuestion::NameServer(server, zone.clone()))
    }

    pub(super) fn control(&self, address: IpAddr) -> Option<ConnectResult> {
        let found = self.controls.get(&address).copied();
        self.or_missing(found, || CheckQuestion::Control(address))
    }

    pub(super) fn outside(&self, family: Family) -> Option<&OutsideView> {
        let found = self.outside.get(&family);
        self.or_missing(found, || CheckQuestion::Outside(family))
    }

    pub(super) fn survey(&self, address: IpAddr, exchange: &DomainName) -> Option<&Survey> {
        let found = self.surveys.get(&(address, exchange.clone()));
        self.or_missing(found, || CheckQuestion::Survey(address, exchange.clone()))
    }

    pub(super) fn policy(&self, address: IpAddr, host: &DomainName) -> Option<&PolicyFetch> {
        let found = self.policies.get(&(address, host.clone()));
        self.or_missing(found, || CheckQuestion::Policy(address, host.clone()))
    }

    pub(super) fn lookup(&self, lookup: Lookup) -> Option<&Answer> {
        let found = self.answers.get(&lookup).map(|result| &result.answer);
        self.or_missing(found, || CheckQuestion::Lookup(lookup))
    }

    /// The addresses of `name`, possibly none; or why the lookup failed.
    pub(super) fn addresses(
        &self,
        name: &DomainName,
        family: Family,
    ) -> Option<Result<Vec<IpAddr>, Reason>> {
        let answer = self.lookup(Lookup::Addresses(name.clone(), family))?;
        Some(answer.addresses().map(Iterator::collect))
    }

    /// Evaluates one of the functions of [`crate::policy::facts`].
    pub(super) fn fact(&self, fact: impl FnOnce(&Answers) -> Evaluation) -> Option<Fact> {
        match fact(&self.answers) {
            Evaluation::Known(fact) => Some(fact),
            Evaluation::NeedsLookups(lookups) => {
                self.missing.borrow_mut().extend(lookups.into_iter().map(CheckQuestion::Lookup));
                None
            }
        }
    }

    /// Evaluates a function that returns the lookups that it misses.
    pub(super) fn evaluate<T>(
        &self,
        function: impl FnOnce(&Answers) -> Result<T, BTreeSet<Lookup>>,
    ) -> Option<T> {
        let miss = |lookups: BTreeSet<Lookup>| {
            self.missing.borrow_mut().extend(lookups.into_iter().map(CheckQuestion::Lookup));
        };
        function(&self.answers).map_err(miss).ok()
    }

    pub(super) fn take_missing(&self) -> Vec<CheckQuestion> {
        self.missing.take().into_iter().collect()
    }

    fn or_missing<T>(
        &self,
        found: Option<T>,
        question: impl FnOnce() -> CheckQuestion,
    ) -> Option<T> {
        if found.is_none() {
            self.missing.borrow_mut().insert(question());
        }
        found
    }
}

/// Why a DNS lookup failed.
pub(super) const fn failure_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => "DNS query timed out",
        Reason::Unreachable => "DNS server unreachable",
        Reason::Servfail => "DNS server failed or refused to answer (SERVFAIL)",
        _ => "no usable DNS answer",
    }
}
