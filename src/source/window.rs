//! The part of a file that is in memory: a buffer that moves over the input, which is unpacked if gzip packed it.
//!
//! Packets are lent out of the buffer, so that none is copied. It begins with [`SIZE`] bytes and grows only when it is
//! full of bytes that are really there: a claimed length allocates nothing.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;

/// Large enough that what moves at a refill (less than one packet) does not count.
const SIZE: usize = 1 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) struct Window<R> {
    input: Input<R>,
    buffer: Vec<u8>,
    /// What is read and not consumed. Invariant: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
    /// Bytes consumed.
    offset: u64,
    ended: bool,
    /// Why the input ended; said when somebody wants more than there is.
    failure: Option<io::Error>,
}

/// The input has fewer bytes than wanted.
#[derive(Debug)]
pub(super) struct ShortRead {
    pub(super) offset: u64,
    pub(super) wanted: usize,
    pub(super) there: usize,
    /// It did not end, it failed.
    pub(super) failure: Option<io::Error>,
}

impl<R: Read> Window<R> {
    /// Reads the first bytes to see whether gzip packed them: its magic tells, names lie.
    pub(super) fn new(mut reader: R) -> io::Result<Self> {
        let mut first = vec![0; Packed::<R>::SIZE];
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
            let packed = Packed { reader, buffer: first, start: 0, end, offset: 0 };
            let input = Input::Gzip(Box::new(MultiGzDecoder::new(packed)));
            let buffer = vec![0; SIZE];
            return Ok(Self {
                input,
                buffer,
                start: 0,
                end: 0,
                offset: 0,
                ended: false,
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
            ended,
            failure: None,
        })
    }

    /// The bytes that are next, at least `count` of them.
    #[inline]
    pub(super) fn want(&mut self, count: usize) -> Result<&[u8], ShortRead> {
        if self.end - self.start < count {
            self.refill(count)?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    /// Nothing is left.
    #[inline]
    pub(super) fn is_over(&mut self) -> Result<bool, ShortRead> {
        match self.want(1) {
            Ok(_) => Ok(false),
            Err(ShortRead { failure: None, .. }) => Ok(true),
            Err(lack) => Err(lack),
        }
    }

    /// Steps over `count` bytes (of those seen at the last [`Self::want`]) and tells where in the buffer they stay until
    /// the next one.
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

    /// Bytes consumed; of what the file unpacks to, if it is packed.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn is_packed(&self) -> bool {
        matches!(self.input, Input::Gzip(_))
    }

    /// Bytes of the file that are dealt with.
    pub(super) fn progress(&self) -> u64 {
        match &self.input {
            Input::Plain(_) => self.offset,
            Input::Gzip(decoder) => decoder.get_ref().offset,
        }
    }

    /// Bytes of memory that the buffer takes.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    #[cold]
    fn refill(&mut self, count: usize) -> Result<(), ShortRead> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < count && !self.ended {
            if self.end == self.buffer.len() {
                self.buffer.resize(2 * self.end, 0);
            }
            let space = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.input.read(space) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count.min(space.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = true;
                    self.failure = Some(error);
                }
            }
        }
        if self.end >= count {
            return Ok(());
        }
        let failure = self.failure.take();
        Err(ShortRead { offset: self.offset, wanted: count, there: self.end, failure })
    }
}

enum Input<R> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<Packed<R>>>),
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(into),
            Self::Gzip(decoder) => decoder.read(into),
        }
    }
}

/// What gzip packed, handed to the decoder in sips: it throws away what it unpacked of a sip that turns out damaged.
struct Packed<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that the decoder took.
    offset: u64,
}

impl<R> Packed<R> {
    const SIZE: usize = 1 << 16;
    const SIP: usize = 512;
}

impl<R: Read> BufRead for Packed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.end = self.reader.read(&mut self.buffer)?.min(self.buffer.len());
        }
        let sip = self.start..self.end.min(self.start + Self::SIP);
        Ok(self.buffer.get(sip).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
