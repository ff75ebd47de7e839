//! The sources of a replay and of one-off commands, in order.

use futures_util::future::join_all;

use super::clock::now;
use super::dns::Dns;
use super::passive_dns::PassiveDns;
use super::zone_file::ZoneFile;
use crate::policy::facts::{
    Answer, Answers, Evaluation, Fact, Lookup, LookupResult, Reason, Source,
};
use crate::time::Timestamp;

/// Asked in the order of the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// The DNS traffic of a capture up to that time.
    pub passive_dns: Option<(&'a PassiveDns, Timestamp)>,
    pub zone: Option<&'a ZoneFile>,
    pub dns: Option<&'a Dns>,
}

impl Sources<'_> {
    /// The answer of the first source that has one. Waits only for [`Self::dns`], at most for its deadline.
    pub async fn answer(&self, lookup: &Lookup) -> LookupResult {
        let no_answer = Answer::Unknown(Reason::NoResolver);
        if let Some((capture, at)) = self.passive_dns {
            let answer = capture.answer(lookup, at);
            if answer != no_answer {
                return LookupResult { answer, source: Source::Capture, at: Some(at) };
            }
        }
        if let Some(zone) = self.zone {
            let answer = zone.answer(lookup);
            if answer != no_answer {
                return LookupResult { answer, source: Source::Zone, at: None };
            }
        }
        match self.dns {
            Some(dns) => {
                let answer = dns.answer(lookup).await;
                let at = Some(now());
                LookupResult { answer, source: Source::Dns, at }
            }
            None => LookupResult { answer: no_answer, source: Source::None, at: None },
        }
    }

    /// Evaluates a function of [`crate::policy::facts`], fetching the answers that it needs into `known`. Terminates: each
    /// round answers all lookups, and no fact needs more than a few rounds.
    pub async fn resolve(
        &self,
        known: &mut Answers,
        fact: impl Fn(&Answers) -> Evaluation,
    ) -> Fact {
        loop {
            let lookups = match fact(known) {
                Evaluation::Known(fact) => return fact,
                Evaluation::NeedsLookups(lookups) => lookups,
            };
            self.fetch(known, lookups).await;
        }
    }

    /// Answers `lookups` concurrently and adds the answers to `known`.
    pub async fn fetch(&self, known: &mut Answers, lookups: Vec<Lookup>) {
        let results = join_all(lookups.iter().map(|lookup| self.answer(lookup))).await;
        for (lookup, result) in lookups.into_iter().zip(results) {
            known.insert(lookup, result);
        }
    }
}
