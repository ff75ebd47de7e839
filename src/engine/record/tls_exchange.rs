//! TLS that passes through: whether its handshake completed, from the records of both sides, without their keys.
//!
//! A record has its type and length in plaintext (RFC 8446 §5.1). The server's answer to protected records of the client proves
//! that it accepted the client's Finished: in TLS 1.3 with tickets or data, before with data. Before TLS 1.3 both Finished are
//! visible too, as handshake records after ChangeCipherSpec (RFC 5246 §7.4.9). An alert is recognised by its length. Replies
//! and the client's verification after the handshake are not visible.

use crate::addr::Side;

/// Length of a protected alert in TLS 1.3: two bytes, the type, and a tag of 16. A shorter record cannot be data of SMTP.
const ALERT: usize = 2 + 1 + 16;
const HEADER: usize = 5;
/// RFC 5246 §6.2.3: the longest protected record.
const MAX_RECORD: usize = (1 << 14) + 2048;
/// Bytes of one side after which a handshake is not followed any more.
const MAX_HANDSHAKE: u64 = 64 * 1024;
const TLS_1_3: &str = "TLSv1.3";

/// What is known of a session whose TLS passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsResult {
    Completed,
    Failed,
}

/// The records of both sides since STARTTLS.
#[derive(Debug, Default)]
pub(super) struct TlsExchange {
    /// By [`Side::index`].
    sides: [RecordStream; 2],
    /// Protected records of the client that are no alerts. In TLS 1.3 the first is its Finished.
    client_records: u32,
    /// The client ended TLS, or rejected the server, after its first protected record.
    client_alerted: bool,
    /// The server sent protected records other than an alert after those of the client.
    answered: bool,
    /// Bytes of the server after those of the client, of unknown records.
    unseen_answer: u64,
    failed: bool,
    /// The beginning was missed.
    is_partial: bool,
}

/// The records of one side.
#[derive(Debug, Default)]
struct RecordStream {
    bytes: u64,
    /// A header that is not complete.
    header: [u8; HEADER],
    header_length: usize,
    /// Bytes of the current record's body that follow.
    left: usize,
    /// The body is a plaintext alert.
    in_alert: bool,
    change_cipher_spec: bool,
    finished: bool,
    /// Records begin at an unknown position.
    lost: bool,
}

/// What the next bytes of one side begin with.
enum Piece {
    Record { kind: u8, length: usize },
    AlertLevel(u8),
    NotTls,
}

impl TlsExchange {
    /// TLS is found within a dialogue of which bytes are missing. `left`: those of each side's current record, by
    /// [`Side::index`].
    pub(super) fn midway(left: [usize; 2]) -> Self {
        let sides = left.map(|left| RecordStream { left, ..RecordStream::default() });
        Self { sides, is_partial: true, ..Self::default() }
    }

    /// The next bytes of `side`.
    pub(super) fn on_bytes(&mut self, side: Side, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(stream) = self.sides.get_mut(side.index()).filter(|_| !rest.is_empty()) {
            if stream.lost {
                return self.on_unseen(side, rest.len() as u64);
            }
            let piece = stream.next(&mut rest);
            match piece {
                None => {}
                Some(Piece::Record { kind, length }) => self.on_record(side, kind, length),
                Some(Piece::AlertLevel(level)) => self.failed |= level == 2 && !self.answered,
                Some(Piece::NotTls) => self.failed |= !self.is_partial && !self.answered,
            }
        }
    }

    /// `count` bytes of `side` passed unseen.
    pub(super) fn on_unseen(&mut self, side: Side, count: u64) {
        let Some(stream) = self.sides.get_mut(side.index()) else { return };
        stream.skip(count);
        if stream.lost && side == Side::Server && self.client_records > 0 {
            self.unseen_answer += count;
            self.answered |= self.unseen_answer > (HEADER + ALERT) as u64;
        }
    }

    fn on_record(&mut self, side: Side, kind: u8, length: usize) {
        const CHANGE_CIPHER_SPEC: u8 = 20;
        const HANDSHAKE: u8 = 22;
        const APPLICATION_DATA: u8 = 23;
        let Some(stream) = self.sides.get_mut(side.index()) else { return };
        match (kind, side) {
            (CHANGE_CIPHER_SPEC, _) => stream.change_cipher_spec = true,
            (HANDSHAKE, _) => stream.finished |= stream.change_cipher_spec,
            (APPLICATION_DATA, Side::Client) if length > ALERT => {
                self.client_records = self.client_records.saturating_add(1);
            }
            // In place of its Finished.
            (APPLICATION_DATA, Side::Client) if self.client_records == 0 => {
                self.failed |= !self.is_partial;
            }
            (APPLICATION_DATA, Side::Client) => self.client_alerted = true,
            (APPLICATION_DATA, Side::Server) if length > ALERT => {
                self.answered |= self.client_records > 0;
            }
            // In place of its answer, unless it only answers the client's.
            (APPLICATION_DATA, Side::Server) => {
                self.failed |= !self.answered && !self.client_alerted && !self.is_partial;
            }
            _ => {}
        }
    }

    /// `version`: of the ServerHello, if it was seen.
    fn is_complete(&self, version: Option<&str>) -> bool {
        let [client, server] = &self.sides;
        let is_older = version.is_some_and(|version| version != TLS_1_3);
        self.answered || is_older && client.finished && server.finished
    }

    /// Further bytes change nothing.
    pub(super) fn is_decided(&self, version: Option<&str>) -> bool {
        self.failed || self.is_complete(version) || self.is_long()
    }

    fn is_long(&self) -> bool {
        self.sides.iter().any(|stream| stream.bytes >= MAX_HANDSHAKE)
    }

    /// The result of a session that `closed_by` closed first; `None` if it is not known.
    pub(super) fn result(&self, version: Option<&str>, closed_by: Side) -> Option<TlsResult> {
        if self.failed {
            return Some(TlsResult::Failed);
        }
        if self.is_complete(version) {
            return Some(TlsResult::Completed);
        }
        let is_lost =
            self.is_partial || self.is_long() || self.sides.iter().any(|stream| stream.lost);
        // A client that leaves after its Finished, as a test of the certificate does. A server without tickets has not answered.
        let client_left = closed_by == Side::Client && self.client_records == 1;
        (!is_lost && !client_left).then_some(TlsResult::Failed)
    }
}

impl RecordStream {
    /// Takes bytes from the front of `rest`, which is not empty.
    fn next(&mut self, rest: &mut &[u8]) -> Option<Piece> {
        if self.left > 0 {
            let count = self.left.min(rest.len());
            let level = rest.first().copied().filter(|_| std::mem::take(&mut self.in_alert));
            self.skip(count as u64);
            *rest = rest.get(count..).unwrap_or_default();
            return level.map(Piece::AlertLevel);
        }
        let (first, after) = rest.split_first()?;
        *rest = after;
        if let Some(place) = self.header.get_mut(self.header_length) {
            *place = *first;
        }
        self.header_length += 1;
        let is_first = self.bytes == self.header_length as u64 - 1;
        self.bytes += 1;
        let [kind, major, _, high, low] = self.header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let is_tls = matches!(kind, 20..=24)
            && (self.header_length < 2 || major == 3)
            && (self.header_length < HEADER || length <= MAX_RECORD);
        if !is_tls {
            self.lost = true;
            // A hello in the form of SSL 2 has the highest bit set (RFC 5246 §E.2).
            return (is_first && kind < 0x80).then_some(Piece::NotTls);
        }
        if self.header_length < HEADER {
            return None;
        }
        (self.header_length, self.left) = (0, length);
        self.in_alert = kind == 21 && length == 2;
        Some(Piece::Record { kind, length })
    }

    fn skip(&mut self, count: u64) {
        self.bytes += count;
        let within = usize::try_from(count).ok().and_then(|count| self.left.checked_sub(count));
        match within {
            Some(left) if self.header_length == 0 => self.left = left,
            _ => (self.left, self.lost) = (0, true),
        }
    }
}
