//! One outcome for a delivery attempt, from the facts of its TCP connection and its SMTP session.

use super::fallback::DeliveryOutcome;
use crate::stream::FlowOutcome;

/// The facts that decide the outcome of a delivery attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFacts {
    /// `None` for sessions that were relayed, not captured.
    pub flow: Option<FlowOutcome>,
    /// The source lost packets meanwhile.
    pub incomplete: bool,
    /// Large segments were lost again and again.
    pub black_hole: bool,
    /// A message got a 2xx after its end of data.
    pub message_accepted: bool,
    /// Code of the greeting.
    pub greeting: Option<u16>,
    /// STARTTLS succeeded: the rest of the session is encrypted.
    pub encrypted: bool,
    /// The code that decided the last transaction.
    pub last_decision: Option<u16>,
    /// The last 4xx or 5xx to MAIL, RCPT or a message, in any transaction.
    pub last_rejection: Option<u16>,
}

impl DeliveryFacts {
    /// The first rule that applies decides.
    pub fn outcome(&self) -> DeliveryOutcome {
        // 1. Without a connection there was no session, so nothing else can be known.
        match self.flow {
            Some(FlowOutcome::Unanswered) => return DeliveryOutcome::Unanswered,
            Some(FlowOutcome::Refused) => return DeliveryOutcome::Refused,
            Some(FlowOutcome::Unreachable) => return DeliveryOutcome::Unreachable,
            Some(FlowOutcome::Unknown) => return DeliveryOutcome::Unknown,
            _ => {}
        }
        // 2. The attempt succeeded, however the connection ended: clients often reset it after the 250, and the stall of a
        //    later message does not undo the delivery.
        if self.message_accepted {
            return DeliveryOutcome::Accepted;
        }
        // 3. A lost packet may have been the reply that is missing, or the message that was accepted after a rejected one.
        if self.incomplete {
            return DeliveryOutcome::Unknown;
        }
        // 4. A path that drops large segments explains the missing reply to the message. Replies before the stall are
        //    those to small commands.
        if self.black_hole {
            return DeliveryOutcome::BlackHole;
        }
        // 5. The server turned the client away before any command (RFC 5321 §3.1); replies after that repeat it.
        if let Some(code) = self.greeting.filter(|code| *code >= 400) {
            return DeliveryOutcome::GreetingRefused(code);
        }
        // 6. Replies under TLS are invisible, and clients often end TLS with a reset, so neither an earlier reply nor the
        //    end of the connection shows what became of the message.
        if self.encrypted {
            return DeliveryOutcome::Other;
        }
        // 7. Replies precede the end of the connection: many clients reset it because they were rejected.
        if let Some(code) = self.last_decision.filter(|code| *code >= 400) {
            return DeliveryOutcome::EnvelopeRefused(code);
        }
        // 8. A reset without a reply that explains it.
        if self.flow == Some(FlowOutcome::Reset) {
            return DeliveryOutcome::Reset;
        }
        // 9. An orderly end after an undecided transaction: an earlier rejection is the likely reason.
        self.last_rejection.map_or(DeliveryOutcome::Other, DeliveryOutcome::EnvelopeRefused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_precedes_the_next() {
        let mut facts = DeliveryFacts {
            flow: Some(FlowOutcome::Unanswered),
            incomplete: true,
            black_hole: true,
            message_accepted: true,
            greeting: Some(554),
            encrypted: true,
            last_decision: Some(450),
            last_rejection: Some(550),
        };
        assert_eq!(facts.outcome(), DeliveryOutcome::Unanswered);
        facts.flow = Some(FlowOutcome::Reset);
        assert_eq!(facts.outcome(), DeliveryOutcome::Accepted);
        facts.message_accepted = false;
        assert_eq!(facts.outcome(), DeliveryOutcome::Unknown);
        facts.incomplete = false;
        assert_eq!(facts.outcome(), DeliveryOutcome::BlackHole);
        facts.black_hole = false;
        assert_eq!(facts.outcome(), DeliveryOutcome::GreetingRefused(554));
        facts.greeting = Some(220);
        assert_eq!(facts.outcome(), DeliveryOutcome::Other);
        facts.encrypted = false;
        assert_eq!(facts.outcome(), DeliveryOutcome::EnvelopeRefused(450));
        facts.last_decision = None;
        assert_eq!(facts.outcome(), DeliveryOutcome::Reset);
        facts.flow = Some(FlowOutcome::Established);
        assert_eq!(facts.outcome(), DeliveryOutcome::EnvelopeRefused(550));
        facts.last_rejection = None;
        assert_eq!(facts.outcome(), DeliveryOutcome::Other);
    }
}
