//! A message as it passes, for the rules that are decided at its end.
//!
//! It is read as the client sent it: bare newlines that the gateway normalises are read like CRLF by DKIM verifiers.

use std::sync::Arc;

use crate::dkim::{DkimLimits, MessageVerifier};
use crate::policy::facts::{Lookup, MessageNeeds, ReceivedMessage, message_lookups};
use crate::time::Timestamp;

/// Where the reader stands in the lines of DATA, which are dot-stuffed (RFC 5321 §4.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    Within,
    /// `.` at the start of a line. If more of the line follows, it was stuffing.
    Dot,
    DotCr,
    /// `.` CRLF: the end of data, unless something follows.
    DotCrLf,
}

/// Reads one message. Memory does not depend on its size; see [`MessageVerifier`].
#[derive(Debug)]
pub(super) struct MessageReader {
    /// Of the transaction that the message belongs to.
    transaction: u64,
    line: Line,
    verifier: MessageVerifier,
    needs: MessageNeeds,
    /// The lookups of the header section were taken.
    looked_up: bool,
}

impl MessageReader {
    pub(super) fn new(transaction: u64, needs: MessageNeeds) -> Self {
        let verifier = MessageVerifier::new(DkimLimits::default());
        Self { transaction, line: Line::Start, verifier, needs, looked_up: false }
    }

    pub(super) const fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The next bytes of DATA, the final `.` line included.
    pub(super) fn on_content(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            let rest = bytes.get(1..).unwrap_or_default();
            match (self.line, byte) {
                (Line::Start, b'.') => (self.line, bytes) = (Line::Dot, rest),
                (Line::Dot, b'\r') => (self.line, bytes) = (Line::DotCr, rest),
                (Line::DotCr, b'\n') => (self.line, bytes) = (Line::DotCrLf, rest),
                (Line::Dot, b'\n') => {
                    // Not the end of data: with a bare LF the gateway makes it a line with a dot.
                    self.verifier.write(b".\n");
                    (self.line, bytes) = (Line::Start, rest);
                }
                (Line::DotCrLf, _) => {
                    self.verifier.write(b".\r\n");
                    self.line = Line::Start;
                }
                (Line::DotCr, _) => {
                    self.verifier.write(b"\r");
                    self.line = Line::Within;
                }
                (Line::Start | Line::Within | Line::Dot, _) => {
                    let stuffed = memchr::memmem::find(bytes, b"\n.").map(|lf| lf + 1);
                    let (text, rest) = bytes.split_at(stuffed.unwrap_or(bytes.len()));
                    self.verifier.write(text);
                    self.line = if text.ends_with(b"\n") { Line::Start } else { Line::Within };
                    bytes = rest;
                }
            }
        }
    }

    /// The next bytes of a BDAT chunk.
    pub(super) fn on_chunk(&mut self, bytes: &[u8]) {
        self.verifier.write(bytes);
    }

    /// The lookups that the header section leads to, once it is complete: they run while the body comes.
    pub(super) fn take_lookups(&mut self) -> Vec<Lookup> {
        if self.looked_up || self.verifier.authors().is_none() {
            return Vec::new();
        }
        self.looked_up = true;
        message_lookups(&self.verifier, self.needs)
    }

    /// The end of the message, at `at`.
    pub(super) fn finish(self, at: Timestamp) -> Arc<ReceivedMessage> {
        Arc::new(ReceivedMessage { content: self.verifier.finish(), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::DomainName;

    /// What is left of DATA's content, when it is read in pieces of `size`.
    fn authors_and_body(content: &str, size: usize) -> ReceivedMessage {
        let mut reader = MessageReader::new(0, MessageNeeds::default());
        for piece in content.as_bytes().chunks(size) {
            reader.on_content(piece);
        }
        Arc::unwrap_or_clone(reader.finish(Timestamp::from_nanos(0)))
    }

    fn chunked(content: &str) -> ReceivedMessage {
        let mut reader = MessageReader::new(0, MessageNeeds::default());
        reader.on_chunk(content.as_bytes());
        Arc::unwrap_or_clone(reader.finish(Timestamp::from_nanos(0)))
    }

    /// A signature makes the body hash part of the result.
    const HEADER: &str = "From: a@b.example\r\nDKIM-Signature: v=1; a=rsa-sha256; d=b.example; s=s; \
        c=simple/simple; h=from; bh=MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=; b=AAAA\r\n\r\n";

    #[test]
    fn stuffing_and_the_end_of_data_are_no_part_of_the_message() {
        for (data, message) in [
            ("a\r\n.\r\n", "a\r\n"),
            ("..a\r\n.b\r\n...\r\n.\r\n", ".a\r\nb\r\n..\r\n"),
            (".\r\n", ""),
            ("a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n"),
            // No end of data.
            ("a\n.\nb\r\n.\r\n", "a\n.\nb\r\n"),
            ("a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n"),
            ("a.\r\n.\r\n", "a.\r\n"),
        ] {
            let expected = chunked(&format!("{HEADER}{message}"));
            let content = expected.content.as_ref().unwrap();
            assert_eq!(content.signatures.len(), 1);
            assert!(content.signatures.iter().all(|one| one.signature().is_ok()), "{content:?}");
            for size in [1, 2, 3, 5, 1000] {
                let read = authors_and_body(&format!("{HEADER}{data}"), size);
                assert_eq!(read, expected, "{data:?} in pieces of {size}");
            }
        }
        assert_ne!(chunked(&format!("{HEADER}a\r\n")), chunked(&format!("{HEADER}b\r\n")));
    }

    #[test]
    fn lookups_begin_with_the_body() {
        let texts = |name| Lookup::Texts(DomainName::parse(name).unwrap());
        let key = texts("s._domainkey.b.example");
        let policies = ["_dmarc.example", "_dmarc.b.example"].map(texts);
        for (keys, expected) in [(true, [&[key][..], &policies].concat()), (false, policies.into())]
        {
            let needs = MessageNeeds { keys, policies: true };
            let mut reader = MessageReader::new(0, needs);
            let (most, last) = HEADER.as_bytes().split_at(HEADER.len() - 1);
            reader.on_content(most);
            assert_eq!(reader.take_lookups(), []);
            reader.on_content(last);
            assert_eq!(reader.take_lookups(), expected);
            assert_eq!(reader.take_lookups(), [], "once");
        }
        let mut reader = MessageReader::new(0, MessageNeeds::default());
        reader.on_content(HEADER.as_bytes());
        assert_eq!(reader.take_lookups(), [], "no fact is about the message");
    }
}
