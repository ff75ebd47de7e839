//! Bodies, in chunks of any size (RFC 6376 §3.4.3, §3.4.4).

use std::ops::Range;

use memchr::memchr2;

use super::Canonicalization;

/// Canonicalises one body. What it emits are slices of the input as long as they are unchanged, so that hashing them costs few
/// calls. Nothing is kept but flags and a count of lines.
#[derive(Clone, Debug)]
pub(in crate::dkim) struct BodyCanonicalizer {
    canonicalization: Canonicalization,
    /// Empty lines since the last line with text. Those at the end of the body are ignored.
    empty_lines: u64,
    /// The line at hand has text.
    has_text: bool,
    /// "relaxed" only: white space came last on this line, and counts if text follows.
    space: bool,
    /// The last chunk ended in CR: the line end's, or text.
    carriage_return: bool,
    /// No line had text yet.
    is_empty: bool,
}

/// Line ends that are emitted at once.
const MAX_CRLFS: usize = 32;

const CRLFS: [u8; 2 * MAX_CRLFS] = {
    let mut bytes = [b'\r'; 2 * MAX_CRLFS];
    let mut at = 1;
    #[allow(clippy::indexing_slicing, reason = "computed by the compiler")]
    while at < bytes.len() {
        bytes[at] = b'\n';
        at += 2;
    }
    bytes
};

impl BodyCanonicalizer {
    pub(in crate::dkim) const fn new(canonicalization: Canonicalization) -> Self {
        Self {
            canonicalization,
            empty_lines: 0,
            has_text: false,
            space: false,
            carriage_return: false,
            is_empty: true,
        }
    }

    pub(in crate::dkim) fn write(&mut self, chunk: &[u8], emit: &mut impl FnMut(&[u8])) {
        let Some(&first) = chunk.first() else { return };
        let mut pass = Pass { state: self, emit, chunk, run: 0..0 };
        let mut at = 0;
        if std::mem::take(&mut pass.state.carriage_return) {
            if first == b'\n' {
                pass.end_line(0..1);
                at = 1;
            } else {
                pass.insert_text(b"\r");
            }
        }
        match pass.state.canonicalization {
            Canonicalization::Simple => pass.simple(at),
            Canonicalization::Relaxed => pass.relaxed(at),
        }
        pass.flush();
    }

    /// The last line end, or that of an empty body.
    pub(in crate::dkim) fn finish(mut self, emit: &mut impl FnMut(&[u8])) {
        if self.carriage_return {
            Pass { state: &mut self, emit, chunk: b"", run: 0..0 }.insert_text(b"\r");
        }
        let is_simple = self.canonicalization == Canonicalization::Simple;
        if self.has_text || (self.is_empty && is_simple) {
            emit(b"\r\n");
        }
    }
}

/// One chunk's pass.
struct Pass<'a, F> {
    state: &'a mut BodyCanonicalizer,
    emit: &'a mut F,
    chunk: &'a [u8],
    /// A part of the chunk that is emitted as it is, and was not yet.
    run: Range<usize>,
}

impl<F: FnMut(&[u8])> Pass<'_, F> {
    fn simple(&mut self, mut at: usize) {
        while let Some(rest) = self.chunk.get(at..) {
            let end = at + unchanged_simple(rest);
            self.text(at..end);
            at = match self.chunk.get(end..) {
                None | Some([]) => return,
                Some(rest) => self.line_end_or_text(rest, end),
            };
        }
    }

    fn relaxed(&mut self, mut at: usize) {
        while let Some(rest) = self.chunk.get(at..) {
            let end = at + unchanged_relaxed(rest);
            self.text(at..end);
            at = match self.chunk.get(end..) {
                None | Some([]) => return,
                Some(rest @ [b' ' | b'\t', ..]) => {
                    let length = rest.iter().position(|byte| !is_wsp(*byte));
                    let after = end + length.unwrap_or(rest.len());
                    self.white_space(end..after);
                    after
                }
                Some(rest) => self.line_end_or_text(rest, end),
            };
        }
    }

    /// `rest` begins at `at`, mostly with a line end. Returns what was passed.
    fn line_end_or_text(&mut self, rest: &[u8], at: usize) -> usize {
        match rest {
            [b'\n', ..] => self.end_line(at..at + 1),
            [b'\r', b'\n', ..] => {
                self.end_line(at..at + 2);
                return at + 2;
            }
            [b'\r'] => self.state.carriage_return = true,
            _ => self.text(at..at + 1),
        }
        at + 1
    }

    /// Text of the chunk.
    fn text(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.begin_text();
        self.keep(range);
    }

    /// Text that is not in this chunk.
    fn insert_text(&mut self, text: &[u8]) {
        self.begin_text();
        self.insert(text);
    }

    /// What was held back before text: empty lines and white space.
    fn begin_text(&mut self) {
        while self.state.empty_lines > 0 {
            let count = self.state.empty_lines.min(MAX_CRLFS as u64);
            let octets = usize::try_from(2 * count).unwrap_or(CRLFS.len());
            self.insert(CRLFS.get(..octets).unwrap_or(&CRLFS));
            self.state.empty_lines -= count;
        }
        if std::mem::take(&mut self.state.space) {
            self.insert(b" ");
        }
        self.state.has_text = true;
        self.state.is_empty = false;
    }

    /// White space that the chunk has at `range`: one space if text follows on its line.
    fn white_space(&mut self, range: Range<usize>) {
        let next = self.chunk.get(range.end);
        let is_before_text = next.is_some_and(|byte| !matches!(byte, b'\r' | b'\n'));
        let last = range.end - 1..range.end;
        if is_before_text && !self.state.space && self.chunk.get(last.clone()) == Some(b" ") {
            self.text(last);
        } else {
            self.state.space = true;
        }
    }

    /// The line end at `range` of the chunk, a CRLF or a part of it.
    fn end_line(&mut self, range: Range<usize>) {
        self.state.space = false;
        if !std::mem::take(&mut self.state.has_text) {
            self.state.empty_lines += 1;
        } else if range.len() == 2 {
            self.keep(range);
        } else {
            self.insert(b"\r\n");
        }
    }

    /// Emits a part of the chunk, later with those that follow it at once.
    fn keep(&mut self, range: Range<usize>) {
        if self.run.end == range.start {
            self.run.end = range.end;
        } else {
            self.flush();
            self.run = range;
        }
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.flush();
        (self.emit)(bytes);
    }

    fn flush(&mut self) {
        let run = std::mem::take(&mut self.run);
        match self.chunk.get(run) {
            Some(bytes) if !bytes.is_empty() => (self.emit)(bytes),
            _ => {}
        }
    }
}

const fn is_wsp(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The length of the text at the start of `bytes` that "simple" leaves as it is: lines that are not empty with their CRLFs,
/// up to the last line end that one follows.
fn unchanged_simple(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(offset) = bytes.get(end..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
        let stop = end + offset;
        match bytes.get(stop..) {
            Some([b'\r', b'\n', next, ..]) if stop > 0 && !matches!(next, b'\r' | b'\n') => {
                end = stop + 3;
            }
            _ => return stop,
        }
    }
    bytes.len()
}

/// The same for "relaxed": also single spaces between words.
fn unchanged_relaxed(bytes: &[u8]) -> usize {
    let mut from = 0;
    while let Some(stop) = find_break(bytes, from) {
        let before = stop.checked_sub(1).and_then(|before| bytes.get(before));
        match bytes.get(stop..) {
            // What follows the space decides on it, too.
            _ if before == Some(&b' ') => return stop - 1,
            Some([b'\r', b'\n', next, ..]) if stop > 0 && *next > b' ' => from = stop + 3,
            Some([b' ' | b'\t' | b'\r' | b'\n', ..]) | None => return stop,
            Some(_) => from = stop + 1,
        }
    }
    bytes.len() - usize::from(bytes.ends_with(b" "))
}

/// The position of the first octet, at or after `from`, that is neither text nor a single space after text.
fn find_break(bytes: &[u8], from: usize) -> Option<usize> {
    let from = match from {
        0 if *bytes.first()? <= b' ' => return Some(0),
        0 => 1,
        from => from,
    };
    let (before, octets) = (bytes.get(from - 1..)?, bytes.get(from..)?);
    // Most lines are longer than a block, and end within one.
    let passed = blocks_without_break::<32>(before, octets);
    let (before, octets) = (before.get(passed..)?, octets.get(passed..)?);
    let passed = passed + blocks_without_break::<8>(before, octets);
    let (before, octets) = (bytes.get(from + passed - 1..)?, bytes.get(from + passed..)?);
    let mut pairs = before.iter().zip(octets);
    let offset = pairs.position(|(before, octet)| breaks(*before, *octet))?;
    Some(from + passed + offset)
}

/// The octets in whole blocks at the start of `octets` that have no break; `before` has the octet before each.
fn blocks_without_break<const BLOCK: usize>(before: &[u8], octets: &[u8]) -> usize {
    // Without a branch for each octet, the compiler compares a block at a time.
    let has_break = |(before, octets): &(&[u8; BLOCK], &[u8; BLOCK])| {
        let pairs = before.iter().zip(octets.iter());
        pairs.fold(false, |found, (before, octet)| found | breaks(*before, *octet))
    };
    let blocks = before.as_chunks().0.iter().zip(octets.as_chunks().0);
    BLOCK * blocks.take_while(|pair| !has_break(pair)).count()
}

const fn breaks(before: u8, octet: u8) -> bool {
    (octet <= b' ') & ((octet != b' ') | (before <= b' '))
}
