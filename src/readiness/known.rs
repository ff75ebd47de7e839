//! Questions and the answers available so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::survey::Survey;
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DomainName, Evaluation, Fact, Lookup, LookupResult, Reason,
};

/// A DNS query, or the survey of a mail server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckQuestion {
    Lookup(Lookup),
    /// TXT of the name.
    Txt(DomainName),
    /// CNAME of the name.
    Cname(DomainName),
    /// Greeting, EHLO and large segments at port 25 of the address.
    Survey(IpAddr),
}

/// TXT records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxtAnswer {
    /// At least one; the strings of each record are joined.
    Found(Vec<Vec<u8>>),
    NoData,
    NxDomain,
    Unknown(Reason),
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
    txt: BTreeMap<DomainName, TxtAnswer>,
    cnames: BTreeMap<DomainName, CnameAnswer>,
    surveys: BTreeMap<IpAddr, Survey>,
    missing: RefCell<BTreeSet<CheckQuestion>>,
}

impl KnownAnswers {
    pub fn insert(&mut self, lookup: Lookup, result: LookupResult) {
        self.answers.insert(lookup, result);
    }

    pub fn insert_txt(&mut self, name: DomainName, answer: TxtAnswer) {
        self.txt.insert(name, answer);
    }

    pub fn insert_cname(&mut self, name: DomainName, answer: CnameAnswer) {
        self.cnames.insert(name, answer);
    }

    pub fn insert_survey(&mut self, address: IpAddr, survey: Survey) {
        self.surveys.insert(address, survey);
    }

    pub(super) fn txt(&self, name: &DomainName) -> Option<&TxtAnswer> {
        let found = self.txt.get(name);
        self.or_missing(found, || CheckQuestion::Txt(name.clone()))
    }

    pub(super) fn cname(&self, name: &DomainName) -> Option<&CnameAnswer> {
        let found = self.cnames.get(name);
        self.or_missing(found, || CheckQuestion::Cname(name.clone()))
    }

    pub(super) fn survey(&self, address: IpAddr) -> Option<&Survey> {
        let found = self.surveys.get(&address);
        self.or_missing(found, || CheckQuestion::Survey(address))
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
