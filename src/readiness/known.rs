//! What was asked and answered so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Survey;
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DnsRecord, DomainName, Evaluation, Fact, Lookup, LookupResult, Reason,
};

/// A question to the DNS, or a call of a mail server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckQuestion {
    Lookup(Lookup),
    /// TXT of the name.
    Txt(DomainName),
    /// CNAME of the name.
    Cname(DomainName),
    /// Greeting, EHLO and something large, at port 25 of the address.
    Survey(IpAddr),
}

/// TXT records, each with its strings joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxtAnswer {
    /// At least one.
    Found(Vec<Vec<u8>>),
    NoData,
    NxDomain,
    Unknown(Reason),
}

/// Whether a name is another's alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CnameAnswer {
    Target(DomainName),
    /// It has no CNAME record.
    None,
    Unknown(Reason),
}

/// All that is known so far. What is asked of it and not known is noted, for [`super::CheckEvaluation::Need`].
#[derive(Clone, Debug, Default)]
pub struct KnownAnswers {
    answers: Answers,
    texts: BTreeMap<DomainName, TxtAnswer>,
    aliases: BTreeMap<DomainName, CnameAnswer>,
    surveys: BTreeMap<IpAddr, Survey>,
    missing: RefCell<BTreeSet<CheckQuestion>>,
}

impl KnownAnswers {
    pub fn answer(&mut self, lookup: Lookup, answered: LookupResult) {
        self.answers.insert(lookup, answered);
    }

    pub fn texts_are(&mut self, name: DomainName, texts: TxtAnswer) {
        self.texts.insert(name, texts);
    }

    pub fn alias_is(&mut self, name: DomainName, alias: CnameAnswer) {
        self.aliases.insert(name, alias);
    }

    pub fn surveyed(&mut self, address: IpAddr, survey: Survey) {
        self.surveys.insert(address, survey);
    }

    pub(super) fn texts(&self, name: &DomainName) -> Option<&TxtAnswer> {
        let found = self.texts.get(name);
        self.or_missing(found, || CheckQuestion::Txt(name.clone()))
    }

    pub(super) fn alias(&self, name: &DomainName) -> Option<&CnameAnswer> {
        let found = self.aliases.get(name);
        self.or_missing(found, || CheckQuestion::Cname(name.clone()))
    }

    pub(super) fn survey(&self, address: IpAddr) -> Option<&Survey> {
        let found = self.surveys.get(&address);
        self.or_missing(found, || CheckQuestion::Survey(address))
    }

    pub(super) fn lookup(&self, lookup: Lookup) -> Option<&Answer> {
        let found = self.answers.get(&lookup).map(|answered| &answered.answer);
        self.or_missing(found, || CheckQuestion::Lookup(lookup))
    }

    /// The addresses of `name`, none where it has none; or why nobody knows.
    pub(super) fn addresses(
        &self,
        name: &DomainName,
        family: Family,
    ) -> Option<Result<Vec<IpAddr>, Reason>> {
        let answer = self.lookup(Lookup::Addresses(name.clone(), family))?;
        Some(match answer {
            Answer::Records(records) => Ok(records.iter().filter_map(address).collect()),
            Answer::Unknown(reason) => Err(*reason),
            Answer::NoData | Answer::NxDomain | Answer::Yes(_) | Answer::No(..) => Ok(Vec::new()),
        })
    }

    /// One of the functions of [`crate::policy::facts`].
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

const fn address(record: &DnsRecord) -> Option<IpAddr> {
    match record {
        DnsRecord::Address(address) => Some(*address),
        DnsRecord::Name(_) | DnsRecord::Exchange { .. } => None,
    }
}

/// Why the DNS did not answer.
pub(super) const fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::Timeout => "the DNS did not answer in time",
        Reason::Unreachable => "the DNS server cannot be reached",
        Reason::Servfail => "the DNS server failed or refused to answer (SERVFAIL)",
        _ => "the DNS gave no answer of use",
    }
}
