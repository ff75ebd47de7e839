//! A part of a packet of which the capture may hold only the beginning.

use super::DecodeError;

/// Captured bytes together with their length on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct CapturedSlice<'a> {
    bytes: &'a [u8],
    /// Length on the wire. Invariant: at least `bytes.len()`.
    len: usize,
}

impl<'a> CapturedSlice<'a> {
    /// Some writers leave the wire length 0, so it is raised to the captured length.
    pub(super) fn new(bytes: &'a [u8], wire_len: usize) -> Self {
        Self { bytes, len: wire_len.max(bytes.len()) }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Length on the wire.
    pub(super) fn len(self) -> usize {
        self.len
    }

    pub(super) fn is_truncated(self) -> bool {
        self.bytes.len() < self.len
    }

    /// The rest after the first `count` bytes.
    pub(super) fn after(self, count: usize) -> Result<Self, DecodeError> {
        let bytes = self.bytes.get(count..).ok_or_else(|| self.too_short_for(count))?;
        Ok(Self { bytes, len: self.len - count })
    }

    /// The same bytes with the length from a header; captured bytes beyond it (padding, a checksum) are dropped.
    pub(super) fn bounded(self, len: usize) -> Self {
        Self { bytes: self.bytes.get(..len).unwrap_or(self.bytes), len }
    }

    /// A big-endian `u16` at offset `at`.
    pub(super) fn u16_at(self, at: usize) -> Result<u16, DecodeError> {
        let rest = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        rest.map_or_else(|| Err(self.too_short_for(at + 2)), |&bytes| Ok(u16::from_be_bytes(bytes)))
    }

    /// The error for a slice without `needed` bytes: the packet itself is too short, or the capture of it is.
    pub(super) fn too_short_for(self, needed: usize) -> DecodeError {
        if needed > self.len { DecodeError::InvalidHeader } else { DecodeError::Truncated }
    }
}
