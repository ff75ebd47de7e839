//! Numbers in the byte order of whoever wrote the file.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) const fn u16(self, octets: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(octets),
            Self::Big => u16::from_be_bytes(octets),
        }
    }

    pub(super) const fn u32(self, octets: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(octets),
            Self::Big => u32::from_be_bytes(octets),
        }
    }
}

/// Reads one field after another; `None` where the octets end.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    order: Order,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(octets: &'a [u8], order: Order) -> Self {
        Self { rest: octets, order }
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.octets().map(|two| self.order.u16(two))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.octets().map(|four| self.order.u32(four))
    }

    /// Two 32-bit numbers, the high one first in either byte order.
    pub(super) fn high_low(&mut self) -> Option<u64> {
        let (high, low) = (self.u32()?, self.u32()?);
        Some(u64::from(high) << 32 | u64::from(low))
    }

    fn octets<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }
}
