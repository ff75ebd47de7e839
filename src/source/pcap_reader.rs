//! pcap: a file header, then packets with a record header each (draft-ietf-opsawg-pcap).
//!
//! Parsed here because pcap-parser supports five of these ten magic numbers, and its reader does not report positions.

use std::io::Read;

use super::buffered_packet::{BufferedPacket, ReadError};
use super::byte_order::{ByteOrder, FieldReader};
use super::error::{FileDamage, FilePart};
use super::packet_source::MAX_PACKET;
use super::window::{ShortRead, Window};
use crate::time::Timestamp;
use crate::wire::LinkType;

/// Properties of the records, from the file header.
pub(super) struct PcapReader {
    order: ByteOrder,
    nanos_per_unit: u64,
    /// Length of a record header in bytes.
    header_len: usize,
    link: LinkType,
}

/// Properties that the magic number implies.
struct Variant {
    order: ByteOrder,
    nanos_per_unit: u64,
    file_header: usize,
    record_header: usize,
}

impl Variant {
    /// `None` if `magic` is not a pcap magic number.
    fn of(magic: [u8; 4]) -> Option<Self> {
        [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| {
            let (nanos_per_unit, file_header, record_header) = match order.u32(magic) {
                0xa1b2_c3d4 => (1000, 24, 16),
                0xa1b2_3c4d => (1, 24, 16),
                // Alexey Kuznetzov's "modified" pcap: interface, protocol and packet type follow the lengths.
                0xa1b2_cd34 => (1000, 24, 24),
                // IXIA software and hardware: the length of all records follows the header. Both in microseconds, as in
                // Wireshark.
                0x1c00_01ab | 0x1c00_01ac => (1000, 28, 16),
                _ => return None,
            };
            Some(Self { order, nanos_per_unit, file_header, record_header })
        })
    }
}

impl PcapReader {
    /// Reads the file header; `None` if it is not that of a pcap file.
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Result<Option<Self>, ReadError> {
        let magic = match window.require(4) {
            Ok(start) => start.first_chunk().copied().unwrap_or_default(),
            Err(ShortRead { failure: None, .. }) => return Ok(None),
            Err(short) => return Err(ReadError::short_within(FilePart::FileHeader)(short)),
        };
        let Some(variant) = Variant::of(magic) else {
            return Ok(None);
        };
        let header = window
            .require(variant.file_header)
            .map_err(ReadError::short_within(FilePart::FileHeader))?;
        let network = header.get(20..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        // The upper half flags a frame checksum, which the lengths in the packet headers exclude anyway.
        let link = LinkType::from_number(variant.order.u32(network) as u16);
        window.consume(variant.file_header);
        let Variant { order, nanos_per_unit, record_header, .. } = variant;
        Ok(Some(Self { order, nanos_per_unit, header_len: record_header, link }))
    }

    pub(super) fn next<R: Read>(
        &self,
        window: &mut Window<R>,
    ) -> Result<Option<BufferedPacket>, ReadError> {
        if window.is_at_end().map_err(ReadError::short_within(FilePart::PacketHeader))? {
            return Ok(None);
        }
        let offset = window.offset();
        let header = window
            .require(self.header_len)
            .map_err(ReadError::short_within(FilePart::PacketHeader))?;
        let Some((seconds, units, captured, wire_len)) = self.fields(header) else {
            return Ok(None);
        };
        if captured > MAX_PACKET {
            return Err(ReadError::Damage { offset, damage: FileDamage::PacketLength(captured) });
        }
        window.consume(self.header_len);
        window.require(captured as usize).map_err(ReadError::short_within(FilePart::Packet))?;
        let bytes = window.consume(captured as usize);
        // Cannot overflow: below 2^32 * 10^9 + 2^32 * 1000.
        let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(units) * self.nanos_per_unit;
        let at = Timestamp::from_nanos(nanos);
        let (link, wire_len) = (self.link, wire_len.max(captured));
        Ok(Some(BufferedPacket { at, link, bytes, wire_len, omitted: 0, interface: 0, note: None }))
    }

    #[inline]
    fn fields(&self, header: &[u8]) -> Option<(u32, u32, u32, u32)> {
        let mut fields = FieldReader::new(header, self.order);
        Some((fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?))
    }
}
