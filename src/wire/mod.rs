//! Packets to segments: decodes link, network and transport headers (with etherparse) into the fields that SMTP analysis
//! needs.
//!
//! Layer 1. Bytes and timestamps in, borrowed values out. Addresses are as on the wire; checksums are not verified, since
//! a capture on the sending host sees packets before the network card fills them in. The inverse,
//! [`SyntheticConnection`], makes the packets of a dialogue.

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

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use self::decode::Decoder;
pub use self::synth::SyntheticConnection;
use crate::time::Timestamp;

/// Link-layer header type of a packet (the `LINKTYPE_` registry of tcpdump.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// `LINKTYPE_ETHERNET`, 1; VLAN and QinQ tags included.
    Ethernet,
    /// `LINKTYPE_NULL`, 0, and `LINKTYPE_LOOP`, 108: a four-byte address family in either byte order.
    Loopback,
    /// `LINKTYPE_RAW`, 101 (and 12, 14, 228, 229): IPv4 or IPv6, by the version field.
    Raw,
    /// `LINKTYPE_LINUX_SLL`, 113.
    LinuxCooked,
    /// `LINKTYPE_LINUX_SLL2`, 276.
    LinuxCooked2,
    /// Another registry number: not supported.
    Other(u16),
}

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub at: Timestamp,
    pub link: LinkType,
    /// The captured bytes, from the link-layer header.
    pub bytes: &'a [u8],
    /// Length on the wire; more than was captured if a snap length truncated the packet.
    pub wire_len: u32,
    /// Bytes of TCP payload that the source skipped on purpose, directly after the headers: `bytes` continues with the
    /// payload behind them.
    pub omitted: u32,
    /// Index of the capturing interface of the source; 0 if there is only one.
    pub interface: u32,
    pub note: Option<PacketNote<'a>>,
}

/// A note of the session's recorder, for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketNote<'a> {
    /// The name of the listener that accepted the session; with its first packet.
    Listener(&'a str),
    /// The lookup answers on which the policy decided, in JSON.
    Answers(&'a str),
}

impl<'a> PacketNote<'a> {
    /// The comment of a packet that is such a note.
    pub fn parse(comment: &'a str) -> Option<Self> {
        let listener = || comment.strip_prefix("gatepost-listener: ").map(Self::Listener);
        listener().or_else(|| comment.strip_prefix("gatepost-answers: ").map(Self::Answers))
    }
}

impl fmt::Display for PacketNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(name) => write!(f, "gatepost-listener: {name}"),
            Self::Answers(json) => write!(f, "gatepost-answers: {json}"),
        }
    }
}

impl<'a> Packet<'a> {
    /// A packet of interface 0 with nothing omitted.
    pub const fn new(at: Timestamp, link: LinkType, bytes: &'a [u8], wire_len: u32) -> Self {
        Self { at, link, bytes, wire_len, omitted: 0, interface: 0, note: None }
    }
}

/// Result of decoding a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    Tcp(Segment<'a>),
    Udp(Datagram<'a>),
    Icmp(IcmpError),
    /// A fragment of a datagram that is still incomplete.
    Fragment,
    /// Not relevant: ARP, other protocols, ICMP messages that are not errors.
    Other,
    Error(DecodeError),
}

/// Why a packet cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecodeError {
    /// The link type is not supported.
    UnsupportedLink,
    /// A header contradicts itself.
    InvalidHeader,
    /// The capture ends within a header.
    Truncated,
    /// Fragments overlap, exceed the maximum length, or were evicted to stay within the memory bound.
    Reassembly,
}

impl DecodeError {
    /// A phrase to follow a number of packets.
    pub const fn description(self) -> &'static str {
        match self {
            Self::UnsupportedLink => "of an unsupported link type",
            Self::InvalidHeader => "with an invalid header",
            Self::Truncated => "truncated within their headers",
            Self::Reassembly => "that are fragments and could not be reassembled",
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
    /// Set if the ACK flag is.
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// As in the header, not scaled.
    pub window: u16,
    /// The MSS option of a SYN segment.
    pub mss: Option<u16>,
    /// Bytes of payload before [`Self::payload`] that the source skipped on purpose.
    pub omitted: u32,
    /// The captured part of the payload.
    pub payload: &'a [u8],
    /// Payload length on the wire; bytes beyond `omitted` and `payload` were truncated by a snap length.
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
    /// The captured part of the payload.
    pub payload: &'a [u8],
}

/// An ICMP or ICMPv6 error about a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    pub at: Timestamp,
    /// Sender of the error.
    pub from: IpAddr,
    pub kind: IcmpKind,
    /// Source of the quoted segment.
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// Sequence number of the quoted segment; RFC 792 and RFC 4443 guarantee that it is quoted.
    pub seq: u32,
    /// [`Packet::interface`].
    pub interface: u32,
}

/// Kinds of ICMP error, grouped by the operator's remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpKind {
    /// Destination unreachable: no route, host or port. Rejection by a filter is `Prohibited`.
    Unreachable,
    /// Communication administratively prohibited.
    Prohibited,
    /// Packet too big (RFC 4443 §3.2), fragmentation needed (RFC 1191). `mtu` is in bytes, 0 if the error has none.
    PacketTooBig {
        mtu: u32,
    },
    TimeExceeded,
    ParameterProblem,
}

impl IcmpKind {
    /// Metric labels, by [`Self::index`].
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
