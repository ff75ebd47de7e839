//! pcap: a header, then packets, each behind a record header (draft-ietf-opsawg-pcap).
//!
//! Read by hand, because pcap-parser knows five of these ten magics, and its reader cannot say what is missing where.

use std::io::Read;

use super::MAX_PACKET;
use super::byte_order::{ByteOrder, FieldReader};
use super::error::{FileDamage, FilePart};
use super::file::{BufferedPacket, ReadError};
use super::window::{ShortRead, Window};
use crate::time::Timestamp;
use crate::wire::LinkType;

/// What the file's header said of its records.
pub(super) struct PcapReader {
    order: ByteOrder,
    nanos_per_unit: u64,
    /// Bytes of a record's header.
    header: usize,
    link: LinkType,
}

/// What follows from the magic number.
struct Variant {
    order: ByteOrder,
    nanos_per_unit: u64,
    file_header: usize,
    record_header: usize,
}

impl Variant {
    /// `None` if no pcap file starts so.
    fn of(magic: [u8; 4]) -> Option<Self> {
        [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| {
            let (nanos_per_unit, file_header, record_header) = match order.u32(magic) {
                0xa1b2_c3d4 => (1000, 24, 16),
                0xa1b2_3c4d => (1, 24, 16),
                // Alexey Kuznetzov's patch, "modified": interface, protocol and kind follow the lengths.
                0xa1b2_cd34 => (1000, 24, 24),
                // IXIA's, of software and of hardware: the length of all records follows the header. Microseconds both, as
                // Wireshark takes them.
                0x1c00_01ab | 0x1c00_01ac => (1000, 28, 16),
                _ => return None,
            };
            Some(Self { order, nanos_per_unit, file_header, record_header })
        })
    }
}

impl PcapReader {
    /// Reads the file's header; `None` if it is not that of a pcap file.
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Result<Option<Self>, ReadError> {
        let magic = match window.want(4) {
            Ok(start) => start.first_chunk().copied().unwrap_or_default(),
            Err(ShortRead { failure: None, .. }) => return Ok(None),
            Err(lack) => return Err(ReadError::within(FilePart::FileHeader)(lack)),
        };
        let Some(variant) = Variant::of(magic) else {
            return Ok(None);
        };
        let header =
            window.want(variant.file_header).map_err(ReadError::within(FilePart::FileHeader))?;
        let network = header.get(20..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        // The upper half says whether frames end with a checksum; lengths in the frames' own headers tell that too.
        let link = LinkType::from_number(variant.order.u32(network) as u16);
        window.consume(variant.file_header);
        let Variant { order, nanos_per_unit, record_header, .. } = variant;
        Ok(Some(Self { order, nanos_per_unit, header: record_header, link }))
    }

    pub(super) fn next<R: Read>(
        &self,
        window: &mut Window<R>,
    ) -> Result<Option<BufferedPacket>, ReadError> {
        if window.is_over().map_err(ReadError::within(FilePart::PacketHeader))? {
            return Ok(None);
        }
        let offset = window.offset();
        let header = window.want(self.header).map_err(ReadError::within(FilePart::PacketHeader))?;
        let Some((seconds, units, captured, wire_len)) = self.fields(header) else {
            return Ok(None);
        };
        if captured > MAX_PACKET {
            return Err(ReadError::FileDamage {
                offset,
                damage: FileDamage::PacketLength(captured),
            });
        }
        window.consume(self.header);
        window.want(captured as usize).map_err(ReadError::within(FilePart::Packet))?;
        let bytes = window.consume(captured as usize);
        // Below 2^32 * 10^9 + 2^32 * 1000, which a u64 holds.
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
