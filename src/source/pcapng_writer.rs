//! Writes pcapng, through pcap-parser: one section in little-endian byte order, times in nanoseconds.

use std::borrow::Cow;
use std::io::{self, Write};

use ipnet::IpNet;
use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapNGOption,
    SectionHeaderBlock, ToVec,
};

use super::MAX_PACKET;
use crate::time::Timestamp;
use crate::wire::LinkType;

/// `if_tsresol` of nanoseconds: 10^-9 s.
const NANOSECONDS: u8 = 9;
/// Bytes that the value of an option may have and still be padded to four.
const MAX_OPTION: usize = 0xfffc;

/// How a comment begins that says how many bytes of TCP payload [`Packet::omitted`](crate::wire::Packet::omitted); in
/// decimal they follow.
pub(super) const OMITTED: &str = "gatepost: omitted=";

/// How a comment begins that is a [`Packet::note`](crate::wire::Packet::note); what follows is the note.
pub(super) const NOTE: &str = "gatepost-answers: ";

/// A pcapng file that is being written. Each block goes out with one `write_all`; nothing is buffered here.
pub struct PcapngWriter<W: Write> {
    to: W,
    interfaces: u32,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes the section's header and describes the first interface, 0. `snap` is the most bytes that a packet of it
    /// has, 0 for no limit.
    ///
    /// # Errors
    /// `to` cannot be written.
    pub fn new(to: W, link: LinkType, snap: u32, name: &str) -> io::Result<Self> {
        let mut writer = Self::empty(to)?;
        writer.interface(link, snap, name)?;
        Ok(writer)
    }

    /// Writes the section's header and describes no interface yet.
    pub(super) fn empty(to: W) -> io::Result<Self> {
        let mut writer = Self { to, interfaces: 0 };
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

    /// Describes another interface and gives its number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn interface(&mut self, link: LinkType, snap: u32, name: &str) -> io::Result<u32> {
        self.interface_with(link, snap, name, &[])
    }

    /// As [`Self::interface`], with the addresses that it had.
    pub(super) fn interface_with(
        &mut self,
        link: LinkType,
        snap: u32,
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
            snaplen: snap,
            options,
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        };
        self.block(&mut interface)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet of the first interface. `wire_len` is what it had on the wire; a comment beyond 65,532 bytes is
    /// cut.
    ///
    /// # Errors
    /// The packet is longer than a reader takes ([`MAX_PACKET`]), or the file cannot be written.
    pub fn packet(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.packet_of(0, at, bytes, wire_len, comment)
    }

    /// As [`Self::packet`], and with a note for a replay, which [`Packet::note`](crate::wire::Packet::note) is when the file
    /// is read.
    ///
    /// # Errors
    /// As [`Self::packet`].
    pub fn noted_packet(
        &mut self,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
        note: &str,
    ) -> io::Result<()> {
        let note = format!("{NOTE}{note}");
        let comments: Vec<&str> = comment.into_iter().chain([note.as_str()]).collect();
        self.commented(0, at, bytes, wire_len, &comments)
    }

    /// Writes a packet of the interface that [`Self::interface`] gave this number.
    ///
    /// # Errors
    /// As [`Self::packet`], or there is no such interface.
    pub fn packet_of(
        &mut self,
        interface: u32,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.commented(interface, at, bytes, wire_len, comment.as_slice())
    }

    fn commented(
        &mut self,
        interface: u32,
        at: Timestamp,
        bytes: &[u8],
        wire_len: u32,
        comments: &[&str],
    ) -> io::Result<()> {
        // Room for the block's other fields and two comments.
        let limit = MAX_PACKET as usize - (3 << 16);
        if bytes.len() > limit || interface >= self.interfaces {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a packet of {} bytes on interface {interface} cannot be written: expected at \
                     most {limit}, and an interface below {}",
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

    /// Hands what is written so far to whoever reads the file.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Flushes, and gives back what was written to.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }

    fn block(&mut self, block: &mut impl ToVec) -> io::Result<()> {
        let bytes = block.to_vec().map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.to.write_all(&bytes)
    }
}

/// `if_IPv4addr` (the address, then its mask) or `if_IPv6addr` (the address, then the length of its prefix).
fn address<'a>(net: &IpNet) -> PcapNGOption<'a> {
    // Of another block is the name that pcap-parser has for this number.
    const IF_IPV6_ADDR: OptionCode = OptionCode(5);
    let (code, value) = match net {
        IpNet::V4(net) => {
            (OptionCode::IfIpv4Addr, [net.addr().octets(), net.netmask().octets()].concat())
        }
        IpNet::V6(net) => (IF_IPV6_ADDR, [&net.addr().octets()[..], &[net.prefix_len()]].concat()),
    };
    PcapNGOption { code, len: value.len() as u16, value: Cow::Owned(value) }
}

/// An option whose value is text, cut to what an option may have.
fn text(code: OptionCode, value: &str) -> PcapNGOption<'_> {
    let mut end = value.len().min(MAX_OPTION);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = value.get(..end).unwrap_or_default().as_bytes();
    PcapNGOption { code, len: value.len() as u16, value: Cow::Borrowed(value) }
}
