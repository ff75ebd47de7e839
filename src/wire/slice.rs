//! Bytes of which a capture may hold only the beginning.

use super::DecodeError;

/// A part of a packet: what was captured of it, and how long it was on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct CapturedSlice<'a> {
    bytes: &'a [u8],
    /// Never less than `bytes` has.
    len: usize,
}

impl<'a> CapturedSlice<'a> {
    /// Some writers leave the wire length 0: it is at least what was captured.
    pub(super) fn new(bytes: &'a [u8], wire_len: usize) -> Self {
        Self { bytes, len: wire_len.max(bytes.len()) }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    pub(super) fn is_cut(self) -> bool {
        self.bytes.len() < self.len
    }

    /// What follows the first `count` bytes.
    pub(super) fn after(self, count: usize) -> Result<Self, DecodeError> {
        let bytes = self.bytes.get(count..).ok_or_else(|| self.lacks(count))?;
        Ok(Self { bytes, len: self.len - count })
    }

    /// The same with the length that a header gives it: what is captured beyond that (padding, a checksum) goes.
    pub(super) fn bounded(self, len: usize) -> Self {
        Self { bytes: self.bytes.get(..len).unwrap_or(self.bytes), len }
    }

    /// Two bytes in network order.
    pub(super) fn u16_at(self, at: usize) -> Result<u16, DecodeError> {
        let rest = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        rest.map_or_else(|| Err(self.lacks(at + 2)), |&bytes| Ok(u16::from_be_bytes(bytes)))
    }

    /// Why there are no `needed` bytes here: the packet was shorter than its headers want, or the capture is.
    pub(super) fn lacks(self, needed: usize) -> DecodeError {
        if needed > self.len { DecodeError::InvalidHeader } else { DecodeError::Truncated }
    }
}
