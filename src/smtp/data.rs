//! The data scanner: finds the end of a message and makes what a lax server could misread unambiguous.
//!
//! RFC 5321 §4.1.1.4 and §4.5.2. The end of data is CRLF.CRLF and nothing else. Servers differ over `\n.\n`, `\r.\r` and
//! their like, and where gateway and upstream differ one message becomes two (SMTP smuggling, CVE-2023-51764 and others).
//! So with [`BareNewlines::Normalize`] nothing ambiguous leaves: a bare LF becomes CRLF, a bare CR becomes a space (as
//! Postfix's `cleanup_replace_stray_cr_lf` has it), and a lone dot that is not the end of data is stuffed.
//!
//! Clean mail passes as ranges of the input, whole chunks at a time; state between chunks is a few bytes.

use std::ops::Range;

use memchr::memchr2;

/// RFC 5321 §4.5.3.1.6: bytes of a text line with its CRLF.
const TEXT_LINE: usize = 1000;

/// What to do with a bare LF or CR where RFC 5321 §2.3.8 allows CRLF only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BareNewlines {
    /// A bare LF becomes CRLF, a bare CR becomes a space, and no `.` line that they made can end the message.
    #[default]
    Normalize,
    /// The message or command is refused.
    Reject,
    /// A message is relayed as it came; a command is normalised all the same. Only for an upstream that is known to be strict
    /// itself.
    Pass,
}

/// A part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A range of the input.
    Input(Range<usize>),
    /// Bytes that are not in the input.
    Insert(&'static [u8]),
}

/// Findings in one message so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanFindings {
    pub bare_lf: bool,
    pub bare_cr: bool,
    /// A lone dot between line endings of which one at least is not CRLF.
    pub smuggling: bool,
    pub long_line: bool,
}

/// What ended the line before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Crlf,
    /// A bare LF.
    Bare,
    /// Bytes that nobody saw: perhaps CRLF, or its CR.
    Unknown,
}

/// The scanner's position in a line. The held bytes of `Cr`, `Dot` and `DotCr` are not emitted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line.
    LineStart(Before),
    /// Held: `.` at the start of a line.
    Dot(Before),
    /// Held: `.` CR at the start of a line.
    DotCr(Before),
    /// Right after unseen bytes.
    AfterGap,
    Text,
    /// Held: CR.
    Cr,
    /// After a bare CR and a dot: another line ending would make a lone dot for a lax server.
    CrDot,
}

impl State {
    const fn held(self) -> &'static [u8] {
        match self {
            Self::Dot(_) => b".",
            Self::DotCr(_) => b".\r",
            Self::Cr => b"\r",
            Self::LineStart(_) | Self::AfterGap | Self::Text | Self::CrDot => b"",
        }
    }
}

/// Scans one message, from after the 354 to its end.
#[derive(Clone, Debug)]
pub struct DataScanner {
    state: State,
    mode: BareNewlines,
    /// Bytes of the line so far, before this chunk.
    line: usize,
    findings: ScanFindings,
    ambiguous: bool,
    withholds_end: bool,
}

impl DataScanner {
    pub const fn new(mode: BareNewlines) -> Self {
        Self {
            // The CRLF of the DATA command counts: `.` CRLF at once is an empty message.
            state: State::LineStart(Before::Crlf),
            mode,
            line: 0,
            ambiguous: false,
            withholds_end: false,
            findings: ScanFindings {
                bare_lf: false,
                bare_cr: false,
                smuggling: false,
                long_line: false,
            },
        }
    }

    /// The final `.` line is not emitted: the relaying caller sends it once the message may be accepted.
    pub const fn withhold_end(&mut self) {
        self.withholds_end = true;
    }

    /// Whether the final `.` line is left out.
    pub const fn withholds_end(&self) -> bool {
        self.withholds_end
    }

    pub const fn findings(&self) -> ScanFindings {
        self.findings
    }

    /// Bytes are missing: where in a line the next one stands is not known.
    pub fn skip(&mut self) {
        self.state = State::Text;
        self.line = 0;
    }

    /// Bytes were left out. A `.` line right behind them ends the data if they ended in CRLF (or in CR, and the line
    /// begins with LF): such an end is found, and is ambiguous.
    pub fn skip_unseen(&mut self) {
        self.state = State::AfterGap;
        self.line = 0;
    }

    /// Whether the end found last is one only if unseen bytes make it one. If not, the scanner goes on after it.
    pub const fn end_is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Scans `input` and emits what goes on, the final `.` line included unless it is withheld. Returns the number of bytes up to and with the
    /// end of data, or `None` if all of `input` belongs to the message and it goes on.
    pub fn scan(&mut self, input: &[u8], emit: impl FnMut(Piece)) -> Option<usize> {
        self.ambiguous = false;
        let carried = !self.state.held().is_empty();
        Pass { scanner: self, input, emit, run: 0, at: 0, hold: 0, carried, line_start: 0 }.run()
    }
}

/// One chunk's pass: `run` is the first byte not emitted, `hold` the first that the state holds, unless it is carried over
/// from an earlier chunk.
struct Pass<'a, F> {
    scanner: &'a mut DataScanner,
    input: &'a [u8],
    emit: F,
    run: usize,
    at: usize,
    hold: usize,
    carried: bool,
    line_start: usize,
}

impl<F: FnMut(Piece)> Pass<'_, F> {
    fn run(mut self) -> Option<usize> {
        while let Some(&byte) = self.input.get(self.at) {
            match (self.scanner.state, byte) {
                (State::Text, _) => {
                    let rest = self.input.get(self.at..).unwrap_or_default();
                    let Some(skip) = memchr2(b'\r', b'\n', rest) else {
                        self.at = self.input.len();
                        break;
                    };
                    self.at += skip;
                    if let Some([b'\r', b'\n', next, ..]) = rest.get(skip..)
                        && !matches!(next, b'.' | b'\r' | b'\n')
                    {
                        // Nearly every line: its end is clean and the next begins with nothing special.
                        self.at += 2;
                        self.line_end(State::Text);
                        continue;
                    }
                    if rest.get(skip) == Some(&b'\r') {
                        self.hold(State::Cr)
                    } else {
                        self.bare_lf()
                    }
                }
                (State::LineStart(before), b'.') => self.hold(State::Dot(before)),
                (State::AfterGap, b'.') => self.hold(State::Dot(Before::Unknown)),
                (State::AfterGap, b'\n') => {
                    self.at += 1;
                    self.line_end(State::LineStart(Before::Unknown));
                }
                (State::LineStart(_) | State::AfterGap, b'\r') => self.hold(State::Cr),
                (State::LineStart(_), b'\n') => self.bare_lf(),
                (State::LineStart(_) | State::AfterGap | State::CrDot, b)
                    if b != b'\r' && b != b'\n' =>
                {
                    self.scanner.state = State::Text;
                }
                (State::CrDot, b) => {
                    self.scanner.findings.smuggling = true;
                    if b == b'\r' { self.hold(State::Cr) } else { self.bare_lf() }
                }
                (State::Dot(before), b'\r') => {
                    self.at += 1;
                    if self.carried {
                        self.run = self.at; // What is carried is emitted as a whole, this CR with it.
                    }
                    self.scanner.state = State::DotCr(before);
                }
                (State::Dot(before), b'\n') => {
                    self.scanner.findings.smuggling |= before != Before::Unknown;
                    self.scanner.findings.bare_lf = true;
                    self.replace(b"..\r\n", 1);
                    self.line_end(State::LineStart(Before::Bare));
                }
                (State::Dot(_), _) => self.release(State::Text),
                (State::DotCr(before @ (Before::Crlf | Before::Unknown)), b'\n') => {
                    if self.scanner.withholds_end {
                        self.withhold();
                    } else {
                        self.release(State::LineStart(Before::Crlf));
                        self.flush(self.at + 1);
                    }
                    self.scanner.ambiguous = before == Before::Unknown;
                    self.scanner.line = 0;
                    return Some(self.at + 1);
                }
                (State::DotCr(Before::Bare), b'\n') => {
                    self.scanner.findings.smuggling = true;
                    self.replace(b"..\r\n", 1);
                    self.line_end(State::LineStart(Before::Crlf));
                }
                (State::DotCr(before), _) => {
                    self.scanner.findings.smuggling |= before != Before::Unknown;
                    self.bare_cr(b". ");
                }
                (State::Cr, b'\n') => {
                    self.release(State::LineStart(Before::Crlf));
                    self.at += 1;
                    self.line_end(State::LineStart(Before::Crlf));
                }
                (State::Cr, b'.') => {
                    self.bare_cr(b" ");
                    self.at += 1;
                    self.scanner.state = State::CrDot;
                }
                (State::Cr, _) => self.bare_cr(b" "),
                // The guard above took everything but CR and LF, and those have arms of their own.
                (State::LineStart(_) | State::AfterGap, _) => self.scanner.state = State::Text,
            }
        }
        let held = self.scanner.state.held().len();
        if held == 0 {
            self.flush(self.input.len());
        } else if !self.carried {
            self.flush(self.hold);
        }
        self.measure();
        self.scanner.line += self.input.len() - self.line_start;
        None
    }

    /// The byte at hand and perhaps more wait for what follows.
    fn hold(&mut self, state: State) {
        self.hold = self.at;
        self.carried = false;
        self.at += 1;
        self.scanner.state = state;
    }

    /// What was held goes on as it came.
    fn release(&mut self, next: State) {
        if self.carried {
            (self.emit)(Piece::Insert(self.scanner.state.held()));
            self.carried = false;
        }
        self.scanner.state = next;
    }

    /// What was held, and the byte at hand, do not go on.
    fn withhold(&mut self) {
        if !self.carried {
            self.flush(self.hold);
        }
        self.carried = false;
        self.run = self.at + 1;
        self.scanner.state = State::LineStart(Before::Crlf);
    }

    /// `with` goes on in place of what was held and the next `also` bytes, unless the mode passes everything.
    fn replace(&mut self, with: &'static [u8], also: usize) {
        if self.scanner.mode == BareNewlines::Pass {
            self.release(State::Text);
            self.at += also;
            return;
        }
        if !self.carried {
            self.flush(self.hold);
        }
        self.carried = false;
        (self.emit)(Piece::Insert(with));
        self.at += also;
        self.run = self.at;
    }

    fn bare_lf(&mut self) {
        self.scanner.findings.bare_lf = true;
        self.hold = self.at;
        self.replace(b"\r\n", 1);
        self.line_end(State::LineStart(Before::Bare));
    }

    /// The held CR (and what is held before it) was a bare one; the byte at hand is looked at anew.
    fn bare_cr(&mut self, with: &'static [u8]) {
        self.scanner.findings.bare_cr = true;
        self.replace(with, 0);
        self.scanner.state = State::Text;
    }

    fn flush(&mut self, to: usize) {
        if self.run < to {
            (self.emit)(Piece::Input(self.run..to));
            self.run = to;
        }
    }

    fn line_end(&mut self, next: State) {
        self.measure();
        self.scanner.state = next;
        self.scanner.line = 0;
        self.line_start = self.at;
    }

    fn measure(&mut self) {
        if self.scanner.line + (self.at - self.line_start) > TEXT_LINE {
            self.scanner.findings.long_line = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What goes on, what is left after the end, and the findings, when `chunks` are scanned in turn.
    fn scan(mode: BareNewlines, chunks: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>, ScanFindings) {
        let mut scanner = DataScanner::new(mode);
        let mut sent = Vec::new();
        let mut rest: Option<Vec<u8>> = None;
        for chunk in chunks {
            if let Some(rest) = &mut rest {
                rest.extend_from_slice(chunk);
                continue;
            }
            let end = scanner.scan(chunk, |piece| match piece {
                Piece::Input(range) => sent.extend_from_slice(&chunk[range]),
                Piece::Insert(bytes) => sent.extend_from_slice(bytes),
            });
            rest = end.map(|end| chunk[end..].to_vec());
        }
        (sent, rest, scanner.findings())
    }

    fn normalized(input: &str) -> String {
        let (sent, rest, _) = scan(BareNewlines::Normalize, &[input.as_bytes()]);
        let rest = rest.map_or("no end".to_owned(), |r| String::from_utf8(r).unwrap());
        format!("{}|{rest}", String::from_utf8(sent).unwrap())
    }

    #[test]
    fn clean_mail_is_untouched() {
        assert_eq!(normalized("a\r\n..b\r\n.\r\nQUIT"), "a\r\n..b\r\n.\r\n|QUIT");
        assert_eq!(normalized(".\r\n"), ".\r\n|");
        assert_eq!(normalized("\r\n.\r\n"), "\r\n.\r\n|");
        assert_eq!(normalized(".a\r\n.\r"), ".a\r\n|no end");
        let mail = b"Subject: x\r\n\r\nbody\r\n.\r\n";
        let mut scanner = DataScanner::new(BareNewlines::Normalize);
        let mut pieces = Vec::new();
        assert_eq!(scanner.scan(mail, |piece| pieces.push(piece)), Some(mail.len()));
        assert_eq!(pieces, [Piece::Input(0..mail.len())], "one range, no copy");
    }

    #[test]
    fn only_crlf_dot_crlf_ends() {
        for (input, sent) in [
            ("x\n.\ny", "x\r\n..\r\ny|no end"),
            ("x\n.\r\ny", "x\r\n..\r\ny|no end"),
            ("x\r\n.\ny", "x\r\n..\r\ny|no end"),
            ("x\r.\ry", "x . y|no end"),
            ("x\r.\r\ny", "x .\r\ny|no end"),
            ("x\r\n.\ry", "x\r\n. y|no end"),
            ("x\n.\ry", "x\r\n. y|no end"),
            ("x\r.\ny", "x .\r\ny|no end"),
            ("x\r\n.\r\r\ny", "x\r\n. \r\ny|no end"),
            ("x\r\r\n.\r\ny", "x \r\n.\r\n|y"),
            ("x\r\n\0.\r\ny", "x\r\n\0.\r\ny|no end"),
        ] {
            assert_eq!(normalized(input), sent, "{input:?}");
            let smuggles = !input.contains('\0') && !input.contains("\r\r\n.");
            let (_, _, findings) = scan(BareNewlines::Normalize, &[input.as_bytes()]);
            assert_eq!(findings.smuggling, smuggles, "{input:?}");
        }
    }

    /// Where `tail` ends the data, when what is before it was left out, and whether that is in doubt.
    fn end_behind(tail: &str) -> Option<(usize, bool)> {
        let mut whole = DataScanner::new(BareNewlines::Pass);
        whole.skip_unseen();
        let mut single = whole.clone();
        let end = whole.scan(tail.as_bytes(), |_| {});
        let by_one = tail.bytes().position(|byte| single.scan(&[byte], |_| {}).is_some());
        assert_eq!(end, by_one.map(|at| at + 1), "{tail:?}");
        assert_eq!(whole.findings(), single.findings(), "{tail:?}");
        assert_eq!(whole.findings(), ScanFindings::default(), "{tail:?}");
        end.map(|end| (end, whole.end_is_ambiguous() && single.end_is_ambiguous()))
    }

    #[test]
    fn the_end_is_found_behind_what_was_left_out() {
        assert_eq!(end_behind("\r\n.\r\nQUIT"), Some((5, false)));
        assert_eq!(end_behind("text\r\n.\r\n"), Some((9, false)));
        assert_eq!(end_behind("\n\r\n.\r\n"), Some((6, false)));
        // What is before it makes it the end, or does not.
        assert_eq!(end_behind("\n.\r\nQUIT"), Some((4, true)));
        assert_eq!(end_behind(".\r\n"), Some((3, true)));
        for text in ["\r\n", "\n..\r\n", "\n", "\ntext\r\n..\r\n", "", ".text\r\n"] {
            assert_eq!(end_behind(text), None, "{text:?}");
        }
        let mut scanner = DataScanner::new(BareNewlines::Pass);
        scanner.skip_unseen();
        scanner.scan(b"\n.\r\n", |_| {});
        assert_eq!(scanner.scan(b".\r\n", |_| {}), Some(3), "it was none, and this is one");
        assert!(!scanner.end_is_ambiguous());
        // A second LF is a bare one.
        scanner.skip_unseen();
        assert_eq!(scanner.scan(b"\n\n.\r\n", |_| {}), None);
        assert!(scanner.findings().bare_lf && scanner.findings().smuggling);
    }

    #[test]
    fn pass_changes_nothing_and_still_ends_strictly() {
        let input = b"x\n.\ny\r.\rz\r\n.\nq\r\n.\r\nrest";
        let (sent, rest, findings) = scan(BareNewlines::Pass, &[input]);
        assert_eq!(sent, &input[..input.len() - 4]);
        assert_eq!(rest.as_deref(), Some(&b"rest"[..]));
        assert!(findings.bare_lf && findings.bare_cr && findings.smuggling);
    }

    #[test]
    fn long_lines_are_found_across_chunks() {
        let long = [b'x'; 999];
        let (_, _, fits) = scan(BareNewlines::Normalize, &[&long[..998], b"\r\n.\r\n"]);
        let (_, _, over) =
            scan(BareNewlines::Normalize, &[&long[..500], &long[..499], b"\r\n.\r\n"]);
        assert!(!fits.long_line);
        assert!(over.long_line);
    }

    /// What an upstream of the laxest kind makes of `sent`: it takes any of CRLF, LF, CR as the end of a line.
    fn lax_messages(sent: &[u8]) -> usize {
        let mut lines: Vec<Vec<u8>> = vec![Vec::new()];
        let mut bytes = sent.iter().peekable();
        while let Some(&b) = bytes.next() {
            match b {
                b'\r' => {
                    bytes.next_if_eq(&&b'\n');
                    lines.push(Vec::new());
                }
                b'\n' => lines.push(Vec::new()),
                b => lines.last_mut().unwrap().push(b),
            }
        }
        lines.iter().filter(|line| line.as_slice() == b".").count()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_segmentation_gives_the_same(
            input in "[ax.\r\n]{0,40}",
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let bytes = input.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            for mode in [BareNewlines::Normalize, BareNewlines::Pass] {
                let whole = scan(mode, &[bytes]);
                prop_assert_eq!(&whole, &scan(mode, &chunks));
                prop_assert_eq!(&whole, &scan(mode, &single));
            }
        }

        #[test]
        fn no_server_sees_more_than_one_message(input in "[a.\r\n]{0,60}") {
            let (sent, rest, _) = scan(BareNewlines::Normalize, &[input.as_bytes()]);
            prop_assert_eq!(lax_messages(&sent), usize::from(rest.is_some()), "{:?}", String::from_utf8_lossy(&sent));
        }

        #[test]
        fn strict_mail_passes_octet_for_octet(lines in proptest::collection::vec("[a.]{0,5}", 0..12)) {
            let mut mail: String = lines.iter().map(|line| match line.strip_prefix('.') {
                Some(_) => format!(".{line}\r\n"),
                None => format!("{line}\r\n"),
            }).collect();
            mail.push_str(".\r\n");
            let (sent, rest, findings) = scan(BareNewlines::Normalize, &[mail.as_bytes()]);
            prop_assert_eq!(sent, mail.as_bytes());
            prop_assert_eq!(rest, Some(Vec::new()));
            prop_assert_eq!(findings, ScanFindings::default());
        }
    }
}
