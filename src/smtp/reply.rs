//! Replies: upstream's, parsed whole, and the gateway's own.
//!
//! RFC 5321 §4.2 and §4.2.1 for the lines, RFC 2034 for enhanced codes.

use memchr::memchr;

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
                return ReplyParse::Complete(Self { code, raw });
            }
            *whole = at;
        }
    }

    pub const fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// The lines' texts, without code and ending.
    pub fn texts(&self) -> impl Iterator<Item = &'a [u8]> {
        self.raw.split_inclusive(|&b| b == b'\n').map(|line| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.get(4..).unwrap_or_default()
        })
    }

    /// The enhanced code of the first line, if its class fits the reply's (RFC 2034 §4).
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        let enhanced = self.texts().next().and_then(EnhancedCode::parse)?;
        (u16::from(enhanced.class) == self.code / 100).then_some(enhanced)
    }
}

/// Code and whether it is the last line. `line` may end in CR.
fn code_of(line: &[u8]) -> Option<(u16, bool)> {
    let (code, rest) = line.split_first_chunk::<3>()?;
    let [class @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *code else {
        return None;
    };
    let last = match rest.first() {
        None | Some(b' ' | b'\r') => true,
        Some(b'-') => false,
        Some(_) => return None,
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
        for wrong in [&b"hello"[..], b"2x", b"650 a\r\n", b"250_a\r\n", b"\r\n", b"250-a\r\nfoo"] {
            assert_eq!(Reply::parse(wrong), ReplyParse::Malformed, "{wrong:?}");
        }
        let endless = [b"250-".as_slice(), &[b'x'; MAX_REPLY]].concat();
        assert_eq!(Reply::parse(&endless), ReplyParse::Malformed);
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
    }
}
