//! Where packets come from: a file, or this host's interfaces by libpcap or eBPF, all behind one trait.
//!
//! Layer 4. [`CaptureFile`] reads pcap and pcapng and a `.gz` of either; [`Writer`] writes pcapng. They follow
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod blocks;
#[cfg(feature = "ebpf")]
mod ebpf;
mod error;
mod fields;
mod file;
pub mod live;
mod pcapng;
mod records;
mod window;

#[cfg(test)]
mod tests;

pub use error::{Damage, FileError, Part, Place};
pub use file::CaptureFile;
pub use pcapng::Writer;

use crate::stream::SocketFacts;
use crate::wire::Packet;

/// Octets that one packet may have, or the pcapng block that it stands in. The largest that libpcap captures has
/// 262,144, but loopback interfaces and tools that paste packets together make larger ones; a claim above this is damage,
/// for Wireshark too.
pub const MAX_PACKET: u32 = 16 << 20;

/// A supply of packets in the order in which they were captured.
pub trait PacketSource {
    /// What may go wrong; said once, the packets before it are good.
    type Error;

    /// The next packet. `None`: a file is at its end; on the wire nothing came for [`live::PAUSE`], ask again.
    fn next(&mut self) -> Result<Option<Packet<'_>>, Self::Error>;

    /// What the kernel said of sockets of this host, in order; `None` if there is no more for now.
    fn socket(&mut self) -> Option<SocketFacts> {
        None
    }

    /// What could not be delivered since the source was opened.
    fn lost(&mut self) -> Lost {
        Lost::default()
    }
}

/// What the kernel saw and a source could not deliver: capture loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// SYNs of clients to watched ports. They have a way of their own, so that as a rule every connection is seen at least
    /// to begin; each lost one may be a session that is not seen at all.
    pub openings: u64,
    /// Other packets.
    pub packets: u64,
}
