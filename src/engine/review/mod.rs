//! What the policy rules say of a session that is over, from its record: a replay comes to the verdict that the live gateway
//! came to, where it has the answers that the gateway had.
//!
//! The questions are those that [`super::Engine`] puts to the rules while the session goes on, in the same order: in place of
//! the greeting where `smtp.refuse_at` says so, at STARTTLS, and at each RCPT. Recipients that a record only counts are not
//! judged, nor those outside a transaction.

use std::collections::BTreeSet;

use super::inquiry::{cautious, place, weight};
use super::{
    Anomaly, PolicyOutcome, Pregreet, Profile, RefuseAt, SessionRecord, Tls, VerdictRecord,
};
use crate::policy::PolicyAction;
use crate::policy::facts::{Answers, Facts, Lookup};
use crate::policy::rules::{PolicyRule, PolicyStage, RuleMode, Subject};
use crate::smtp::Keyword;

/// What the rules say, as far as is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Reviewed {
    /// The one of the record, and over it what the rules say; final when nothing is needed any more.
    pub verdict: VerdictRecord,
    /// Rules in force need no answer any more; some in shadow may.
    pub is_decided: bool,
    /// What the rules went by: of several recipients the worst.
    pub facts: Facts,
    /// Answer these, each is there once, and review again.
    pub need: Vec<Lookup>,
}

/// Reviews `record`, whose verdict is what everything but the rules came to.
pub fn review(profile: &Profile, record: &SessionRecord, known: &Answers) -> Reviewed {
    let mut review = Review {
        profile,
        known,
        rulings: PolicyOutcome::default(),
        facts: Facts::default(),
        need: BTreeSet::new(),
        is_decided: true,
    };
    if !profile.rules.is_empty() && !refused_otherwise(profile, record) {
        review.session(record);
    }
    Reviewed {
        verdict: review.rulings.onto(record.verdict.clone()),
        is_decided: review.is_decided,
        facts: review.facts,
        need: review.need.into_iter().collect(),
    }
}

/// Whether every recipient was refused whatever the rules say: then they are not asked.
fn refused_otherwise(profile: &Profile, record: &SessionRecord) -> bool {
    let early = || record.smtp.anomalies.contains(&Anomaly::Pregreet);
    profile.access.decide(record.client.address).action >= PolicyAction::Tempfail
        || profile.smtp.pregreet == Pregreet::Reject && early()
}

struct Review<'a> {
    profile: &'a Profile,
    known: &'a Answers,
    rulings: PolicyOutcome,
    facts: Facts,
    need: BTreeSet<Lookup>,
    is_decided: bool,
}

/// How a session went on after a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    /// It was refused, or nobody knows yet.
    Over,
}

impl Review<'_> {
    fn session(&mut self, record: &SessionRecord) {
        let mut subject = Subject {
            client: record.client.address,
            listener: record.server.into(),
            helo: None,
            sender: None,
            recipient: None,
            tls: false,
            authenticated: false,
        };
        // Nobody waits for the greeting where no rule in force could refuse it.
        let early =
            |rule: &PolicyRule| rule.at == PolicyStage::Connect && rule.mode == RuleMode::Enforce;
        let at_connect = self.profile.smtp.refuse_at == RefuseAt::Connect;
        if at_connect
            && self.profile.rules.iter().any(early)
            && self.ask(PolicyStage::Connect, &subject) == Next::Over
        {
            return;
        }
        subject.helo = record.smtp.helo.as_deref();
        subject.authenticated = record.smtp.auth;
        let hidden = self.profile.smtp.hide.contains(&Keyword::Starttls);
        let said_starttls = matches!(record.smtp.tls, Tls::Started | Tls::Refused);
        if said_starttls && !hidden && self.ask(PolicyStage::Helo, &subject) == Next::Over {
            return;
        }
        for transaction in &record.smtp.transactions {
            let sender = Some(transaction.mail_from.as_str());
            for recipient in &transaction.rcpt_to {
                let recipient = Some(recipient.address.as_str());
                self.ask(PolicyStage::Rcpt, &Subject { sender, recipient, ..subject });
            }
        }
    }

    fn ask(&mut self, moment: PolicyStage, subject: &Subject<'_>) -> Next {
        let decision = self.profile.rules.decide(moment, subject, self.known);
        for fired in decision.shadow {
            self.rulings.in_shadow(&cautious(fired));
        }
        self.need.extend(decision.need);
        for (name, fact) in self.profile.rules.facts(moment, subject, self.known) {
            let place = place(&mut self.facts, name);
            if place.as_ref().is_none_or(|known| weight(&fact) > weight(known)) {
                *place = Some(fact);
            }
        }
        match decision.enforced {
            None => {
                self.is_decided = false;
                Next::Over
            }
            Some(None) => Next::On,
            Some(Some(fired)) => {
                let fired = cautious(fired);
                let refuses = fired.action >= PolicyAction::Tempfail;
                // Before RCPT only a refusal is carried out: the rest is decided again, with the envelope.
                if refuses || moment == PolicyStage::Rcpt {
                    self.rulings.told(&fired);
                }
                if refuses { Next::Over } else { Next::On }
            }
        }
    }
}

#[cfg(test)]
mod tests;
