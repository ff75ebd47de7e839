//! A session as an attempt to bring mail: what fall-backs are found among.

use crate::analyst::Session;
use crate::engine::{SessionRecord, Tls};
use crate::stream::FlowOutcome;
use crate::traffic::pairs::{Attempt, Ended};

pub(super) fn attempt(session: &Session) -> Attempt {
    let record = &session.record;
    Attempt {
        number: session.number,
        client: record.client.address,
        server: record.server.into(),
        start: record.start,
        end: record.start + record.duration,
        ended: ended(record),
        helo: record.smtp.helo.clone(),
    }
}

fn ended(record: &SessionRecord) -> Ended {
    let (tcp, smtp) = (&record.tcp, &record.smtp);
    match tcp.outcome {
        Some(FlowOutcome::Unanswered) => return Ended::Unanswered,
        Some(FlowOutcome::Refused) => return Ended::Refused,
        Some(FlowOutcome::Unreachable) => return Ended::Unreachable,
        _ => {}
    }
    let accepted = |code: Option<u16>| code.is_some_and(|code| code / 100 == 2);
    if smtp.transactions.iter().any(|transaction| accepted(transaction.data_code)) {
        return Ended::Accepted;
    }
    if tcp.black_hole == Some(true) {
        return Ended::BlackHole;
    }
    if tcp.outcome == Some(FlowOutcome::Reset) {
        return Ended::Reset;
    }
    if let Some(code) = smtp.greeting.filter(|code| *code >= 400) {
        return Ended::GreetingRefused(code);
    }
    if smtp.tls == Tls::Started {
        return Ended::Other;
    }
    let refused = smtp.transactions.iter().rev().find_map(|transaction| {
        let recipients = transaction.rcpt_to.iter().rev().filter_map(|recipient| recipient.code);
        let codes =
            transaction.data_code.into_iter().chain(recipients).chain(transaction.mail_code);
        codes.into_iter().find(|code| *code >= 400)
    });
    refused.map_or(Ended::Other, Ended::EnvelopeRefused)
}
