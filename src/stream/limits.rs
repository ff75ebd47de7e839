//! Limits, watched ports and counters of a flow table.

use std::time::Duration;

/// Limits of a [`super::FlowTable`].
///
/// A flow takes about 1 KiB and its handler; an ignored one about 150 bytes. Held data counts with an overhead of 128 bytes
/// a piece, and 512 for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Maximum number of flows of any kind. At the limit the least recently active one is evicted: first flows that are not
    /// SMTP, then ended ones, then others.
    pub flows: usize,
    /// Maximum bytes held by one flow. At the limit it stops waiting for missing bytes; nothing else is lost.
    pub held_per_flow: usize,
    /// Maximum bytes held by all flows. At the limit the least recently active flow that holds any stops waiting.
    pub held: usize,
    /// Idle limit of an established flow.
    pub idle: Duration,
    /// Idle limit of a flow whose SYN was not answered, or whose server on an unwatched port sent no greeting.
    pub half_open: Duration,
}

impl Default for FlowLimits {
    /// 65,536 flows; 4 MiB held by one, 64 MiB by all; one hour; two minutes (Linux sends its last SYNs 64 s apart).
    fn default() -> Self {
        Self {
            flows: 65_536,
            held_per_flow: 4 << 20,
            held: 64 << 20,
            idle: Duration::from_secs(3600),
            half_open: Duration::from_secs(120),
        }
    }
}

/// Server ports whose flows are reported without a check for a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPorts(Vec<u16>);

impl WatchedPorts {
    /// 25, 587 (RFC 6409) and 2525, its common substitute.
    pub const DEFAULT: [u16; 3] = [25, 587, 2525];

    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self(ports.into_iter().collect())
    }

    /// The default ports and `more`, without duplicates.
    pub fn with_defaults(more: &[u16]) -> Vec<u16> {
        let mut ports = Self::DEFAULT.to_vec();
        for port in more {
            if !ports.contains(port) {
                ports.push(*port);
            }
        }
        ports
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl Default for WatchedPorts {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

/// Counters of a table. Bytes are those delivered as gaps, except [`Self::bytes_omitted`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    pub segments: u64,
    /// Flows reported.
    pub flows: u64,
    /// Segments of no flow: after a flow's end, or without data where no start was seen.
    pub stray: u64,
    /// Segments of flows that are not SMTP.
    pub ignored: u64,
    /// Segments and ACKs outside the window; data after a FIN.
    pub out_of_window: u64,
    /// Segments, and ICMP errors, that another interface had shown.
    pub other_interface: u64,
    /// ICMP errors about no segment of any flow.
    pub stray_icmp: u64,
    /// Reported flows evicted to stay within [`FlowLimits::flows`].
    pub evicted: u64,
    /// Other flows evicted: never reported, or already over.
    pub forgotten: u64,
    /// Segments that differ from an earlier copy that was still held.
    pub conflicts: u64,
    /// Bytes acknowledged by the peer and missing from the capture: capture loss.
    pub bytes_not_captured: u64,
    /// Bytes truncated by the snap length.
    pub bytes_truncated: u64,
    /// Bytes that the source skipped on purpose: not a loss.
    pub bytes_omitted: u64,
    /// Bytes given up to stay within [`FlowLimits`]: reassembly loss.
    pub bytes_given_up: u64,
    /// Bytes before captured ones, neither captured nor acknowledged when the flow ended.
    pub bytes_unfinished: u64,
}
