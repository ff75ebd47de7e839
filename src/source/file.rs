//! Capture files: pcap and pcapng of every byte order and resolution, and a `.gz` of either.
//!
//! What is readable is used and the rest is one error, at the end. Memory is bounded whatever the file claims: the buffer
//! of `window` never has more than [`MAX_PACKET`](super::MAX_PACKET) bytes.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::PacketSource;
use super::error::{FileDamage, FileError, FilePart, FilePosition};
use super::pcap_reader::PcapReader;
use super::pcapng_reader::{PcapngReader, SkippedBlocks};
use super::window::{ShortRead, Window};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// A capture file that is being read.
pub struct CaptureFile<R = File> {
    name: PathBuf,
    size: u64,
    window: Window<R>,
    format: Format,
    packets: u64,
    over: bool,
}

enum Format {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
}

/// A packet, its bytes as a range of the window's buffer.
pub(super) struct BufferedPacket {
    pub(super) at: Timestamp,
    pub(super) link: LinkType,
    pub(super) bytes: Range<usize>,
    pub(super) wire_len: u32,
    /// As in [`Packet`].
    pub(super) omitted: u32,
    /// By its number within the section.
    pub(super) interface: u32,
    /// As in [`Packet`], as a range of the window's buffer too.
    pub(super) note: Option<Range<usize>>,
}

/// Why no further packet can be read.
pub(super) enum ReadError {
    ShortRead { within: FilePart, lack: ShortRead },
    FileDamage { offset: u64, damage: FileDamage },
}

impl ReadError {
    pub(super) fn within(within: FilePart) -> impl Fn(ShortRead) -> Self {
        move |lack| Self::ShortRead { within, lack }
    }
}

impl CaptureFile {
    /// Opens the file at `path`, standard input if that is `-`, and reads its header.
    ///
    /// # Errors
    /// It cannot be opened, or is no capture file, or ends within its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let opened = if path.as_os_str() == "-" {
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::open(path)
        };
        let file = opened.map_err(|source| FileError::Open { file: path.to_owned(), source })?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Self::from_reader(path, file, size)
    }
}

impl<R: Read> CaptureFile<R> {
    /// Reads a capture of `size` bytes (0 if that is not known) from `reader`; `name` is for messages.
    ///
    /// # Errors
    /// As [`CaptureFile::open`].
    pub fn from_reader(name: &Path, reader: R, size: u64) -> Result<Self, FileError> {
        let file = name.to_owned();
        let mut window = match Window::new(reader) {
            Ok(window) => window,
            Err(source) => return Err(FileError::Open { file, source }),
        };
        let trouble = match PcapReader::open(&mut window) {
            Ok(Some(records)) => {
                return Ok(Self::reading(file, size, window, Format::Pcap(records)));
            }
            Ok(None) => match PcapngReader::open(&mut window) {
                Some(sections) => {
                    return Ok(Self::reading(file, size, window, Format::Pcapng(sections)));
                }
                None => window.is_over().map_err(ReadError::within(FilePart::FileHeader)),
            },
            Err(trouble) => Err(trouble),
        };
        Err(match trouble {
            Ok(true) => FileError::Empty { file },
            Ok(false) => {
                let _ = window.want(8);
                let start = window.want(1).map(|start| start.iter().take(8).copied().collect());
                FileError::NoCapture { file, start: start.unwrap_or_default() }
            }
            Err(trouble) => error(file, window.is_packed(), 0, 0, trouble),
        })
    }

    /// Bytes of the file that are read, and its size; 0 if that is not known. Both of the file as it is, packed or not.
    pub fn progress(&self) -> (u64, u64) {
        (self.window.progress(), self.size)
    }

    const fn reading(name: PathBuf, size: u64, window: Window<R>, format: Format) -> Self {
        Self { name, size, window, format, packets: 0, over: false }
    }

    /// Nothing more is there: is there something to say?
    fn end(&mut self) -> Result<(), FileError> {
        self.over = true;
        let Some(SkippedBlocks { offset, damage, blocks }) = self.skipped() else {
            return Ok(());
        };
        let (file, packed) = (self.name.clone(), self.window.is_packed());
        let place = FilePosition { file, offset, packed, packets: self.packets, skipped: 0 };
        Err(FileError::Skipped { place, damage, blocks })
    }

    fn skipped(&self) -> Option<SkippedBlocks> {
        match &self.format {
            Format::Pcap(_) => None,
            Format::Pcapng(sections) => sections.skipped(),
        }
    }

    #[cold]
    fn fail(&mut self, trouble: ReadError) -> FileError {
        self.over = true;
        let skipped = self.skipped().map_or(0, |skipped| skipped.blocks);
        error(self.name.clone(), self.window.is_packed(), self.packets, skipped, trouble)
    }

    #[cfg(test)]
    pub(super) const fn buffered(&self) -> usize {
        self.window.capacity()
    }
}

impl<R: Read> PacketSource for CaptureFile<R> {
    type Error = FileError;

    fn next(&mut self) -> Result<Option<Packet<'_>>, FileError> {
        if self.over {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Pcap(records) => records.next(&mut self.window),
            Format::Pcapng(sections) => sections.next(&mut self.window),
        };
        match found {
            Ok(Some(BufferedPacket { at, link, bytes, wire_len, omitted, interface, note })) => {
                self.packets += 1;
                let bytes = self.window.consumed(bytes);
                let note =
                    note.and_then(|note| std::str::from_utf8(self.window.consumed(note)).ok());
                Ok(Some(Packet { at, link, bytes, wire_len, omitted, interface, note }))
            }
            Ok(None) => self.end().map(|()| None),
            Err(trouble) => Err(self.fail(trouble)),
        }
    }
}

fn error(file: PathBuf, packed: bool, packets: u64, skipped: u64, trouble: ReadError) -> FileError {
    let place = |offset| FilePosition { file, offset, packed, packets, skipped };
    match trouble {
        ReadError::FileDamage { offset, damage } => {
            FileError::Damaged { place: place(offset), damage }
        }
        ReadError::ShortRead { within, lack: ShortRead { offset, wanted, there, failure } } => {
            match failure {
                None => FileError::Cut { place: place(offset), within, wanted, there },
                Some(source) if packed => {
                    FileError::Unpack { place: place(offset + there as u64), source }
                }
                Some(source) => FileError::Read { place: place(offset + there as u64), source },
            }
        }
    }
}
