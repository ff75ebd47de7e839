//! The sessions of a mail server that asks for a decision: the server has the dialogue, the gateway only its questions.
//!
//! The checks that need no lookup, the rules, the record and its list of questions are those of the proxy, so that both
//! decide in the same way. Of the checks, access and the syntax of the paths apply; the others need the dialogue.

mod question;
mod transactions;

use std::sync::Arc;

pub use self::question::{AskedAt, DelegatedQuestion, external_path};
use self::transactions::Transactions;
use super::OTHER_RULES_AT_END;
use super::checks::SessionChecks;
use super::evaluator::{Decided, PolicyEvaluator};
use super::fault::CommandFault;
use super::header;
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::event::{Event, Outcome, Refusal};
use crate::engine::options::{PathSyntax, Profile};
use crate::engine::output::Output;
use crate::engine::record::{PolicyQuestion, SessionRecord, ShadowRecord, SmtpFacts, TcpFacts};
use crate::policy::PolicyAction;
use crate::policy::facts::{Answers, Lookup, LookupResult};
use crate::policy::rules::{PolicyRule, PolicyStage, RuleMatch};
use crate::smtp::{EnhancedCode, PathKind, TlsState};
use crate::time::Timestamp;

/// Bytes of questions in one session's record; later ones are not noted.
const QUESTION_BUDGET: usize = 64 * 1024;

/// One session of the mail server.
#[derive(Debug)]
pub struct DelegatedSession {
    profile: Arc<Profile>,
    client: ClientAddr,
    server: OriginalDst,
    checks: SessionChecks,
    /// `None` without rules, and where access rules decide.
    evaluator: Option<Box<PolicyEvaluator>>,
    pending: Option<PendingQuestion>,
    start: Timestamp,
    /// Of the last question.
    last: Timestamp,
    smtp: SmtpFacts,
    transactions: Transactions,
    questions: Vec<PolicyQuestion>,
    question_budget: usize,
}

#[derive(Debug)]
struct PendingQuestion {
    asked: DelegatedQuestion,
    reply: Option<DelegatedReply>,
}

/// The decision on a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelegatedReply {
    Accept,
    /// The message gets this header field.
    Tag {
        field: String,
    },
    /// For now or, with class 5, for good.
    Refuse {
        enhanced: EnhancedCode,
        text: String,
    },
}

impl DelegatedSession {
    pub fn new(
        profile: &Arc<Profile>,
        client: ClientAddr,
        server: OriginalDst,
        at: Timestamp,
    ) -> Self {
        let checks = SessionChecks::new(Arc::clone(profile), client, server);
        let evaluator = PolicyEvaluator::new(profile, client, server);
        Self {
            profile: Arc::clone(profile),
            client,
            server,
            evaluator: evaluator.filter(|_| !checks.reject_all()),
            checks,
            pending: None,
            start: at,
            last: at,
            smtp: SmtpFacts::default(),
            transactions: Transactions::default(),
            questions: Vec::new(),
            question_budget: QUESTION_BUDGET,
        }
    }

    /// The client's address.
    pub const fn client(&self) -> ClientAddr {
        self.client
    }

    /// The mail server asks. The decision may need lookups; see [`Self::is_decided`].
    pub fn ask(&mut self, mut asked: DelegatedQuestion, at: Timestamp, out: &mut Output) {
        self.last = at;
        self.note(&asked);
        let names_recipient = asked.question.recipient.is_some();
        if !names_recipient {
            asked.question.recipient = self.transactions.recipient_at_end(&asked);
        }
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.on_reported_certificate(&asked.certificate);
        }
        let reply = self.refusal(&asked, out).or_else(|| {
            // The recipients were decided one by one, and what they all have in common with them.
            let is_decided = asked.decided_by_relay
                || !names_recipient
                    && self.transactions.has_decided_recipients(&asked)
                    && !self.is_decided_at_end(&asked);
            (is_decided || self.evaluator.is_none()).then_some(DelegatedReply::Accept)
        });
        let is_open = reply.is_none();
        let question = asked.question.clone();
        self.pending = Some(PendingQuestion { asked, reply });
        if let (true, Some(evaluator)) = (is_open, &mut self.evaluator) {
            if !evaluator.request(question, at, out) {
                evaluator.on_client_waiting(at);
            }
            self.settle(out);
        }
    }

    /// Answers to lookups that were needed.
    pub fn on_answers(
        &mut self,
        answers: Vec<(Lookup, LookupResult)>,
        at: Timestamp,
        out: &mut Output,
    ) {
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.on_answers(answers, at, out);
            self.settle(out);
        }
    }

    /// The mail server does not wait longer: answers that are missing count as unknown, also for rules in shadow mode.
    pub fn on_deadline(&mut self, at: Timestamp, out: &mut Output) {
        if let Some(evaluator) = &mut self.evaluator
            && (self.pending.as_ref().is_some_and(|pending| pending.reply.is_none())
                || evaluator.awaits_shadow())
        {
            evaluator.on_timeout(at, out);
            self.settle(out);
        }
    }

    /// Whether the question has its reply.
    pub fn is_decided(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.reply.is_some())
    }

    /// Whether rules in shadow mode still need answers.
    pub fn awaits_shadow(&self) -> bool {
        self.evaluator.as_ref().is_some_and(|evaluator| evaluator.awaits_shadow())
    }

    /// The reply, and the rules in shadow mode that match as far as is known. `None` before the decision.
    pub fn take_reply(&mut self) -> Option<(DelegatedReply, Vec<ShadowRecord>)> {
        let pending = self.pending.take_if(|pending| pending.reply.is_some())?;
        let reply = pending.reply?;
        self.transactions.on_reply(&pending.asked, &reply);
        let evaluator = self.evaluator.as_ref().filter(|_| !pending.asked.decided_by_relay);
        let matches = evaluator.map(|evaluator| {
            let matches = evaluator.shadow_matches(&pending.asked.question);
            matches.iter().map(ShadowRecord::from).collect()
        });
        Some((reply, matches.unwrap_or_default()))
    }

    /// The answers that the rules have so far; `None` without rules.
    pub fn answers(&self) -> Option<&Answers> {
        self.evaluator.as_ref().map(|evaluator| evaluator.answers())
    }

    /// The rule of an [`Event::Policy`].
    pub fn rule_at(&self, position: u16) -> Option<&PolicyRule> {
        self.profile.rules.iter().nth(usize::from(position))
    }

    /// The session's record, once the mail server asks no more about it. It ends with the last question.
    pub fn finish(mut self, out: &mut Output) -> SessionRecord {
        out.event(Event::SessionClosed(Outcome::Delegated));
        let verdict = self.checks.verdict();
        let (verdict, facts) = match &mut self.evaluator {
            Some(evaluator) => evaluator.finish(verdict, out),
            None => (verdict, None),
        };
        let (transactions, transactions_total) = self.transactions.finish();
        SessionRecord {
            start: self.start,
            duration: self.last - self.start,
            family: self.client.family(),
            client: self.client.socket().into(),
            server: self.server.socket().into(),
            listener: self.profile.listener.clone(),
            upstream: None,
            upstream_name: None,
            upstream_error: None,
            upstream_tls: None,
            outcome: Outcome::Delegated,
            tcp: TcpFacts::default(),
            smtp: SmtpFacts { transactions, transactions_total, ..self.smtp },
            facts,
            verdict,
            encrypted: None,
            questions: self.questions,
        }
    }

    fn note(&mut self, asked: &DelegatedQuestion) {
        let question = &asked.question;
        if let Some(helo) = &question.helo {
            self.smtp.helo = Some(helo.to_string());
            self.smtp.esmtp = asked.esmtp;
        }
        self.smtp.auth |= question.authenticated;
        if question.tls {
            (self.smtp.tls, self.smtp.tls_version) = (TlsState::Established, asked.tls_version);
        }
        if let Some(certificate) = asked.certificate.certificate() {
            self.smtp.client_certificate = Some(certificate.clone());
        }
        self.transactions.note(asked);
    }

    /// The rejection by a check that needs no lookup.
    fn refusal(&mut self, asked: &DelegatedQuestion, out: &mut Output) -> Option<DelegatedReply> {
        let access = self.profile.access.decide(&crate::policy::ClientArrival {
            client: self.client.ip(),
            listener: self.profile.listener.as_deref(),
            destination: self.server.socket(),
        });
        let class = match access.action {
            PolicyAction::Accept | PolicyAction::Tag => return self.fault(asked, out),
            PolicyAction::Tempfail => 4,
            PolicyAction::Reject => 5,
        };
        let refusal = if class == 5 { Refusal::AccessReject } else { Refusal::AccessTempfail };
        self.checks.on_refusal(refusal, out);
        let text = self.checks.rule().unwrap_or("access denied").to_owned();
        Some(DelegatedReply::Refuse { enhanced: EnhancedCode::new(class, 7, 1), text })
    }

    /// A path that the mail server may deliver to another domain than the rules take it for.
    fn fault(&mut self, asked: &DelegatedQuestion, out: &mut Output) -> Option<DelegatedReply> {
        if self.profile.smtp.paths == PathSyntax::Lenient {
            return None;
        }
        let PolicyQuestion { sender, recipient, .. } = &asked.question;
        let find = |kind, path: &Option<Arc<str>>| {
            CommandFault::of_path(&self.profile, self.client.ip(), kind, path.as_deref()?)
        };
        let sender = find(PathKind::Reverse, sender);
        let fault = sender.or_else(|| find(PathKind::Forward, recipient))?;
        self.checks.on_refusal(fault.refusal(), out);
        let (_, enhanced, text) = fault.reply();
        Some(DelegatedReply::Refuse { enhanced, text: text.to_owned() })
    }

    /// Whether rules are decided at the end of the message that the question is about.
    fn is_decided_at_end(&self, asked: &DelegatedQuestion) -> bool {
        let subject = asked.question.subject(self.checks.arrival());
        asked.at == AskedAt::EndOfMessage && self.profile.rules.decide_at_end(&subject)
    }

    /// Takes the decision, once it is there.
    fn settle(&mut self, out: &mut Output) {
        let (Some(evaluator), Some(pending)) = (&mut self.evaluator, &mut self.pending) else {
            return;
        };
        if pending.reply.is_some() {
            return;
        }
        let Some(decided) = evaluator.take_decision(out) else { return };
        let mut reply = enforce(evaluator, &decided, out);
        let is_refusal = matches!(reply, DelegatedReply::Refuse { .. });
        if let (AskedAt::Rcpt, false, Some(recipient)) =
            (pending.asked.at, is_refusal, &decided.question.recipient)
        {
            let subject = decided.question.subject(self.checks.arrival());
            let at_end = self.profile.rules.rules_at_end(&subject);
            if !self.transactions.accept_recipient(recipient, at_end) {
                let enhanced = EnhancedCode::new(4, 5, 3);
                reply = DelegatedReply::Refuse { enhanced, text: OTHER_RULES_AT_END.to_owned() };
            }
        }
        if let (true, DelegatedReply::Refuse { enhanced, .. }) = (is_refusal, &reply) {
            let refusal = match enhanced.class {
                5 => Refusal::PolicyReject,
                _ => Refusal::PolicyTempfail,
            };
            self.checks.on_refusal(refusal, out);
        }
        pending.reply = Some(reply);
        let left = self.question_budget.checked_sub(decided.question.cost());
        self.question_budget = left.unwrap_or(0);
        if left.is_some() {
            self.questions.push(decided.question);
        }
    }
}

/// Before RCPT only a rejection is enforced, as in a replay: the rest is decided again with the envelope.
fn enforce(evaluator: &mut PolicyEvaluator, decided: &Decided, out: &mut Output) -> DelegatedReply {
    if let Some(matched) = decided.rejection() {
        evaluator.on_enforced(matched, out);
        let (_, enhanced, text) = evaluator.reply(matched, &decided.question);
        return DelegatedReply::Refuse { enhanced, text };
    }
    match &decided.matched {
        Some(matched) if decided.question.stage >= PolicyStage::Rcpt => {
            evaluator.on_enforced(matched, out);
            tagged(matched)
        }
        _ => DelegatedReply::Accept,
    }
}

fn tagged(matched: &RuleMatch) -> DelegatedReply {
    match matched.action {
        PolicyAction::Tag => DelegatedReply::Tag { field: header::text(matched) },
        _ => DelegatedReply::Accept,
    }
}

#[cfg(test)]
mod tests;
