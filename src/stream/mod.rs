//! Segments to byte streams: the flow table and TCP reassembly.
//!
//! Layer 1. Tracks both directions of each flow (RFC 9293), delivers each byte once and in order, and records what the
//! segments show of the path: handshake, retransmits, gaps, errors, closing side. Memory is bounded by [`FlowLimits`]. The
//! clock is that of the packets; live sources call [`FlowTable::tick`] when there are none.
//!
//! Decisions where TCP or the capture is ambiguous:
//! - **Client** is the sender of the SYN; without a SYN, the peer of a watched port; otherwise the peer of the side that
//!   sends a greeting.
//! - **Overlaps**: the first copy wins, as in most receivers; RFC 9293 §3.10.7.4 leaves the choice to them. Copies that
//!   differ from one still held are counted ([`StreamCounters::conflicts`]).
//! - **Gaps** are delivered when the peer acknowledged bytes that the capture has not shown within 64 packets of the flow
//!   or 100 ms (captures of several queues are reordered by less), when a memory limit is reached, or when the flow ends. A
//!   FIN that the capture lacks makes such a gap one byte too long: an ACK does not distinguish them. Bytes before the start
//!   of a midstream flow are not reported.
//! - **Omitted** bytes, which the source skipped on purpose, are not lost: they are delivered in order, as omitted. The
//!   first copy wins here, too, even if a later one shows more.
//! - **Order between sides**: bytes are delivered after those that their segment acknowledges, within the same time limit.
//!   Timestamps never go back within a flow; held bytes keep their own time if possible.
//! - **Retransmits** are data segments without a new byte, except keep-alives (the last, acknowledged byte again) and
//!   window probes (one byte against a closed window).
//! - **Interfaces** of a router capture the same packets. Each direction of a flow uses the interface that captured it
//!   first, until that is silent for more than a second; the two directions may use different ones.
//! - **Windows** are not scaled here: data and ACKs are accepted up to 2^30 ahead (RFC 7323's largest window), a RST from
//!   the last ACK to 1 MiB past the last byte sent. Segments outside, and data after a FIN, are only counted.

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

/// Receives the data of one flow. Calls follow the sequence numbers of each side; between the sides, data follows the data
/// that it acknowledges.
pub trait FlowHandler {
    /// The next bytes of `from`.
    fn on_data(&mut self, from: Side, bytes: &[u8], at: Timestamp);

    /// `length` bytes of `from` are missing for good: lost by the capture, truncated by its snap length, or given up to stay
    /// within the memory limits.
    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp);

    /// The source skipped the next `length` bytes of `from` on purpose: message content, or TLS. Nothing is lost.
    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp);

    /// `from` sends no more: its FIN, or a RST of either side. Not called for flows that end otherwise (idle, evicted, end of
    /// the capture).
    fn on_close(&mut self, from: Side, at: Timestamp);
}

/// Receives the start and end of flows.
pub trait FlowSink<C> {
    /// A flow to a watched port starts, or the server of another one sent a greeting. Returns the handler of its data.
    fn on_start(&mut self, start: &FlowStart) -> C;

    /// Whether a server on an unwatched port starts with an SMTP greeting; `None` if more bytes are needed.
    fn is_greeting(&self, first_octets_of_server: &[u8]) -> Option<bool>;

    /// The flow is over.
    fn on_end(&mut self, facts: FlowFacts, handler: C);
}

labels! {
    /// Outcome of the connection attempt, as captured.
    pub enum FlowOutcome {
        /// The SYN was answered: by a SYN-ACK or, where the capture lacks it, by later data or ACKs.
        Established = "established",
        /// The SYN was answered by RST.
        Refused = "refused",
        /// The SYN was never answered.
        Unanswered = "unanswered",
        /// No answer to the SYN was captured, but the source lost packets meanwhile, so there may have been one; or the
        /// client used its port again at once, so there was one.
        Unknown = "unknown",
        /// The SYN was answered only by an ICMP error.
        Unreachable = "unreachable",
        /// Established, then ended by RST before either side's FIN.
        Reset = "reset",
        /// The capture lacks the start, however the flow ended.
        Midstream = "midstream",
    }
}

/// State change of a TCP socket, reported by its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    pub at: Timestamp,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Smoothed round-trip time (`tcp_sock.srtt_us`, RFC 6298); `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// Retransmitted segments, SYNs included (`tcp_sock.total_retrans`).
    pub retransmits: u32,
    /// The socket is closed.
    pub closed: bool,
}

/// Flows of one family whose SYN is not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingFlows {
    pub flows: usize,
    /// Flows that sent more than one SYN.
    pub retried: usize,
    /// Time of the oldest flow's first SYN.
    pub since: Option<Timestamp>,
}

/// Start of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStart {
    /// From 1, in the order of [`FlowSink::on_start`].
    pub number: u64,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub at: Timestamp,
    /// The first captured packet was neither SYN nor SYN-ACK.
    pub midstream: bool,
}

/// Facts from the segments of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowFacts {
    pub start: FlowStart,
    /// Time of the last packet.
    pub end: Timestamp,
    pub outcome: FlowOutcome,
    /// From the client's first SYN to its ACK of the SYN-ACK: includes retries, and one round trip wherever the capture was
    /// taken.
    pub handshake: Option<Duration>,
    /// SYN segments of the client.
    pub syns: u32,
    /// Payload bytes in sequence space, gaps included, by [`Side::index`].
    pub bytes: [u64; 2],
    /// Segments with data, by [`Side::index`].
    pub data_segments: [u64; 2],
    /// Data segments without a new byte, by [`Side::index`].
    pub retransmits: [u64; 2],
    /// Gaps of both sides.
    pub gaps: u64,
    pub icmp_errors: u64,
    /// By kind, in the order of [`IcmpKind::LABELS`](crate::wire::IcmpKind::LABELS).
    pub icmp_kinds: [u64; 5],
    /// The smallest MTU of a packet-too-big error.
    pub path_mtu: Option<u32>,
    /// A PMTU black hole is suspected (rule 15 of ARCHITECTURE.md): one side sent a segment of at least 1,000 bytes, larger
    /// than any acknowledged one, at least three times from the same sequence number, with all earlier bytes acknowledged and
    /// the peer's window open, and the ACK did not advance, or advanced only after a smaller segment. Transmissions before a
    /// packet-too-big error do not count, so with one this is true only if it did not help. A peer that vanished at that
    /// moment looks the same. Never of a flow that is [`Self::incomplete`]: the ACK may have been lost here.
    pub black_hole: bool,
    /// Sender of the first FIN or RST.
    pub closed_by: Option<Side>,
    /// Sender of a RST after the flow was established, even after FINs.
    pub reset_by: Option<Side>,
    /// Smoothed round-trip time of the last [`SocketEvent`].
    pub rtt: Option<Duration>,
    /// Evicted to stay within [`FlowLimits`].
    pub evicted: bool,
    /// The source lost packets while the flow was open, or must have, so what was not captured may have happened
    /// nevertheless.
    pub incomplete: bool,
}
