//! Segments to conversations: the flow table and TCP reassembly.
//!
//! Layer 1. Follows both directions of each flow (RFC 9293), hands out the octets in order, each once, and keeps what
//! the segments show of the path: handshake, retransmits, holes, errors, who closed. Memory is bounded, see [`Limits`].

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::addr::Side;
use crate::time::Timestamp;

/// Who is told what is said on one flow. Calls come in the order of the sequence numbers of each side; between the sides
/// in the order in which it became known.
pub trait Conversation {
    /// The next octets that `from` said.
    fn data(&mut self, from: Side, octets: &[u8], at: Timestamp);

    /// `length` octets of `from` are missing for good: lost by the capture, cut by its snap length, or given up for want
    /// of room.
    fn gap(&mut self, from: Side, length: u64, at: Timestamp);

    /// `from` says no more (FIN, RST, or the flow was given up).
    fn closed(&mut self, from: Side, at: Timestamp);
}

/// What became of the attempt to connect, as the capture shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowOutcome {
    /// The handshake was seen, or data of both sides.
    Established,
    /// The SYN was answered by RST.
    Refused,
    /// The SYN was never answered.
    Unanswered,
    /// The SYN was answered by an ICMP error.
    Unreachable,
    /// Established, then ended by RST before either side's FIN.
    Reset,
    /// The capture does not hold the beginning.
    Midstream,
}

/// A flow as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStart {
    /// From 1, in the order of the first packets of all flows that are told about.
    pub number: u64,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub at: Timestamp,
    /// The first packet seen was no SYN.
    pub midstream: bool,
}

/// What the segments of a flow showed.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowFacts {
    pub start: FlowStart,
    /// The last packet.
    pub end: Timestamp,
    pub outcome: FlowOutcome,
    /// SYN to the client's first ACK of the SYN-ACK... by the first SYN, so that retries count.
    pub handshake: Option<Duration>,
    /// SYN segments of the client.
    pub syns: u32,
    /// Octets of payload in sequence space, holes included, by [`Side::index`].
    pub octets: [u64; 2],
    /// Data segments that brought nothing new, by [`Side::index`].
    pub retransmits: [u64; 2],
    /// Holes told as gaps, both sides.
    pub gaps: u64,
    pub icmp_errors: u64,
    /// The smallest MTU that a packet-too-big told.
    pub path_mtu: Option<u32>,
    /// Large segments were sent again and again and never acknowledged while small ones were (trap: PMTU black hole).
    pub black_hole: bool,
    /// Whose FIN or RST came first.
    pub closed_by: Option<Side>,
    /// Given up to stay within [`Limits`].
    pub evicted: bool,
}
