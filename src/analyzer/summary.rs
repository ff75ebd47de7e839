//! A finished session as traffic: the input of windows, evidence, metrics and the detection of fallbacks.

use super::sessions::FinishedSession;
use crate::engine::{Outcome, TlsState};
use crate::stream::FlowOutcome;
use crate::traffic::fallback::Attempt;
use crate::traffic::{DeliveryFacts, FlowSummary, MailDirection, MessageCounts, StarttlsState};

impl FinishedSession {
    /// `name` is the server's.
    pub fn summary(&self, direction: MailDirection, name: Option<String>) -> FlowSummary<'_> {
        let smtp = &self.record.smtp;
        let mut messages = MessageCounts::default();
        for code in smtp.transactions.iter().filter_map(|transaction| transaction.deciding_code()) {
            *match code {
                500.. => &mut messages.rejected,
                400.. => &mut messages.tempfailed,
                _ => &mut messages.accepted,
            } += 1;
        }
        let mut replies = [0; 4];
        for (&code, &count) in &smtp.replies {
            let class = usize::from(code / 100).checked_sub(2);
            if let Some(replies) = class.and_then(|class| replies.get_mut(class)) {
                *replies += count;
            }
        }
        FlowSummary {
            flow: &self.flow,
            direction,
            name,
            is_smtp: smtp.greeting.is_some()
                || !smtp.commands.is_empty()
                || !smtp.replies.is_empty(),
            greeting: smtp.greeting,
            messages,
            replies,
            tls: match (self.record.outcome, smtp.tls) {
                (Outcome::TlsCompleted, _) => StarttlsState::Completed,
                (Outcome::TlsFailed, _) | (_, TlsState::Failed) => StarttlsState::Failed,
                (_, TlsState::None) => StarttlsState::NotOffered,
                (_, TlsState::Offered) => StarttlsState::Offered,
                (_, TlsState::Started | TlsState::Established) => StarttlsState::Started,
                (_, TlsState::Refused) => StarttlsState::Refused,
            },
            tls_proof: self.record.is_encrypted_proof(),
            outcome: self.delivery_facts().outcome(),
        }
    }

    pub fn attempt(&self, summary: &FlowSummary<'_>) -> Attempt {
        let record = &self.record;
        Attempt {
            number: self.number,
            client: record.client.address,
            server: record.server.into(),
            start: record.start,
            end: record.start + record.duration,
            direction: summary.direction,
            outcome: summary.outcome,
            helo: record.smtp.helo.clone(),
        }
    }

    fn delivery_facts(&self) -> DeliveryFacts {
        let smtp = &self.record.smtp;
        let is_accepted = |code: Option<u16>| code.is_some_and(|code| code / 100 == 2);
        let last_rejection = smtp.transactions.iter().rev().find_map(|transaction| {
            let recipients =
                transaction.rcpt_to.iter().rev().filter_map(|recipient| recipient.code);
            let mut codes =
                transaction.data_code.into_iter().chain(recipients).chain(transaction.mail_code);
            codes.find(|code| *code >= 400)
        });
        DeliveryFacts {
            // After QUIT, or the end of TLS, a RST is no more than the end.
            flow: Some(match self.flow.outcome {
                FlowOutcome::Reset if self.record.outcome.explains_reset() => {
                    FlowOutcome::Established
                }
                outcome => outcome,
            }),
            incomplete: self.flow.incomplete,
            black_hole: self.flow.black_hole,
            message_accepted: smtp.transactions.iter().any(|one| is_accepted(one.data_code)),
            greeting: smtp.greeting,
            encrypted: smtp.tls == TlsState::Started,
            last_decision: smtp.transactions.last().and_then(|last| last.deciding_code()),
            last_rejection,
        }
    }
}
