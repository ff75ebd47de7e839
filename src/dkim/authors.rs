//! The mailboxes of From fields (RFC 5322 §3.4, §4.4), for the domains that DMARC evaluates.
//!
//! The parser accepts all that a mail program may show as an author: a field that does not follow the grammar still yields
//! the domains in it, so that none is hidden by a mistake.

use memchr::memmem;

use super::domain::canonical_domain;

/// Distinct domains that are kept.
const MAX_DOMAINS: usize = 16;
/// Octets of an encoded word; RFC 2047 §2 has 75.
const MAX_ENCODED_WORD: usize = 998;
/// Quotes and brackets without their ends in a field.
const MAX_UNCLOSED: u8 = 8;

/// The authors of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageAuthors {
    /// From fields. RFC 5322 §3.6 wants one.
    pub fields: usize,
    /// Mailboxes in them, those of groups included.
    pub mailboxes: usize,
    /// Their distinct domains in order, in lower case with U-labels as A-labels, at most 16. An address literal is none.
    pub domains: Vec<String>,
    /// A part of a field is no mailbox or has no valid domain, or there are more domains than are kept.
    pub is_malformed: bool,
}

impl MessageAuthors {
    /// `values`: of the From fields, with their folds.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut authors = Self::default();
        for value in values {
            authors.fields += 1;
            AddressList {
                scanner: Scanner { bytes: value, at: 0, unclosed: 0 },
                authors: &mut authors,
            }
            .parse();
        }
        authors
    }

    fn add(&mut self, domain: Option<Domain>) {
        self.mailboxes += 1;
        match domain {
            Some(Domain::Literal) => {}
            Some(Domain::Name(name)) if self.domains.contains(&name) => {}
            Some(Domain::Name(name)) if self.domains.len() < MAX_DOMAINS => self.domains.push(name),
            Some(Domain::Name(_)) | None => self.is_malformed = true,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Domain {
    Name(String),
    Literal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// An atom, or an encoded word.
    Atom(&'a [u8]),
    Quoted,
    /// One of `<>:;,@.`.
    Special(u8),
}

/// Tokens; comments and white space are skipped.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Quotes and brackets without their ends so far. After some, others are not searched for their ends either, or the time
    /// would grow with the square of the length.
    unclosed: u8,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Passes what begins here and has the length that `measure` finds.
    fn pass(&mut self, measure: fn(&[u8]) -> Option<usize>) -> bool {
        if self.unclosed > MAX_UNCLOSED {
            return false;
        }
        let length = measure(self.rest());
        match length {
            Some(length) => self.at += length,
            None => self.unclosed += 1,
        }
        length.is_some()
    }

    fn skip(&mut self) {
        loop {
            match self.rest().first() {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(b'(') if self.pass(comment) => {}
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        match self.rest().first()? {
            b'"' if self.pass(quoted) => Some(Token::Quoted),
            byte @ (b'<' | b'>' | b':' | b';' | b',' | b'@' | b'.') => {
                self.at += 1;
                Some(Token::Special(*byte))
            }
            _ => Some(self.atom()),
        }
    }

    fn peek(&mut self) -> Option<Token<'a>> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// At least one octet, also one that no atom may have.
    fn atom(&mut self) -> Token<'a> {
        let rest = self.rest();
        let ends = |byte: &u8| b" \t\r\n()<>:;,@.\"".contains(byte);
        let length = encoded_word(rest).unwrap_or_else(|| {
            let after_first = rest.get(1..).unwrap_or_default();
            1 + after_first.iter().position(ends).unwrap_or(after_first.len())
        });
        self.at += length;
        Token::Atom(rest.get(..length).unwrap_or_default())
    }

    /// Whether a domain literal begins here, which is passed: elsewhere brackets are text.
    fn literal(&mut self) -> bool {
        self.skip();
        self.rest().first() == Some(&b'[') && self.pass(literal)
    }
}

/// The length of a comment, nested ones included; `None` if it does not end.
fn comment(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn quoted(text: &[u8]) -> Option<usize> {
    enclosed(text, b'"')
}

fn literal(text: &[u8]) -> Option<usize> {
    enclosed(text, b']')
}

/// The length of a quoted string or a literal, up to and with `close`; `None` if it does not end.
fn enclosed(text: &[u8], close: u8) -> Option<usize> {
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        if *byte == b'\\' {
            bytes.next();
        } else if *byte == close {
            return Some(at + 1);
        }
    }
    None
}

/// The length of an encoded word (RFC 2047 §2). Some have characters that end atoms, which are text too. One with `<`, `>` or
/// `"` is read as it stands, as simpler parsers do.
fn encoded_word(text: &[u8]) -> Option<usize> {
    let text = text.get(..MAX_ENCODED_WORD).unwrap_or(text);
    let inside = text.strip_prefix(b"=?")?;
    let charset = memmem::find(inside, b"?")?;
    let rest = inside.get(charset + 1..)?;
    let [b'b' | b'B' | b'q' | b'Q', b'?', encoded @ ..] = rest else { return None };
    let end = memmem::find(encoded, b"?=")?;
    let length = 2 + charset + 1 + 2 + end + 2;
    let is_part = |byte: &u8| matches!(byte, b'!'..=b'~') && !b"<>\"".contains(byte);
    text.get(..length).filter(|word| word.iter().all(is_part)).map(<[u8]>::len)
}

/// One field.
struct AddressList<'a, 'b> {
    scanner: Scanner<'a>,
    authors: &'b mut MessageAuthors,
}

impl AddressList<'_, '_> {
    fn parse(mut self) {
        // Of the element at hand: text before an address; an address without brackets, which is one if no bracket follows.
        let mut has_text = false;
        let mut bare: Option<Option<Domain>> = None;
        let mut has_address = false;
        let mut in_group = false;
        loop {
            let token = self.scanner.next();
            match token {
                Some(Token::Special(b'<')) => {
                    self.authors.is_malformed |= has_address;
                    let address = self.bracketed();
                    // `a@b <a@b>` is common. The address is that in brackets; another one before it misleads readers.
                    self.authors.is_malformed |= bare.take().is_some_and(|text| text != address);
                    self.authors.add(address);
                    has_address = true;
                }
                Some(Token::Special(b'@')) if has_text && !has_address && bare.is_none() => {
                    bare = Some(self.domain());
                }
                Some(Token::Special(b':')) if !in_group && !has_address && bare.is_none() => {
                    in_group = true;
                    has_text = false;
                }
                None | Some(Token::Special(b',' | b';')) => {
                    match bare.take() {
                        Some(domain) => self.authors.add(domain),
                        None => self.authors.is_malformed |= has_text && !has_address,
                    }
                    (has_text, has_address) = (false, false);
                    if token == Some(Token::Special(b';')) {
                        self.authors.is_malformed |= !in_group;
                        in_group = false;
                    }
                    if token.is_none() {
                        self.authors.is_malformed |= in_group || self.scanner.unclosed > 0;
                        return;
                    }
                }
                Some(Token::Special(b'.') | Token::Atom(_) | Token::Quoted) => {
                    // Text after an address is none's.
                    self.authors.is_malformed |= has_address || bare.is_some();
                    has_text = true;
                }
                Some(Token::Special(_)) => self.authors.is_malformed = true,
            }
        }
    }

    /// An address behind its `<`, up to and with `>`.
    fn bracketed(&mut self) -> Option<Domain> {
        // A route (RFC 5322 §4.4) ends at its colon, and what counts follows the last `@`.
        let mut domain = None;
        let mut has_local = false;
        loop {
            match self.scanner.next() {
                Some(Token::Special(b'@')) => {
                    self.authors.is_malformed |= has_local && domain.is_some();
                    domain = self.domain();
                }
                Some(Token::Special(b':')) if !has_local => domain = None,
                Some(Token::Special(b',')) if !has_local => {}
                Some(Token::Atom(_) | Token::Quoted | Token::Special(b'.')) => {
                    self.authors.is_malformed |= domain.is_some();
                    has_local = true;
                }
                Some(Token::Special(b'>')) => break,
                None => {
                    self.authors.is_malformed = true;
                    break;
                }
                Some(_) => self.authors.is_malformed = true,
            }
        }
        self.authors.is_malformed |= !has_local;
        domain
    }

    /// What follows an `@`. `None` if it is no valid domain.
    fn domain(&mut self) -> Option<Domain> {
        if self.scanner.literal() {
            return Some(Domain::Literal);
        }
        let mut name = Vec::new();
        while let Some(Token::Atom(label)) = self.scanner.peek() {
            self.scanner.next();
            name.extend_from_slice(label);
            if self.scanner.peek() != Some(Token::Special(b'.')) {
                break;
            }
            self.scanner.next();
            name.push(b'.');
        }
        if self.scanner.peek() == Some(Token::Special(b'.')) {
            return None;
        }
        // A final dot is no part of a mailbox, but readers see the same domain.
        let name = name.strip_suffix(b".").unwrap_or(&name);
        canonical_domain(name).map(Domain::Name)
    }
}
