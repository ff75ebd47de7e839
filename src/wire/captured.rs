//! Octets of which a capture may hold only the beginning.

use super::Damage;

/// A part of a packet: what was captured of it, and how long it was on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    octets: &'a [u8],
    /// Never less than `octets` has.
    len: usize,
}

impl<'a> Captured<'a> {
    /// Some writers leave the wire length 0: it is at least what was captured.
    pub(super) fn new(octets: &'a [u8], wire_len: usize) -> Self {
        Self { octets, len: wire_len.max(octets.len()) }
    }

    pub(super) fn octets(self) -> &'a [u8] {
        self.octets
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    pub(super) fn is_cut(self) -> bool {
        self.octets.len() < self.len
    }

    /// What follows the first `count` octets.
    pub(super) fn after(self, count: usize) -> Result<Self, Damage> {
        let octets = self.octets.get(count..).ok_or_else(|| self.lacks(count))?;
        Ok(Self { octets, len: self.len - count })
    }

    /// The same with the length that a header gives it: what is captured beyond that (padding, a checksum) goes.
    pub(super) fn bounded(self, len: usize) -> Self {
        Self { octets: self.octets.get(..len).unwrap_or(self.octets), len }
    }

    /// Two octets in network order.
    pub(super) fn u16_at(self, at: usize) -> Result<u16, Damage> {
        let rest = self.octets.get(at..).and_then(|rest| rest.first_chunk());
        rest.map_or_else(|| Err(self.lacks(at + 2)), |&octets| Ok(u16::from_be_bytes(octets)))
    }

    /// Why there are no `needed` octets here: the packet was shorter than its headers want, or the capture is.
    pub(super) fn lacks(self, needed: usize) -> Damage {
        if needed > self.len { Damage::Header } else { Damage::Cut }
    }
}
