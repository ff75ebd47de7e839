//! The common interface of all packet sources.

use std::time::Duration;

use crate::stream::SocketEvent;
use crate::wire::Packet;

/// Maximum bytes of a packet, or of the pcapng block that holds it. libpcap captures at most 262,144 bytes, but loopback
/// interfaces and tools that merge packets make larger ones. A longer length field is treated as damage, as in Wireshark.
pub const MAX_PACKET: u32 = 16 << 20;

/// How long [`PacketSource::next`] of a live source waits for a packet.
pub const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// A supply of packets in the order of capture.
pub trait PacketSource {
    /// Reported once; the packets before it are valid.
    type Error;

    /// The next packet. `None`: a file is at its end; a live source had no packet for [`POLL_TIMEOUT`] and may be polled
    /// again.
    fn next(&mut self) -> Result<Option<Packet<'_>>, Self::Error>;

    /// The next event of a socket of this host, in order; `None` if there is none at present.
    fn next_socket_event(&mut self) -> Option<SocketEvent> {
        None
    }

    /// Packets lost since the source was opened.
    fn loss(&mut self) -> CaptureLoss {
        CaptureLoss::default()
    }
}

/// Packets that the kernel saw and a source could not deliver: capture loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureLoss {
    /// SYNs of clients to watched ports. They have a buffer of their own, so that the start of a connection is hardly ever
    /// lost; each lost one may be a session that goes unnoticed.
    pub syns: u64,
    /// Other packets.
    pub packets: u64,
    /// Directions of interfaces in which other software may hide packets from the source at present.
    pub hidden: u32,
}
