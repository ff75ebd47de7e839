//! What a session under TLS that passes through shows of the path: bytes of both sides, turns, and its end.

use super::{EncryptedBytes, SessionRecord};
use crate::addr::Side;
use crate::engine::event::Outcome;
use crate::policy::door::{EncryptedExchange, SessionEnd};
use crate::time::Timestamp;

impl SessionRecord {
    pub fn ended_by(&self) -> SessionEnd {
        match (self.outcome, self.tcp.closed_by) {
            (Outcome::Timeout, _) => SessionEnd::Timeout,
            (_, Some(Side::Client)) => SessionEnd::Client,
            (_, Some(Side::Server)) => SessionEnd::Upstream,
            (_, None) => SessionEnd::Other,
        }
    }

    /// `None` without TLS that passes through.
    pub fn encrypted_exchange(&self) -> Option<EncryptedExchange> {
        let end = self.start + self.duration;
        self.encrypted.map(|bytes| EncryptedExchange {
            is_complete: self.outcome == Outcome::TlsCompleted,
            ..exchange(bytes, self.smtp.tls_version, end)
        })
    }

    /// Whether a session under TLS shows that mail arrives: it completed, with enough bytes of both sides.
    pub fn is_encrypted_proof(&self) -> bool {
        self.encrypted_exchange().is_some_and(|exchange| exchange.is_proof(self.ended_by()))
    }
}

fn exchange(
    bytes: EncryptedBytes,
    version: Option<&'static str>,
    end: Timestamp,
) -> EncryptedExchange {
    // Round trips of the handshake (RFC 8446 §2, RFC 5246 §7.3).
    let handshake = if version == Some("TLSv1.3") { 1 } else { 2 };
    EncryptedExchange {
        client_bytes: bytes.client,
        server_bytes: bytes.server,
        replies: bytes.server_turns.saturating_sub(handshake),
        has_hello: version.is_some(),
        is_complete: false,
        client_is_due: bytes.last != Some(Side::Client),
        silence: end.since(bytes.last_at),
    }
}
