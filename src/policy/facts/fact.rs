//! A fact, and the set of facts of one session.

use serde::Serialize;

use super::provenance::Provenance;
use super::{Detail, Lookup, Reason, Source};
use crate::label::labels;
use crate::time::Timestamp;

/// A statement about a session that policy rules build on. The serde form is part of the public JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    pub state: FactState,
    /// Why it is not true; [`Reason::NullSender`] where it is true without a lookup.
    pub reason: Option<Reason>,
    pub source: Source,
    /// The evidence, for people: the confirmed name, the exchange and its address.
    pub detail: Option<Detail>,
    /// The time of the oldest answer that it rests on; null where that has no meaning.
    pub at: Option<Timestamp>,
}

impl Fact {
    pub(super) const fn holds(from: Provenance, detail: Option<Detail>) -> Self {
        let Provenance { source, at } = from;
        Self { state: FactState::True, reason: None, source, detail, at }
    }

    pub(super) const fn fails(reason: Reason, from: Provenance, detail: Option<Detail>) -> Self {
        let Provenance { source, at } = from;
        Self { state: FactState::False, reason: Some(reason), source, detail, at }
    }

    pub(super) const fn unknown(reason: Reason, from: Provenance) -> Self {
        let Provenance { source, at } = from;
        Self { state: FactState::Unknown, reason: Some(reason), source, detail: None, at }
    }
}

labels! {
    pub enum FactState {
        True = "true",
        False = "false",
        Unknown = "unknown",
    }
}

/// The result of evaluating a fact with the answers available so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluation {
    Known(Fact),
    /// Obtain these answers and evaluate again. Never empty.
    NeedsLookups(Vec<Lookup>),
}

/// The facts of a session; null where no rule required one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The client's address has a PTR record.
    pub reverse_name: Option<Fact>,
    /// One of its PTR names has that address.
    pub fcrdns: Option<Fact>,
    /// The last HELO or EHLO names a domain with an address, or is an address literal.
    pub helo_resolves: Option<Fact>,
    /// Mail can be sent to the domain of MAIL FROM.
    pub return_path: Option<Fact>,
    /// Upstream accepts mail for the recipient.
    pub recipient: Option<Fact>,
    /// Mail from the Internet reaches us over the session's family.
    pub receive_path: Option<Fact>,
    /// The domain of MAIL FROM, or the HELO name for `<>`, lists the client as a sender of its mail.
    pub spf: Option<Fact>,
    /// A DKIM signature verifies.
    pub dkim: Option<Fact>,
    /// The message does not violate the DMARC policy of its authors' domains.
    pub dmarc: Option<Fact>,
    /// SPF passes or a DKIM signature verifies.
    pub authenticated: Option<Fact>,
}

impl Facts {
    /// The evaluated facts with their names for people.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Fact)> {
        let all = [
            ("reverse name", &self.reverse_name),
            ("forward-confirmed reverse name", &self.fcrdns),
            ("HELO resolves", &self.helo_resolves),
            ("return path", &self.return_path),
            ("recipient", &self.recipient),
            ("receive path", &self.receive_path),
            ("SPF", &self.spf),
            ("DKIM", &self.dkim),
            ("DMARC", &self.dmarc),
            ("SPF or DKIM", &self.authenticated),
        ];
        all.into_iter().filter_map(|(name, fact)| Some((name, fact.as_ref()?)))
    }
}
