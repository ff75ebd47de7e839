//! The policy rules on a recorded session: the live decision again, where the answers are those that the gateway had.
//!
//! The record's questions are those that the proxy puts to [`super::evaluator::PolicyEvaluator`] while the session goes on,
//! in the same order.

use std::collections::BTreeSet;

use super::outcome::PolicyOutcome;
use super::{capped, fact_slot, weight};
use crate::engine::event::Anomaly;
use crate::engine::options::{Pregreet, Profile};
use crate::engine::record::{PolicyQuestion, SessionRecord, VerdictRecord};
use crate::policy::PolicyAction;
use crate::policy::facts::{Answers, Facts, Lookup};
use crate::policy::rules::PolicyStage;

/// The evaluation of a record, as far as the answers go.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The record's verdict with that of the rules; final once nothing is needed any more.
    pub verdict: VerdictRecord,
    /// Rules in force need no further answer; rules in shadow mode may.
    pub is_decided: bool,
    /// The facts behind the verdict: of several questions the heaviest.
    pub facts: Facts,
    /// Lookups to answer, each once, before the next evaluation.
    pub need: Vec<Lookup>,
}

/// Evaluates the questions of `record`, whose verdict is that of everything but the rules.
pub fn evaluate_record(profile: &Profile, record: &SessionRecord, known: &Answers) -> Evaluated {
    let mut evaluation = Evaluation {
        profile,
        known,
        outcome: PolicyOutcome::default(),
        facts: Facts::default(),
        need: BTreeSet::new(),
        is_decided: true,
    };
    if !rejected_anyway(profile, record) {
        evaluation.run(record);
    }
    Evaluated {
        verdict: evaluation.outcome.apply_to(record.verdict.clone()),
        is_decided: evaluation.is_decided,
        facts: evaluation.facts,
        need: evaluation.need.into_iter().collect(),
    }
}

/// Whether every recipient was rejected whatever the rules decide: then they are not asked.
fn rejected_anyway(profile: &Profile, record: &SessionRecord) -> bool {
    let early = || record.smtp.anomalies.contains(&Anomaly::Pregreet);
    profile.access.decide(&record.arrival()).action >= PolicyAction::Tempfail
        || profile.smtp.pregreet == Pregreet::Reject && early()
}

struct Evaluation<'a> {
    profile: &'a Profile,
    known: &'a Answers,
    outcome: PolicyOutcome,
    facts: Facts,
    need: BTreeSet<Lookup>,
    is_decided: bool,
}

impl Evaluation<'_> {
    fn run(&mut self, record: &SessionRecord) {
        for question in &record.questions {
            let accepted = self.decide(question, record);
            // A rejection in place of the greeting ends the session; a recorded one may have gone on, or its answer is missing.
            if !accepted && question.stage == PolicyStage::Connect {
                return;
            }
        }
    }

    /// Returns whether the rules accept, as far as is known.
    fn decide(&mut self, question: &PolicyQuestion, record: &SessionRecord) -> bool {
        let subject = question.subject(record.arrival());
        let decision = self.profile.rules.decide(question.stage, &subject, self.known);
        for matched in decision.shadow {
            self.outcome.in_shadow(&capped(matched));
        }
        self.need.extend(decision.need);
        for (name, fact) in self.profile.rules.facts(question.stage, &subject, self.known) {
            let slot = fact_slot(&mut self.facts, name);
            if slot.as_ref().is_none_or(|known| weight(&fact) > weight(known)) {
                *slot = Some(fact);
            }
        }
        match decision.enforced {
            None => {
                self.is_decided = false;
                false
            }
            Some(None) => true,
            Some(Some(matched)) => {
                let matched = capped(matched);
                let rejects = matched.action >= PolicyAction::Tempfail;
                // Before RCPT only a rejection is enforced: the rest is decided again, with the envelope.
                if rejects || question.stage >= PolicyStage::Rcpt {
                    self.outcome.enforced(&matched);
                }
                !rejects
            }
        }
    }
}

#[cfg(test)]
mod tests;
