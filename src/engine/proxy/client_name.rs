//! The client's host name for XCLIENT: its PTR name, if that resolves back to the client's address.
//!
//! As an MTA alone finds it (rule 7 of ARCHITECTURE.md). The lookups start with the session; the exchange waits for them as a
//! decision of the policy does for its own, and no longer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::addr::ClientAddr;
use crate::engine::output::{Action, Output};
use crate::policy::facts::{
    Answers, Detail, Evaluation, Fact, FactState, Lookup, LookupResult, fcrdns, reverse_name,
};
use crate::smtp::{XclientName, XclientNames};
use crate::time::Timestamp;

/// How long the exchange waits for the name. The resolver's own deadline is shorter.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct ClientName {
    client: IpAddr,
    known: Answers,
    requested: BTreeSet<Lookup>,
    /// When the exchange stops waiting; `None` while it does not wait.
    deadline: Option<Timestamp>,
    given_up: bool,
}

impl ClientName {
    pub(super) fn new(client: ClientAddr) -> Self {
        Self {
            client: client.ip(),
            known: Answers::default(),
            requested: BTreeSet::new(),
            deadline: None,
            given_up: false,
        }
    }

    /// Requests the lookups that are missing, each once.
    pub(super) fn look_up(&mut self, out: &mut Output) {
        if let Evaluation::NeedsLookups(lookups) = fcrdns(self.client, &self.known) {
            let is_new = |lookup: &Lookup| self.requested.insert(lookup.clone());
            let lookups: Vec<Lookup> = lookups.into_iter().filter(is_new).collect();
            if !lookups.is_empty() {
                out.act(Action::Need(lookups));
            }
        }
    }

    /// Answers to any lookups of the session.
    pub(super) fn on_answers(&mut self, answers: &[(Lookup, LookupResult)], out: &mut Output) {
        for (lookup, result) in answers {
            if self.requested.contains(lookup) && self.known.get(lookup).is_none() {
                self.known.insert(lookup.clone(), result.clone());
            }
        }
        self.look_up(out);
    }

    /// `None` while they are looked up: then the exchange waits, from `now` on.
    pub(super) fn names(&mut self, now: Timestamp) -> Option<XclientNames> {
        let confirmed = name(&fcrdns(self.client, &self.known));
        if confirmed.is_none() && !self.given_up {
            self.deadline.get_or_insert(now + TIMEOUT);
            return None;
        }
        self.deadline = None;
        let confirmed = confirmed.unwrap_or_default();
        let reverse = match &confirmed {
            // Of several names, the same.
            XclientName::Known(_) => confirmed.clone(),
            _ => name(&reverse_name(self.client, &self.known)).unwrap_or_default(),
        };
        Some(XclientNames { confirmed, reverse })
    }

    pub(super) const fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// What is not known counts as a failed lookup from here on.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }
}

fn name(evaluation: &Evaluation) -> Option<XclientName> {
    let Evaluation::Known(Fact { state, detail, .. }) = evaluation else { return None };
    Some(match (state, detail) {
        (FactState::True, Some(Detail::Name(name))) => XclientName::known(name.to_string()),
        (FactState::True | FactState::False, _) => XclientName::Unavailable,
        (FactState::Unknown, _) => XclientName::TemporarilyUnavailable,
    })
}
