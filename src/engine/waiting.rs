//! Where the dialogue waits for the policy, and what the client is told then.
//!
//! It waits before the greeting, where `smtp.refuse_at` has rules told there, at RCPT and at STARTTLS, behind which nothing
//! is seen. What the client sends meanwhile is not consumed; what upstream replies goes on, but for its greeting.

use super::commands::path_of;
use super::{Action, Engine, Outcome, Output, Refusal, RefuseAt, Stage};
use crate::policy;
use crate::policy::facts::{Answers, Lookup, LookupResult};
use crate::policy::rules::{PolicyRule, PolicyStage, RuleMatch, RuleMode};
use crate::smtp::{Command, EnhancedCode, ExpectedReply, OwnReply, Verb};
use crate::time::Timestamp;

impl Engine {
    /// Answers to what [`Action::Need`] asked for, in any order and any number at once. What neither side's octets were
    /// consumed for before is to be offered again afterwards, upstream's too.
    pub fn answered(
        &mut self,
        answers: Vec<(Lookup, LookupResult)>,
        at: Timestamp,
        out: &mut Output,
    ) {
        let Some(inquiry) = self.inquiry.as_mut().filter(|_| self.stage == Stage::Running) else {
            return;
        };
        self.now = at;
        let waited = inquiry.deadline().is_some();
        inquiry.hear(answers, at, out);
        if waited && inquiry.deadline().is_none() {
            self.active = at; // Nobody was late as long as we were.
        }
        self.settle_greeting(out);
    }

    /// What the rules were told so far; `None` without rules.
    pub fn answers(&self) -> Option<&Answers> {
        self.inquiry.as_ref().map(|inquiry| inquiry.answers())
    }

    /// The rule that an [`super::Event::Policy`] is about.
    pub fn rule_at(&self, place: u16) -> Option<&PolicyRule> {
        self.profile.rules.iter().nth(usize::from(place))
    }

    /// When what is missing for a verdict that is waited for counts as unknown.
    pub(super) fn verdict_due(&self) -> Option<Timestamp> {
        let inquiry = self.inquiry.as_ref().filter(|_| self.stage == Stage::Running)?;
        inquiry.deadline()
    }

    pub(super) fn give_up_waiting(&mut self, out: &mut Output) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.give_up(self.now, out);
            self.active = self.now;
            self.settle_greeting(out);
        }
    }

    /// The session begins: the rules are asked. Those that are told in place of the greeting hold it back.
    pub(super) fn inquire(&mut self, out: &mut Output) {
        if self.judgement.refuses() {
            self.inquiry = None; // Whatever they said would change nothing.
        }
        let Some(inquiry) = &mut self.inquiry else {
            return;
        };
        let early =
            |rule: &PolicyRule| rule.at == PolicyStage::Connect && rule.mode == RuleMode::Enforce;
        self.greeting_held = self.profile.smtp.refuse_at == RefuseAt::Connect
            && self.profile.rules.iter().any(early);
        if self.greeting_held {
            inquiry.wants(PolicyStage::Connect, None, self.now, out);
            self.settle_greeting(out);
        } else {
            inquiry.reached(PolicyStage::Connect, out);
        }
    }

    /// Upstream's greeting is there, and is held back until the rules have been heard.
    pub(super) fn holds_greeting(&mut self) -> bool {
        if self.greeting_held
            && let Some(inquiry) = &mut self.inquiry
        {
            inquiry.felt(self.now);
        }
        self.greeting_held
    }

    fn settle_greeting(&mut self, out: &mut Output) {
        if !self.greeting_held {
            return;
        }
        let Some(ruling) = self.inquiry.as_mut().and_then(|inquiry| inquiry.ruling(out)) else {
            return;
        };
        self.greeting_held = false;
        let Some(fired) = ruling.filter(refuses) else {
            return;
        };
        let (refusal, _, enhanced, text) = self.words(&fired, None, out);
        if refusal == Refusal::PolicyReject {
            self.instead_of_greeting(refusal, enhanced, &text, out);
            out.act(Action::AbandonUpstream);
        } else {
            self.fail(enhanced, &text, refusal, Outcome::Refused, out);
        }
    }

    /// Whether a command has to wait: for the policy, or for the replies that tell what it means to upstream.
    pub(super) fn must_wait(&mut self, command: &Command<'_>, out: &mut Output) -> bool {
        match command.verb {
            Verb::Mail => {
                self.inquiry.as_ref().is_some_and(|inquiry| inquiry.envelope.is_in_doubt())
            }
            Verb::Rcpt if !self.judgement.refuses() => {
                self.inquiry.is_some()
                    && self.awaits(PolicyStage::Rcpt, Some(&path_of(command)), out)
            }
            Verb::Starttls if !self.judgement.hides(Verb::Starttls) => {
                let refused = self.judgement.refuses();
                if !refused && self.awaits(PolicyStage::Helo, None, out) {
                    return true;
                }
                // What refuses it ends the session: not before what else was said is answered.
                let refused = refused || self.inquiry.as_ref().is_some_and(|i| i.refuses());
                refused && self.session.has_pending()
            }
            _ => false,
        }
    }

    fn awaits(&mut self, moment: PolicyStage, recipient: Option<&str>, out: &mut Output) -> bool {
        let Some(inquiry) = &mut self.inquiry else {
            return false;
        };
        if moment == PolicyStage::Rcpt && inquiry.envelope.is_in_doubt() {
            return true;
        }
        let there = inquiry.wants(moment, recipient, self.now, out);
        if !there {
            inquiry.felt(self.now);
        }
        !there
    }

    /// The ruling on the recipient at hand. Returns it if it refuses.
    pub(super) fn rule_on_recipient(&mut self, out: &mut Output) -> Option<RuleMatch> {
        let inquiry = self.inquiry.as_mut()?;
        let fired = inquiry.ruling(out)??;
        if refuses(&fired) {
            return Some(fired);
        }
        inquiry.carried_out(&fired, out);
        if fired.action == policy::PolicyAction::Tag {
            inquiry.tag(&fired);
        }
        None
    }

    pub(super) fn refuse_recipient(
        &mut self,
        fired: &RuleMatch,
        recipient: &str,
        asked: ExpectedReply,
        out: &mut Output,
    ) {
        let (refusal, code, enhanced, text) = self.words(fired, Some(recipient), out);
        self.judgement.refused(refusal, out);
        self.current.refused += 1;
        self.answer(asked, code, enhanced, &text, out);
    }

    /// The ruling on STARTTLS. Returns what refuses it.
    pub(super) fn rule_on_starttls(
        &mut self,
        out: &mut Output,
    ) -> Option<(Refusal, EnhancedCode, String)> {
        let fired = self.inquiry.as_mut()?.ruling(out)?.filter(refuses)?;
        let (refusal, _, enhanced, text) = self.words(&fired, None, out);
        Some((refusal, enhanced, text))
    }

    /// Behind STARTTLS a refusal could not be told: it is told now, and is the last word.
    pub(super) fn refuse_starttls(
        &mut self,
        refusal: Refusal,
        enhanced: EnhancedCode,
        text: &str,
        out: &mut Output,
    ) {
        let asked = ExpectedReply::Starttls;
        if enhanced.class == 5 {
            self.judgement.refused(refusal, out);
            self.send(asked, OwnReply::new(554, enhanced, text), out);
            out.act(Action::AbandonUpstream);
            self.close(Outcome::Refused, out);
        } else {
            self.fail_instead(asked, enhanced, text, refusal, Outcome::Refused, out);
        }
    }

    /// What the client is told, which is the verdict from then on.
    fn words(
        &mut self,
        fired: &RuleMatch,
        recipient: Option<&str>,
        out: &mut Output,
    ) -> (Refusal, u16, EnhancedCode, String) {
        let refusal = match fired.action {
            policy::PolicyAction::Reject => Refusal::PolicyReject,
            _ => Refusal::PolicyTempfail,
        };
        let Some(inquiry) = &mut self.inquiry else {
            return (refusal, 450, EnhancedCode::new(4, 7, 1), String::new());
        };
        inquiry.carried_out(fired, out);
        let (code, enhanced, text) = policy::reply(fired, &inquiry.subject(recipient));
        (refusal, code, enhanced, text)
    }
}

fn refuses(fired: &RuleMatch) -> bool {
    fired.action >= policy::PolicyAction::Tempfail
}
