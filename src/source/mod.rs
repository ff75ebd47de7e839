//! Where packets come from: a file, or this host's interfaces by libpcap or eBPF, all behind one trait.
//!
//! Layer 4. [`CaptureFile`] reads pcap and pcapng and a `.gz` of either; [`PcapngWriter`] writes pcapng. They follow
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod byte_order;
mod capabilities;
#[cfg(feature = "ebpf")]
mod ebpf;
mod error;
mod file;
pub mod live;
mod pcap_reader;
mod pcapng_reader;
mod pcapng_writer;
mod window;

#[cfg(test)]
mod tests;

pub use error::{FileDamage, FileError, FilePart, FilePosition};
pub use file::CaptureFile;
pub use pcapng_writer::PcapngWriter;

use crate::stream::SocketEvent;
use crate::wire::Packet;

/// Bytes that one packet may have, or the pcapng block that it stands in. The largest that libpcap captures has
/// 262,144, but loopback interfaces and tools that paste packets together make larger ones; a claim above this is damage,
/// for Wireshark too.
pub const MAX_PACKET: u32 = 16 << 20;

/// A supply of packets in the order in which they were captured.
pub trait PacketSource {
    /// What may go wrong; said once, the packets before it are good.
    type Error;

    /// The next packet. `None`: a file is at its end; on the wire nothing came for [`live::POLL_TIMEOUT`], ask again.
    fn next(&mut self) -> Result<Option<Packet<'_>>, Self::Error>;

    /// What the kernel said of sockets of this host, in order; `None` if there is no more for now.
    fn next_socket_event(&mut self) -> Option<SocketEvent> {
        None
    }

    /// What could not be delivered since the source was opened.
    fn loss(&mut self) -> CaptureLoss {
        CaptureLoss::default()
    }
}

/// What the kernel saw and a source could not deliver: capture loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureLoss {
    /// SYNs of clients to watched ports. They have a way of their own, so that as a rule every connection is seen at least
    /// to begin; each lost one may be a session that is not seen at all.
    pub syns: u64,
    /// Other packets.
    pub packets: u64,
}
