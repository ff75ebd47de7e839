//! Where packets come from: files now; live capture and eBPF behind the same trait.
//!
//! Layer 4. [`CaptureFile`] reads pcap and pcapng and a `.gz` of either; [`Writer`] writes pcapng. They follow
//! draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod blocks;
mod error;
mod fields;
mod file;
mod pcapng;
mod records;
mod window;

#[cfg(test)]
mod tests;

pub use error::{Damage, FileError, Part, Place};
pub use file::CaptureFile;
pub use pcapng::Writer;

use crate::wire::Packet;

/// Octets that one packet may have, or the pcapng block that it stands in. The largest that libpcap captures has
/// 262,144, but loopback interfaces and tools that paste packets together make larger ones; a claim above this is damage,
/// for Wireshark too.
pub const MAX_PACKET: u32 = 16 << 20;

/// A supply of packets in the order in which they were captured.
pub trait PacketSource {
    /// What may go wrong; said once, the packets before it are good.
    type Error;

    /// The next packet; `None` at the end.
    fn next(&mut self) -> Result<Option<Packet<'_>>, Self::Error>;
}
