//! What a flow table may use, which ports it watches, and what it counts for its observer.

use std::time::Duration;

/// Bounds of a [`super::FlowTable`].
///
/// A flow takes about 1 KiB and its conversation; one on another port that did not greet about 150 bytes. Held bytes
/// count with 128 bytes a piece, and 512 for the first, for what stands around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows of any kind. At the bound, the least recently active goes: first those that are no SMTP, then those that
    /// have ended, then others.
    pub flows: usize,
    /// Bytes that one flow may hold, waiting for others. At the bound its hole is given up; nothing else is lost.
    pub held_per_flow: usize,
    /// Bytes that all may hold. At the bound the least recently active that holds any gives its holes up.
    pub held: usize,
    /// An established flow without a packet is over after this.
    pub idle: Duration,
    /// So is a flow whose SYN was not answered, or whose server did not say its first word on a port not watched.
    pub half_open: Duration,
}

impl Default for FlowLimits {
    /// 65,536 flows; 4 MiB held of one, 64 MiB of all; one hour; two minutes (Linux leaves 64 s between its last SYNs).
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

/// WatchedPorts of servers whose flows are told about whatever is said on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPorts(Vec<u16>);

impl WatchedPorts {
    /// 25, 587 (RFC 6409) and 2525, its common stand-in.
    pub const DEFAULT: [u16; 3] = [25, 587, 2525];

    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self(ports.into_iter().collect())
    }

    /// The default ones and `more`, each once.
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

/// What a table has seen and lost. Bytes are those told as gaps, but for [`Self::bytes_omitted`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    pub segments: u64,
    /// Flows told about.
    pub flows: u64,
    /// Segments out of any flow: no beginning seen and no data, or after a flow's end.
    pub stray: u64,
    /// Segments of flows that are no SMTP.
    pub ignored: u64,
    /// Segments, or ACKs, outside the window; data after a FIN.
    pub out_of_window: u64,
    /// Segments, and ICMP errors, that another interface had shown.
    pub elsewhere: u64,
    /// ICMP errors that belong to no flow, or to nothing that it sent.
    pub stray_icmp: u64,
    /// Flows told about that were given up to stay within [`FlowLimits::flows`].
    pub evicted: u64,
    /// Others that were forgotten for it: never told about, or over already.
    pub forgotten: u64,
    /// Segments with other bytes than an earlier copy that was still held.
    pub conflicts: u64,
    /// Bytes that the peer acknowledged and the capture lacks: capture loss.
    pub bytes_not_captured: u64,
    /// Bytes cut by the snap length.
    pub bytes_cut: u64,
    /// Bytes that the source left out on purpose: no loss.
    pub bytes_omitted: u64,
    /// Bytes not waited for, to stay within [`FlowLimits`]: reassembly loss.
    pub bytes_given_up: u64,
    /// Bytes before others that were seen, neither seen nor acknowledged when the flow ended.
    pub bytes_unfinished: u64,
}
