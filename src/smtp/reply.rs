//! Replies: upstream's, parsed whole, and the gateway's own.
//!
//! RFC 5321 §4.2 and §4.2.1 for the lines, RFC 2034 for enhanced codes.

use memchr::{memchr, memchr2};

use super::EnhancedCode;

/// Bytes of one reply, all its lines together, that an upstream may send.
pub const MAX_REPLY: usize = 64 * 1024;

/// A complete reply at the start of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// 200 to 599; of several lines, the last one's.
    pub code: u16,
    /// All lines with their endings.
    pub raw: &'a [u8],
    /// An earlier line has another code. RFC 5321 §4.2.1 forbids it, and clients differ in which code they use.
    pub mixed_codes: bool,
}

/// What stands at the start of some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyParse<'a> {
    Complete(Reply<'a>),
    /// The last line is not there yet.
    Incomplete,
    /// A line that is no reply, or more than [`MAX_REPLY`] bytes.
    Malformed,
}

impl<'a> Reply<'a> {
    /// Takes the first reply off `input`. A bare LF ends a line as well as CRLF.
    pub fn parse(input: &'a [u8]) -> ReplyParse<'a> {
        Self::parse_on(input, &mut 0)
    }

    /// The same for an `input` that grew: `whole` is the number of its bytes in complete lines that were parsed already, 0 at
    /// first. So a reply that arrives byte by byte is not parsed from its beginning each time.
    pub fn parse_on(input: &'a [u8], whole: &mut usize) -> ReplyParse<'a> {
        loop {
            let at = *whole;
            let rest = input.get(at..).unwrap_or_default();
            let Some(lf) = memchr(b'\n', rest) else {
                let wrong = !plausible_start(rest) || input.len() >= MAX_REPLY;
                return if wrong { ReplyParse::Malformed } else { ReplyParse::Incomplete };
            };
            let Some((code, last)) = code_of(rest.get(..lf).unwrap_or_default()) else {
                return ReplyParse::Malformed;
            };
            let at = at + lf + 1;
            if at > MAX_REPLY {
                return ReplyParse::Malformed;
            }
            if last {
                let raw = input.get(..at).unwrap_or_default();
                let mut lines = raw.split_inclusive(|&b| b == b'\n');
                let mixed_codes = !lines.all(|line| code_of(line).is_some_and(|(c, _)| c == code));
                return ReplyParse::Complete(Self { code, raw, mixed_codes });
            }
            *whole = at;
        }
    }

    /// The first line of `input`, and whether it is a reply's last. `None` if it is incomplete or malformed.
    pub fn first_line(input: &'a [u8]) -> Option<(Self, bool)> {
        let raw = input.get(..=memchr(b'\n', input)?)?;
        let (code, last) = code_of(raw)?;
        Some((Self { code, raw, mixed_codes: false }, last))
    }

    /// Of a reply with mixed codes, the lines before the first that has another code.
    pub fn until_mixed(&self) -> Option<Self> {
        let (first, _) = Self::first_line(self.raw)?;
        let lines = self.raw.split_inclusive(|&b| b == b'\n');
        let same = |line: &&[u8]| code_of(line).is_some_and(|(code, _)| code == first.code);
        let len = lines.take_while(same).map(<[u8]>::len).sum();
        let raw = self.raw.get(..len).filter(|_| self.mixed_codes)?;
        Some(Self { code: first.code, raw, mixed_codes: false })
    }

    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// The lines' texts, without code and ending.
    pub fn texts(&self) -> impl Iterator<Item = &'a [u8]> {
        self.raw.split_inclusive(|&b| b == b'\n').map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            text_of(line)
        })
    }

    /// The reply as a client may receive it: each line a code, a separator and its text, without NUL and bare CR, up to CRLF.
    /// `None`: it is so already.
    pub fn cleaned(&self) -> Option<Vec<u8>> {
        let lines = || self.raw.split_inclusive(|&b| b == b'\n');
        if lines().all(is_clean) {
            return None;
        }
        let mut cleaned = Vec::with_capacity(self.raw.len() + 8);
        for line in lines() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            cleaned.extend_from_slice(line.get(..3).unwrap_or_default());
            let text = text_of(line);
            if line.get(3) == Some(&b'-') {
                cleaned.push(b'-');
            } else if !text.is_empty() {
                cleaned.push(b' ');
            }
            cleaned.extend(text.iter().map(|&b| if matches!(b, 0 | b'\r') { b' ' } else { b }));
            cleaned.extend_from_slice(b"\r\n");
        }
        Some(cleaned)
    }

    /// The enhanced code of the first line, if its class fits the reply's (RFC 2034 §4).
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        let enhanced = self.texts().next().and_then(EnhancedCode::parse)?;
        (u16::from(enhanced.class) == self.code / 100).then_some(enhanced)
    }
}

/// The text of a line without ending. Some servers put no separator between it and the code.
fn text_of(line: &[u8]) -> &[u8] {
    let rest = line.get(3..).unwrap_or_default();
    match rest.first() {
        Some(b' ' | b'-' | b'\t' | 0) => rest.get(1..).unwrap_or_default(),
        _ => rest,
    }
}

/// Whether `line`, with its ending, may reach a client as it is.
fn is_clean(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return false;
    };
    matches!(line.get(3), None | Some(b' ' | b'-')) && memchr2(b'\r', 0, line).is_none()
}

/// Code and whether it is the last line. `line` may have its ending. As for most clients, a line that has anything but a
/// hyphen behind its code is the last; a fourth digit makes it no reply.
fn code_of(line: &[u8]) -> Option<(u16, bool)> {
    let (code, rest) = line.split_first_chunk::<3>()?;
    let [class @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *code else {
        return None;
    };
    let last = match rest.first() {
        Some(b'-') => false,
        Some(b'0'..=b'9') => return None,
        _ => true,
    };
    let digit = |b: u8| u16::from(b - b'0');
    Some((digit(class) * 100 + digit(tens) * 10 + digit(ones), last))
}

/// Whether a line that has no ending yet may still become one of a reply.
fn plausible_start(line: &[u8]) -> bool {
    let class = line.first().is_none_or(|b| matches!(b, b'2'..=b'5'));
    class && line.iter().skip(1).take(2).all(u8::is_ascii_digit)
}

/// A reply of the gateway: one line, ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReply {
    pub code: u16,
    pub enhanced: EnhancedCode,
    pub line: Vec<u8>,
}

impl OwnReply {
    /// `CODE ENHANCED TEXT` CRLF. What is not printable ASCII in `text` becomes `?`: rule names and the like are the
    /// operator's, but nothing must break the line. Greetings and 421 before EHLO carry the enhanced code too, as Postfix's do.
    pub fn new(code: u16, enhanced: EnhancedCode, text: &str) -> Self {
        let mut line = format!("{code} {enhanced} ").into_bytes();
        line.extend(text.bytes().map(|b| if (b' '..=b'~').contains(&b) { b } else { b'?' }));
        line.extend_from_slice(b"\r\n");
        Self { code, enhanced, line }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(input: &[u8]) -> Reply<'_> {
        match Reply::parse(input) {
            ReplyParse::Complete(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_line_and_several() {
        let one = complete(b"250 2.1.5 Ok\r\n354 go");
        assert_eq!((one.code, one.raw.len()), (250, 14));
        assert_eq!(one.enhanced(), Some(EnhancedCode::new(2, 1, 5)));
        let several = complete(b"250-mx.example\r\n250-SIZE 1\r\n250 DSN\r\n");
        let texts: Vec<_> = several.texts().collect();
        assert_eq!(texts, [&b"mx.example"[..], b"SIZE 1", b"DSN"]);
        assert_eq!(complete(b"220\r\n").code, 220, "no text at all");
        assert_eq!(complete(b"250 lf only\n").code, 250);
    }

    #[test]
    fn incomplete_is_not_malformed() {
        for start in [&b""[..], b"2", b"25", b"250", b"250-a\r\n", b"250-a\r\n250 b\r"] {
            assert_eq!(Reply::parse(start), ReplyParse::Incomplete, "{start:?}");
        }
        for wrong in [&b"hello"[..], b"2x", b"650 a\r\n", b"2500 a\r\n", b"\r\n", b"250-a\r\nfoo"] {
            assert_eq!(Reply::parse(wrong), ReplyParse::Malformed, "{wrong:?}");
        }
        let endless = [b"250-".as_slice(), &[b'x'; MAX_REPLY]].concat();
        assert_eq!(Reply::parse(&endless), ReplyParse::Malformed);
    }

    #[test]
    fn a_line_without_separator_is_the_last() {
        for (line, text) in
            [("250OK", "OK"), ("250_a", "_a"), ("250\tok", "ok"), ("250.", "."), ("250\0ok", "ok")]
        {
            let line = format!("{line}\r\n");
            let reply = complete(line.as_bytes());
            assert_eq!(reply.texts().collect::<Vec<_>>(), [text.as_bytes()], "{line:?}");
            let cleaned = reply.cleaned().unwrap();
            assert_eq!(cleaned, format!("250 {text}\r\n").into_bytes());
        }
    }

    #[test]
    fn a_client_receives_no_nul_bare_cr_or_bare_lf() {
        for (raw, cleaned) in [
            (&b"250-a\rb\n250 c\0d\r\r\n"[..], &b"250-a b\r\n250 c d \r\n"[..]),
            (b"250\n", b"250\r\n"),
            (b"250-\n250\r\n", b"250-\r\n250\r\n"),
            (b"220-x\r\n220\0\r\n", b"220-x\r\n220\r\n"),
        ] {
            assert_eq!(complete(raw).cleaned().as_deref(), Some(cleaned), "{raw:?}");
        }
        for clean in [&b"250\r\n"[..], b"250 \r\n", b"250-a\r\n250 \xc3\xa4\r\n"] {
            assert_eq!(complete(clean).cleaned(), None, "{clean:?}");
        }
    }

    #[test]
    fn mixed_codes_are_noticed() {
        assert!(!complete(b"250-a\r\n250-b\r\n250 c\r\n").mixed_codes);
        for mixed in [&b"250-a\r\n550 b\r\n"[..], b"250-a\r\n251-b\r\n250 c\r\n"] {
            assert!(complete(mixed).mixed_codes, "{mixed:?}");
        }
        let mut whole = 0;
        assert_eq!(Reply::parse_on(b"250-a\r\n", &mut whole), ReplyParse::Incomplete);
        let ReplyParse::Complete(reply) = Reply::parse_on(b"250-a\r\n354 b\r\n", &mut whole) else {
            panic!("a reply")
        };
        assert!(reply.mixed_codes, "however it arrives");
        let until = complete(b"220-a\r\n220-b\r\n250-c\r\n250 d\r\n").until_mixed().unwrap();
        assert_eq!((until.code, until.raw), (220, &b"220-a\r\n220-b\r\n"[..]));
        assert_eq!(complete(b"220-a\r\n220 b\r\n").until_mixed(), None);
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_none() {
        assert_eq!(complete(b"250 5.7.1 odd\r\n").enhanced(), None);
    }

    #[test]
    fn our_own_never_break_the_line() {
        let reply = OwnReply::new(550, EnhancedCode::new(5, 7, 1), "no\r\n250 yes \u{e4}");
        assert_eq!(reply.line, b"550 5.7.1 no??250 yes ??\r\n");
    }

    proptest! {
        #[test]
        fn parses_the_same_however_much_follows(text in "[ -~]{0,20}", code in 200u16..600, tail in "[ -~\r\n]{0,20}") {
            let line = format!("{code}-{text}\r\n{code} {text}\r\n");
            let with_tail = format!("{line}{tail}");
            let reply = complete(with_tail.as_bytes());
            prop_assert_eq!(reply.raw, line.as_bytes());
            let mut whole = 0;
            for cut in 0..line.len() {
                let cut = &line.as_bytes()[..cut];
                prop_assert_eq!(Reply::parse(cut), ReplyParse::Incomplete);
                prop_assert_eq!(Reply::parse_on(cut, &mut whole), ReplyParse::Incomplete);
            }
            prop_assert_eq!(whole, line.len() / 2);
            prop_assert_eq!(Reply::parse_on(line.as_bytes(), &mut whole), Reply::parse(line.as_bytes()));
        }

        #[test]
        fn nothing_panics(input in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Reply::parse(&input);
        }

        #[test]
        fn what_is_cleaned_is_the_same_reply(
            lines in proptest::collection::vec("[ -~\r\0\t]{0,12}", 1..4),
            code in 200u16..600,
        ) {
            let last = lines.len() - 1;
            let raw: String = lines.iter().enumerate().map(|(number, text)| {
                format!("{code}{}{text}\n", if number < last { "-" } else { " " })
            }).collect();
            let reply = complete(raw.as_bytes());
            let cleaned = reply.cleaned().unwrap_or_else(|| raw.clone().into_bytes());
            let again = complete(&cleaned);
            prop_assert_eq!((again.code, again.raw), (code, &cleaned[..]));
            prop_assert_eq!(again.cleaned(), None);
            prop_assert_eq!(again.texts().count(), lines.len());
        }
    }
}
