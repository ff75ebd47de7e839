//! English text for outcomes, reasons and anomalies. Each is a noun phrase or a short clause without a full stop.

use crate::addr::Side;
use crate::engine::{Anomaly, AttemptOutcome, Outcome, Refusal, SessionRecord};
use crate::policy::facts::Reason;
use crate::policy::rules::FactName;
use crate::stream::FlowOutcome;
use crate::traffic::ConnectionResponse;

/// Text for the reason of a policy rule's verdict, such as `fcrdns.no_ptr`; other reasons unchanged.
pub(super) fn verdict_reason(label: &str) -> String {
    let known = label.split_once('.').and_then(|(name, reason)| {
        let name = FactName::ALL.into_iter().find(|fact| fact.as_str() == name)?;
        let reason = Reason::ALL.into_iter().find(|known| known.as_str() == reason)?;
        Some(format!("{}: {} ({label})", fact_name(name), fact_reason(reason)))
    });
    known.unwrap_or_else(|| label.to_owned())
}

const fn fact_name(name: FactName) -> &'static str {
    match name {
        FactName::ReverseName => "reverse name",
        FactName::Fcrdns => "forward-confirmed reverse name",
        FactName::HeloResolves => "HELO name",
        FactName::ReturnPath => "return path",
        FactName::Recipient => "recipient",
        FactName::ReceivePath => "receive path",
        FactName::Spf => "SPF",
        FactName::Dkim => "DKIM",
        FactName::Dmarc => "DMARC",
        FactName::Authenticated => "SPF or DKIM",
    }
}

pub(super) const fn fact_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPtr => "no PTR record",
        Reason::NotConfirmed => "no PTR name resolves back to the address",
        Reason::Nxdomain => "no such domain",
        Reason::NullMx => "the domain accepts no mail (null MX)",
        Reason::NoUsableAddress => "no usable address",
        Reason::NotADomain => "not a domain name",
        Reason::NullSender => "null sender",
        Reason::Servfail => "DNS server failure",
        Reason::Timeout => "timeout",
        Reason::Unreachable => "DNS server unreachable",
        Reason::NoResolver => "no resolver",
        Reason::Refused => "connection refused",
        Reason::NoResponse => "no response",
        Reason::EstablishedButStalled => "connected, but no data",
        Reason::RejectedBeforeRcpt => "rejected before RCPT",
        Reason::NoSuchMailbox => "no such mailbox",
        Reason::Deferred => "mailbox temporarily refused",
        Reason::NotProbed => "address literal, not probed",
        Reason::RateLimited => "rate limited",
        Reason::NoProof => "no recent proof",
        Reason::NotReached => "not reachable from outside",
        Reason::UpstreamDown => "upstream down",
        Reason::SpfNone => "no SPF record",
        Reason::SpfFail => "SPF fail",
        Reason::SpfSoftfail => "SPF softfail",
        Reason::SpfNeutral => "SPF neutral",
        Reason::SpfPermerror => "SPF record invalid",
        Reason::ContentNotSeen => "content not seen",
        Reason::HeaderTooLarge => "header section too large",
        Reason::DkimNone => "no DKIM signature",
        Reason::DkimBadSignature => "DKIM signature does not match",
        Reason::DkimBodyChanged => "body changed after DKIM signing",
        Reason::DkimPartlySigned => "DKIM signature covers a part of the body",
        Reason::DkimExpired => "DKIM signature expired",
        Reason::DkimNoKey => "no DKIM key",
        Reason::DkimInvalidKey => "DKIM key invalid",
        Reason::DkimInvalidSignature => "DKIM signature invalid",
        Reason::DkimWeak => "DKIM signature too weak",
        Reason::DkimTestMode => "DKIM key in test mode",
        Reason::NotAuthenticated => "neither SPF nor DKIM passes",
        Reason::DmarcPolicyNone => "DMARC fails, p=none",
        Reason::DmarcPolicyQuarantine => "DMARC fails, p=quarantine",
        Reason::DmarcPolicyReject => "DMARC fails, p=reject",
        Reason::NoAuthorDomain => "no author domain in From",
        Reason::ManyAuthorDomains => "too many author domains in From",
    }
}

pub(super) const fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// How a session ended.
pub(super) const fn ending(record: &SessionRecord) -> &'static str {
    match record.tcp.outcome {
        Some(FlowOutcome::Unanswered) => return "SYN unanswered",
        Some(FlowOutcome::Refused) => return "connection refused",
        Some(FlowOutcome::Unreachable) => return "unreachable",
        Some(FlowOutcome::Unknown) => return "unknown: packets lost",
        Some(FlowOutcome::Reset) if !record.outcome.explains_reset() => return "reset",
        Some(FlowOutcome::Established | FlowOutcome::Midstream | FlowOutcome::Reset) | None => {}
    }
    match record.outcome {
        Outcome::Quit => "quit",
        Outcome::ClientClosed => "client closed",
        Outcome::UpstreamClosed => "server closed",
        Outcome::UpstreamUnavailable => "no greeting",
        Outcome::Timeout => "timed out",
        Outcome::TlsCompleted => "TLS completed",
        Outcome::TlsFailed => "TLS failed",
        Outcome::Refused => "refused",
        Outcome::Limit => "limit exceeded",
        Outcome::Protocol => "not SMTP",
        Outcome::Shutdown => "gateway stopped",
        Outcome::Error => "internal error",
        Outcome::Delegated => "at Postfix",
        Outcome::CaptureEnded => "capture ended",
    }
}

pub(super) const fn anomaly(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::Pregreet => "the client sent data before the greeting",
        Anomaly::JunkHttp => "the client sent an HTTP request",
        Anomaly::JunkTls => "the client started TLS in place of plaintext SMTP",
        Anomaly::JunkProxy => "the client sent a PROXY header",
        Anomaly::UnknownCommand => "the client sent an unknown command",
        Anomaly::BadSyntax => "the client sent a command with bad syntax",
        Anomaly::BareLf => "a line ends with a bare LF",
        Anomaly::BareCr => "a bare CR",
        Anomaly::Smuggling => "a \".\" line that only a lax server accepts as the end of data",
        Anomaly::CommandTooLong => "a command line is too long",
        Anomaly::TextLineTooLong => "a message line exceeds 1,000 octets",
        Anomaly::StarttlsPlaintext => "plaintext after STARTTLS",
        Anomaly::Xclient => "the client sent XCLIENT",
        Anomaly::Xforward => "the client sent XFORWARD",
        Anomaly::EarlyData => "the client sent the message before the 354",
        Anomaly::UnauthorizedPipelining => {
            "the client pipelined although PIPELINING was not offered"
        }
        Anomaly::BadReply => "the server sent an invalid reply",
        Anomaly::Gap => "the capture has a gap",
        Anomaly::UnexpectedReply => "the server sent a reply without a command",
    }
}

pub const fn attempt(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Connected => "connected",
        AttemptOutcome::Refused => "connection refused",
        AttemptOutcome::Timeout => "timeout",
        AttemptOutcome::Unreachable => "unreachable",
        AttemptOutcome::Lost => "another address connected first",
        AttemptOutcome::Resources => "too few file descriptors, memory or ports here",
        AttemptOutcome::Greeting => "no 2xx greeting",
        AttemptOutcome::Error => "socket error",
    }
}

/// Text for the label of a [`Refusal`]; `None` for other labels.
pub(super) fn refusal(label: &str) -> Option<&'static str> {
    let refusal = Refusal::ALL.iter().find(|refusal| refusal.as_str() == label)?;
    Some(match refusal {
        Refusal::AccessReject | Refusal::AccessTempfail => "access rule",
        Refusal::PolicyReject | Refusal::PolicyTempfail => "policy rule",
        Refusal::Door => "the family's door is closed",
        Refusal::Pregreet => "data before the greeting",
        Refusal::Junk => "not SMTP",
        Refusal::BareNewline => "bare CR or LF",
        Refusal::EarlyData => "content before the reply to DATA",
        Refusal::CommandSyntax => "bad command syntax",
        Refusal::PathSyntax => "bad address syntax",
        Refusal::PathRouting => "address that may be rerouted",
        Refusal::Xclient => "XCLIENT or XFORWARD from a client",
        Refusal::TlsRequired => "a command that requires STARTTLS first",
        Refusal::LimitSessions => "session limit",
        Refusal::LimitClientSessions => "session limit per client",
        Refusal::LimitClientRate => "session rate limit per client",
        Refusal::LimitNetworkSessions => "session limit per network",
        Refusal::LimitNetworkRate => "session rate limit per network",
        Refusal::LimitCommands => "command limit",
        Refusal::LimitErrors => "error limit",
        Refusal::LimitLine => "command line too long",
        Refusal::UpstreamUnavailable => "no upstream accepted the connection",
        Refusal::Resources => "the gateway lacks file descriptors, memory or ports",
        Refusal::UpstreamLost => "the upstream closed the connection",
        Refusal::UpstreamTls => "no TLS with the upstream",
        Refusal::Identity => "the upstream rejected our XCLIENT",
        Refusal::Timeout => "timeout",
        Refusal::ProxyHeader => "no valid PROXY header from a trusted peer",
        Refusal::Shutdown => "the gateway was stopping",
    })
}

/// The last response of a remote server, in at most eleven columns.
pub(super) const fn response(response: ConnectionResponse) -> &'static str {
    match response {
        ConnectionResponse::Answered => "responded",
        ConnectionResponse::NoResponse => "no response",
        ConnectionResponse::Refused => "refused",
        ConnectionResponse::Unreachable => "unreachable",
        ConnectionResponse::BlackHole => "black hole",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_text() {
        assert!(Refusal::ALL.iter().all(|known| refusal(known.as_str()).is_some()));
        assert_eq!(refusal("fcrdns.no_ptr"), None);
    }

    #[test]
    fn verdict_reasons() {
        assert_eq!(verdict_reason("x"), "x");
        assert_eq!(
            verdict_reason("fcrdns.no_ptr"),
            "forward-confirmed reverse name: no PTR record (fcrdns.no_ptr)"
        );
    }
}
