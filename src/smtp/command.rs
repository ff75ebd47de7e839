//! Commands: one line to a verb and its argument.
//!
//! RFC 5321 §4.1.1. The server judges the arguments, except those of MAIL and RCPT, which [`EnvelopeArgument`] parses.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

use super::path::{EnvelopeArgument, PathError, PathKind, lenient_range};

/// The verbs that the gateway knows; any other is `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    Etrn,
    Auth,
    Starttls,
    Xclient,
    Xforward,
    Unknown,
}

impl Verb {
    pub const ALL: [Self; 18] = [
        Self::Helo,
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Bdat,
        Self::Rset,
        Self::Noop,
        Self::Quit,
        Self::Vrfy,
        Self::Expn,
        Self::Help,
        Self::Etrn,
        Self::Auth,
        Self::Starttls,
        Self::Xclient,
        Self::Xforward,
        Self::Unknown,
    ];

    /// As on the wire; `unknown` for the rest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "HELO",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Bdat => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Quit => "QUIT",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Etrn => "ETRN",
            Self::Auth => "AUTH",
            Self::Starttls => "STARTTLS",
            Self::Xclient => "XCLIENT",
            Self::Xforward => "XFORWARD",
            Self::Unknown => "unknown",
        }
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A command line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    pub verb: Verb,
    /// After the verb and its white space, trailing white space removed.
    pub argument: &'a [u8],
    /// Parsed once: engine, policy and record all ask for it.
    envelope: Result<EnvelopeArgument<'a>, PathError>,
}

impl<'a> Command<'a> {
    /// `text` is a line without its ending. Verbs match in any case (RFC 5321 §2.4), and as in Postfix behind leading white
    /// space.
    pub fn parse(text: &'a [u8]) -> Self {
        let text = text.trim_ascii_start();
        let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at_checked(end).unwrap_or((text, b""));
        let verb = Verb::ALL
            .into_iter()
            .find(|verb| {
                *verb != Verb::Unknown && verb.as_str().as_bytes().eq_ignore_ascii_case(word)
            })
            .unwrap_or(Verb::Unknown);
        let argument = rest.trim_ascii();
        let envelope = match verb {
            Verb::Mail => EnvelopeArgument::parse(PathKind::Reverse, argument),
            Verb::Rcpt => EnvelopeArgument::parse(PathKind::Forward, argument),
            _ => Err(PathError::Keyword),
        };
        Self { verb, argument, envelope }
    }

    /// Whether `text`, the line of an unknown command, is a PROXY v1 header.
    pub fn is_proxy_header(text: &[u8]) -> bool {
        starts_with_ignore_case(text.trim_ascii_start(), b"PROXY ")
    }

    /// Whether `text`, the line of an unknown command, is no SMTP for Postfix: its first word has a colon, as that of a header
    /// field (RFC 5322 §2.2), or does not begin with a letter (`smtpd_forbidden_commands`).
    pub fn is_not_smtp(text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let Some(word) = text.split_ascii_whitespace().next() else { return false };
        let name = word.split_once(':').map(|(name, _)| name);
        !word.starts_with(|c: char| c.is_ascii_alphabetic())
            || name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_graphic()))
    }

    /// The argument of MAIL or RCPT.
    ///
    /// # Errors
    /// It does not follow the syntax, or the verb is another.
    pub const fn envelope(&self) -> Result<EnvelopeArgument<'a>, PathError> {
        self.envelope
    }

    /// The mailbox of MAIL or RCPT, without brackets and source route; empty for `<>`. Of a malformed argument, the part
    /// where a lenient server would look for the mailbox. `None` if there is none.
    pub fn path(&self) -> Option<Cow<'a, str>> {
        match self.envelope() {
            Ok(envelope) => Some(Cow::Borrowed(envelope.mailbox())),
            Err(_) => self.argument.get(lenient_range(self.argument)?).map(String::from_utf8_lossy),
        }
    }

    /// The same; an argument without one stands for itself.
    pub fn path_or_argument(&self) -> Cow<'a, str> {
        self.path().unwrap_or_else(|| String::from_utf8_lossy(self.argument))
    }

    /// A verb that is known, in the form that its RFC gives it. Most prose that begins with a verb is not.
    pub fn is_well_formed(&self) -> bool {
        let words =
            self.argument.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let words = words.count();
        match self.verb {
            Verb::Helo | Verb::Ehlo | Verb::Vrfy | Verb::Expn | Verb::Etrn => words == 1,
            Verb::Mail => self.has_path(b"FROM:"),
            Verb::Rcpt => self.has_path(b"TO:"),
            Verb::Data | Verb::Rset | Verb::Quit | Verb::Starttls => words == 0,
            Verb::Bdat => self.chunk().is_ok(),
            Verb::Noop | Verb::Help => words <= 1,
            Verb::Auth => words == 1 || words == 2,
            Verb::Xclient | Verb::Xforward => words > 0 && self.argument.contains(&b'='),
            Verb::Unknown => false,
        }
    }

    fn has_path(&self, keyword: &[u8]) -> bool {
        starts_with_ignore_case(self.argument, keyword) && self.path().is_some()
    }

    /// AUTH with the mechanism EXTERNAL (RFC 4422 appendix A).
    pub fn requests_external(&self) -> bool {
        let mut words = self.argument.split(u8::is_ascii_whitespace);
        self.verb == Verb::Auth
            && words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"EXTERNAL"))
    }

    /// The argument of BDAT (RFC 3030 §2).
    ///
    /// # Errors
    /// The argument is not `SIZE [LAST]`; the number of bytes that follow is unknown.
    pub fn chunk(&self) -> Result<Chunk, BdatError> {
        let argument = std::str::from_utf8(self.argument).map_err(|_not_utf8| BdatError)?;
        let mut words = argument.split_ascii_whitespace();
        let digits = words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()));
        let size = digits
            .and_then(|word| word.parse().ok())
            .filter(|size| i64::try_from(*size).is_ok())
            .ok_or(BdatError)?;
        let last = match words.next() {
            None => false,
            Some(word) if word.eq_ignore_ascii_case("LAST") => true,
            Some(_) => return Err(BdatError),
        };
        if words.next().is_some() { Err(BdatError) } else { Ok(Chunk { size, last }) }
    }
}

/// What BDAT announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes that follow the command's CRLF; no more than a server's signed counter holds.
    pub size: u64,
    pub last: bool,
}

impl Chunk {
    /// The command in its plainest form, without CRLF.
    pub fn as_command(&self) -> String {
        let last = if self.last { " LAST" } else { "" };
        format!("BDAT {}{last}", self.size)
    }
}

/// BDAT without a readable size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BDAT wants an byte count and optionally LAST (RFC 3030)")]
pub struct BdatError;

/// What sometimes arrives at an SMTP port and is not SMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Junk {
    /// An HTTP request line or header: browsers and scanners, and requests forged through them.
    Http,
    /// A TLS record where plaintext belongs (RFC 8446 §5.1: content type 22, major version 3).
    Tls,
    /// A PROXY v2 header where none may stand. One of v1 is a line, which servers take for an unknown command.
    Proxy,
}

impl Junk {
    /// Looks at the start of a line, with as little before it as possible: what is recognised must not depend on how many
    /// lines came at once. So a PROXY v2 header counts from its third line, the first two being empty ones.
    pub fn recognise(input: &[u8]) -> Option<Self> {
        const HTTP: [&[u8]; 9] = [
            b"GET ",
            b"POST ",
            b"HEAD ",
            b"PUT ",
            b"CONNECT ",
            b"OPTIONS ",
            b"DELETE ",
            b"HOST: ",
            b"PRI * HTTP",
        ];
        // A record's first byte is control character SYN, which begins nothing in SMTP.
        if input.first() == Some(&0x16) {
            return Some(Self::Tls);
        }
        if input.starts_with(b"\0\r\n") {
            return Some(Self::Proxy);
        }
        HTTP.iter().any(|start| starts_with_ignore_case(input, start)).then_some(Self::Http)
    }
}

fn starts_with_ignore_case(input: &[u8], start: &[u8]) -> bool {
    input.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Verb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn verbs_in_any_case() {
        let parse = |text: &'static str| {
            let command = Command::parse(text.as_bytes());
            (command.verb, std::str::from_utf8(command.argument).unwrap())
        };
        assert_eq!(parse("eHLo  mx.example "), (Verb::Ehlo, "mx.example"));
        assert_eq!(parse("QUIT"), (Verb::Quit, ""));
        assert_eq!(parse("unknown"), (Verb::Unknown, ""));
        assert_eq!(parse("MAILFROM:<a@b>"), (Verb::Unknown, ""));
        assert_eq!(parse(""), (Verb::Unknown, ""));
        assert_eq!(parse(" \t EHLO mx.example"), (Verb::Ehlo, "mx.example"));
        assert_eq!(parse("  "), (Verb::Unknown, ""));
    }

    #[test]
    fn what_is_not_smtp_is_so_for_postfix() {
        for line in
            ["Subject: x", "X-A:b", " Received: from", "http://a/", ":x", ".", "8BIT", "\u{e4}b"]
        {
            assert!(Command::is_not_smtp(line.as_bytes()), "{line}");
        }
        for line in ["FROB", "FROB a:b", "FROB : x", "EHLO2 .", "", " "] {
            assert!(!Command::is_not_smtp(line.as_bytes()), "{line}");
        }
        assert!(!Command::is_not_smtp(b"\xff: x"), "rejected as bad UTF-8");
    }

    #[test]
    fn a_path_is_found_where_a_lenient_server_looks_for_it() {
        for (line, path) in [
            ("MAIL FROM:<a@b>", Some("a@b")),
            ("MAIL FROM: <a@b> SIZE=3", Some("a@b")),
            ("MAIL FROM:a@b SIZE=3", Some("a@b")),
            ("MAIL FROM:<>", Some("")),
            ("MAIL FROM:<@x,@y:a@b>", Some("a@b")),
            ("RCPT TO:<postmaster>", Some("postmaster")),
            ("RCPT TO:<\"a>b\\\"\"@c>", Some("\"a>b\\\"\"@c")),
            ("RCPT TO:<a@[IPv6:2001:db8::1]>", Some("a@[IPv6:2001:db8::1]")),
            ("RCPT TO:<\u{e4}@b>", Some("\u{e4}@b")),
            ("RCPT TO:<a@b", None),
            ("RCPT TO:", None),
            ("RCPT", None),
        ] {
            assert_eq!(Command::parse(line.as_bytes()).path().as_deref(), path, "{line}");
        }
    }

    #[test]
    fn prose_is_no_command() {
        let well_formed = |line: &str| Command::parse(line.as_bytes()).is_well_formed();
        for command in [
            "EHLO a",
            "mail from:<> SIZE=3",
            "RCPT TO: a@b",
            "data",
            "BDAT 5 last",
            "NOOP",
            "AUTH PLAIN AGEAYg==",
            "XCLIENT ADDR=::1",
        ] {
            assert!(well_formed(command), "{command}");
        }
        for prose in [
            "Help us to find the cat",
            "Mail me",
            "data is all we have",
            "Quit smoking",
            "Received: from a",
            "EHLO",
            "Mail: <a@b>",
            "",
        ] {
            assert!(!well_formed(prose), "{prose}");
        }
    }

    #[test]
    fn a_chunk_is_counted_exactly_or_not_at_all() {
        let chunk = |text: &str| Command::parse(text.as_bytes()).chunk();
        assert_eq!(chunk("BDAT 0 LAST"), Ok(Chunk { size: 0, last: true }));
        assert_eq!(chunk("bdat 1000"), Ok(Chunk { size: 1000, last: false }));
        for wrong in ["BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 1 LASTS", "BDAT 1 LAST x"] {
            assert_eq!(chunk(wrong), Err(BdatError), "{wrong}");
        }
        assert_eq!(
            chunk("BDAT 9223372036854775808"),
            Err(BdatError),
            "more than a signed counter holds"
        );
    }

    #[test]
    fn junk_is_recognised() {
        assert_eq!(Junk::recognise(b"get / HTTP/1.1\r\n"), Some(Junk::Http));
        assert_eq!(Junk::recognise(b"\x16\x03\x01"), Some(Junk::Tls));
        let v2 = b"\r\n\r\n\0\r\nQUIT\n!";
        assert_eq!(Junk::recognise(&v2[4..]), Some(Junk::Proxy));
        for smtp in [&b"EHLO a"[..], b"", b"GETTING", b"\r\n", b"PROXY TCP4 "] {
            assert_eq!(Junk::recognise(smtp), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let command = Command::parse(&text);
            let _ = (command.path(), command.chunk(), Junk::recognise(&text));
        }
    }
}
