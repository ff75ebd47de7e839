//! pcapng: sections of blocks (draft-ietf-opsawg-pcapng).
//!
//! pcap-parser reads the interface descriptions; frames and packets are read by hand, because its readers cannot go on
//! after damage nor say where it is, and make a list of options for each packet that has one. FileDamage within a block is
//! stepped over, since the next block begins where this one claims to end; a length that cannot be ends the file.

use std::io::Read;
use std::ops::Range;

use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, SHB_MAGIC, SPB_MAGIC, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le,
};

use super::MAX_PACKET;
use super::byte_order::{ByteOrder, FieldReader};
use super::error::{FileDamage, FilePart};
use super::file::{BufferedPacket, ReadError};
use super::pcapng_writer::{NOTE, OMITTED};
use super::window::Window;
use crate::time::Timestamp;
use crate::wire::LinkType;

/// The least that a block has: its kind, its length, and its length again. A section's byte order is known after as many.
pub(super) const LEAST: usize = 12;
const SECTION_LEAST: u32 = 28;
/// The obsolete Packet Block.
const PACKET_BLOCK: u32 = 2;
/// Interfaces of a section that are remembered.
const MAX_INTERFACES: usize = 1 << 16;
/// Bytes of an interface description; pcap-parser makes a list of its options.
const MAX_DESCRIPTION: usize = 1 << 18;

/// The section that is being read.
pub(super) struct PcapngReader {
    order: ByteOrder,
    /// `None` for one whose description is damaged, so that those after it keep their numbers.
    interfaces: Vec<Option<Interface>>,
    /// When the last packet was captured: simple packets do not say when they were.
    last: Timestamp,
    skipped: Option<SkippedBlocks>,
}

/// FileDamage that was stepped over: the first, and how many blocks.
#[derive(Clone, Copy)]
pub(super) struct SkippedBlocks {
    pub(super) offset: u64,
    pub(super) damage: FileDamage,
    pub(super) blocks: u64,
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    /// 0: none.
    snap: u32,
    clock: Clock,
}

/// A packet within its block.
struct Inside {
    at: Timestamp,
    link: LinkType,
    /// Where its bytes begin in the block.
    start: usize,
    captured: u32,
    wire_len: u32,
    omitted: u32,
    interface: u32,
    /// Where a note stands in the block.
    note: Option<Range<usize>>,
}

impl PcapngReader {
    /// `None` if this is not how a pcapng file begins. Its first section is read with the first packet.
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Option<Self> {
        let kind = window.want(4).ok()?.first_chunk()?;
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
        while !window.is_over().map_err(ReadError::within(FilePart::Block))? {
            let offset = window.offset();
            let stop = |damage| ReadError::FileDamage { offset, damage };
            let head = window.want(LEAST).map_err(ReadError::within(FilePart::Block))?;
            let (kind, length) = self.frame(head).map_err(stop)?;
            let part = match kind {
                EPB_MAGIC | SPB_MAGIC | PACKET_BLOCK => FilePart::Packet,
                _ => FilePart::Block,
            };
            let block = window.want(length).map_err(ReadError::within(part))?;
            let block = block.get(..length).unwrap_or_default();
            let inside = match self.block(kind, block) {
                // What follows cannot be understood.
                Err(damage) if kind == SHB_MAGIC => return Err(stop(damage)),
                Err(damage) => {
                    let skipped =
                        self.skipped.get_or_insert(SkippedBlocks { offset, damage, blocks: 0 });
                    skipped.blocks += 1;
                    None
                }
                Ok(inside) => inside,
            };
            let whole = window.consume(length);
            if let Some(inside) = inside {
                let Inside { at, link, captured, wire_len, omitted, interface, .. } = inside;
                let note = inside.note.map(|note| whole.start + note.start..whole.start + note.end);
                let start = whole.start + inside.start;
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

    /// Kind and length of the block that begins with `head`; a section's header brings its byte order.
    #[inline]
    fn frame(&mut self, head: &[u8]) -> Result<(u32, usize), FileDamage> {
        let kind_of = |order| FieldReader::new(head, order).u32();
        let mut least = LEAST as u32;
        if kind_of(self.order) == Some(SHB_MAGIC) {
            let mark = head.get(8..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
            self.order = match ByteOrder::Little.u32(mark) {
                0x1a2b_3c4d => ByteOrder::Little,
                0x4d3c_2b1a => ByteOrder::Big,
                other => return Err(FileDamage::ByteOrder(other)),
            };
            least = SECTION_LEAST;
        }
        let mut fields = FieldReader::new(head, self.order);
        let (kind, length) = fields.u32().zip(fields.u32()).ok_or(FileDamage::Short)?;
        if length < least || length > MAX_PACKET || length % 4 != 0 {
            return Err(FileDamage::BlockLength(length));
        }
        Ok((kind, length as usize))
    }

    /// Takes note of `block`, and finds the packet in it.
    fn block(&mut self, kind: u32, block: &[u8]) -> Result<Option<Inside>, FileDamage> {
        // Also if its frame is damaged: the interface counts.
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
        let interface = Interface::parse(block, self.order);
        self.interfaces.push(interface);
        interface.map(|_| ()).ok_or(FileDamage::Description)
    }

    fn interface(&self, number: u32) -> Result<Interface, FileDamage> {
        let interface = self.interfaces.get(number as usize).copied().flatten();
        interface.ok_or_else(|| {
            let known = self.interfaces.iter().flatten().count();
            FileDamage::Interface { interface: number, known }
        })
    }

    /// An Enhanced Packet Block, or the one that it made obsolete: there the interface shares its field with a count of
    /// losses.
    #[inline]
    fn packet(&self, kind: u32, block: &[u8]) -> Result<Inside, FileDamage> {
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
        let Interface { link, clock, .. } = self.interface(interface)?;
        let options_at = HEADER + (captured as usize).next_multiple_of(4);
        let (omitted, note) = match block.get(options_at..block.len() - 4) {
            Some(options) if !options.is_empty() => comments(options, self.order),
            _ => (0, None),
        };
        let note = note.map(|note| options_at + note.start..options_at + note.end);
        // What was left out is a part of what was not captured, or somebody else wrote that.
        let omitted = if omitted <= wire_len.saturating_sub(captured) { omitted } else { 0 };
        let at = clock.time(ticks);
        Ok(Inside { at, link, start: HEADER, captured, wire_len, omitted, interface, note })
    }

    /// A Simple Packet Block: of the first interface, cut to its snap length.
    fn simple_packet(&self, block: &[u8]) -> Result<Inside, FileDamage> {
        const HEADER: usize = 12;
        let room = block.len().checked_sub(HEADER + 4).ok_or(FileDamage::Short)?;
        let fields = block.get(8..).unwrap_or_default();
        let wire_len = FieldReader::new(fields, self.order).u32().ok_or(FileDamage::Short)?;
        let Interface { link, snap, .. } = self.interface(0)?;
        let captured = if snap == 0 { wire_len } else { wire_len.min(snap) };
        if captured as usize > room {
            return Err(FileDamage::Room { captured, room });
        }
        let (at, start, omitted, interface, note) = (self.last, HEADER, 0, 0, None);
        Ok(Inside { at, link, start, captured, wire_len, omitted, interface, note })
    }
}

/// What comments of ours among a packet's options say: how much was left out on purpose, and where a note stands.
#[cold]
fn comments(options: &[u8], order: ByteOrder) -> (u32, Option<Range<usize>>) {
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
            if let Some(rest) = value.strip_prefix(OMITTED.as_bytes()) {
                omitted.get_or_insert_with(|| leading_number(rest));
            } else if let Some(text) = value.strip_prefix(NOTE.as_bytes()) {
                let end = at + 4 + value.len();
                note.get_or_insert(end - text.len()..end);
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

impl Interface {
    fn parse(block: &[u8], order: ByteOrder) -> Option<Self> {
        let block = (block.len() <= MAX_DESCRIPTION).then_some(block)?;
        let parsed = match order {
            ByteOrder::Little => parse_interfacedescriptionblock_le(block),
            ByteOrder::Big => parse_interfacedescriptionblock_be(block),
        };
        let (_, description) = parsed.ok()?;
        // pcap-parser takes the offset for little-endian always.
        let offset = match order {
            ByteOrder::Little => description.if_tsoffset,
            ByteOrder::Big => description.if_tsoffset.swap_bytes(),
        };
        Some(Self {
            link: LinkType::from_number(description.linktype.0 as u16),
            snap: description.snaplen,
            clock: Clock::new(description.if_tsresol, offset),
        })
    }
}

/// How an interface counts time.
#[derive(Clone, Copy)]
struct Clock {
    unit: Unit,
    offset_nanos: i128,
}

#[derive(Clone, Copy)]
enum Unit {
    /// So many nanoseconds.
    Nanos(u64),
    /// So many make a nanosecond.
    PerNano(u64),
    /// 2 to the power of so many make a second.
    Binary(u32),
}

impl Clock {
    /// `resolution` as in `if_tsresol`: a negative power of 10, or of 2 if the highest bit is set. `offset` in seconds.
    fn new(resolution: u8, offset: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let unit = match exponent.checked_sub(9) {
            _ if resolution & 0x80 != 0 => Unit::Binary(exponent),
            // Units too short for 64 bits of them to make a nanosecond: the times are all 0.
            Some(finer) => Unit::PerNano(10_u64.checked_pow(finer).unwrap_or(u64::MAX)),
            None => Unit::Nanos(10_u64.pow(9 - exponent)),
        };
        Self { unit, offset_nanos: i128::from(offset) * 1_000_000_000 }
    }

    /// Times before the epoch become the epoch, those after a timestamp's end that end.
    #[inline]
    fn time(self, ticks: u64) -> Timestamp {
        let nanos = match self.unit {
            Unit::Nanos(nanos) => i128::from(ticks) * i128::from(nanos),
            Unit::PerNano(ticks_per_nano) => i128::from(ticks / ticks_per_nano),
            Unit::Binary(exponent) => (i128::from(ticks) * 1_000_000_000) >> exponent,
        };
        let nanos = (nanos + self.offset_nanos).clamp(0, i128::from(u64::MAX));
        Timestamp::from_nanos(nanos as u64)
    }
}
