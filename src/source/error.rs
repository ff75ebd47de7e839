//! What can be wrong with a capture file, in words that say where, and how much of it was read.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::MAX_PACKET;

/// Why a capture file gives no more packets. Those that came before it are good.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open {}: {source}", named(file))]
    Open { file: PathBuf, source: io::Error },
    #[error("{} is empty: expected a pcap or pcapng file, or a .gz of one", named(file))]
    Empty { file: PathBuf },
    #[error(
        "{} is no pcap or pcapng file (starts with {}): if it is another kind of capture, convert it \
         with `editcap -F pcapng`; if it is packed otherwise than by gzip, unpack it",
        named(file),
        Start(start)
    )]
    NoCapture { file: PathBuf, start: Vec<u8> },
    #[error("cannot read on in {} at {}: {source}; {}", named(&place.file), place.offset(), place.so_far())]
    Read { place: FilePosition, source: io::Error },
    #[error("cannot unpack more of {} than {} bytes: {source}; {}", named(&place.file), place.offset, place.so_far())]
    Unpack { place: FilePosition, source: io::Error },
    #[error(
        "{} ends within {} (wanted {wanted} bytes at {}, {there} are there); {}",
        named(&place.file), place.part(*within), place.offset(), place.so_far()
    )]
    Cut { place: FilePosition, within: FilePart, wanted: usize, there: usize },
    #[error("{} is damaged at {}: {damage}; {}", named(&place.file), place.offset(), place.so_far())]
    Damaged { place: FilePosition, damage: FileDamage },
    /// Said at the end of the file: damage that could be stepped over, the first of `blocks`.
    #[error(
        "{} is damaged at {}: {damage}; {blocks} damaged {} skipped, {} {} read",
        named(&place.file), place.offset(), if *blocks == 1 { "block was" } else { "blocks were" },
        place.packets, if place.packets == 1 { "packet was" } else { "packets were" }
    )]
    Skipped { place: FilePosition, damage: FileDamage, blocks: u64 },
}

/// Where in a file something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePosition {
    pub file: PathBuf,
    /// Bytes before it.
    pub offset: u64,
    /// The offset counts what the file unpacks to.
    pub packed: bool,
    /// Packets read before it.
    pub packets: u64,
    /// Damaged blocks before it that were skipped.
    pub skipped: u64,
}

/// What a file ends within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePart {
    FileHeader,
    PacketHeader,
    Packet,
    /// A pcapng block that holds no packet.
    Block,
}

/// What is wrong where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileDamage {
    #[error("a packet that claims {0} bytes (expected at most {MAX_PACKET})")]
    PacketLength(u32),
    #[error("a block that claims {0} bytes (expected a multiple of 4 from {least} to {MAX_PACKET})", least = super::pcapng_reader::LEAST)]
    BlockLength(u32),
    #[error("a block that claims {first} bytes at its start and {last} at its end")]
    Trailer { first: u32, last: u32 },
    #[error("a packet of {captured} bytes in a block that has room for {room}")]
    Room { captured: u32, room: usize },
    #[error("a block too short for what it holds")]
    Short,
    #[error("an interface description that cannot be read")]
    Description,
    #[error(
        "a packet of interface {interface}, which is not described (good descriptions: {known})"
    )]
    Interface { interface: u32, known: usize },
    #[error("one interface description more than the {0} that a section may have")]
    Interfaces(usize),
    #[error("a section whose byte order mark is {0:#010x} (expected 0x1a2b3c4d in either order)")]
    ByteOrder(u32),
    #[error("a section of pcapng version {0} (expected 1)")]
    Version(u16),
}

impl FilePosition {
    fn offset(&self) -> String {
        let of = if self.packed { " of what it unpacks to" } else { "" };
        format!("offset {}{of}", self.offset)
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

    fn so_far(&self) -> String {
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

fn named(file: &std::path::Path) -> std::path::Display<'_> {
    if file.as_os_str() == "-" { std::path::Path::new("standard input") } else { file }.display()
}

/// The first bytes of a file: as text if they are, else in hex.
struct Start<'a>(&'a [u8]);

impl fmt::Display for Start<'_> {
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
