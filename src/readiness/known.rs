//! What was asked and answered so far.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Survey;
use crate::addr::Family;
use crate::policy::facts::{
    Answer, Answers, DomainName, Fact, Lookup, LookupResult, Reason, Record, Step,
};

/// A question to the DNS, or a call of a mail server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    Lookup(Lookup),
    /// TXT of the name.
    Texts(DomainName),
    /// CNAME of the name.
    Alias(DomainName),
    /// Greeting, EHLO and something large, at port 25 of the address.
    Survey(IpAddr),
}

/// TXT records, each with its strings joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Texts {
    /// At least one.
    Found(Vec<Vec<u8>>),
    NoData,
    NxDomain,
    Unknown(Reason),
}

/// Whether a name is another's alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alias {
    Of(DomainName),
    /// It has no CNAME record.
    No,
    Unknown(Reason),
}

/// All that is known so far. What is asked of it and not known is noted, for [`super::Judged::Need`].
#[derive(Clone, Debug, Default)]
pub struct Known {
    answers: Answers,
    texts: BTreeMap<DomainName, Texts>,
    aliases: BTreeMap<DomainName, Alias>,
    surveys: BTreeMap<IpAddr, Survey>,
    missing: RefCell<BTreeSet<Question>>,
}

impl Known {
    pub fn answer(&mut self, lookup: Lookup, answered: LookupResult) {
        self.answers.insert(lookup, answered);
    }

    pub fn texts_are(&mut self, name: DomainName, texts: Texts) {
        self.texts.insert(name, texts);
    }

    pub fn alias_is(&mut self, name: DomainName, alias: Alias) {
        self.aliases.insert(name, alias);
    }

    pub fn surveyed(&mut self, address: IpAddr, survey: Survey) {
        self.surveys.insert(address, survey);
    }

    pub(super) fn texts(&self, name: &DomainName) -> Option<&Texts> {
        let found = self.texts.get(name);
        self.or_missing(found, || Question::Texts(name.clone()))
    }

    pub(super) fn alias(&self, name: &DomainName) -> Option<&Alias> {
        let found = self.aliases.get(name);
        self.or_missing(found, || Question::Alias(name.clone()))
    }

    pub(super) fn survey(&self, address: IpAddr) -> Option<&Survey> {
        let found = self.surveys.get(&address);
        self.or_missing(found, || Question::Survey(address))
    }

    pub(super) fn lookup(&self, lookup: Lookup) -> Option<&Answer> {
        let found = self.answers.get(&lookup).map(|answered| &answered.answer);
        self.or_missing(found, || Question::Lookup(lookup))
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
    pub(super) fn fact(&self, fact: impl FnOnce(&Answers) -> Step) -> Option<Fact> {
        match fact(&self.answers) {
            Step::Fact(fact) => Some(fact),
            Step::Need(lookups) => {
                self.missing.borrow_mut().extend(lookups.into_iter().map(Question::Lookup));
                None
            }
        }
    }

    pub(super) fn take_missing(&self) -> Vec<Question> {
        self.missing.take().into_iter().collect()
    }

    fn or_missing<T>(&self, found: Option<T>, question: impl FnOnce() -> Question) -> Option<T> {
        if found.is_none() {
            self.missing.borrow_mut().insert(question());
        }
        found
    }
}

const fn address(record: &Record) -> Option<IpAddr> {
    match record {
        Record::Address(address) => Some(*address),
        Record::Name(_) | Record::Exchange { .. } => None,
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
