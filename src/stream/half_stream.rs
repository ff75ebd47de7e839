//! One direction of a flow in sequence space.
//!
//! Positions count bytes from the first one known, without wrapping: sequence numbers become positions near the next
//! byte that is due, so a flow may say any number of bytes.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// The largest window that TCP can have (RFC 7323 §2.3): nothing valid lies further ahead.
pub(super) const WINDOW: i64 = 1 << 30;

/// Bytes of a flow's beginning may come so far late in a capture that lacks the SYN.
const LATE: i64 = 1 << 20;

/// What a piece takes besides its bytes, and what the first one takes besides (a node of the tree).
const PIECE: usize = 128;
const FIRST_PIECE: usize = 512;
/// What holding a segment costs at most besides its bytes, if it is held in one piece.
pub(super) const OVERHEAD: usize = PIECE + FIRST_PIECE;

/// Bytes that wait, for others before them or for those that they answer.
#[derive(Debug)]
pub(super) struct Piece {
    /// So many come first that the source left out.
    pub(super) omitted: u32,
    pub(super) bytes: Box<[u8]>,
    /// So many follow that were not captured.
    pub(super) missing: u32,
    /// The peer's bytes before this position come first.
    pub(super) need: i64,
    /// By number of the flow's waiting pieces.
    pub(super) arrived: u64,
    pub(super) at: Timestamp,
}

impl Piece {
    pub(super) fn len(&self) -> i64 {
        i64::from(self.omitted) + position_of(self.bytes.len()) + i64::from(self.missing)
    }
}

/// The end of what this side says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fin {
    pub(super) position: i64,
    pub(super) need: i64,
    pub(super) arrived: u64,
    pub(super) at: Timestamp,
}

/// How well the first byte's sequence number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Unknown,
    /// Seen from a segment that may not be the first: lower ones may come, so nothing is told yet.
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
    /// The next byte to tell: all before it are told, as bytes, as left out or as gaps.
    pub(super) next: i64,
    /// Behind the last byte seen.
    pub(super) end: i64,
    /// The peer has all before it; `i64::MIN` before its first ACK. A FIN counts as one.
    pub(super) acked: i64,
    pub(super) fin: Option<Fin>,
    /// Its end was told.
    pub(super) closed: bool,
    /// As last advertised, not scaled.
    pub(super) window: u16,
    /// By position, disjoint.
    held: BTreeMap<i64, Piece>,
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
    /// The position of `seq`: the one within 2^31 of the next byte.
    pub(super) const fn position(&self, seq: u32) -> i64 {
        let next = self.origin.wrapping_add(self.next as u32);
        self.next + (seq.wrapping_sub(next) as i32) as i64
    }

    /// The first byte has `seq`, surely.
    pub(super) fn anchor(&mut self, seq: u32) {
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

    /// An byte at `seq` was sent, or comes next.
    pub(super) fn guess(&mut self, seq: u32) {
        match self.anchor {
            Anchor::Unknown => {
                self.origin = seq;
                self.anchor = Anchor::Guess;
            }
            Anchor::Guess => {
                let position = self.position(seq);
                if (self.start - LATE..self.start).contains(&position) {
                    self.start = position;
                    self.next = position;
                }
            }
            Anchor::Known => {}
        }
    }

    /// Nothing lower comes.
    pub(super) fn settle(&mut self) {
        if self.anchor == Anchor::Guess {
            self.anchor = Anchor::Known;
        }
    }

    /// How far the peer has it, the FIN not counted.
    pub(super) fn acked_bytes(&self) -> i64 {
        self.fin.map_or(self.acked, |fin| self.acked.min(fin.position))
    }

    /// The peer has bytes that were not told, or we do not know where they begin.
    pub(super) fn behind(&self) -> bool {
        self.anchor == Anchor::Guess || self.acked_bytes() > self.next
    }

    pub(super) fn settled(&self) -> bool {
        self.anchor == Anchor::Known
    }

    /// Its bytes before `need` were told.
    pub(super) fn reached(&self, need: i64) -> bool {
        need == i64::MIN
            || self.settled() && self.next >= self.fin.map_or(need, |fin| need.min(fin.position))
    }

    /// Something waits: bytes, or the end.
    pub(super) fn waits(&self) -> bool {
        !self.held.is_empty() || self.fin.is_some() && !self.closed
    }

    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is held, in bytes, with what stands around them.
    pub(super) fn cost(&self) -> usize {
        match self.held.len() {
            0 => 0,
            pieces => self.held_bytes + pieces * PIECE + FIRST_PIECE,
        }
    }

    /// What holding a further piece would add.
    pub(super) fn cost_of(&self, bytes: usize) -> usize {
        bytes + PIECE + if self.held.is_empty() { FIRST_PIECE } else { 0 }
    }

    pub(super) fn front(&self) -> Option<(i64, &Piece)> {
        self.held.first_key_value().map(|(&position, piece)| (position, piece))
    }

    pub(super) fn take_front(&mut self) -> Option<(i64, Piece)> {
        let (position, piece) = self.held.pop_first()?;
        self.held_bytes -= piece.bytes.len();
        Some((position, piece))
    }

    /// Holds a piece where nothing is held yet: [`Self::unseen`] says where.
    pub(super) fn hold(&mut self, position: i64, piece: Piece) {
        self.held_bytes += piece.bytes.len();
        if let Some(previous) = self.held.insert(position, piece) {
            self.held_bytes -= previous.bytes.len();
        }
    }

    /// Held pieces that begin before `to` and may reach beyond `from`.
    fn around(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, &Piece)> {
        let first = self.held.range(..=from).next_back().map_or(from, |(&position, _)| position);
        self.held.range(first..to.max(first)).map(|(&position, piece)| (position, piece))
    }

    /// The parts of `from..to` that were neither told nor are held.
    pub(super) fn unseen(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut at = from.max(self.next);
        let mut parts = Vec::new();
        for (position, piece) in self.around(at, to) {
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

    /// Whether `bytes`, from `position`, differ from what is held of them.
    pub(super) fn conflicts(&self, position: i64, bytes: &[u8]) -> bool {
        let to = position + position_of(bytes.len());
        self.around(position, to).any(|(held, piece)| {
            let held = held + i64::from(piece.omitted);
            let (from, to) = (position.max(held), to.min(held + position_of(piece.bytes.len())));
            from < to && part(bytes, position, from, to) != part(&piece.bytes, held, from, to)
        })
    }

    /// The bytes held from the first one on without a hole, at most about `most`.
    pub(super) fn first_bytes(&self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut due = self.start;
        for (&position, piece) in &self.held {
            if position > due || piece.omitted > 0 || bytes.len() >= most {
                break;
            }
            bytes.extend_from_slice(&piece.bytes);
            if piece.missing > 0 {
                break;
            }
            due = position + piece.len();
        }
        bytes
    }
}

/// What of `bytes`, which begin at `position`, stands at `from..to`; less if it was not captured.
pub(super) fn part(bytes: &[u8], position: i64, from: i64, to: i64) -> &[u8] {
    let index = |at: i64| usize::try_from(at - position).unwrap_or(0).min(bytes.len());
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

/// A length as a distance between positions.
pub(super) fn position_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
