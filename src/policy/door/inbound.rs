//! Evidence of the receive path from the relay's own sessions: accepted messages and stalls.

use std::net::IpAddr;

use super::signals::StalledSessions;
use crate::addr::{Family, Networks, is_global};
use crate::time::Timestamp;

/// A finished session, as far as it bears on the receive path.
#[derive(Clone, Copy, Debug)]
pub struct InboundSession {
    pub client: IpAddr,
    pub start: Timestamp,
    pub end: Timestamp,
    /// A message got a 2xx after its end of data.
    pub message_accepted: bool,
    /// The client was invited to send content: 354, or BDAT.
    pub content_started: bool,
    /// An end of data arrived.
    pub content_complete: bool,
    pub ended_by: SessionEnd,
    /// There was a transaction, and the code that decided the last one.
    pub last_transaction: Option<Option<u16>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed the connection without QUIT.
    Client,
    /// The gateway timed out and sent 421.
    Timeout,
    Other,
}

/// Evidence of both families since the start.
#[derive(Debug, Default)]
pub struct InboundEvidence {
    /// Clients whose sessions prove nothing: monitoring, the vantage.
    exempt: Networks,
    families: [FamilyEvidence; Family::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyEvidence {
    /// End of the latest session with an accepted message.
    pub accepted: Option<Timestamp>,
    /// Stalled sessions since then.
    pub stalled: Option<StalledSessions>,
}

impl InboundEvidence {
    pub fn new(exempt: Networks) -> Self {
        Self { exempt, families: Default::default() }
    }

    pub const fn of(&self, family: Family) -> FamilyEvidence {
        self.families[family as usize]
    }

    /// Discards the stalled sessions of `family` after its door changed: they were counted for that change.
    pub fn clear_stalled(&mut self, family: Family) {
        self.families[family as usize].stalled = None;
    }

    /// Sessions from inside prove nothing about the path from the Internet.
    pub fn on_session(&mut self, session: &InboundSession) {
        if !is_global(session.client) || self.exempt.contains(session.client) {
            return;
        }
        let evidence = &mut self.families[Family::of(session.client) as usize];
        if session.message_accepted {
            evidence.accepted = evidence.accepted.max(Some(session.end));
            evidence.stalled = None;
        } else if session.is_stalled() {
            let (start, end) = (session.start, session.end);
            let before = evidence.stalled;
            evidence.stalled = Some(StalledSessions {
                sessions: before.map_or(0, |before| before.sessions).saturating_add(1),
                since: before.map_or(start, |before| before.since.min(start)),
                last: before.map_or(end, |before| before.last.max(end)),
            });
        }
    }
}

impl InboundSession {
    /// Content was due and its end did not arrive before the client or the gateway gave up. After the end of data it would
    /// be the upstream that does not reply. The gateway's own 421 is not a decision about the message.
    fn is_stalled(&self) -> bool {
        let Some(code) = self.last_transaction else { return false };
        let is_undecided = match self.ended_by {
            SessionEnd::Client => code.is_none(),
            SessionEnd::Timeout => code.is_none_or(|code| code == 421),
            SessionEnd::Other => false,
        };
        self.content_started && !self.content_complete && is_undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// A session that reached DATA, from second `start`, for 5 s.
    fn session(
        client: &str,
        start: u64,
        ended_by: SessionEnd,
        code: Option<u16>,
    ) -> InboundSession {
        InboundSession {
            client: client.parse().unwrap(),
            start: seconds(start),
            end: seconds(start + 5),
            message_accepted: code == Some(250),
            content_started: true,
            content_complete: code == Some(250),
            ended_by,
            last_transaction: Some(code),
        }
    }

    #[test]
    fn accepted_messages_and_stalls_are_counted() {
        let mut evidence =
            InboundEvidence::new(Networks::new(["2001:db8:7::/64".parse().unwrap()]));
        let client = "2001:db8::1";
        for (session, stalls) in [
            // From inside, exempt, or of the other family.
            (session("::1", 1, SessionEnd::Client, None), 0),
            (session("2001:db8:7::1", 1, SessionEnd::Client, None), 0),
            (session("192.0.2.1", 1, SessionEnd::Client, None), 0),
            // Rejected, or ended by the upstream.
            (session(client, 1, SessionEnd::Client, Some(550)), 0),
            (session(client, 1, SessionEnd::Other, None), 0),
            (session(client, 10, SessionEnd::Timeout, Some(421)), 1),
            (session(client, 20, SessionEnd::Client, None), 2),
            (session(client, 30, SessionEnd::Other, Some(250)), 0),
            (session(client, 40, SessionEnd::Client, None), 1),
        ] {
            evidence.on_session(&session);
            let stalled = evidence.of(Family::Ipv6).stalled;
            assert_eq!(stalled.map_or(0, |stalled| stalled.sessions), stalls, "{session:?}");
        }
        assert_eq!(evidence.of(Family::Ipv6).accepted, Some(seconds(35)));
        assert_eq!(evidence.of(Family::Ipv4).accepted, None);
        evidence.clear_stalled(Family::Ipv6);
        assert_eq!(evidence.of(Family::Ipv6).stalled, None);
    }
}
