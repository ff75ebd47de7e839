//! A buffer that moves over the input, which is decompressed if it is gzip.
//!
//! Packets are borrowed from the buffer, without a copy. It starts with [`SIZE`] bytes and grows only when it is full of
//! input: a length field alone allocates nothing.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;

/// Large enough that the move at a refill (less than one packet) costs little.
const SIZE: usize = 1 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) struct Window<R> {
    input: Input<R>,
    buffer: Vec<u8>,
    /// `start..end` is read and not consumed. Invariant: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
    /// Bytes consumed.
    offset: u64,
    input_ended: bool,
    /// Read error that ended the input; returned by the next failing [`Window::require`].
    failure: Option<io::Error>,
}

/// The input has fewer bytes than wanted.
#[derive(Debug)]
pub(super) struct ShortRead {
    pub(super) offset: u64,
    pub(super) wanted: usize,
    pub(super) available: usize,
    /// The read error, if the input failed rather than ended.
    pub(super) failure: Option<io::Error>,
}

impl<R: Read> Window<R> {
    /// Reads the first bytes, to detect gzip by its magic number rather than by the file name.
    pub(super) fn new(mut reader: R) -> io::Result<Self> {
        let mut first = vec![0; GzipInput::<R>::SIZE];
        let mut end = 0;
        let mut ended = false;
        while end < GZIP_MAGIC.len() && !ended {
            match reader.read(first.get_mut(end..).unwrap_or_default()) {
                Ok(0) => ended = true,
                Ok(count) => end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if first.get(..end).is_some_and(|first| first.starts_with(&GZIP_MAGIC)) {
            let compressed = GzipInput { reader, buffer: first, start: 0, end, offset: 0 };
            let input = Input::Gzip(Box::new(MultiGzDecoder::new(compressed)));
            let buffer = vec![0; SIZE];
            return Ok(Self {
                input,
                buffer,
                start: 0,
                end: 0,
                offset: 0,
                input_ended: false,
                failure: None,
            });
        }
        first.resize(SIZE, 0);
        Ok(Self {
            input: Input::Plain(reader),
            buffer: first,
            start: 0,
            end,
            offset: 0,
            input_ended: ended,
            failure: None,
        })
    }

    /// The next bytes, at least `count` of them.
    #[inline]
    pub(super) fn require(&mut self, count: usize) -> Result<&[u8], ShortRead> {
        if self.end - self.start < count {
            self.refill(count)?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    #[inline]
    pub(super) fn is_at_end(&mut self) -> Result<bool, ShortRead> {
        match self.require(1) {
            Ok(_) => Ok(false),
            Err(ShortRead { failure: None, .. }) => Ok(true),
            Err(short) => Err(short),
        }
    }

    /// Consumes `count` bytes of the last [`Self::require`] and returns their range, which is valid until the next one.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) -> Range<usize> {
        let start = self.start;
        self.start = self.end.min(start + count);
        self.offset += (self.start - start) as u64;
        start..self.start
    }

    #[inline]
    pub(super) fn consumed(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Bytes consumed, after decompression.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn is_compressed(&self) -> bool {
        matches!(self.input, Input::Gzip(_))
    }

    /// Bytes of the file consumed, before decompression.
    pub(super) fn progress(&self) -> u64 {
        match &self.input {
            Input::Plain(_) => self.offset,
            Input::Gzip(decoder) => decoder.get_ref().offset,
        }
    }

    /// Size of the buffer in bytes.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    #[cold]
    fn refill(&mut self, count: usize) -> Result<(), ShortRead> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < count && !self.input_ended {
            if self.end == self.buffer.len() {
                self.buffer.resize(2 * self.end, 0);
            }
            let space = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.input.read(space) {
                Ok(0) => self.input_ended = true,
                Ok(count) => self.end += count.min(space.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.input_ended = true;
                    self.failure = Some(error);
                }
            }
        }
        if self.end >= count {
            return Ok(());
        }
        let failure = self.failure.take();
        Err(ShortRead { offset: self.offset, wanted: count, available: self.end, failure })
    }
}

enum Input<R> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<GzipInput<R>>>),
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(into),
            Self::Gzip(decoder) => decoder.read(into),
        }
    }
}

/// Compressed input, passed to the decoder in small chunks: the decoder discards its output for a chunk with damage.
struct GzipInput<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes consumed by the decoder.
    offset: u64,
}

impl<R> GzipInput<R> {
    const SIZE: usize = 1 << 16;
    const CHUNK: usize = 512;
}

impl<R: Read> BufRead for GzipInput<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = self.reader.read(&mut self.buffer)?.min(self.buffer.len());
        }
        let chunk = self.start..self.end.min(self.start + Self::CHUNK);
        Ok(self.buffer.get(chunk).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }
}

impl<R: Read> Read for GzipInput<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
