//! Capture files: pcap and pcapng of every byte order and resolution, optionally compressed with gzip.
//!
//! All readable packets are returned before an error is reported. Memory is bounded whatever the file claims: the buffer of
//! `window` never exceeds [`MAX_PACKET`](super::MAX_PACKET) bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::buffered_packet::{BufferedPacket, ReadError};
use super::error::{FileError, FilePart, FilePosition};
use super::packet_source::PacketSource;
use super::pcap_reader::PcapReader;
use super::pcapng_reader::{PcapngReader, SkippedBlocks};
use super::window::{ShortRead, Window};
use crate::wire::{Packet, PacketNote};

/// A capture file opened for reading.
pub struct CaptureFile<R = File> {
    name: PathBuf,
    size: u64,
    window: Window<R>,
    format: Format,
    packets: u64,
    at_end: bool,
}

enum Format {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
}

impl CaptureFile {
    /// Opens the file at `path` (`-` is standard input) and reads its header.
    ///
    /// # Errors
    /// The file cannot be opened, is not a capture file, or ends within its header.
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
    /// Reads a capture of `size` bytes (0 if unknown) from `reader`; `name` is used in messages.
    ///
    /// # Errors
    /// As [`CaptureFile::open`].
    pub fn from_reader(name: &Path, reader: R, size: u64) -> Result<Self, FileError> {
        let file = name.to_owned();
        let mut window = match Window::new(reader) {
            Ok(window) => window,
            Err(source) => return Err(FileError::Open { file, source }),
        };
        let result = match PcapReader::open(&mut window) {
            Ok(Some(reader)) => {
                return Ok(Self::with_format(file, size, window, Format::Pcap(reader)));
            }
            Ok(None) => match PcapngReader::open(&mut window) {
                Some(reader) => {
                    return Ok(Self::with_format(file, size, window, Format::Pcapng(reader)));
                }
                None => window.is_at_end().map_err(ReadError::short_within(FilePart::FileHeader)),
            },
            Err(error) => Err(error),
        };
        Err(match result {
            Ok(true) => FileError::Empty { file },
            Ok(false) => {
                let _ = window.require(8);
                let start = window.require(1).map(|start| start.iter().take(8).copied().collect());
                FileError::UnknownFormat { file, start: start.unwrap_or_default() }
            }
            Err(error) => file_error(file, window.is_compressed(), 0, 0, error),
        })
    }

    /// Bytes read of the file and its size (0 if unknown), before decompression.
    pub fn progress(&self) -> (u64, u64) {
        (self.window.progress(), self.size)
    }

    const fn with_format(name: PathBuf, size: u64, window: Window<R>, format: Format) -> Self {
        Self { name, size, window, format, packets: 0, at_end: false }
    }

    /// Ends the file, with an error if blocks were skipped.
    fn finish(&mut self) -> Result<(), FileError> {
        self.at_end = true;
        let Some(SkippedBlocks { offset, damage, blocks }) = self.skipped() else {
            return Ok(());
        };
        let (file, compressed) = (self.name.clone(), self.window.is_compressed());
        let position = FilePosition { file, offset, compressed, packets: self.packets, skipped: 0 };
        Err(FileError::Skipped { position, damage, blocks })
    }

    fn skipped(&self) -> Option<SkippedBlocks> {
        match &self.format {
            Format::Pcap(_) => None,
            Format::Pcapng(reader) => reader.skipped(),
        }
    }

    #[cold]
    fn fail(&mut self, error: ReadError) -> FileError {
        self.at_end = true;
        let skipped = self.skipped().map_or(0, |skipped| skipped.blocks);
        file_error(self.name.clone(), self.window.is_compressed(), self.packets, skipped, error)
    }

    #[cfg(test)]
    pub(super) const fn buffered(&self) -> usize {
        self.window.capacity()
    }
}

impl<R: Read> PacketSource for CaptureFile<R> {
    type Error = FileError;

    fn next(&mut self) -> Result<Option<Packet<'_>>, FileError> {
        if self.at_end {
            return Ok(None);
        }
        let packet = match &mut self.format {
            Format::Pcap(reader) => reader.next(&mut self.window),
            Format::Pcapng(reader) => reader.next(&mut self.window),
        };
        match packet {
            Ok(Some(BufferedPacket { at, link, bytes, wire_len, omitted, interface, note })) => {
                self.packets += 1;
                let bytes = self.window.consumed(bytes);
                let note =
                    note.and_then(|note| std::str::from_utf8(self.window.consumed(note)).ok());
                let note = note.and_then(PacketNote::parse);
                Ok(Some(Packet { at, link, bytes, wire_len, omitted, interface, note }))
            }
            Ok(None) => self.finish().map(|()| None),
            Err(error) => Err(self.fail(error)),
        }
    }
}

fn file_error(
    file: PathBuf,
    compressed: bool,
    packets: u64,
    skipped: u64,
    error: ReadError,
) -> FileError {
    let at = |offset| FilePosition { file, offset, compressed, packets, skipped };
    match error {
        ReadError::Damage { offset, damage } => FileError::Damaged { position: at(offset), damage },
        ReadError::Short { within, short: ShortRead { offset, wanted, available, failure } } => {
            match failure {
                None => FileError::Truncated { position: at(offset), within, wanted, available },
                Some(source) if compressed => {
                    FileError::Decompress { position: at(offset + available as u64), source }
                }
                Some(source) => FileError::Read { position: at(offset + available as u64), source },
            }
        }
    }
}
