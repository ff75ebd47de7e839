//! pcapng: sections of blocks (draft-ietf-opsawg-pcapng).
//!
//! pcap-parser parses interface descriptions. Block headers and packets are parsed here, because its readers neither
//! continue after damage nor report its position, and allocate a list of options per packet. A damaged block is skipped,
//! since its length leads to the next one; an invalid block length ends the file.

use std::io::Read;
use std::ops::Range;

use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, SHB_MAGIC, SPB_MAGIC, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le,
};

use super::buffered_packet::{BufferedPacket, ReadError};
use super::byte_order::{ByteOrder, FieldReader};
use super::error::{FileDamage, FilePart, MIN_BLOCK};
use super::packet_source::MAX_PACKET;
use super::pcapng_writer::{NOTE_PREFIX, OMITTED_PREFIX};
use super::window::Window;
use crate::time::Timestamp;
use crate::wire::LinkType;

/// Minimum length of a section header block.
const MIN_SECTION: u32 = 28;
/// The obsolete Packet Block.
const PACKET_BLOCK: u32 = 2;
/// Maximum number of interfaces in a section.
const MAX_INTERFACES: usize = 1 << 16;
/// Maximum bytes of an interface description, of which pcap-parser allocates a list of options.
const MAX_DESCRIPTION: usize = 1 << 18;

/// State of the current section.
pub(super) struct PcapngReader {
    order: ByteOrder,
    /// By interface number; `None` for a damaged description.
    interfaces: Vec<Option<InterfaceDescription>>,
    /// Time of the last packet, for simple packets, which have none.
    last: Timestamp,
    skipped: Option<SkippedBlocks>,
}

/// Skipped damage: the first one, and the number of blocks.
#[derive(Clone, Copy)]
pub(super) struct SkippedBlocks {
    pub(super) offset: u64,
    pub(super) damage: FileDamage,
    pub(super) blocks: u64,
}

#[derive(Clone, Copy)]
struct InterfaceDescription {
    link: LinkType,
    /// Snap length in bytes; 0 is no limit.
    snap_len: u32,
    clock: TimestampUnit,
}

/// A packet, with offsets within its block.
struct BlockPacket {
    at: Timestamp,
    link: LinkType,
    /// Offset of its bytes.
    start: usize,
    captured: u32,
    wire_len: u32,
    omitted: u32,
    interface: u32,
    /// Range of its note.
    note: Option<Range<usize>>,
}

impl PcapngReader {
    /// `None` if the file is not pcapng. Its section header is read with the first packet.
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Option<Self> {
        let kind = window.require(4).ok()?.first_chunk()?;
        (ByteOrder::Little.u32(*kind) == SHB_MAGIC).then(|| Self {
            order: ByteOrder::Little,
            interfaces: Vec::new(),
            last: Timestamp::default(),
            skipped: None,
        })
    }

    pub(super) const fn skipped(&self) -> Option<SkippedBlocks> {
        self.skipped
    }

    pub(super) fn next<R: Read>(
        &mut self,
        window: &mut Window<R>,
    ) -> Result<Option<BufferedPacket>, ReadError> {
        while !window.is_at_end().map_err(ReadError::short_within(FilePart::Block))? {
            let offset = window.offset();
            let damaged = |damage| ReadError::Damage { offset, damage };
            let head =
                window.require(MIN_BLOCK).map_err(ReadError::short_within(FilePart::Block))?;
            let (kind, length) = self.block_header(head).map_err(damaged)?;
            let part = match kind {
                EPB_MAGIC | SPB_MAGIC | PACKET_BLOCK => FilePart::Packet,
                _ => FilePart::Block,
            };
            let block = window.require(length).map_err(ReadError::short_within(part))?;
            let block = block.get(..length).unwrap_or_default();
            let packet = match self.block(kind, block) {
                // Later blocks cannot be interpreted.
                Err(damage) if kind == SHB_MAGIC => return Err(damaged(damage)),
                Err(damage) => {
                    let skipped =
                        self.skipped.get_or_insert(SkippedBlocks { offset, damage, blocks: 0 });
                    skipped.blocks += 1;
                    None
                }
                Ok(packet) => packet,
            };
            let whole = window.consume(length);
            if let Some(packet) = packet {
                let BlockPacket { at, link, captured, wire_len, omitted, interface, .. } = packet;
                let note = packet.note.map(|note| whole.start + note.start..whole.start + note.end);
                let start = whole.start + packet.start;
                let bytes = start..start + captured as usize;
                let wire_len = wire_len.max(captured);
                return Ok(Some(BufferedPacket {
                    at,
                    link,
                    bytes,
                    wire_len,
                    omitted,
                    interface,
                    note,
                }));
            }
        }
        Ok(None)
    }

    /// Type and length of the block that starts with `head`. A section header sets the byte order.
    #[inline]
    fn block_header(&mut self, head: &[u8]) -> Result<(u32, usize), FileDamage> {
        let kind_of = |order| FieldReader::new(head, order).u32();
        let mut min = MIN_BLOCK as u32;
        if kind_of(self.order) == Some(SHB_MAGIC) {
            let mark = head.get(8..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            self.order = match ByteOrder::Little.u32(mark) {
                0x1a2b_3c4d => ByteOrder::Little,
                0x4d3c_2b1a => ByteOrder::Big,
                other => return Err(FileDamage::ByteOrder(other)),
            };
            min = MIN_SECTION;
        }
        let mut fields = FieldReader::new(head, self.order);
        let (kind, length) = fields.u32().zip(fields.u32()).ok_or(FileDamage::Short)?;
        if length < min || length > MAX_PACKET || length % 4 != 0 {
            return Err(FileDamage::BlockLength(length));
        }
        Ok((kind, length as usize))
    }

    /// Processes `block` and returns its packet, if it has one.
    fn block(&mut self, kind: u32, block: &[u8]) -> Result<Option<BlockPacket>, FileDamage> {
        // Even if the trailing length is damaged: the interface takes a number.
        let described = match kind {
            IDB_MAGIC => self.describe(block),
            _ => Ok(()),
        };
        let (first, last) =
            block.get(4..8).zip(block.last_chunk::<4>()).ok_or(FileDamage::Short)?;
        if first != last {
            let first = FieldReader::new(first, self.order).u32().unwrap_or_default();
            return Err(FileDamage::Trailer { first, last: self.order.u32(*last) });
        }
        described?;
        let packet = match kind {
            SHB_MAGIC => return self.section(block).map(|()| None),
            EPB_MAGIC | PACKET_BLOCK => self.packet(kind, block)?,
            SPB_MAGIC => self.simple_packet(block)?,
            _ => return Ok(None),
        };
        self.last = packet.at;
        Ok(Some(packet))
    }

    fn section(&mut self, block: &[u8]) -> Result<(), FileDamage> {
        let version = block.get(12..).ok_or(FileDamage::Short)?;
        match FieldReader::new(version, self.order).u16() {
            Some(1) => self.interfaces.clear(),
            other => return Err(FileDamage::Version(other.unwrap_or_default())),
        }
        Ok(())
    }

    fn describe(&mut self, block: &[u8]) -> Result<(), FileDamage> {
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(FileDamage::Interfaces(MAX_INTERFACES));
        }
        let interface = InterfaceDescription::parse(block, self.order);
        self.interfaces.push(interface);
        interface.map(|_| ()).ok_or(FileDamage::Description)
    }

    fn interface(&self, number: u32) -> Result<InterfaceDescription, FileDamage> {
        let interface = self.interfaces.get(number as usize).copied().flatten();
        interface.ok_or_else(|| {
            let known = self.interfaces.iter().flatten().count();
            FileDamage::Interface { interface: number, known }
        })
    }

    /// An Enhanced Packet Block, or the obsolete Packet Block, where the interface shares its field with a drop count.
    #[inline]
    fn packet(&self, kind: u32, block: &[u8]) -> Result<BlockPacket, FileDamage> {
        const HEADER: usize = 28;
        let mut fields = FieldReader::new(block.get(8..).unwrap_or_default(), self.order);
        let mut fields = || {
            let interface = match kind {
                PACKET_BLOCK => {
                    let interface = u32::from(fields.u16()?);
                    fields.u16()?;
                    interface
                }
                _ => fields.u32()?,
            };
            Some((interface, fields.high_low()?, fields.u32()?, fields.u32()?))
        };
        let room = block.len().checked_sub(HEADER + 4).ok_or(FileDamage::Short)?;
        let (interface, ticks, captured, wire_len) = fields().ok_or(FileDamage::Short)?;
        if captured as usize > room {
            return Err(FileDamage::Room { captured, room });
        }
        let InterfaceDescription { link, clock, .. } = self.interface(interface)?;
        let options_at = HEADER + (captured as usize).next_multiple_of(4);
        let (omitted, note) = match block.get(options_at..block.len() - 4) {
            Some(options) if !options.is_empty() => own_comments(options, self.order),
            _ => (0, None),
        };
        let note = note.map(|note| options_at + note.start..options_at + note.end);
        // Omitted bytes are among those not captured; otherwise the comment is not ours.
        let omitted = if omitted <= wire_len.saturating_sub(captured) { omitted } else { 0 };
        let at = clock.time(ticks);
        Ok(BlockPacket { at, link, start: HEADER, captured, wire_len, omitted, interface, note })
    }

    /// A Simple Packet Block: from the first interface, truncated to its snap length.
    fn simple_packet(&self, block: &[u8]) -> Result<BlockPacket, FileDamage> {
        const HEADER: usize = 12;
        let room = block.len().checked_sub(HEADER + 4).ok_or(FileDamage::Short)?;
        let fields = block.get(8..).unwrap_or_default();
        let wire_len = FieldReader::new(fields, self.order).u32().ok_or(FileDamage::Short)?;
        let InterfaceDescription { link, snap_len, .. } = self.interface(0)?;
        let captured = if snap_len == 0 { wire_len } else { wire_len.min(snap_len) };
        if captured as usize > room {
            return Err(FileDamage::Room { captured, room });
        }
        let (at, start, omitted, interface, note) = (self.last, HEADER, 0, 0, None);
        Ok(BlockPacket { at, link, start, captured, wire_len, omitted, interface, note })
    }
}

/// Parses gatepost's own comments among a packet's options: the number of omitted bytes, and the range of a note.
#[cold]
fn own_comments(options: &[u8], order: ByteOrder) -> (u32, Option<Range<usize>>) {
    const END: u16 = 0;
    const COMMENT: u16 = 1;
    let (mut omitted, mut note) = (None, None);
    let mut at = 0;
    loop {
        let rest = options.get(at..).unwrap_or_default();
        let mut fields = FieldReader::new(rest, order);
        let Some((code, length)) = fields.u16().zip(fields.u16()).filter(|(c, _)| *c != END) else {
            break;
        };
        let Some(value) = rest.get(4..4 + usize::from(length)) else { break };
        if code == COMMENT {
            if let Some(rest) = value.strip_prefix(OMITTED_PREFIX.as_bytes()) {
                omitted.get_or_insert_with(|| leading_number(rest));
            } else if value.starts_with(NOTE_PREFIX.as_bytes()) {
                note.get_or_insert(at + 4..at + 4 + value.len());
            }
        }
        at += 4 + value.len().next_multiple_of(4);
    }
    (omitted.unwrap_or(0), note)
}

fn leading_number(text: &[u8]) -> u32 {
    let digits = text.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl InterfaceDescription {
    fn parse(block: &[u8], order: ByteOrder) -> Option<Self> {
        let block = (block.len() <= MAX_DESCRIPTION).then_some(block)?;
        let parsed = match order {
            ByteOrder::Little => parse_interfacedescriptionblock_le(block),
            ByteOrder::Big => parse_interfacedescriptionblock_be(block),
        };
        let (_, description) = parsed.ok()?;
        // pcap-parser reads the offset as little-endian in every section.
        let offset = match order {
            ByteOrder::Little => description.if_tsoffset,
            ByteOrder::Big => description.if_tsoffset.swap_bytes(),
        };
        Some(Self {
            link: LinkType::from_number(description.linktype.0 as u16),
            snap_len: description.snaplen,
            clock: TimestampUnit::new(description.if_tsresol, offset),
        })
    }
}

/// Unit and offset of an interface's timestamps.
#[derive(Clone, Copy)]
struct TimestampUnit {
    unit: TickUnit,
    offset_nanos: i128,
}

#[derive(Clone, Copy)]
enum TickUnit {
    /// Nanoseconds per tick.
    Nanos(u64),
    /// Ticks per nanosecond.
    PerNano(u64),
    /// 2^n ticks per second.
    Binary(u32),
}

impl TimestampUnit {
    /// `resolution` is `if_tsresol`: a negative power of 10, or of 2 if the highest bit is set. `offset` is in seconds.
    fn new(resolution: u8, offset: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let unit = match exponent.checked_sub(9) {
            _ if resolution & 0x80 != 0 => TickUnit::Binary(exponent),
            // If a nanosecond overflows 64 bits of ticks, all times are 0.
            Some(finer) => TickUnit::PerNano(10_u64.checked_pow(finer).unwrap_or(u64::MAX)),
            None => TickUnit::Nanos(10_u64.pow(9 - exponent)),
        };
        Self { unit, offset_nanos: i128::from(offset) * 1_000_000_000 }
    }

    /// Clamps to the range of [`Timestamp`].
    #[inline]
    fn time(self, ticks: u64) -> Timestamp {
        let nanos = match self.unit {
            TickUnit::Nanos(nanos) => i128::from(ticks) * i128::from(nanos),
            TickUnit::PerNano(ticks_per_nano) => i128::from(ticks / ticks_per_nano),
            TickUnit::Binary(exponent) => (i128::from(ticks) * 1_000_000_000) >> exponent,
        };
        let nanos = (nanos + self.offset_nanos).clamp(0, i128::from(u64::MAX));
        Timestamp::from_nanos(nanos as u64)
    }
}
