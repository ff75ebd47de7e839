//! Errors of capture files: position, cause, and how much was read before.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::packet_source::MAX_PACKET;

/// Minimum length of a pcapng block: its type, its length, and its length again. It includes a section's byte order.
pub(super) const MIN_BLOCK: usize = 12;

/// Why a capture file has no further packets. The packets before it are valid.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open {}: {source}", display_name(file))]
    Open { file: PathBuf, source: io::Error },
    #[error(
        "{} is empty: expected a pcap or pcapng file, optionally compressed with gzip",
        display_name(file)
    )]
    Empty { file: PathBuf },
    #[error(
        "{} is not a pcap or pcapng file (starts with {}): convert other capture formats with `editcap -F pcapng`; \
         decompress formats other than gzip",
        display_name(file),
        FileStart(start)
    )]
    UnknownFormat { file: PathBuf, start: Vec<u8> },
    #[error("cannot read {} at {}: {source}; {}", display_name(&position.file), position.offset(), position.progress())]
    Read { position: FilePosition, source: io::Error },
    #[error(
        "cannot decompress {} beyond {} bytes: {source}; {}",
        display_name(&position.file), position.offset, position.progress()
    )]
    Decompress { position: FilePosition, source: io::Error },
    #[error(
        "{} ends within {} (expected {wanted} bytes at {}, found {available}); {}",
        display_name(&position.file), position.part(*within), position.offset(), position.progress()
    )]
    Truncated { position: FilePosition, within: FilePart, wanted: usize, available: usize },
    #[error("{} is damaged at {}: {damage}; {}", display_name(&position.file), position.offset(), position.progress())]
    Damaged { position: FilePosition, damage: FileDamage },
    /// Reported at the end of the file: the first of `blocks` damaged blocks, which were skipped.
    #[error(
        "{} is damaged at {}: {damage}; {blocks} damaged {} skipped, {} {} read",
        display_name(&position.file), position.offset(), if *blocks == 1 { "block was" } else { "blocks were" },
        position.packets, if position.packets == 1 { "packet was" } else { "packets were" }
    )]
    Skipped { position: FilePosition, damage: FileDamage, blocks: u64 },
}

/// Position of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePosition {
    pub file: PathBuf,
    /// Bytes before it.
    pub offset: u64,
    /// The file is compressed; `offset` counts decompressed bytes.
    pub compressed: bool,
    /// Packets read before it.
    pub packets: u64,
    /// Damaged blocks skipped before it.
    pub skipped: u64,
}

/// The part of a file that is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePart {
    FileHeader,
    PacketHeader,
    Packet,
    /// A pcapng block without a packet.
    Block,
}

/// Kind of damage at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileDamage {
    #[error("packet with a length of {0} bytes (expected at most {MAX_PACKET})")]
    PacketLength(u32),
    #[error(
        "block with a length of {0} bytes (expected a multiple of 4 from {MIN_BLOCK} to {MAX_PACKET})"
    )]
    BlockLength(u32),
    #[error("block with a length of {first} bytes at its start and {last} at its end")]
    Trailer { first: u32, last: u32 },
    #[error("packet of {captured} bytes in a block with room for {room}")]
    Room { captured: u32, room: usize },
    #[error("block too short for its fields")]
    Short,
    #[error("invalid interface description")]
    Description,
    #[error(
        "packet of interface {interface}, which has no description (valid descriptions: {known})"
    )]
    Interface { interface: u32, known: usize },
    #[error("more than {0} interface descriptions in a section")]
    Interfaces(usize),
    #[error("section with byte order mark {0:#010x} (expected 0x1a2b3c4d in either order)")]
    ByteOrder(u32),
    #[error("section of pcapng version {0} (expected 1)")]
    Version(u16),
}

impl FilePosition {
    fn offset(&self) -> String {
        let unit = if self.compressed { " of the decompressed data" } else { "" };
        format!("offset {}{unit}", self.offset)
    }

    fn part(&self, part: FilePart) -> String {
        let number = self.packets + 1;
        match part {
            FilePart::FileHeader => "its header".to_owned(),
            FilePart::PacketHeader => format!("the header of packet {number}"),
            FilePart::Packet => format!("packet {number}"),
            FilePart::Block => format!("a block before packet {number}"),
        }
    }

    fn progress(&self) -> String {
        let read = match self.packets {
            0 => "no packet was read".to_owned(),
            1 => "the packet before it was read".to_owned(),
            n => format!("the {n} packets before it were read"),
        };
        match self.skipped {
            0 => read,
            1 => format!("{read}, 1 damaged block was skipped"),
            n => format!("{read}, {n} damaged blocks were skipped"),
        }
    }
}

fn display_name(file: &std::path::Path) -> std::path::Display<'_> {
    if file.as_os_str() == "-" { std::path::Path::new("standard input") } else { file }.display()
}

/// The first bytes of a file: as text if they are printable, else in hex.
struct FileStart<'a>(&'a [u8]);

impl fmt::Display for FileStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.get(..8).unwrap_or(self.0);
        if start.iter().all(|&byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t')) {
            return write!(f, "{:?}", String::from_utf8_lossy(start));
        }
        for (at, byte) in start.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}
