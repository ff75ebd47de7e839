//! Packet sources: capture files, and this host's interfaces through libpcap or eBPF, behind one trait.
//!
//! Layer 4. [`CaptureFile`] reads pcap and pcapng, optionally compressed with gzip; [`PcapngWriter`] writes pcapng. The
//! formats are draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod buffered_packet;
mod byte_order;
mod capabilities;
#[cfg(feature = "ebpf")]
mod ebpf;
mod error;
mod file;
mod interface;
mod kind;
mod leftovers;
pub mod live;
mod packet_source;
mod pcap_reader;
mod pcapng_reader;
mod pcapng_writer;
mod window;

#[cfg(test)]
mod tests;

pub use self::error::{FileDamage, FileError, FilePart, FilePosition};
pub use self::file::CaptureFile;
pub use self::packet_source::{CaptureLoss, MAX_PACKET, PacketSource};
pub use self::pcapng_writer::PcapngWriter;
