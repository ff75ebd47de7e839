//! The end of a message that rules decide on: upstream receives the message as it comes, and its end only once the rules
//! accept it.
//!
//! DATA's final `.` line is withheld. `BDAT n LAST` goes on as `BDAT n`, and `BDAT 0 LAST` follows with the decision. A message
//! that is rejected leaves upstream in the middle of a transaction, so its connection is abandoned and the session ends as
//! RFC 5321 §3.8 demands: until QUIT, everything is answered with 421.

use super::policy::Rejection;
use super::{Proxy, State};
use crate::addr::OriginalDst;
use crate::engine::canary_reader::{CanaryProgress, CanaryReader};
use crate::engine::message_reader::MessageReader;
use crate::engine::output::{Action, Output};
use crate::engine::policy::OTHER_RULES_AT_END;
use crate::engine::record::PolicyQuestion;
use crate::smtp::{Chunk, EnhancedCode, ExpectedReply, OwnReply};

impl Proxy {
    /// DATA was accepted: its content follows.
    pub(super) fn read_content(&mut self) {
        self.canary_reader = self.new_canary_reader();
        self.message_reader = self.new_reader();
        if self.message_reader.is_some() {
            self.session.withhold_end();
        }
    }

    /// A chunk that upstream receives follows.
    pub(super) fn read_chunk(&mut self) {
        let transaction = self.session.state().current().map(|current| current.number);
        let is_same = |reader: &MessageReader| Some(reader.transaction()) == transaction;
        if !self.message_reader.as_ref().is_some_and(|reader| is_same(reader)) {
            self.message_reader = self.new_reader();
        }
        // A header section that is over is not read again in the next chunk.
        if transaction != self.canaries_read_in {
            self.canaries_read_in = transaction;
            self.canary_reader = self.new_canary_reader();
        }
    }

    /// `None` if no canaries are read.
    fn new_canary_reader(&self) -> Option<Box<CanaryReader>> {
        self.profile.canary_marks.as_ref().map(|_| Box::default())
    }

    /// The next bytes of the current message.
    pub(super) fn read_for_canary(&mut self, bytes: &[u8], out: &mut Output) {
        let marks = self.profile.canary_marks.as_ref();
        let (Some(reader), Some(marks)) = (&mut self.canary_reader, marks) else { return };
        if let CanaryProgress::Over(message) = reader.on_bytes(bytes, marks) {
            out.canaries.extend(message);
            self.canary_reader = None;
        }
    }

    /// `None` if no rule is decided at the end of the message.
    fn new_reader(&self) -> Option<Box<MessageReader>> {
        self.evaluator.as_ref()?;
        let question = self.question_at_end()?;
        let current = self.session.state().current()?;
        let arrival = self.checks.arrival();
        let needs = self.profile.rules.needs_at_end(&question.subject(arrival))?;
        Some(Box::new(MessageReader::new(current.number, needs)))
    }

    /// The question on the message, without its content.
    fn question_at_end(&self) -> Option<PolicyQuestion> {
        PolicyQuestion::at_end_of_data(self.session.state())
    }

    /// The lookups that a message's header section leads to run while its body comes.
    pub(super) fn look_ahead_of_end(&mut self, out: &mut Output) {
        if let (Some(reader), Some(evaluator)) = (&mut self.message_reader, &mut self.evaluator) {
            evaluator.request_lookups(reader.take_lookups(), out);
        }
    }

    /// The chunk in which the message ends, if its end is withheld: as one that is not the last. Returns the chunk to send
    /// and what the reply to it will confirm.
    pub(super) fn withhold_chunk_end(&mut self, chunk: Chunk) -> Option<(Chunk, ExpectedReply)> {
        self.message_reader.as_ref().filter(|_| chunk.last)?;
        let expected = self.session.begin_withheld_chunk(chunk.size, self.now);
        Some((Chunk { last: false, ..chunk }, expected))
    }

    /// The client sent the end of its message. Requests the decision.
    pub(super) fn on_withheld_end(&mut self, out: &mut Output) {
        if self.session.message_is_rejected() {
            return self.release_end(out); // Upstream takes the end nevertheless.
        }
        let message = self.message_reader.take().map(|reader| reader.finish(self.now));
        let question = self.question_at_end();
        if let (Some(question), Some(evaluator)) = (question, &mut self.evaluator) {
            let question = PolicyQuestion { message, ..question };
            self.record.on_question(question.clone());
            if !evaluator.request(question, self.now, out) {
                evaluator.on_client_waiting(self.now);
            }
        }
        self.decide_end(out);
    }

    /// Sends the withheld end to upstream, or rejects the message, once both the rules and upstream's reply to the last chunk
    /// allow it.
    pub(super) fn decide_end(&mut self, out: &mut Output) {
        if self.state != State::Running || !self.session.end_is_withheld() {
            return;
        }
        if self.end_is_undecided() {
            return;
        }
        let decided = self.evaluator.as_mut().and_then(|evaluator| evaluator.take_decision(out));
        if let Some(decided) = decided
            && let Some(matched) = decided.rejection()
        {
            let rejection = self.reject(matched, &decided.question, out);
            return self.reject_at_end(&rejection, out);
        }
        if !self.session.withheld_chunk_is_pending() {
            self.release_end(out);
        }
    }

    /// The rules have not decided on the withheld end of a message. Until then nothing of upstream is read, as nothing that it
    /// replies can matter if they reject the message.
    pub(super) fn end_is_undecided(&self) -> bool {
        self.session.end_is_withheld()
            && self.evaluator.as_ref().is_some_and(|evaluator| evaluator.is_undecided())
    }

    /// Upstream rejected the message, perhaps before its end.
    pub(super) fn on_message_rejected(&mut self) {
        self.message_reader = None;
    }

    /// Upstream receives the end of the message.
    fn release_end(&mut self, out: &mut Output) {
        let Some(is_chunked) = self.session.release_end() else { return };
        let server = OriginalDst::new(self.checks.arrival().destination);
        out.act(Action::MessageDecided(server));
        let end: &[u8] = if is_chunked { b"BDAT 0 LAST\r\n" } else { b".\r\n" };
        out.act(Action::ToUpstream(end.to_vec()));
    }

    fn reject_at_end(&mut self, rejection: &Rejection, out: &mut Output) {
        let Rejection { refusal, code, enhanced, text } = rejection;
        self.checks.on_refusal(*refusal, out);
        out.act(Action::AbandonUpstream);
        self.state = State::RejectedMessage;
        self.send_now(ExpectedReply::Other, OwnReply::new(*code, *enhanced, text), out);
        self.session.clear_pending();
        self.session.forget_withheld_end();
        if self.client_closed {
            self.on_client_closed(out);
        }
        self.end_if_drained(out);
    }

    /// A recipient is accepted by the rules. Returns whether other rules are decided at the end of its message than for those
    /// before: then it was deferred, and the client sends it the message separately.
    pub(super) fn separate_recipient(
        &mut self,
        transaction: u64,
        question: &PolicyQuestion,
        expected: &ExpectedReply,
        out: &mut Output,
    ) -> bool {
        let arrival = self.checks.arrival();
        let rules = self.profile.rules.rules_at_end(&question.subject(arrival));
        match self.rules_at_end {
            Some((number, first)) if number == transaction && first != rules => {
                let code = EnhancedCode::new(4, 5, 3);
                self.answer(expected.clone(), 452, code, OTHER_RULES_AT_END, out);
                true
            }
            Some((number, _)) if number == transaction => false,
            _ => {
                self.rules_at_end = Some((transaction, rules));
                false
            }
        }
    }
}
