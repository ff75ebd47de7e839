//! A session as traffic: what windows, evidence, metrics and fall-backs are made of.

use crate::analyzer::FinishedSession;
use crate::engine::{SessionRecord, Tls};
use crate::stream::FlowOutcome;
use crate::traffic::fallback::{Attempt, DeliveryOutcome};
use crate::traffic::{self, FlowSummary, MailDirection, MessageCounts};

/// `name` is the server's.
pub(super) fn passed(
    session: &FinishedSession,
    direction: MailDirection,
    name: Option<String>,
) -> FlowSummary<'_> {
    let smtp = &session.record.smtp;
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
        flow: &session.flow,
        direction,
        name,
        spoke: smtp.greeting.is_some() || !smtp.commands.is_empty() || !smtp.replies.is_empty(),
        greeting: smtp.greeting,
        messages,
        replies,
        tls: match smtp.tls {
            Tls::None => traffic::StarttlsState::NotOffered,
            Tls::Offered => traffic::StarttlsState::Offered,
            Tls::Started => traffic::StarttlsState::Started,
            Tls::Refused => traffic::StarttlsState::Refused,
        },
        ended: ended(&session.record),
    }
}

/// The same as an attempt to bring mail.
pub(super) fn attempt(session: &FinishedSession, passed: &FlowSummary<'_>) -> Attempt {
    let record = &session.record;
    Attempt {
        number: session.number,
        client: record.client.address,
        server: record.server.into(),
        start: record.start,
        end: record.start + record.duration,
        direction: passed.direction,
        ended: passed.ended,
        helo: record.smtp.helo.clone(),
    }
}

fn ended(record: &SessionRecord) -> DeliveryOutcome {
    let (tcp, smtp) = (&record.tcp, &record.smtp);
    match tcp.outcome {
        Some(FlowOutcome::Unanswered) => return DeliveryOutcome::Unanswered,
        Some(FlowOutcome::Refused) => return DeliveryOutcome::Refused,
        Some(FlowOutcome::Unreachable) => return DeliveryOutcome::Unreachable,
        _ => {}
    }
    let accepted = |code: Option<u16>| code.is_some_and(|code| code / 100 == 2);
    if smtp.transactions.iter().any(|transaction| accepted(transaction.data_code)) {
        return DeliveryOutcome::Accepted;
    }
    if tcp.black_hole == Some(true) {
        return DeliveryOutcome::BlackHole;
    }
    if let Some(code) = smtp.greeting.filter(|code| *code >= 400) {
        return DeliveryOutcome::GreetingRefused(code);
    }
    // Within TLS nobody sees what became of the mail, and clients often end TLS by a reset.
    if smtp.tls == Tls::Started {
        return DeliveryOutcome::Other;
    }
    // What was said decides before how it was left.
    let decided = smtp.transactions.last().and_then(|transaction| transaction.deciding_code());
    if let Some(code) = decided.filter(|code| *code >= 400) {
        return DeliveryOutcome::EnvelopeRefused(code);
    }
    if tcp.outcome == Some(FlowOutcome::Reset) {
        return DeliveryOutcome::Reset;
    }
    let refused = smtp.transactions.iter().rev().find_map(|transaction| {
        let recipients = transaction.rcpt_to.iter().rev().filter_map(|recipient| recipient.code);
        let codes =
            transaction.data_code.into_iter().chain(recipients).chain(transaction.mail_code);
        codes.into_iter().find(|code| *code >= 400)
    });
    refused.map_or(DeliveryOutcome::Other, DeliveryOutcome::EnvelopeRefused)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::addr::{ClientAddr, OriginalDst};
    use crate::engine::{Engine, Output, Profile, Timeouts, TransactionRecord};
    use crate::time::Timestamp;

    /// A session over IPv6 that was reset after its handshake.
    fn reset() -> SessionRecord {
        let client = ClientAddr::new("[2001:db8::25]:40000".parse().unwrap());
        let server = OriginalDst::new("[2001:db8::1]:25".parse().unwrap());
        let at = Timestamp::default();
        let mut engine =
            Engine::new(Arc::new(Profile::default()), Timeouts::RFC_5321, client, server, at);
        let mut record = engine.finish(at, &mut Output::default());
        record.tcp.outcome = Some(FlowOutcome::Reset);
        record.smtp.greeting = Some(220);
        record
    }

    #[test]
    fn what_was_said_decides_before_how_it_was_left() {
        assert_eq!(ended(&reset()), DeliveryOutcome::Reset);
        let mut refused = reset();
        let transaction =
            TransactionRecord { mail_code: Some(450), ..TransactionRecord::default() };
        refused.smtp.transactions.push(transaction);
        assert_eq!(ended(&refused), DeliveryOutcome::EnvelopeRefused(450));
    }

    #[test]
    fn a_reset_within_tls_says_nothing_of_the_mail() {
        let mut encrypted = reset();
        encrypted.smtp.tls = Tls::Started;
        assert_eq!(ended(&encrypted), DeliveryOutcome::Other);
    }
}
