//! Evidence of the receive path from the relay's own sessions: accepted messages, encrypted sessions, stalls, and connections
//! to upstream.
//!
//! A path MTU black hole passes handshakes and commands and loses full-size segments (rule 15 of ARCHITECTURE.md). Therefore
//! only a session in which [`LARGE`] bytes of the client arrived disproves one. After STARTTLS the gateway sees the number of
//! bytes and who sent last:
//!
//! - A session under TLS is proof if its handshake completed, data passed both ways after it, and one side closed it.
//! - It stalled if the server spoke last, within a dialogue or in reply to STARTTLS, and the client, whose turn it was, sent
//!   nothing until it or the gateway gave up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::signals::StalledSessions;
use super::stalls::StallTracker;
use super::state::DoorSettings;
use super::upstream::{UpstreamContact, UpstreamTracker};
use crate::addr::{Family, NetworkKey, Networks, is_global};
use crate::time::Timestamp;

/// Bytes of content that fill several segments of any usual path MTU (1280 to 1500 bytes): with them, large segments pass.
const LARGE: u64 = 4096;
/// The same for everything that a client sends after STARTTLS: its hello alone may have two kilobytes.
const LARGE_ENCRYPTED: u64 = 8192;
/// The least that each side sends in a TLS handshake and one command or reply.
const MIN_ENCRYPTED: u64 = 512;
/// Silence of a client after which its own end of an encrypted session is a stall. Senders time out after minutes.
const SILENCE: Duration = Duration::from_secs(10);

/// A finished session, as far as it bears on the receive path.
#[derive(Clone, Copy, Debug)]
pub struct InboundSession {
    pub client: IpAddr,
    pub destination: SocketAddr,
    pub start: Timestamp,
    pub end: Timestamp,
    /// The largest message that got a 2xx after its end of data, in bytes.
    pub accepted: Option<u64>,
    /// The client was invited to send content: 354, or BDAT.
    pub content_started: bool,
    /// An end of data arrived.
    pub content_complete: bool,
    /// All bytes of the client.
    pub client_bytes: u64,
    pub ended_by: SessionEnd,
    /// There was a transaction, and the code that decided the last one.
    pub last_transaction: Option<Option<u16>>,
    /// After STARTTLS, if TLS was passed through.
    pub encrypted: Option<EncryptedExchange>,
    pub upstream: UpstreamContact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client closed the connection without QUIT.
    Client,
    /// Upstream closed an encrypted session.
    Upstream,
    /// The gateway timed out.
    Timeout,
    Other,
}

/// The bytes after STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncryptedExchange {
    pub client_bytes: u64,
    pub server_bytes: u64,
    /// How often the server spoke after the client, without those of the handshake.
    pub replies: u32,
    /// A ServerHello was seen.
    pub has_hello: bool,
    /// The handshake was seen to complete, and client or server closed the session.
    pub is_complete: bool,
    /// The server sent last, or nobody sent anything.
    pub client_is_due: bool,
    /// From the last byte to the end of the session.
    pub silence: Duration,
}

/// Evidence of both families since the start.
#[derive(Debug, Default)]
pub struct InboundEvidence {
    /// Clients whose sessions prove nothing: monitoring, the vantage.
    exempt: Networks,
    families: [FamilyTracker; Family::ALL.len()],
}

#[derive(Debug, Default)]
struct FamilyTracker {
    evidence: FamilyEvidence,
    stalls: StallTracker,
    upstream: UpstreamTracker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyEvidence {
    /// End of the latest session with an accepted message.
    pub accepted: Option<Timestamp>,
    /// End of the latest completed session that was encrypted.
    pub encrypted: Option<Timestamp>,
    /// All of these.
    pub encrypted_total: u64,
    /// End of the latest session in which large segments arrived.
    pub large: Option<Timestamp>,
    /// Stalled sessions since then.
    pub stalled: Option<StalledSessions>,
    /// Sessions of several networks found no upstream.
    pub upstream_down: bool,
}

impl InboundEvidence {
    pub fn new(exempt: Networks) -> Self {
        Self { exempt, families: Default::default() }
    }

    pub fn of(&self, family: Family, settings: &DoorSettings, now: Timestamp) -> FamilyEvidence {
        let tracker = &self.families[family as usize];
        FamilyEvidence {
            stalled: tracker.stalls.report(settings, now),
            upstream_down: tracker.upstream.is_down(settings.agreeing_networks, now),
            ..tracker.evidence
        }
    }

    /// Upstreams to which the gateway should connect itself, because a session failed there.
    pub fn upstream_checks(&self, family: Family, now: Timestamp) -> Vec<SocketAddr> {
        self.families[family as usize].upstream.check_targets(now)
    }

    /// The result of such a connection.
    pub fn on_upstream_check(
        &mut self,
        family: Family,
        destination: SocketAddr,
        reached: bool,
        at: Timestamp,
    ) {
        self.families[family as usize].upstream.on_check(destination, reached, at);
    }

    /// Discards the stalled sessions of `family` that began before its door changed at `at`: they were counted for that change.
    pub fn clear_stalled(&mut self, family: Family, at: Timestamp) {
        self.families[family as usize].stalls.clear(at);
    }

    /// Sessions from inside prove nothing about the path from the Internet. Returns whether the session proves that mail
    /// arrives.
    pub fn on_session(&mut self, session: &InboundSession) -> bool {
        if !is_global(session.client) || self.exempt.contains(session.client) {
            return false;
        }
        let tracker = &mut self.families[Family::of(session.client) as usize];
        let network = NetworkKey::of(session.client);
        tracker.upstream.on_session(session.upstream, session.destination, network, session.start);
        let evidence = &mut tracker.evidence;
        let is_encrypted_proof =
            session.encrypted.is_some_and(|exchange| exchange.is_proof(session.ended_by));
        if session.accepted.is_some() {
            evidence.accepted = evidence.accepted.max(Some(session.end));
        }
        if is_encrypted_proof {
            evidence.encrypted = evidence.encrypted.max(Some(session.end));
            evidence.encrypted_total += 1;
        }
        if session.has_large() {
            evidence.large = evidence.large.max(Some(session.end));
            tracker.stalls.clear(session.end);
        } else if session.is_stalled() {
            tracker.stalls.on_stall(network, session.start, session.end);
        }
        session.accepted.is_some() || is_encrypted_proof
    }
}

impl InboundSession {
    /// Whether large segments of the client arrived.
    fn has_large(&self) -> bool {
        self.accepted.is_some_and(|bytes| bytes >= LARGE)
            || self.encrypted.is_some_and(|exchange| exchange.client_bytes >= LARGE_ENCRYPTED)
    }

    /// Content was due and its end did not arrive before the client or the gateway gave up. After the end of data it would
    /// be the upstream that does not reply. The gateway's own 421 is not a decision about the message.
    fn is_stalled(&self) -> bool {
        if let Some(exchange) = self.encrypted {
            return exchange.is_stalled(self.ended_by);
        }
        let Some(code) = self.last_transaction else { return false };
        let is_undecided = match self.ended_by {
            SessionEnd::Client => code.is_none(),
            SessionEnd::Timeout => code.is_none_or(|code| code == 421),
            SessionEnd::Upstream | SessionEnd::Other => false,
        };
        // Large segments of a message that was broken off arrived.
        let is_small = self.client_bytes < LARGE_ENCRYPTED;
        self.content_started && !self.content_complete && is_undecided && is_small
    }
}

impl EncryptedExchange {
    fn is_proof(&self, ended_by: SessionEnd) -> bool {
        self.is_complete
            && self.replies >= 1
            && self.client_bytes >= MIN_ENCRYPTED
            && self.server_bytes >= MIN_ENCRYPTED
            && !self.is_stalled(ended_by)
    }

    fn is_stalled(&self, ended_by: SessionEnd) -> bool {
        let gave_up = match ended_by {
            SessionEnd::Timeout => true,
            SessionEnd::Client => self.silence >= SILENCE,
            SessionEnd::Upstream | SessionEnd::Other => false,
        };
        // Its first segment, or the one after the replies to MAIL, RCPT and DATA.
        let lost_large = self.client_bytes == 0 || self.has_hello && self.replies >= 2;
        gave_up && self.client_is_due && lost_large && self.client_bytes < LARGE_ENCRYPTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn settings() -> DoorSettings {
        DoorSettings { agreeing_networks: 2, ..DoorSettings::default() }
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
            destination: "[2001:db8:25::25]:25".parse().unwrap(),
            start: seconds(start),
            end: seconds(start + 5),
            accepted: (code == Some(250)).then_some(LARGE),
            content_started: true,
            content_complete: code == Some(250),
            client_bytes: 300,
            ended_by,
            last_transaction: Some(code),
            encrypted: None,
            upstream: UpstreamContact::Connected,
        }
    }

    fn stalls(evidence: &InboundEvidence) -> Option<(u32, u32)> {
        let stalled = evidence.of(Family::Ipv6, &settings(), seconds(100)).stalled;
        stalled.map(|stalled| (stalled.networks, stalled.sessions))
    }

    #[test]
    fn accepted_messages_and_stalls_are_counted() {
        let mut evidence =
            InboundEvidence::new(Networks::new(["2001:db8:7::/64".parse().unwrap()]));
        let client = "2001:db8::1";
        for (session, expected) in [
            // From inside, exempt, or of the other family.
            (session("::1", 1, SessionEnd::Client, None), None),
            (session("2001:db8:7::1", 1, SessionEnd::Client, None), None),
            (session("192.0.2.1", 1, SessionEnd::Client, None), None),
            // Rejected, or ended by the upstream.
            (session(client, 1, SessionEnd::Client, Some(550)), None),
            (session(client, 1, SessionEnd::Other, None), None),
            (session(client, 10, SessionEnd::Timeout, Some(421)), Some((1, 1))),
            (session(client, 20, SessionEnd::Client, None), Some((1, 2))),
            // One network is no more than its part, here two of three.
            (session("2001:db8:0:9::9", 21, SessionEnd::Client, None), Some((1, 2))),
            (session("2001:db8:1::1", 22, SessionEnd::Client, None), Some((2, 3))),
            // A small message proves the path, and disproves no black hole.
            (
                InboundSession {
                    accepted: Some(LARGE - 1),
                    ..session(client, 25, SessionEnd::Other, Some(250))
                },
                Some((2, 3)),
            ),
            (session(client, 30, SessionEnd::Other, Some(250)), None),
            // It began before the large message was accepted.
            (session(client, 34, SessionEnd::Client, None), None),
            (session(client, 40, SessionEnd::Client, None), Some((1, 1))),
            // It sent more than fits into small segments, then broke off.
            (
                InboundSession {
                    client_bytes: LARGE_ENCRYPTED,
                    ..session("2001:db8:2::1", 41, SessionEnd::Client, None)
                },
                Some((1, 1)),
            ),
        ] {
            evidence.on_session(&session);
            assert_eq!(stalls(&evidence), expected, "{session:?}");
        }
        let of = |family| evidence.of(family, &settings(), seconds(100));
        assert_eq!(of(Family::Ipv6).accepted, Some(seconds(35)));
        assert_eq!(of(Family::Ipv6).large, Some(seconds(35)));
        assert_eq!(of(Family::Ipv4).accepted, None);
        // Forgotten after an hour.
        let later = evidence.of(Family::Ipv6, &settings(), seconds(3_700));
        assert_eq!(later.stalled, None);
        evidence.clear_stalled(Family::Ipv6, seconds(50));
        assert_eq!(stalls(&evidence), None);
        evidence.on_session(&session(client, 49, SessionEnd::Client, None));
        assert_eq!(stalls(&evidence), None, "it began before");
    }

    /// As TLS 1.3 looks: the ClientHello and its reply, then commands and replies.
    const TLS: EncryptedExchange = EncryptedExchange {
        client_bytes: 1_400,
        server_bytes: 2_600,
        replies: 5,
        has_hello: true,
        is_complete: true,
        client_is_due: true,
        silence: Duration::from_millis(1),
    };

    fn encrypted(exchange: EncryptedExchange, ended_by: SessionEnd) -> InboundSession {
        InboundSession {
            accepted: None,
            content_started: false,
            content_complete: false,
            last_transaction: None,
            encrypted: Some(exchange),
            ..session("2001:db8::1", 10, ended_by, None)
        }
    }

    #[test]
    fn a_completed_encrypted_session_is_proof() {
        for (exchange, ended_by, expected) in [
            (TLS, SessionEnd::Upstream, true),
            (TLS, SessionEnd::Client, true),
            (EncryptedExchange { is_complete: false, ..TLS }, SessionEnd::Timeout, false),
            // The handshake failed.
            (EncryptedExchange { is_complete: false, ..TLS }, SessionEnd::Client, false),
            (EncryptedExchange { client_bytes: 300, ..TLS }, SessionEnd::Client, false),
            (EncryptedExchange { server_bytes: 300, ..TLS }, SessionEnd::Client, false),
            // The client gave the handshake up.
            (EncryptedExchange { replies: 0, ..TLS }, SessionEnd::Client, false),
        ] {
            let mut evidence = InboundEvidence::default();
            let proof = evidence.on_session(&encrypted(exchange, ended_by));
            assert_eq!(proof, expected, "{exchange:?} {ended_by:?}");
            let found = evidence.of(Family::Ipv6, &settings(), seconds(100));
            assert_eq!(found.encrypted.is_some(), expected);
            assert_eq!(found.accepted, None);
        }
    }

    #[test]
    fn an_encrypted_session_stalls_where_the_client_is_due() {
        let silence = Duration::from_secs(180);
        let stuck = EncryptedExchange { silence, ..TLS };
        let nothing = EncryptedExchange {
            client_bytes: 0,
            server_bytes: 0,
            replies: 0,
            has_hello: false,
            ..stuck
        };
        for (exchange, ended_by, expected) in [
            (stuck, SessionEnd::Timeout, true),
            (stuck, SessionEnd::Client, true),
            // The ClientHello is larger than the path.
            (nothing, SessionEnd::Timeout, true),
            (nothing, SessionEnd::Client, true),
            (TLS, SessionEnd::Client, false),
            (stuck, SessionEnd::Upstream, false),
            // It never came as far as DATA.
            (EncryptedExchange { replies: 1, ..stuck }, SessionEnd::Timeout, false),
            // The server is due.
            (EncryptedExchange { client_is_due: false, ..stuck }, SessionEnd::Timeout, false),
            (
                EncryptedExchange { client_bytes: LARGE_ENCRYPTED, ..stuck },
                SessionEnd::Timeout,
                false,
            ),
        ] {
            let mut evidence = InboundEvidence::default();
            evidence.on_session(&encrypted(exchange, ended_by));
            assert_eq!(stalls(&evidence).is_some(), expected, "{exchange:?} {ended_by:?}");
        }
        // Enough bytes to be sure that large segments pass.
        let mut evidence = InboundEvidence::default();
        evidence.on_session(&encrypted(stuck, SessionEnd::Timeout));
        let large = EncryptedExchange { client_bytes: LARGE_ENCRYPTED, ..TLS };
        evidence.on_session(&encrypted(large, SessionEnd::Client));
        assert_eq!(stalls(&evidence), None);
    }

    #[test]
    fn an_upstream_is_down_if_several_networks_fail_at_it() {
        let failed = |client: &str, destination: &str, start| InboundSession {
            destination: destination.parse().unwrap(),
            upstream: UpstreamContact::Failed,
            ..session(client, start, SessionEnd::Other, None)
        };
        let (mta, unused) = ("[2001:db8:25::25]:25", "[2001:db8:25::99]:25");
        let mut evidence = InboundEvidence::default();
        let down = |evidence: &InboundEvidence, at| {
            evidence.of(Family::Ipv6, &settings(), seconds(at)).upstream_down
        };
        for host in 1..100 {
            evidence.on_session(&failed(&format!("2001:db8::{host}"), mta, host));
        }
        assert!(!down(&evidence, 100), "one network");
        evidence.on_session(&failed("2001:db8:1::1", unused, 101));
        assert!(!down(&evidence, 102), "at two destinations");
        evidence.on_session(&failed("2001:db8:1::1", mta, 103));
        assert!(down(&evidence, 104));
        assert!(!down(&evidence, 800), "long ago");
        assert!(!evidence.of(Family::Ipv4, &settings(), seconds(104)).upstream_down);
        // A session that began before the failures and ended after them.
        evidence.on_session(&session("2001:db8:2::1", 90, SessionEnd::Other, Some(250)));
        assert!(down(&evidence, 105));
        evidence.on_session(&session("2001:db8:2::1", 104, SessionEnd::Other, Some(250)));
        assert!(!down(&evidence, 106));

        // Now the server is known: one failed session is an occasion for the gateway to connect itself.
        let checks =
            |evidence: &InboundEvidence, at| evidence.upstream_checks(Family::Ipv6, seconds(at));
        evidence.on_session(&failed("2001:db8::1", unused, 110));
        assert_eq!(checks(&evidence, 111), [], "nothing is known of that destination");
        evidence.on_session(&failed("2001:db8::1", mta, 110));
        let server = mta.parse().unwrap();
        assert_eq!(checks(&evidence, 111), [server]);
        evidence.on_upstream_check(Family::Ipv6, server, false, seconds(112));
        assert!(!down(&evidence, 113), "once");
        evidence.on_upstream_check(Family::Ipv6, server, false, seconds(114));
        assert!(down(&evidence, 115));
        evidence.on_upstream_check(Family::Ipv6, server, true, seconds(116));
        assert!(!down(&evidence, 117));
        assert_eq!(checks(&evidence, 117), []);
        // A client whose own address is the fault cannot make it down.
        for start in 120..140 {
            evidence.on_session(&failed("2001:db8::1", mta, start));
            evidence.on_upstream_check(Family::Ipv6, server, true, seconds(start));
            assert!(!down(&evidence, start));
        }
    }
}
