//! Lines: where one ends, and what is wrong inside it.

use memchr::{memchr, memchr_iter};

use super::Piece;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Crlf,
    /// A bare LF, which RFC 5321 §2.3.8 forbids and many servers take.
    Lf,
}

/// A complete line at the start of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Without its ending; may contain bare CRs.
    pub text: &'a [u8],
    pub ending: Ending,
}

/// What stands at the start of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    Line(Line<'a>),
    /// No ending yet, and room for more.
    Incomplete,
    /// More bytes than allowed, ending included.
    TooLong,
}

impl<'a> Line<'a> {
    /// Takes the first line off `input`. `limit` is in bytes with the ending.
    pub fn split(input: &'a [u8], limit: usize) -> Split<'a> {
        let window = input.get(..limit).unwrap_or(input);
        let Some(lf) = memchr(b'\n', window) else {
            return if input.len() >= limit { Split::TooLong } else { Split::Incomplete };
        };
        let before = input.get(..lf).unwrap_or_default();
        Split::Line(match before.strip_suffix(b"\r") {
            Some(text) => Self { text, ending: Ending::Crlf },
            None => Self { text: before, ending: Ending::Lf },
        })
    }

    /// Bytes of input that the line takes, ending included.
    pub const fn len(&self) -> usize {
        self.text.len()
            + match self.ending {
                Ending::Crlf => 2,
                Ending::Lf => 1,
            }
    }

    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn has_bare_cr(&self) -> bool {
        memchr(b'\r', self.text).is_some()
    }

    pub fn is_clean(&self) -> bool {
        self.ending == Ending::Crlf && !self.has_bare_cr()
    }
}

/// The line as it may go to upstream: whole if it is clean, else with CRLF at its end and a space for each bare CR. In every
/// mode, also `pass`: gateway and upstream must read the same commands. Ranges count from the line's start.
pub fn normalized(line: Line<'_>, mut emit: impl FnMut(Piece)) {
    if line.is_clean() {
        emit(Piece::Input(0..line.len()));
        return;
    }
    let mut from = 0;
    for cr in memchr_iter(b'\r', line.text) {
        emit(Piece::Input(from..cr));
        emit(Piece::Insert(b" "));
        from = cr + 1;
    }
    emit(Piece::Input(from..line.text.len()));
    emit(Piece::Insert(b"\r\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_is_not_too_long() {
        assert_eq!(Line::split(b"", 8), Split::Incomplete);
        assert_eq!(Line::split(b"NOOP\r", 8), Split::Incomplete);
        assert_eq!(
            Line::split(b"NOOPAB\r\nQUIT", 8),
            Split::Line(Line { text: b"NOOPAB", ending: Ending::Crlf })
        );
        assert_eq!(Line::split(b"NOOPABC\r\n", 8), Split::TooLong);
        assert_eq!(Line::split(b"NOOPABCD", 8), Split::TooLong);
    }

    #[test]
    fn bare_endings_are_seen_and_mended() {
        let Split::Line(line) = Line::split(b"a\rb\nrest", 100) else { panic!("a line") };
        assert_eq!((line.len(), line.ending, line.has_bare_cr()), (4, Ending::Lf, true));
        let mut seen = Vec::new();
        normalized(line, |piece| match piece {
            Piece::Input(range) => seen.extend_from_slice(&b"a\rb\nrest"[range]),
            Piece::Insert(bytes) => seen.extend_from_slice(bytes),
        });
        assert_eq!(seen, b"a b\r\n");
    }
}
