//! One direction of a flow in sequence space.
//!
//! Positions are 64-bit byte offsets from the first known byte and do not wrap: a sequence number maps to the nearest
//! position to the next expected byte, so the length of a flow is unlimited.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// The largest window that TCP can have (RFC 7323 §2.3): nothing valid lies further ahead.
pub(super) const WINDOW: i64 = 1 << 30;

/// Without a SYN, bytes before the first segment seen are accepted up to this distance (bytes).
const MAX_LATE: i64 = 1 << 20;

/// Memory in bytes of a held piece besides its payload, and of the first one (a tree node) in addition.
const PIECE_OVERHEAD: usize = 128;
const FIRST_PIECE_OVERHEAD: usize = 512;
/// Upper bound of the memory overhead of a segment held in one piece.
pub(super) const HOLD_OVERHEAD: usize = PIECE_OVERHEAD + FIRST_PIECE_OVERHEAD;

/// Bytes held back, until the bytes before them or the peer's bytes that they acknowledge arrive.
#[derive(Debug)]
pub(super) struct HeldPiece {
    /// Bytes before `bytes` that the source skipped on purpose.
    pub(super) omitted: u32,
    pub(super) bytes: Box<[u8]>,
    /// Bytes after `bytes` that were not captured.
    pub(super) missing: u32,
    /// The peer's bytes before this position are delivered first.
    pub(super) ack_position: i64,
    /// Arrival number within the flow.
    pub(super) arrived: u64,
    pub(super) at: Timestamp,
}

impl HeldPiece {
    pub(super) fn len(&self) -> i64 {
        i64::from(self.omitted) + position_of(self.bytes.len()) + i64::from(self.missing)
    }
}

/// The FIN of this side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fin {
    pub(super) position: i64,
    pub(super) ack_position: i64,
    pub(super) arrived: u64,
    pub(super) at: Timestamp,
}

/// How well the first byte's sequence number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Unknown,
    /// From a segment that may not be the first: earlier ones may follow, so nothing is delivered yet.
    Guess,
    Known,
}

#[derive(Debug)]
pub(super) struct HalfStream {
    /// Sequence number of position 0.
    origin: u32,
    pub(super) anchor: Anchor,
    /// Position of the first byte. Not 0 if the guess was too high.
    pub(super) start: i64,
    /// The next byte to deliver: all before it are delivered, as data, as omitted or as gaps.
    pub(super) next: i64,
    /// After the last byte seen.
    pub(super) end: i64,
    /// Highest position acknowledged by the peer; `i64::MIN` before its first ACK. A FIN occupies one position.
    pub(super) acked: i64,
    pub(super) fin: Option<Fin>,
    /// The end of this side is delivered.
    pub(super) closed: bool,
    /// The last advertised window, not scaled.
    pub(super) window: u16,
    /// By position. Invariant: pieces are disjoint.
    held: BTreeMap<i64, HeldPiece>,
    held_bytes: usize,
}

impl Default for HalfStream {
    fn default() -> Self {
        Self {
            origin: 0,
            anchor: Anchor::Unknown,
            start: 0,
            next: 0,
            end: 0,
            acked: i64::MIN,
            fin: None,
            closed: false,
            window: u16::MAX,
            held: BTreeMap::new(),
            held_bytes: 0,
        }
    }
}

impl HalfStream {
    /// The position of `seq`, within 2^31 of the next byte.
    pub(super) const fn position(&self, seq: u32) -> i64 {
        let next = self.origin.wrapping_add(self.next as u32);
        self.next + (seq.wrapping_sub(next) as i32) as i64
    }

    /// Sets the sequence number of the first byte.
    pub(super) fn set_start(&mut self, seq: u32) {
        match self.anchor {
            Anchor::Unknown => self.origin = seq,
            Anchor::Guess => {
                self.start = self.position(seq);
                self.next = self.start;
                self.end = self.end.max(self.start);
            }
            Anchor::Known => return,
        }
        self.anchor = Anchor::Known;
    }

    /// Guesses the first byte from a byte at `seq` that was sent or is expected next.
    pub(super) fn guess_start(&mut self, seq: u32) {
        match self.anchor {
            Anchor::Unknown => {
                self.origin = seq;
                self.anchor = Anchor::Guess;
            }
            Anchor::Guess => {
                let position = self.position(seq);
                if (self.start - MAX_LATE..self.start).contains(&position) {
                    self.start = position;
                    self.next = position;
                }
            }
            Anchor::Known => {}
        }
    }

    /// Makes a guessed start final.
    pub(super) fn fix_start(&mut self) {
        if self.anchor == Anchor::Guess {
            self.anchor = Anchor::Known;
        }
    }

    /// Highest acknowledged position without the FIN.
    pub(super) fn acked_bytes(&self) -> i64 {
        self.fin.map_or(self.acked, |fin| self.acked.min(fin.position))
    }

    /// Whether the peer acknowledged bytes that are not delivered, or the start is a guess.
    pub(super) fn has_acked_gap(&self) -> bool {
        self.anchor == Anchor::Guess || self.acked_bytes() > self.next
    }

    pub(super) fn is_anchored(&self) -> bool {
        self.anchor == Anchor::Known
    }

    /// Whether the bytes before `ack_position` are delivered.
    pub(super) fn has_delivered(&self, ack_position: i64) -> bool {
        ack_position == i64::MIN
            || self.is_anchored()
                && self.next >= self.fin.map_or(ack_position, |fin| ack_position.min(fin.position))
    }

    /// Whether bytes or the end are known and not delivered.
    pub(super) fn has_undelivered(&self) -> bool {
        !self.held.is_empty() || self.fin.is_some() && !self.closed
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Memory of the held pieces in bytes, overhead included.
    pub(super) fn cost(&self) -> usize {
        match self.held.len() {
            0 => 0,
            pieces => self.held_bytes + pieces * PIECE_OVERHEAD + FIRST_PIECE_OVERHEAD,
        }
    }

    /// Memory that holding another piece of `bytes` bytes would add.
    pub(super) fn cost_to_hold(&self, bytes: usize) -> usize {
        bytes + PIECE_OVERHEAD + if self.held.is_empty() { FIRST_PIECE_OVERHEAD } else { 0 }
    }

    pub(super) fn front(&self) -> Option<(i64, &HeldPiece)> {
        self.held.first_key_value().map(|(&position, piece)| (position, piece))
    }

    pub(super) fn pop_front(&mut self) -> Option<(i64, HeldPiece)> {
        let (position, piece) = self.held.pop_first()?;
        self.held_bytes -= piece.bytes.len();
        Some((position, piece))
    }

    /// Holds a piece. Its range must come from [`Self::missing_ranges`].
    pub(super) fn hold(&mut self, position: i64, piece: HeldPiece) {
        self.held_bytes += piece.bytes.len();
        if let Some(previous) = self.held.insert(position, piece) {
            self.held_bytes -= previous.bytes.len();
        }
    }

    /// Held pieces that may overlap `from..to`.
    fn overlapping(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, &HeldPiece)> {
        let first = self.held.range(..=from).next_back().map_or(from, |(&position, _)| position);
        self.held.range(first..to.max(first)).map(|(&position, piece)| (position, piece))
    }

    /// The parts of `from..to` that are neither delivered nor held.
    pub(super) fn missing_ranges(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut at = from.max(self.next);
        let mut parts = Vec::new();
        for (position, piece) in self.overlapping(at, to) {
            if position > at {
                parts.push((at, position));
            }
            at = at.max(position + piece.len());
        }
        if to > at {
            parts.push((at, to));
        }
        parts
    }

    /// Whether `bytes` at `position` differ from held bytes of the same positions.
    pub(super) fn conflicts(&self, position: i64, bytes: &[u8]) -> bool {
        let to = position + position_of(bytes.len());
        self.overlapping(position, to).any(|(held, piece)| {
            let held = held + i64::from(piece.omitted);
            let (from, to) = (position.max(held), to.min(held + position_of(piece.bytes.len())));
            from < to
                && slice_at(bytes, position, from, to) != slice_at(&piece.bytes, held, from, to)
        })
    }

    /// The contiguous held bytes from the start, up to the piece that reaches `most` bytes.
    pub(super) fn first_bytes(&self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut expected = self.start;
        for (&position, piece) in &self.held {
            if position > expected || piece.omitted > 0 || bytes.len() >= most {
                break;
            }
            bytes.extend_from_slice(&piece.bytes);
            if piece.missing > 0 {
                break;
            }
            expected = position + piece.len();
        }
        bytes
    }
}

/// The slice `from..to` of `bytes`, which start at `position`; shorter if not all was captured.
pub(super) fn slice_at(bytes: &[u8], position: i64, from: i64, to: i64) -> &[u8] {
    let index = |at: i64| usize::try_from(at - position).unwrap_or(0).min(bytes.len());
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

/// A length as a difference of positions.
pub(super) fn position_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
