//! Writes pcapng with pcap-parser: one little-endian section, timestamps in nanoseconds.

use std::borrow::Cow;
use std::io::{self, Write};

use ipnet::IpNet;
use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapNGOption,
    SectionHeaderBlock, ToVec,
};

use super::packet_source::MAX_PACKET;
use crate::time::Timestamp;
use crate::wire::{LinkType, PacketNote};

/// `if_tsresol` of nanoseconds: 10^-9 s.
const NANOSECONDS: u8 = 9;
/// Maximum length of an option's value that still allows padding to a multiple of 4.
const MAX_OPTION: usize = 0xfffc;

/// Prefix of a comment with [`Packet::omitted`](crate::wire::Packet::omitted) in decimal.
pub(super) const OMITTED_PREFIX: &str = "gatepost: omitted=";

/// Prefix of a comment with a [`PacketNote`].
pub(super) const NOTE_PREFIX: &str = "gatepost-";

/// Writer of a pcapng file. Each block is written with one `write_all`; nothing is buffered here.
pub struct PcapngWriter<W: Write> {
    output: W,
    interfaces: u32,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes the section header and describes interface 0. `snap_len` is its snap length in bytes, 0 for no limit.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(output: W, link: LinkType, snap_len: u32, name: &str) -> io::Result<Self> {
        let mut writer = Self::empty(output)?;
        writer.interface(link, snap_len, name)?;
        Ok(writer)
    }

    /// Writes the section header without an interface.
    pub(super) fn empty(output: W) -> io::Result<Self> {
        let mut writer = Self { output, interfaces: 0 };
        let mut section = SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: 0,
            major_version: 1,
            minor_version: 0,
            section_len: -1,
            options: vec![text(
                OptionCode::ShbUserAppl,
                concat!("gatepost ", env!("CARGO_PKG_VERSION")),
            )],
            block_len2: 0,
        };
        writer.block(&mut section)?;
        Ok(writer)
    }

    /// Describes another interface and returns its number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn interface(&mut self, link: LinkType, snap_len: u32, name: &str) -> io::Result<u32> {
        self.interface_with(link, snap_len, name, &[])
    }

    /// Like [`Self::interface`], with the interface's addresses.
    pub(super) fn interface_with(
        &mut self,
        link: LinkType,
        snap_len: u32,
        name: &str,
        addresses: &[IpNet],
    ) -> io::Result<u32> {
        let mut options = vec![text(OptionCode::IfName, name)];
        options.extend(addresses.iter().map(address));
        let mut interface = InterfaceDescriptionBlock {
            block_type: 0,
            block_len1: 0,
            linktype: Linktype(i32::from(link.number())),
            reserved: 0,
            snaplen: snap_len,
            options,
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        };
        self.block(&mut interface)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet of interface 0. `wire_len` is its length on the wire. A comment is truncated to 65,532 bytes.
    ///
    /// # Errors
    /// The packet exceeds [`MAX_PACKET`], or the file cannot be written.
    pub fn packet(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.packet_of(0, at, bytes, wire_len, comment)
    }

    /// Like [`Self::packet`], with a note for a replay.
    ///
    /// # Errors
    /// As for [`Self::packet`].
    pub fn packet_with_note(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
        note: PacketNote<'_>,
    ) -> io::Result<()> {
        let note = note.to_string();
        let comments: Vec<&str> = comment.into_iter().chain([note.as_str()]).collect();
        self.packet_with_comments(0, at, bytes, wire_len, &comments)
    }

    /// Writes a packet of the interface with this number.
    ///
    /// # Errors
    /// As for [`Self::packet`], or the interface does not exist.
    pub fn packet_of(
        &mut self,
        interface: u32,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.packet_with_comments(interface, at, bytes, wire_len, comment.as_slice())
    }

    fn packet_with_comments(
        &mut self,
        interface: u32,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comments: &[&str],
    ) -> io::Result<()> {
        // Leaves room for the block's other fields and two comments.
        let limit = MAX_PACKET as usize - (3 << 16);
        if bytes.len() > limit || interface >= self.interfaces {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "cannot write a packet of {} bytes on interface {interface}: expected at most \
                     {limit} bytes and an interface below {}",
                    bytes.len(),
                    self.interfaces
                ),
            ));
        }
        let nanos = at.as_nanos();
        let captured = bytes.len() as u32;
        self.block(&mut EnhancedPacketBlock {
            block_type: 0,
            block_len1: 0,
            if_id: interface,
            ts_high: (nanos >> 32) as u32,
            ts_low: nanos as u32,
            caplen: captured,
            origlen: wire_len.max(captured),
            data: bytes,
            options: comments.iter().map(|comment| text(OptionCode::Comment, comment)).collect(),
            block_len2: 0,
        })
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// The output cannot be flushed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// The output cannot be flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn block(&mut self, block: &mut impl ToVec) -> io::Result<()> {
        let bytes = block.to_vec().map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.output.write_all(&bytes)
    }
}

/// `if_IPv4addr` (the address, then its mask) or `if_IPv6addr` (the address, then the length of its prefix).
fn address<'a>(net: &IpNet) -> PcapNGOption<'a> {
    // pcap-parser names this number after an option of another block.
    const IF_IPV6_ADDR: OptionCode = OptionCode(5);
    let (code, value) = match net {
        IpNet::V4(net) => {
            (OptionCode::IfIpv4Addr, [net.addr().octets(), net.netmask().octets()].concat())
        }
        IpNet::V6(net) => (IF_IPV6_ADDR, [&net.addr().octets()[..], &[net.prefix_len()]].concat()),
    };
    PcapNGOption { code, len: value.len() as u16, value: Cow::Owned(value) }
}

/// A text option, truncated to the maximum length.
fn text(code: OptionCode, value: &str) -> PcapNGOption<'_> {
    let mut end = value.len().min(MAX_OPTION);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = value.get(..end).unwrap_or_default().as_bytes();
    PcapNGOption { code, len: value.len() as u16, value: Cow::Borrowed(value) }
}
