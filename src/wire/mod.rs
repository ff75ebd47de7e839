//! Packets to segments: link, network and transport headers are read (etherparse) and what SMTP analysis needs is kept.
//!
//! Layer 1. Bytes and timestamps in, borrowed values out. Addresses are as they stand on the wire; checksums are not
//! verified, since captures on a sending host show them before the network card fills them in. The other way round,
//! [`SyntheticConnection`] makes the packets of a dialogue.

#![warn(clippy::indexing_slicing)]

mod decode;
mod defragment;
mod icmp;
mod ip;
mod link;
mod slice;
mod synth;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

pub use self::decode::Decoder;
pub use self::synth::SyntheticConnection;
use crate::time::Timestamp;

/// How the bytes of a packet begin (the `LINKTYPE_` registry of tcpdump.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// `LINKTYPE_ETHERNET`, 1; VLAN and QinQ tags included.
    Ethernet,
    /// `LINKTYPE_NULL`, 0, and `LINKTYPE_LOOP`, 108: four bytes of address family in either byte order.
    Loopback,
    /// `LINKTYPE_RAW`, 101 (and 12, 14, 228, 229): IPv4 or IPv6 by its version.
    Raw,
    /// `LINKTYPE_LINUX_SLL`, 113.
    LinuxCooked,
    /// `LINKTYPE_LINUX_SLL2`, 276.
    LinuxCooked2,
    /// Another number of the registry: nothing of it is read.
    Other(u16),
}

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub at: Timestamp,
    pub link: LinkType,
    /// What was captured.
    pub bytes: &'a [u8],
    /// Bytes that the packet had on the wire; more than were captured where a snap length cut it.
    pub wire_len: u32,
    /// Bytes of TCP payload that the source left out on purpose: what follows the headers in `bytes` is the payload
    /// behind them.
    pub omitted: u32,
    /// Which of the source's interfaces saw it; 0 where there is one.
    pub interface: u32,
    /// What the recorder of the session wrote beside it for a replay, without what marks it as such.
    pub note: Option<&'a str>,
}

impl<'a> Packet<'a> {
    /// A packet of the only interface, with nothing left out.
    pub const fn new(at: Timestamp, link: LinkType, bytes: &'a [u8], wire_len: u32) -> Self {
        Self { at, link, bytes, wire_len, omitted: 0, interface: 0, note: None }
    }
}

/// What a packet is to an analyst of SMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    Tcp(Segment<'a>),
    Udp(Datagram<'a>),
    Icmp(IcmpError),
    /// A fragment of a datagram that is not whole yet.
    Fragment,
    /// Nothing that concerns us: ARP, other protocols, ICMP that is no error.
    Other,
    /// Cannot be read.
    Error(DecodeError),
}

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecodeError {
    /// A link type that is not supported.
    UnsupportedLink,
    /// A header that contradicts itself.
    InvalidHeader,
    /// The capture ends within a header.
    Truncated,
    /// Defragmenter that overlap, are too large, or were given up for want of room.
    Reassembly,
}

impl DecodeError {
    /// What becomes of such packets, to follow their number.
    pub const fn description(self) -> &'static str {
        match self {
            Self::UnsupportedLink => "of a link type that is not read",
            Self::InvalidHeader => "with a header that contradicts itself",
            Self::Truncated => "cut within their headers",
            Self::Reassembly => "that were fragments and could not be put together",
        }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    pub at: Timestamp,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: u32,
    /// Present with the ACK flag.
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// As in the header, not scaled.
    pub window: u16,
    /// The option, on SYN segments.
    pub mss: Option<u16>,
    /// Bytes of payload before [`Self::payload`] that the source left out on purpose.
    pub omitted: u32,
    /// What was captured of the payload.
    pub payload: &'a [u8],
    /// Bytes of payload on the wire; those behind `omitted` and `payload` were cut by a snap length.
    pub len: u32,
    /// [`Packet::interface`].
    pub interface: u32,
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub at: Timestamp,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// What was captured of the payload.
    pub payload: &'a [u8],
}

/// An ICMP or ICMPv6 error about a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    pub at: Timestamp,
    /// Who says it.
    pub from: IpAddr,
    pub kind: IcmpKind,
    /// Sender and receiver of the segment that it is about.
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// That segment's sequence number; RFC 792 and RFC 4443 promise at least so much of it.
    pub seq: u32,
    /// [`Packet::interface`].
    pub interface: u32,
}

/// Kinds of error, by what an operator does about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpKind {
    /// Destination unreachable: no route, host or port; a filter that says so is `Prohibited`.
    Unreachable,
    /// Communication administratively prohibited.
    Prohibited,
    /// Packet too big (RFC 4443 §3.2), fragmentation needed (RFC 1191); bytes, 0 if it does not say.
    PacketTooBig {
        mtu: u32,
    },
    TimeExceeded,
    ParameterProblem,
}

impl IcmpKind {
    /// The words for the kinds in metrics, by [`Self::index`].
    pub const LABELS: [&'static str; 5] =
        ["unreachable", "prohibited", "packet_too_big", "time_exceeded", "parameter_problem"];

    pub const fn index(self) -> usize {
        match self {
            Self::Unreachable => 0,
            Self::Prohibited => 1,
            Self::PacketTooBig { .. } => 2,
            Self::TimeExceeded => 3,
            Self::ParameterProblem => 4,
        }
    }
}
