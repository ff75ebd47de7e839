//! Where the dialogue waits for the policy, and what the client receives then.
//!
//! It waits before the greeting, where `smtp.refuse_at` places rejections there, at RCPT, and at STARTTLS, after which
//! nothing is visible: a client that the rules reject stays in plaintext until RCPT. Meanwhile the client's bytes are not
//! consumed; upstream's replies are relayed, except its greeting.

use super::{Proxy, State};
use crate::engine::event::{Outcome, Refusal};
use crate::engine::output::{Action, Output};
use crate::engine::policy::decides_at_connect;
use crate::engine::policy::evaluator::Decided;
use crate::engine::record::PolicyQuestion;
use crate::policy;
use crate::policy::facts::{Answers, Lookup, LookupResult};
use crate::policy::rules::{PolicyRule, PolicyStage, RuleMatch};
use crate::smtp::{Command, EnhancedCode, ExpectedReply, Line, Verb};
use crate::time::Timestamp;

impl Proxy {
    /// Answers to lookups of [`Action::Need`], in any order and any number at once. Bytes of both sides that were not
    /// consumed before are to be fed again afterwards.
    pub fn on_answers(
        &mut self,
        answers: Vec<(Lookup, LookupResult)>,
        at: Timestamp,
        out: &mut Output,
    ) {
        if self.state != State::Running {
            return;
        }
        self.now = at;
        self.on_name_answers(&answers, out);
        let Some(evaluator) = &mut self.evaluator else {
            return;
        };
        let waited = evaluator.deadline().is_some();
        evaluator.on_answers(answers, at, out);
        if waited && evaluator.deadline().is_none() {
            self.active = at; // The wait was the gateway's; neither side's timeout includes it.
        }
        self.release_greeting(out);
        self.decide_end(out);
    }

    /// The answers that the rules have so far; `None` without rules.
    pub fn answers(&self) -> Option<&Answers> {
        self.evaluator.as_ref().map(|evaluator| evaluator.answers())
    }

    /// The rule of an [`crate::engine::Event::Policy`].
    pub fn rule_at(&self, position: u16) -> Option<&PolicyRule> {
        self.profile.rules.iter().nth(usize::from(position))
    }

    /// When missing answers for a decision, or about the client's name, count as unknown.
    pub(super) fn decision_deadline(&self) -> Option<Timestamp> {
        if self.state != State::Running {
            return None;
        }
        let decision = self.evaluator.as_ref().and_then(|evaluator| evaluator.deadline());
        decision.into_iter().chain(self.identity.deadline()).min()
    }

    pub(super) fn on_decision_timeout(&mut self, out: &mut Output) {
        if self.identity.deadline().is_some_and(|due| due <= self.now) {
            self.on_name_timeout(out);
        }
        let now = self.now;
        if let Some(evaluator) = &mut self.evaluator
            && evaluator.deadline().is_some_and(|due| due <= now)
        {
            evaluator.on_timeout(self.now, out);
            self.active = self.now;
            self.release_greeting(out);
            self.decide_end(out);
        }
    }

    /// The session begins: lookups start. Rules that reject in place of the greeting hold it back.
    pub(super) fn start_policy(&mut self, out: &mut Output) {
        if self.checks.reject_all() {
            self.evaluator = None; // No decision of the rules would change anything.
        }
        let Some(evaluator) = &mut self.evaluator else {
            return;
        };
        self.greeting_is_held = decides_at_connect(&self.profile);
        if self.greeting_is_held {
            evaluator.request(PolicyQuestion::at_connect(), self.now, out);
            self.release_greeting(out);
        } else {
            evaluator.look_ahead(PolicyQuestion::at_connect(), out);
        }
    }

    /// Upstream's greeting is there. Returns whether it waits for the rules.
    pub(super) fn hold_greeting(&mut self) -> bool {
        if self.greeting_is_held
            && let Some(evaluator) = &mut self.evaluator
        {
            evaluator.on_client_waiting(self.now);
        }
        self.greeting_is_held
    }

    fn release_greeting(&mut self, out: &mut Output) {
        if !self.greeting_is_held {
            return;
        }
        let Some(decided) = self.take_decision(out) else {
            return;
        };
        self.greeting_is_held = false;
        let Some(matched) = decided.rejection() else {
            return;
        };
        let Rejection { refusal, enhanced, text, .. } =
            self.reject(matched, &decided.question, out);
        if refusal == Refusal::PolicyReject {
            self.send_rejected_greeting(refusal, enhanced, &text, out);
            out.act(Action::AbandonUpstream);
        } else {
            self.fail(enhanced, &text, refusal, Outcome::Refused, out);
        }
    }

    /// Takes the pending decision, once it is there, and notes its question.
    pub(super) fn take_decision(&mut self, out: &mut Output) -> Option<Decided> {
        let decided = self.evaluator.as_mut()?.take_decision(out)?;
        self.record.on_question(decided.question.clone());
        Some(decided)
    }

    /// The state of the session as the replies so far confirm it.
    pub(super) fn question(&self) -> PolicyQuestion {
        PolicyQuestion::new(PolicyStage::Helo, self.session.state(), None, None)
    }

    pub(super) fn look_ahead(&mut self, question: PolicyQuestion, out: &mut Output) {
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.look_ahead(question, out);
        }
    }

    /// Whether a command has to wait: for the policy, or for pending replies that decide what it means to upstream.
    pub(super) fn must_wait(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        out: &mut Output,
    ) -> bool {
        if self.session.utf8_is_uncertain(command) {
            return true;
        }
        match command.verb {
            Verb::Rcpt if !self.checks.reject_all() => {
                if self.checks.fault(line, command, &self.session).is_some() {
                    return false; // It is rejected; nothing is looked up for it.
                }
                let ExpectedReply::Rcpt { recipient, .. } = ExpectedReply::to(command) else {
                    return false;
                };
                if self.evaluator.is_none() {
                    return false;
                }
                if self.session.transaction_is_uncertain() {
                    return true;
                }
                let Some((_, sender)) = self.session.next_transaction() else {
                    return false;
                };
                let state = self.session.state();
                let stage = PolicyStage::Rcpt;
                let question = PolicyQuestion::new(stage, state, Some(sender), Some(&recipient));
                self.awaits_decision(question, out)
            }
            // Whether its message is read depends on the transaction.
            Verb::Bdat if self.profile.rules.have_stage(PolicyStage::Data) => {
                self.session.chunks_are_uncertain()
            }
            Verb::Data | Verb::Bdat => self.session.recipients_are_uncertain(),
            Verb::Mail if self.lacks_ehlo() => self.session.has_pending(),
            // Its reply is the last in plaintext.
            Verb::Starttls if self.profile.tls.terminates() => self.session.has_pending(),
            Verb::Starttls if !self.checks.hides(Verb::Starttls) => {
                if self.checks.reject_all() || self.evaluator.is_none() {
                    return false;
                }
                if self.session.transaction_is_uncertain() {
                    return true;
                }
                let question = self.question();
                self.awaits_decision(question, out)
            }
            _ => false,
        }
    }

    fn awaits_decision(&mut self, question: PolicyQuestion, out: &mut Output) -> bool {
        let Some(evaluator) = &mut self.evaluator else {
            return false;
        };
        let decided = evaluator.request(question, self.now, out);
        if !decided {
            evaluator.on_client_waiting(self.now);
        }
        !decided
    }

    /// A RCPT, decided if there are rules.
    pub(super) fn on_recipient(
        &mut self,
        line: Line<'_>,
        from: usize,
        expected: ExpectedReply,
        out: &mut Output,
    ) {
        if self.evaluator.is_none() {
            return self.forward(line, from, expected, out);
        }
        let Some((transaction, _)) = self.session.next_transaction() else {
            // Not decided on, so not for upstream, which might still hold an envelope.
            return self.answer(
                expected,
                503,
                EnhancedCode::new(5, 5, 1),
                "need MAIL command",
                out,
            );
        };
        let Some(decided) = self.take_decision(out) else {
            return self.forward(line, from, expected, out);
        };
        if let Some(matched) = decided.rejection() {
            let Rejection { refusal, code, enhanced, text } =
                self.reject(matched, &decided.question, out);
            self.checks.on_refusal(refusal, out);
            self.checks.count_error();
            return self.answer(expected, code, enhanced, &text, out);
        }
        if self.separate_recipient(transaction, &decided.question, &expected, out) {
            return;
        }
        if let (Some(matched), Some(evaluator)) = (&decided.matched, &mut self.evaluator) {
            evaluator.on_enforced(matched, out);
            if matched.action == policy::PolicyAction::Tag
                && let Some(tagger) = &mut self.tagger
            {
                tagger.tag(transaction, matched);
            }
        }
        self.forward(line, from, expected, out);
    }

    /// The decision on STARTTLS, if it rejects, with its text.
    pub(super) fn starttls_rejection(&mut self, out: &mut Output) -> Option<(Refusal, String)> {
        let decided = self.take_decision(out)?;
        let rejection = self.reject(decided.rejection()?, &decided.question, out);
        Some((rejection.refusal, rejection.text))
    }

    /// Under TLS a rejection could not be sent. The client stays in plaintext and learns the reason at RCPT, where the
    /// exemptions are known too; one that requires TLS retries later.
    pub(super) fn reject_starttls(&mut self, refusal: Refusal, reason: &str, out: &mut Output) {
        self.checks.on_refusal(refusal, out);
        let expected = ExpectedReply::Starttls { is_question: false };
        let text = format!("TLS is not available to this client: {reason}");
        self.answer(expected, 454, EnhancedCode::new(4, 7, 0), &text, out);
    }

    /// Enforces a rejection. Returns the reply for the client.
    pub(super) fn reject(
        &mut self,
        matched: &RuleMatch,
        question: &PolicyQuestion,
        out: &mut Output,
    ) -> Rejection {
        let refusal = match matched.action {
            policy::PolicyAction::Reject => Refusal::PolicyReject,
            _ => Refusal::PolicyTempfail,
        };
        let (code, enhanced, text) = match &mut self.evaluator {
            Some(evaluator) => {
                evaluator.on_enforced(matched, out);
                evaluator.reply(matched, question)
            }
            None => (450, EnhancedCode::new(4, 7, 1), String::new()),
        };
        Rejection { refusal, code, enhanced, text }
    }
}

pub(super) struct Rejection {
    pub(super) refusal: Refusal,
    pub(super) code: u16,
    pub(super) enhanced: EnhancedCode,
    pub(super) text: String,
}
