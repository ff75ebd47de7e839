//! Evidence of the receive path from the relay's own sessions: accepted messages, encrypted sessions, stalls, and connections
//! to upstream.
//!
//! A path MTU black hole passes handshakes and commands and loses full-size segments (rule 15 of ARCHITECTURE.md). Therefore
//! only a session in which [`LARGE`] bytes of the client arrived disproves one. After STARTTLS the gateway sees the number of
//! bytes and who sent last:
//!
//! - A session under TLS is proof if its handshake completed, data passed both ways after it, and one side closed it.
//! - If the mail server asked the policy about it at the end of a message, that message arrived in full, however the session
//!   ended. At DATA it asks before the content, which is where a session stalls: then only a completed session is proof.
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
    /// The largest message that arrived in full, by the mail server's question at its end, and that the policy did not refuse,
    /// in bytes.
    pub received: Option<u64>,
    /// Recipients were accepted, by its question at DATA.
    pub has_envelope: bool,
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
    /// End of the latest session in which a message arrived in full, by the mail server's question at its end.
    pub received: Option<Timestamp>,
    /// End of the latest completed encrypted session in which recipients were accepted, by its question at DATA.
    pub envelope: Option<Timestamp>,
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
        if session.received.is_some() {
            evidence.received = evidence.received.max(Some(session.end));
        }
        if is_encrypted_proof {
            evidence.encrypted = evidence.encrypted.max(Some(session.end));
            evidence.encrypted_total += 1;
            if session.has_envelope {
                evidence.envelope = evidence.envelope.max(Some(session.end));
            }
        }
        if session.has_large() {
            evidence.large = evidence.large.max(Some(session.end));
            tracker.stalls.clear(session.end);
        } else if session.is_stalled() {
            tracker.stalls.on_stall(network, session.start, session.end);
        }
        session.accepted.or(session.received).is_some() || is_encrypted_proof
    }
}

impl InboundSession {
    /// Whether large segments of the client arrived.
    fn has_large(&self) -> bool {
        self.accepted.max(self.received).is_some_and(|bytes| bytes >= LARGE)
            || self.encrypted.is_some_and(|exchange| exchange.client_bytes >= LARGE_ENCRYPTED)
    }

    /// Content was due and its end did not arrive before the client or the gateway gave up. After the end of data it would
    /// be the upstream that does not reply. The gateway's own 421 is not a decision about the message.
    fn is_stalled(&self) -> bool {
        if let Some(exchange) = self.encrypted {
            return self.received.is_none() && exchange.is_stalled(self.ended_by);
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
    /// Whether the session shows that mail arrives: it completed, and both sides sent as much as a delivery takes.
    pub fn is_proof(&self, ended_by: SessionEnd) -> bool {
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
mod tests;
