//! Takes one header field out of a message that streams by: every field of a name, with its folded lines.
//!
//! RFC 5322 §2.2. It works on what goes to the server, which is dot-stuffed (RFC 5321 §4.5.2): a dot at the start of a line
//! is not part of it, or a client could write `.Name: forged` and the server would read the field. The header section ends
//! at an empty line between CRLFs and nowhere else; a field may begin after any newline, also a bare one. So what a lax
//! server or a strict one takes for a field of this name is taken out for both.

use std::ops::Range;

/// White space between a name and its colon (RFC 5322 §4.5.8) beyond which the line is no field that anybody means well by.
const MAX_SPACE: usize = 998;

/// A part of what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPiece {
    /// These bytes of the input.
    Input(Range<usize>),
    /// Bytes of earlier inputs, kept back until it was clear that they are no such field.
    Held(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `crlf`: the line before it ended in CRLF.
    LineStart {
        crlf: bool,
    },
    /// CR at the start of a line.
    EmptyCr {
        crlf: bool,
    },
    /// So many bytes of the line, without a dot before them, are the name, or the name and white space. Held.
    Name {
        count: usize,
    },
    Text,
    /// Within a line, after a CR.
    Cr,
    /// The body, or nothing to do.
    Over,
}

/// Scans one message from its first byte on.
#[derive(Clone, Debug)]
pub struct HeaderFilter {
    name: &'static str,
    state: State,
    /// The line at hand, or at its start the line before, is taken out.
    dropping: bool,
    /// Bytes of earlier inputs that may begin such a field.
    held: Vec<u8>,
}

impl HeaderFilter {
    /// Takes out the fields called `name`. With `behind_one` a field of that name stands right before the message, and lines
    /// that would be taken for its continuation are taken out too.
    pub const fn new(name: &'static str, behind_one: bool) -> Self {
        let state = State::LineStart { crlf: true };
        Self { name, state, dropping: behind_one, held: Vec::new() }
    }

    /// Whether the header section is over: everything is kept from here on.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Emits what is kept of `input`, in order.
    pub fn filter(&mut self, input: &[u8], emit: impl FnMut(HeaderPiece)) {
        Pass { filter: self, emit, kept_from: 0, line: 0 }.run(input);
    }
}

/// One input's pass.
struct Pass<'a, F> {
    filter: &'a mut HeaderFilter,
    emit: F,
    /// The first byte that is kept and not emitted.
    kept_from: usize,
    /// Where what is held of the line begins in this input.
    line: usize,
}

impl<F: FnMut(HeaderPiece)> Pass<'_, F> {
    fn run(mut self, input: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (self.filter.state, byte) {
                (State::Over, _) => break,
                (State::LineStart { crlf }, b'\r') => {
                    self.keep_line(at);
                    self.filter.state = State::EmptyCr { crlf };
                }
                (State::EmptyCr { crlf: true }, b'\n') => {
                    self.filter.state = State::Over;
                    break;
                }
                (State::EmptyCr { .. }, b'\n') => self.line_start(true),
                (State::EmptyCr { .. }, _) => {
                    self.line_start(false);
                    continue;
                }
                (State::LineStart { .. }, b' ' | b'\t') => self.filter.state = State::Text,
                (State::LineStart { .. }, _) => {
                    self.line = at;
                    self.filter.state = State::Name { count: 0 };
                    if byte != b'.' {
                        continue;
                    }
                }
                (State::Name { count }, _) => {
                    if !self.name(count, byte, at) {
                        continue;
                    }
                }
                (State::Text, b'\n') => self.line_start(false),
                (State::Text, b'\r') => self.filter.state = State::Cr,
                (State::Text, _) => {
                    let rest = input.get(at..).unwrap_or_default();
                    let Some(skip) = memchr::memchr2(b'\r', b'\n', rest) else {
                        break;
                    };
                    at += skip;
                    continue;
                }
                (State::Cr, b'\n') => self.line_start(true),
                (State::Cr, _) => {
                    self.line_start(false);
                    continue;
                }
            }
            at += 1;
            self.leave_out_to(at);
        }
        self.end(input);
    }

    /// The byte at hand, behind `count` bytes that fit. Returns whether it is dealt with.
    fn name(&mut self, count: usize, byte: u8, at: usize) -> bool {
        let name = self.filter.name.as_bytes();
        let fits = match name.get(count) {
            Some(expected) => byte.eq_ignore_ascii_case(expected),
            None if byte == b':' || count > MAX_SPACE => {
                self.drop_line(at);
                return true;
            }
            None => matches!(byte, b' ' | b'\t'),
        };
        if fits {
            self.filter.state = State::Name { count: count + 1 };
            return true;
        }
        self.filter.state = State::Text;
        // Behind a dot that is no part of the line.
        let folded = count == 0 && matches!(byte, b' ' | b'\t');
        if folded && self.filter.dropping {
            self.drop_line(at);
        } else {
            self.keep_line(self.line);
        }
        false
    }

    fn line_start(&mut self, crlf: bool) {
        self.filter.state = State::LineStart { crlf };
    }

    /// The line at hand is kept, and with it what is held; in this input it begins at `from`.
    fn keep_line(&mut self, from: usize) {
        if std::mem::take(&mut self.filter.dropping) {
            self.kept_from = from;
        }
        if !self.filter.held.is_empty() {
            (self.emit)(HeaderPiece::Held(std::mem::take(&mut self.filter.held)));
        }
    }

    /// The line at hand, up to the byte at `at`, is taken out, and the rest of it will be.
    fn drop_line(&mut self, at: usize) {
        self.filter.state = State::Text;
        if !self.filter.dropping {
            self.emit_to(self.line);
        }
        self.filter.dropping = true;
        self.filter.held = Vec::new();
        self.kept_from = at + 1;
    }

    /// Bytes before `at` are of a line that is taken out.
    fn leave_out_to(&mut self, at: usize) {
        if self.filter.dropping && !matches!(self.filter.state, State::Name { .. }) {
            self.kept_from = at;
        }
    }

    fn emit_to(&mut self, to: usize) {
        if self.kept_from < to {
            (self.emit)(HeaderPiece::Input(self.kept_from..to));
            self.kept_from = to;
        }
    }

    fn end(mut self, input: &[u8]) {
        match self.filter.state {
            State::Name { .. } => {
                if !self.filter.dropping {
                    self.emit_to(self.line);
                }
                self.filter.held.extend_from_slice(input.get(self.line..).unwrap_or_default());
            }
            _ if self.filter.dropping => {}
            _ => self.emit_to(input.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "Gatepost-Verdict";

    fn filtered(chunks: &[&[u8]], behind_one: bool) -> Vec<u8> {
        let mut filter = HeaderFilter::new(NAME, behind_one);
        let mut out = Vec::new();
        for chunk in chunks {
            filter.filter(chunk, |kept| match kept {
                HeaderPiece::Input(range) => out.extend_from_slice(&chunk[range]),
                HeaderPiece::Held(held) => out.extend(held),
            });
        }
        out
    }

    fn left(text: &str) -> String {
        String::from_utf8(filtered(&[text.as_bytes()], false)).unwrap()
    }

    #[test]
    fn fields_of_the_name_go_and_nothing_else() {
        for (text, expected) in [
            ("A: b\r\n\r\nbody\r\n.\r\n", "A: b\r\n\r\nbody\r\n.\r\n"),
            ("Gatepost-Verdict: x\r\nA: b\r\n\r\n.\r\n", "A: b\r\n\r\n.\r\n"),
            (
                "A: b\r\ngatepost-VERDICT \t: x\r\n\ty\r\n z\r\nC: d\r\n e\r\n",
                "A: b\r\nC: d\r\n e\r\n",
            ),
            (
                "Gatepost-Verdict:\r\n\r\nGatepost-Verdict: body\r\n",
                "\r\nGatepost-Verdict: body\r\n",
            ),
            (".Gatepost-Verdict: x\r\n. y\r\nA: b\r\n. c\r\n", "A: b\r\n. c\r\n"),
            ("..Gatepost-Verdict: x\r\n", "..Gatepost-Verdict: x\r\n"),
            ("Gatepost-Verdict: x\r\n.\r\n", ".\r\n"),
            (".\r\n", ".\r\n"),
            ("\r\nGatepost-Verdict: x\r\n", "\r\nGatepost-Verdict: x\r\n"),
            (
                "Gatepost-Verdicts: x\r\nGatepost-Verdic: y\r\n",
                "Gatepost-Verdicts: x\r\nGatepost-Verdic: y\r\n",
            ),
            (
                "Gatepost-Verdict x\r\nX-Gatepost-Verdict: y\r\n",
                "Gatepost-Verdict x\r\nX-Gatepost-Verdict: y\r\n",
            ),
            (" folded\r\nA: b\r\n", " folded\r\nA: b\r\n"),
            // Bare newlines begin a line, and end no header section.
            ("A: b\nGatepost-Verdict: x\nC: d\r\n", "A: b\nC: d\r\n"),
            ("A: b\rGatepost-Verdict: x\rC: d\r\n", "A: b\rC: d\r\n"),
            ("A: b\n\nGatepost-Verdict: x\r\n\r\n", "A: b\n\n\r\n"),
            ("A: b\r\r\nGatepost-Verdict: x\r\n\r\n", "A: b\r\r\n\r\n"),
        ] {
            assert_eq!(left(text), expected, "{text:?}");
        }
        let spaces = " ".repeat(2000);
        assert_eq!(left(&format!("Gatepost-Verdict{spaces}: x\r\nA: b\r\n")), "A: b\r\n");
    }

    #[test]
    fn nothing_continues_the_field_in_front() {
        let text = b" rule=\"forged\"\r\n. more\r\nA: b\r\n c\r\n\r\n";
        assert_eq!(filtered(&[text], true), b"A: b\r\n c\r\n\r\n");
        assert_eq!(filtered(&[b"\r\n body\r\n"], true), b"\r\n body\r\n");
        assert_eq!(filtered(&[b".\r\n"], true), b".\r\n");
    }

    /// Line by line, for content whose newlines are all CRLF.
    fn expected(text: &str) -> String {
        let mut out = String::new();
        let (mut over, mut dropped) = (false, false);
        for line in text.split_inclusive("\r\n") {
            over |= line == "\r\n";
            let plain = line.strip_prefix('.').unwrap_or(line);
            let begins = plain.get(..NAME.len()).is_some_and(|n| n.eq_ignore_ascii_case(NAME));
            let rest = plain.get(NAME.len()..).unwrap_or_default();
            let named = begins && rest.trim_start_matches([' ', '\t']).starts_with(':');
            dropped = !over && (named || dropped && plain.starts_with([' ', '\t']));
            if !dropped {
                out.push_str(line);
            }
        }
        out
    }

    fn content(newlines: &'static [&'static str]) -> impl Strategy<Value = String> {
        let words = [
            "Gatepost-Verdict",
            "gatepost-verdict:",
            "Gatepost-",
            "Verdict:",
            ".",
            " ",
            "\t",
            ":",
            "x",
        ];
        let word = prop_oneof![
            3 => proptest::sample::select(words.to_vec()),
            2 => proptest::sample::select(newlines.to_vec()),
        ];
        proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn what_is_left_is_what_reading_line_by_line_leaves(text in content(&["\r\n", "\r\n\r\n"])) {
            prop_assert_eq!(left(&(text.clone() + "\r\n")), expected(&(text + "\r\n")));
        }

        #[test]
        fn every_segmentation_leaves_the_same(
            text in content(&["\r\n", "\r", "\n", "\r\n\r\n"]),
            cuts in proptest::collection::vec(0usize..200, 0..6),
            behind_one in any::<bool>(),
        ) {
            // The end of a line, so that nothing is held at the end.
            let text = text + "\r\n";
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = filtered(&[bytes], behind_one);
            prop_assert_eq!(&whole, &filtered(&chunks, behind_one));
            prop_assert_eq!(&whole, &filtered(&single, behind_one));
        }
    }
}
