//! The header section of a message: where it ends, and its fields (RFC 5322 §2.2).

use memchr::memchr;

/// Collects the header section up to and with the empty line that ends it.
#[derive(Debug)]
pub struct HeaderSection {
    bytes: Vec<u8>,
    /// Where the line at hand begins.
    line: usize,
    max: usize,
}

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// All of it belongs to the header section.
    Incomplete,
    /// So many octets of it do; the rest is the body.
    Complete(usize),
    TooLarge,
}

impl HeaderSection {
    pub const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), line: 0, max }
    }

    /// Must not be called after another result than `Incomplete`.
    pub fn write(&mut self, chunk: &[u8]) -> HeaderProgress {
        let mut rest = chunk;
        loop {
            let newline = memchr(b'\n', rest);
            let (line, after) = rest
                .split_at_checked(newline.map_or(rest.len(), |at| at + 1))
                .unwrap_or((rest, b""));
            if line.len() > self.max.saturating_sub(self.bytes.len()) {
                return HeaderProgress::TooLarge;
            }
            self.bytes.extend_from_slice(line);
            if newline.is_none() {
                return HeaderProgress::Incomplete;
            }
            if matches!(self.bytes.get(self.line..), Some(b"\n" | b"\r\n")) {
                return HeaderProgress::Complete(chunk.len() - after.len());
            }
            self.line = self.bytes.len();
            rest = after;
        }
    }

    pub fn fields(&self) -> HeaderFields<'_> {
        HeaderFields { rest: &self.bytes }
    }
}

/// A header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderField<'a> {
    pub name: &'a [u8],
    /// White space between name and colon (RFC 5322 §4.5.8).
    pub before_colon: &'a [u8],
    /// What follows the colon, with its folds and its last line end.
    pub value: &'a [u8],
}

impl<'a> HeaderField<'a> {
    /// `None` if the lines begin with no field name.
    fn parse(lines: &'a [u8]) -> Option<Self> {
        let colon = memchr(b':', lines)?;
        let (head, value) = lines.split_at_checked(colon)?;
        let end = head.iter().position(|byte| !matches!(byte, b'!'..=b'~')).unwrap_or(colon);
        let (name, before_colon) = head.split_at_checked(end)?;
        let is_space = before_colon.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        let value = value.get(1..)?;
        (!name.is_empty() && is_space).then_some(Self { name, before_colon, value })
    }

    pub const fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields in their order. Lines that belong to none are left out.
#[derive(Clone, Debug)]
pub struct HeaderFields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        while !self.rest.is_empty() {
            let mut end = 0;
            while let Some(after) = self.rest.get(end..) {
                end = memchr(b'\n', after).map_or(self.rest.len(), |at| end + at + 1);
                if !matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (lines, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest;
            if let Some(field) = HeaderField::parse(lines) {
                return Some(field);
            }
        }
        None
    }
}
