//! Messages of an observed session, for the rules that the gateway decides at their end.
//!
//! The question is noted with the reply to the message: only then it is known which transaction it ended, since a client may
//! pipeline MAIL, RCPT and BDAT.

use std::sync::Arc;

use super::Observer;
use crate::engine::message_reader::MessageReader;
use crate::engine::record::PolicyQuestion;
use crate::policy::facts::{MessageNeeds, ReceivedMessage};
use crate::policy::rules::PolicyStage;
use crate::smtp::ExpectedReply;

/// A message whose end was sent, and whose reply was not seen yet.
#[derive(Debug)]
pub(super) struct EndedMessage {
    /// The gateway would have put it to the policy.
    is_question: bool,
    /// `None` if bytes of it were not seen.
    content: Option<Arc<ReceivedMessage>>,
}

impl Observer {
    fn has_rules_at_end(&self) -> bool {
        self.profile.rules.have_stage(PolicyStage::Data)
    }

    /// The content of DATA follows.
    pub(super) fn read_content(&mut self) {
        // The number of its transaction is not needed: nothing comes between the 354 and the end. Lookups are made at the end.
        self.message_reader = self
            .has_rules_at_end()
            .then(|| Box::new(MessageReader::new(0, MessageNeeds::default())));
        self.in_chunks = false;
    }

    /// A BDAT command: the first chunk of a message, or another of the same.
    pub(super) fn read_chunk(&mut self) {
        if !self.in_chunks {
            self.read_content();
        }
        self.in_chunks = true;
    }

    /// Bytes of the message are missing, or were omitted.
    pub(super) fn lose_message(&mut self) {
        self.message_reader = None;
    }

    /// The end of the message, or that of one whose end was not seen.
    pub(super) fn end_message(&mut self, is_seen: bool) {
        self.in_chunks = false;
        let reader = self.message_reader.take().filter(|_| is_seen);
        // Otherwise the server rejected it before its end.
        let is_pending =
            matches!(self.session.newest_pending(), Some(ExpectedReply::Message { .. }));
        if self.has_rules_at_end() && is_pending {
            let content = reader.map(|reader| reader.finish(self.now));
            let is_question = !self.checks.has_ended();
            self.ended_messages.push_back(EndedMessage { is_question, content });
        }
    }

    /// The reply to the message is there, or never will be. Returns the question that the gateway would have put.
    pub(super) fn question_at_end(&mut self) -> Option<PolicyQuestion> {
        let ended = self.ended_messages.pop_front()?;
        let question = PolicyQuestion::at_end_of_data(self.session.state());
        let question = question.filter(|_| ended.is_question)?;
        let question = PolicyQuestion { message: ended.content, ..question };
        let subject = question.subject(self.checks.arrival());
        self.profile.rules.decide_at_end(&subject).then_some(question)
    }
}
