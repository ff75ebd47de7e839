//! Attempts as the wire shows them (`[watch]`): for an MTA whose log is not read.

use std::net::{Ipv6Addr, SocketAddr};

use super::{OutboundAttempt, OutboundOutcome};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;
use crate::traffic::fallback::DeliveryOutcome;
use crate::traffic::{ConnectionResponse, FlowSummary, MailDirection, StarttlsState};

/// A path that works, shown by a session under TLS: what became of its message is not visible, and it counts as no attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkingPath {
    pub at: Timestamp,
    pub host: DomainName,
    pub ip: Ipv6Addr,
}

impl WorkingPath {
    /// `None` for other flows, and over IPv4, which is never avoided.
    pub fn of_flow(summary: &FlowSummary<'_>) -> Option<Self> {
        let SocketAddr::V6(server) = summary.flow.start.server else { return None };
        let is_shown = summary.direction == MailDirection::Outbound
            && summary.response() == Some(ConnectionResponse::Answered)
            && summary.outcome == DeliveryOutcome::Other
            && summary.tls == StarttlsState::Completed;
        let host = summary.name.as_deref().and_then(DomainName::parse)?;
        is_shown.then(|| Self { at: summary.flow.end, host, ip: *server.ip() })
    }
}

impl OutboundAttempt {
    /// The attempt of a flow. `None` for mail to us, and where the wire does not show what became of the message: inside TLS,
    /// or in a connection that was captured from its middle.
    ///
    /// Replies are known by code only, so a refusal for the sending address is not told from another.
    pub fn of_flow(summary: &FlowSummary<'_>) -> Option<Self> {
        let response = summary.response()?;
        if summary.direction != MailDirection::Outbound {
            return None;
        }
        let outcome = match (response, summary.outcome) {
            (ConnectionResponse::Refused, _) => OutboundOutcome::Refused,
            (ConnectionResponse::Unreachable, _) => OutboundOutcome::Unreachable,
            (ConnectionResponse::NoResponse, DeliveryOutcome::Unanswered) => {
                OutboundOutcome::TimedOut
            }
            (ConnectionResponse::NoResponse | ConnectionResponse::BlackHole, _) => {
                OutboundOutcome::Stalled
            }
            (ConnectionResponse::Answered, DeliveryOutcome::Accepted) => OutboundOutcome::Delivered,
            (ConnectionResponse::Answered, DeliveryOutcome::GreetingRefused(_)) => {
                OutboundOutcome::GreetingRefused
            }
            (ConnectionResponse::Answered, DeliveryOutcome::EnvelopeRefused(500..)) => {
                OutboundOutcome::Rejected
            }
            (ConnectionResponse::Answered, DeliveryOutcome::EnvelopeRefused(_)) => {
                OutboundOutcome::Deferred
            }
            (ConnectionResponse::Answered, DeliveryOutcome::Reset) => OutboundOutcome::Lost,
            (ConnectionResponse::Answered, _) if summary.tls == StarttlsState::Failed => {
                OutboundOutcome::TlsFailed
            }
            (ConnectionResponse::Answered, _) => return None,
        };
        let host = summary.name.as_deref().and_then(DomainName::parse);
        Some(Self {
            at: summary.flow.end,
            host,
            address: summary.flow.start.server,
            domain: None,
            outcome,
            reply: None,
            delays: None,
            queue_id: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::Side;
    use crate::stream::{FlowFacts, FlowOutcome, FlowStart};
    use crate::traffic::MessageCounts;

    const MX6: &str = "[2001:db8:1::10]:25";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000) + Duration::from_secs(seconds)
    }

    /// Of ten seconds; with data of both sides if it was established.
    fn flow(outcome: FlowOutcome) -> FlowFacts {
        let is_established = matches!(outcome, FlowOutcome::Established | FlowOutcome::Reset);
        FlowFacts {
            start: FlowStart {
                number: 1,
                client: "[2001:db8:2::25]:40000".parse().unwrap(),
                server: MX6.parse().unwrap(),
                at: at(0),
                midstream: outcome == FlowOutcome::Midstream,
            },
            end: at(10),
            outcome,
            handshake: is_established.then_some(Duration::from_millis(20)),
            syns: 1,
            bytes: if is_established { [300, 200] } else { [0, 0] },
            data_segments: [0, 0],
            retransmits: [0, 0],
            gaps: 0,
            icmp_errors: 0,
            icmp_kinds: [0; 5],
            path_mtu: None,
            black_hole: false,
            closed_by: None,
            reset_by: None,
            rtt: None,
            evicted: false,
            incomplete: false,
        }
    }

    fn summary(flow: &FlowFacts, outcome: DeliveryOutcome, tls: StarttlsState) -> FlowSummary<'_> {
        FlowSummary {
            flow,
            direction: MailDirection::Outbound,
            name: Some("mx.example.net".to_owned()),
            is_smtp: true,
            greeting: Some(220),
            messages: MessageCounts::default(),
            replies: [1, 0, 0, 0],
            tls,
            tls_proof: false,
            outcome,
        }
    }

    #[test]
    fn each_flow_is_the_attempt_that_the_wire_shows() {
        use DeliveryOutcome as By;
        use OutboundOutcome as Is;
        let offered = StarttlsState::Offered;
        let silent = FlowFacts { bytes: [0, 0], ..flow(FlowOutcome::Established) };
        let evicted = FlowFacts { evicted: true, ..flow(FlowOutcome::Unanswered) };
        let left_early = FlowFacts { end: at(4), ..silent.clone() };
        let reset_by_server = FlowFacts { reset_by: Some(Side::Server), ..silent.clone() };
        let established = || flow(FlowOutcome::Established);
        for (flow, by, tls, expected) in [
            (flow(FlowOutcome::Refused), By::Refused, offered, Some(Is::Refused)),
            (flow(FlowOutcome::Unreachable), By::Unreachable, offered, Some(Is::Unreachable)),
            (flow(FlowOutcome::Unanswered), By::Unanswered, offered, Some(Is::TimedOut)),
            (evicted, By::Unanswered, offered, None),
            (silent, By::Other, offered, Some(Is::Stalled)),
            (left_early, By::Other, offered, None),
            (reset_by_server, By::Reset, offered, None),
            (established(), By::BlackHole, offered, Some(Is::Stalled)),
            (established(), By::Accepted, offered, Some(Is::Delivered)),
            (established(), By::GreetingRefused(421), offered, Some(Is::GreetingRefused)),
            (established(), By::GreetingRefused(554), offered, Some(Is::GreetingRefused)),
            (established(), By::EnvelopeRefused(500), offered, Some(Is::Rejected)),
            (established(), By::EnvelopeRefused(550), offered, Some(Is::Rejected)),
            (established(), By::EnvelopeRefused(499), offered, Some(Is::Deferred)),
            (established(), By::EnvelopeRefused(450), offered, Some(Is::Deferred)),
            (flow(FlowOutcome::Reset), By::Reset, offered, Some(Is::Lost)),
            (established(), By::Other, StarttlsState::Failed, Some(Is::TlsFailed)),
            (established(), By::Other, StarttlsState::Completed, None),
            (established(), By::Other, StarttlsState::Started, None),
            (established(), By::Other, offered, None),
            (flow(FlowOutcome::Midstream), By::Other, offered, None),
        ] {
            let case = format!("{:?}, {by:?}, {tls}", flow.outcome);
            let found = OutboundAttempt::of_flow(&summary(&flow, by, tls));
            assert_eq!(found.map(|attempt| attempt.outcome), expected, "{case}");
        }
    }

    #[test]
    fn an_attempt_has_the_time_name_and_address_of_its_flow() {
        let flow = flow(FlowOutcome::Unanswered);
        let summary = summary(&flow, DeliveryOutcome::Unanswered, StarttlsState::NotOffered);
        let attempt = OutboundAttempt::of_flow(&summary).unwrap();
        let expected = OutboundAttempt {
            at: at(10),
            host: DomainName::parse("mx.example.net"),
            address: MX6.parse().unwrap(),
            domain: None,
            outcome: OutboundOutcome::TimedOut,
            reply: None,
            delays: None,
            queue_id: None,
        };
        assert_eq!(attempt, expected);
        let unnamed = FlowSummary { name: None, ..summary.clone() };
        let host = None;
        assert_eq!(OutboundAttempt::of_flow(&unnamed), Some(OutboundAttempt { host, ..expected }));
        let inbound = FlowSummary { direction: MailDirection::Inbound, ..summary };
        assert_eq!(OutboundAttempt::of_flow(&inbound), None);
    }

    #[test]
    fn only_a_session_under_tls_shows_a_working_path_and_nothing_else() {
        let established = flow(FlowOutcome::Established);
        let shown = summary(&established, DeliveryOutcome::Other, StarttlsState::Completed);
        let expected = WorkingPath {
            at: at(10),
            host: DomainName::parse("mx.example.net").unwrap(),
            ip: "2001:db8:1::10".parse().unwrap(),
        };
        assert_eq!(WorkingPath::of_flow(&shown), Some(expected));
        let mut over_ipv4 = established.clone();
        over_ipv4.start.server = "192.0.2.10:25".parse().unwrap();
        let silent = FlowFacts { bytes: [0, 0], ..established.clone() };
        for other in [
            FlowSummary { direction: MailDirection::Inbound, ..shown.clone() },
            FlowSummary { name: None, ..shown.clone() },
            FlowSummary { tls: StarttlsState::Started, ..shown.clone() },
            FlowSummary { tls: StarttlsState::Failed, ..shown.clone() },
            FlowSummary { outcome: DeliveryOutcome::BlackHole, ..shown.clone() },
            FlowSummary { outcome: DeliveryOutcome::Reset, ..shown.clone() },
            FlowSummary { flow: &over_ipv4, ..shown.clone() },
            FlowSummary { flow: &silent, ..shown.clone() },
        ] {
            assert_eq!(WorkingPath::of_flow(&other), None, "{other:?}");
        }
    }
}
