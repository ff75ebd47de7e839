//! Segments to conversations: the flow table and TCP reassembly.
//!
//! Layer 1. Follows both directions of each flow (RFC 9293), hands out the bytes in order, each once, and keeps what
//! the segments show of the path: handshake, retransmits, holes, errors, who closed. Memory is bounded, see [`FlowLimits`].
//! Time is what the packets say; live sources call [`FlowTable::tick`] when there are none.
//!
//! What is decided where TCP or the capture leaves it open:
//! - **Client** is who sent the SYN; without one, who talks to a watched port; else whose peer greets.
//! - **Overlaps**: the first copy wins, as it does in most receivers; RFC 9293 §3.10.7.4 lets them choose. Copies that
//!   differ from one still held are counted ([`StreamCounters::conflicts`]).
//! - **Holes** become gaps when the peer acknowledges what the capture lacks and it did not come within 64 packets of the
//!   flow or 100 ms (captures of several queues are out of order by less), when the bound is hit, or when the flow ends. A
//!   FIN that the capture lacks is one byte too many in such a gap: an ACK does not tell them apart. What lies before the
//!   first byte of a midstream flow is not told.
//! - **Left out** by the source is not lost: such bytes take their place in the order and are told as what they are. Of
//!   copies the first wins here too, though a later one may show more.
//! - **Order between sides**: bytes follow those that their segment acknowledges, waiting for them as long as for a hole.
//!   Times given with bytes never go backward within a flow; bytes that waited keep their own time if they can.
//! - **Retransmits** are data segments without a new byte, but for keep-alives (the last byte again though it is
//!   acknowledged) and window probes (one byte against a closed window).
//! - **Interfaces** may show the same packets, as those of a router do. Each direction of a flow is taken from the one that
//!   showed it first, until that is silent for more than a second; the two directions may go different ways.
//! - **Windows** are not scaled here: data and ACKs count up to 2^30 ahead (RFC 7323's largest window), a RST from the last
//!   ACK to 1 MiB past what was sent. What lies outside, and data after a FIN, is only counted.

#![warn(clippy::indexing_slicing)]

mod black_hole;
mod flow;
mod flow_key;
mod half_stream;
mod interface_pin;
mod limits;
mod lru_lists;
mod per_side;
mod reassembly;
mod syn_candidates;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Side;
use crate::label::labels;
use crate::time::Timestamp;

pub use limits::{FlowLimits, StreamCounters, WatchedPorts};
pub use table::FlowTable;

/// Who is told what is said on one flow. Calls come in the order of the sequence numbers of each side; between the sides
/// what acknowledges comes after what it acknowledges.
pub trait FlowHandler {
    /// The next bytes that `from` said.
    fn on_data(&mut self, from: Side, bytes: &[u8], at: Timestamp);

    /// `length` bytes of `from` are missing for good: lost by the capture, cut by its snap length, or given up for want
    /// of room.
    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp);

    /// The next `length` bytes of `from` are there and the source left them out on purpose: content of a message, or
    /// TLS. Nothing is lost.
    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp);

    /// `from` says no more: its FIN, or a RST of either side. Flows that end otherwise (idle, evicted, the capture's end)
    /// are only over.
    fn on_close(&mut self, from: Side, at: Timestamp);
}

/// Where flows begin and end.
pub trait FlowSink<C> {
    /// A flow of a watched port begins, or the server of another one greeted.
    fn on_start(&mut self, start: &FlowStart) -> C;

    /// Whether a server on a port that is not watched begins as ours do; `None` while there is too little to tell.
    fn is_greeting(&self, first_octets_of_server: &[u8]) -> Option<bool>;

    /// Nothing more comes of this flow.
    fn on_end(&mut self, facts: FlowFacts, conversation: C);
}

labels! {
    /// What became of the attempt to connect, as the capture shows it.
    pub enum FlowOutcome {
        /// The SYN was answered: by a SYN-ACK, or, where the capture lacks it, by data or an ACK that takes it for granted.
        Established = "established",
        /// The SYN was answered by RST.
        Refused = "refused",
        /// The SYN was never answered.
        Unanswered = "unanswered",
        /// The SYN was answered by an ICMP error, and by nothing else.
        Unreachable = "unreachable",
        /// Established, then ended by RST before either side's FIN.
        Reset = "reset",
        /// The capture does not hold the beginning, however the flow ended.
        Midstream = "midstream",
    }
}

/// What a kernel says of a TCP socket of its own, when that changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    pub at: Timestamp,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Smoothed (`tcp_sock.srtt_us`, RFC 6298); `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// Segments that it sent again, its SYNs among them (`tcp_sock.total_retrans`).
    pub retransmits: u32,
    /// It is closed now: nothing more comes of it.
    pub closed: bool,
}

/// Flows of one family that wait for the first answer to their SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingConnections {
    pub flows: usize,
    /// Those of them that sent their SYN more than once.
    pub again: usize,
    /// When the one that waits longest sent its first.
    pub since: Option<Timestamp>,
}

/// A flow as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStart {
    /// From 1, in the order in which flows are told about: those of watched ports with their first packet, others when
    /// the server greets.
    pub number: u64,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub at: Timestamp,
    /// The first packet seen was no SYN (nor SYN-ACK).
    pub midstream: bool,
}

/// What the segments of a flow showed.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowFacts {
    pub start: FlowStart,
    /// The last packet.
    pub end: Timestamp,
    pub outcome: FlowOutcome,
    /// The client's first SYN to its ACK of the SYN-ACK: the client's wait by the first SYN, so that retries count, and one
    /// round trip wherever the capture was taken.
    pub handshake: Option<Duration>,
    /// SYN segments of the client.
    pub syns: u32,
    /// Bytes of payload in sequence space, holes included, by [`Side::index`].
    pub bytes: [u64; 2],
    /// Segments with data, by [`Side::index`].
    pub data_segments: [u64; 2],
    /// Those of them that brought nothing new, by [`Side::index`].
    pub retransmits: [u64; 2],
    /// Holes told as gaps, both sides.
    pub gaps: u64,
    pub icmp_errors: u64,
    /// By kind, in the order of [`IcmpKind::LABELS`](crate::wire::IcmpKind::LABELS).
    pub icmp_kinds: [u64; 5],
    /// The smallest MTU that a packet-too-big told.
    pub path_mtu: Option<u32>,
    /// A PMTU black hole is suspected: of one side, a segment of at least 1,000 bytes, larger than any that was ever
    /// acknowledged, was sent at least three times from the same sequence number, with all before it acknowledged and the
    /// peer's window open, and the ACK did not move; or it moved only when less was sent. Tries before a packet-too-big do
    /// not count, so where somebody said so this is true only if it did not help. A peer that vanished in that very
    /// moment looks the same.
    pub black_hole: bool,
    /// Whose FIN or RST came first.
    pub closed_by: Option<Side>,
    /// Whose RST ended it after it was established, whatever came before.
    pub reset_by: Option<Side>,
    /// Smoothed round-trip time, as the kernel of one end last told it ([`SocketEvent`]).
    pub rtt: Option<Duration>,
    /// Given up to stay within [`FlowLimits`].
    pub evicted: bool,
}
